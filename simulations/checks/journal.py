"""The folder's log, as the coordinator and each device have it: invariant 10."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from simulations.checks.violation import MONOTONE_JOURNAL, Violation
from simulations.world import World


class Journals:
    """What was seen of the log so far, on all devices."""

    def __init__(self) -> None:
        self.chain: dict[int, bytes] = {}
        self.authors: dict[tuple[int, int], bytes] = {}


def check(world: World, journals: Journals) -> None:
    """Invariant 10."""
