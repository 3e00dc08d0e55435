"""The checks work: a product of which one function is broken is caught, and here is by which invariant and how soon.

The quick ones run always; ``KIN_TEST_FULL=1`` runs all, and with ``-s`` prints the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from peer.core import (
    act_writer,
    authoring,
    conflicts,
    directories,
    drafts,
    fold_work,
    identify,
    judgement,
    ordering,
    planner,
    registers,
    rekeying,
    steps,
)
from simulations.plan import runner
from simulations.plan.checkers import TITLES, Violation
from tests.simulations.mutation import mutated

FULL = bool(os.environ.get("KIN_TEST_FULL"))
H, T = runner.HISTORY, runner.TRIPLE


class Mutant(NamedTuple):
    """One broken function."""

    what: str
    function: Callable[..., Any]
    old: str
    new: str
    kind: str
    seeds: int
    """It is caught within so many."""
    is_quick: bool = True


MUTANTS = (
    Mutant(
        "where both sides changed, the folder's change is taken",
        planner._View.decision,
        "is Side.SAME else Decision.ACT",
        "is Side.SAME else Decision.STEP",
        T,
        300,
    ),
    Mutant(
        "an item with other content counts as unchanged",
        planner.side_of,
        " and item.content.same(base.content)",
        "",
        T,
        100,
    ),
    Mutant(
        "what was moved out of a removed directory is removed along",
        planner._Planning._gone_subtree,
        " if self._went(self._view(c.id))",
        "",
        T,
        2_000,
    ),
    Mutant(
        "items are planned in the order in which they come",
        planner.plan,
        "ids = sorted(dirty)",
        "ids = list(dirty)",
        T,
        300,
    ),
    Mutant(
        "newer dots are not recorded", planner.is_settled, "base == want", "(base is None) == (want is None)", T, 100
    ),
    Mutant(
        "what is in transfer is planned all the same",
        planner._Planning.__init__,
        "{ROOT, *busy}",
        "{ROOT}",
        T,
        3_000,
        is_quick=False,
    ),
    Mutant("steps whose place is taken are tried", ordering._is_stuck, "return True", "return False", T, 3_000),
    Mutant(
        "nothing waits until a name is free",
        ordering._waits,
        "occupant is not None and",
        "False and",
        T,
        300,
    ),
    Mutant(
        "attributes of equal bytes are left as they are",
        steps.fill_step,
        "source.content.same(target.content)",
        "source.content.same_bytes(target.content)",
        T,
        300,
    ),
    Mutant("one thing under two ids stays two", rekeying.find_rekeys, "return tuple(", "return () and tuple(", H, 300),
    Mutant(
        "a scan compares sizes alone",
        directories.Directories._compare,
        "found[1] != sighting.fingerprint",
        "found[1].size != sighting.fingerprint.size",
        H,
        100,
    ),
    Mutant(
        "a file's time stamps need not fit to take its content over",
        identify.Identification._known_hash,
        "(was.size, was.mtime_ns, was.ctime_ns) == (now.size, now.mtime_ns, now.ctime_ns)",
        "was.size == now.size",
        H,
        600,
        is_quick=False,
    ),
    Mutant(
        "no directory is recognised elsewhere",
        directories.Directories._moved_here,
        "return item.id",
        "continue",
        H,
        400,
    ),
    Mutant("rows of what is gone stay", identify.Identification.result, "*found.lost)}", ")}", H, 100),
    Mutant(
        "a removal names contents that its user has not seen",
        act_writer.ActWriter._remove_node,
        "bodies = self._bodies(contents)",
        "bodies = self._bodies(getattr(self.state.nodes.get(member.node), 'contents', ()))",
        H,
        1_500,
        is_quick=False,
    ),
    Mutant(
        "an edit replaces all that this device has received",
        act_writer.ActWriter._edit,
        "base.id, member.node, member.content,",
        "base.id, member.node, getattr(self.state.nodes.get(member.node), 'contents', member.content),",
        H,
        1_500,
        is_quick=False,
    ),
    Mutant(
        "an edit replaces nothing", act_writer.ActWriter.write_value, "named = tuple(sorted(base))", "named = ()", H, 60
    ),
    Mutant(
        "an entry does not need the directories above a destination",
        act_writer.ActWriter._places_above,
        "return self._above[parent]",
        "return frozenset()",
        H,
        3_000,
        is_quick=False,
    ),
    Mutant("names are not kept", authoring._keep_name, "if old.name == new.name", "if True", H, 1_500, is_quick=False),
    Mutant(
        "an entry's vector does not count the entry",
        drafts._Page.entry,
        "versions.bump(p.vector, device, seq)",
        "p.vector",
        H,
        20,
    ),
    Mutant(
        "every removal counts as beaten",
        registers._note_removal,
        "if node.free:\n        _turn",
        "if True:\n        _turn",
        H,
        60,
    ),
    Mutant(
        "a concurrent move does not beat a removal",
        registers._note_move,
        "if not removal.beaten:",
        "if False:",
        H,
        1_500,
        is_quick=False,
    ),
    Mutant("no removal takes anything", judgement._Court.is_removed, "return any(", "return False and any(", H, 60),
    Mutant(
        "a move may close a cycle",
        judgement.keep_off_cycles,
        "while circling :=",
        "while False and",
        H,
        3_000,
        is_quick=False,
    ),
    Mutant("names are compared byte by byte", conflicts.name_key, "if name.isascii():", "if True:", H, 200),
    Mutant("rows of names are not written", fold_work.Work.finish, "elif name != old_name:", "elif False:", H, 60),
)


def caught(mutant: Mutant) -> tuple[int, int]:
    """Return by which invariant a mutant is caught, and after how many seeds; (-1, n) if not within n."""
    with mutated(mutant.function, mutant.old, mutant.new):
        for seed in range(mutant.seeds):
            try:
                runner.play(mutant.kind, seed)
            except Violation as found:
                return found.invariant, seed + 1
    return -1, mutant.seeds


@pytest.mark.parametrize("mutant", [one for one in MUTANTS if one.is_quick or FULL], ids=lambda one: one.what)
def test_a_broken_product_is_caught(mutant):
    invariant, seeds = caught(mutant)
    print(f"| {mutant.what} | {mutant.function.__qualname__} | {invariant} | {seeds} {mutant.kind} |")
    assert invariant in TITLES, f"not caught within {seeds} seeds: {mutant.what}"


def test_there_are_mutants_enough():
    assert len({mutant.function for mutant in MUTANTS}) == len(MUTANTS) >= 12
