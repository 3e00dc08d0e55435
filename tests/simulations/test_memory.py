"""Of a world that is over nothing stays in memory, so that a process can live through any number of them."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from simulations.cases.runner import run_virtual
from simulations.crashes.telling import Crash, tell
from simulations.disk import SimDisk
from simulations.history import runs
from simulations.world import World

CASE = {
    "id": "X",
    "devices": ["A", "B"],
    "setup": [],
    "steps": [
        {"phase": 1, "device": "A", "op": "write", "path": "a", "token": "t"},
        {"phase": 2, "device": "A", "op": "sync"},
    ],
    "expectation": {"converged": True, "survive": ["t"]},
}


def worlds() -> list[int]:
    return [id(each) for each in gc.get_objects() if isinstance(each, World | SimDisk)]


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(lambda: runs.live(4), id="a history"),
        pytest.param(lambda: tell("create", Crash("device-0", 3)), id="a story"),
        pytest.param(lambda: run_virtual([CASE], lambda _: None), id="a case"),
    ],
)
def test_a_world_that_is_over_is_gone(live: Callable[[], object]) -> None:
    live()  # the images are made once
    before = worlds()
    kept = live()
    assert worlds() == before
    assert kept
