"""What an author says in an entry beside its changes."""

from __future__ import annotations

import random

from peer.engine.recorder import _seen
from peer.store.folders import FolderRecord
from protocol import limits
from protocol.codec import encode
from protocol.ids import EntryHash, FolderId


def test_an_entry_stays_small_however_many_were_signed_offline_before_it():
    chance = random.Random(1)
    own = tuple(EntryHash(chance.randbytes(32)) for _ in range(20_000))
    foreign = own[: limits.FOREIGN_TAIL_ENTRIES_MAX]
    seen = _seen(FolderRecord(1, FolderId(bytes(32)), "f", b"/f", None), own, foreign)
    assert seen.unordered[-len(foreign) :] == foreign
    assert own[-1] in seen.unordered
    assert len(encode(seen)) < 16 * limits.KIB
