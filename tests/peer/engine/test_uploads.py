"""What an upload reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from peer.core.chunking import FixedChunker
from peer.engine.uploader import _Source
from protocol import limits
from protocol.effects import Handle


def test_a_file_that_grows_as_fast_as_it_is_read_is_read_to_where_it_was_expected_to_end():
    """One byte more shows that it grew; the rest is for the next look."""
    size = 9 * limits.MIB
    endless: Any = SimpleNamespace(fs=SimpleNamespace(read=lambda handle, into, offset: len(into)))
    pieces = _Source._cut(endless, Handle(0), size, FixedChunker())
    assert sum(len(piece) for piece in pieces) == size + 1
