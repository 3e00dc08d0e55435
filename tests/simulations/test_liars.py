"""Machines that lie: what is told instead of the truth, and histories in which nothing else goes wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from protocol import messages as m
from protocol.ids import FolderId
from simulations.exchanges import body_start
from simulations.history import liars, runs

PIECE = b"\x03\x00\x00\x00\x02\x00\xc8a body"
SEEDS = (2, 3, 4)


@pytest.mark.parametrize("kind", ["lie", "spoil", "garble"])
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_lies_harms_nobody(kind, seed, monkeypatch):
    options = runs.options_of(seed)
    options = options._replace(troubles=((kind, 1),), faults=6, lans=(0,) * options.devices)
    monkeypatch.setattr(runs, "options_of", lambda _: options)
    result = runs.live(seed)
    assert not result.failure, result.failure
    assert result.counts[kind]


def test_a_coordinator_that_always_lies_tells_every_kind_of_lie():
    alter = liars.CoordinatorLies(Random(1), 1.0)
    frames = [m.encode_frame(2 * number, m.Pull(FolderId(bytes(16)), number, 1), reply=True) for number in range(300)]
    told = [tuple(alter(frame)) for frame in frames]
    counts = Counter(len(one) for one in told)
    assert min(counts[0], counts[1], counts[2]) > 30
    assert any(one != (frame,) and len(one) == 1 for one, frame in zip(told, frames, strict=True))


def test_a_coordinator_that_stops_lying_sends_what_it_held_back():
    alter = liars.CoordinatorLies(Random(1), 1.0)
    frame = m.encode_frame(2, m.GetHeads())
    while frame not in alter._held:
        alter(frame)
    alter._share = 0.0
    assert list(alter(b"no message")) == [b"no message"]
    out = alter(m.encode_frame(4, m.GetHeads()))
    assert out[0] == m.encode_frame(4, m.GetHeads())
    assert frame in out[1:]
    assert not alter._held


def test_a_node_that_lies_keeps_the_frame_of_what_it_serves():
    alter = liars.NodeLies(Random(1), 1.0)
    start = body_start(PIECE)
    assert PIECE[start:] == b"a body"
    told = {bytes(alter(PIECE)[0]) for _ in range(50)}
    assert all(one[:start] == PIECE[:start] for one in told)
    assert PIECE not in told
    assert alter(PIECE[:start]) == [PIECE[:start]]


def test_a_device_that_tells_the_truth_is_left_alone():
    alter = liars.LanLies(Random(1), 0.0)
    assert all(alter(b"piece") == [b"piece"] for _ in range(50))
