"""Numbers of the log and of checkpoints: what no database could hold is refused before it is used."""

from __future__ import annotations

import msgspec
import pytest

from protocol.errors import ProtocolError
from protocol.history import (
    CHAIN_START,
    NUMBER_MAX,
    Checkpoint,
    ItemKind,
    LogItem,
    check_checkpoint,
    check_item,
    next_chain,
    sign_checkpoint,
    verify_checkpoint,
)
from protocol.ids import FolderId, LinkHash
from protocol.signing import public_key

SEED = bytes(range(32))
ITEM = LogItem(1, ItemKind.VOID, 2, b"")
CHECKPOINT = Checkpoint(0, FolderId(bytes(32)), 1, bytes(32), LinkHash(bytes(32)), 2)
BAD = [-(1 << 63), -1, NUMBER_MAX + 1, (1 << 64) - 1]


@pytest.mark.parametrize("number", [0, 1, NUMBER_MAX])
def test_numbers_in_range_pass(number):
    check_item(msgspec.structs.replace(ITEM, position=number, time_ms=number))
    assert len(next_chain(CHAIN_START, ItemKind.VOID, bytes(32), number)) == 32
    checkpoint = msgspec.structs.replace(CHECKPOINT, generation=number, position=number, time_ms=number)
    check_checkpoint(checkpoint)
    assert verify_checkpoint(sign_checkpoint(checkpoint, SEED), public_key(SEED)) == checkpoint


@pytest.mark.parametrize("number", BAD)
def test_numbers_out_of_range_are_refused(number):
    for field in ("position", "time_ms"):
        with pytest.raises(ProtocolError):
            check_item(msgspec.structs.replace(ITEM, **{field: number}))
    for field in ("generation", "position", "time_ms"):
        bad = msgspec.structs.replace(CHECKPOINT, **{field: number})
        with pytest.raises(ProtocolError):
            check_checkpoint(bad)
        with pytest.raises(ProtocolError):
            verify_checkpoint(sign_checkpoint(bad, SEED), public_key(SEED))


@pytest.mark.parametrize("time_ms", [*BAD, 1 << 64, -(1 << 70)])
def test_a_time_out_of_range_has_no_place_in_the_chain(time_ms):
    with pytest.raises(ProtocolError):
        next_chain(CHAIN_START, ItemKind.ENTRY, bytes(32), time_ms)
