"""A product of which one function is broken, in many ways: each must be caught by histories, and by which invariant.

As a program it looks for each named mutant, or for all, and prints the table: ``python -m tests.simulations.run_mutants``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from coordinator.core.ordering import Ordering
from peer.core import act_writer, chunk_sealing, conflicts, judgement, matching, planner, registers, steps
from peer.disk import groups, stages, swaps
from peer.disk.applier import Applier
from peer.engine import journal, waiting
from peer.engine.folder import FolderEngine
from peer.engine.recorder import Recorder
from peer.engine.stepper import Stepper
from simulations.history.runs import live, live_twice
from tests.simulations.mutation import mutated

SEEDS: Final = 60
"""So many are tried where nothing else is said."""


class Mutant(NamedTuple):
    """One broken function."""

    what: str
    function: Callable[..., Any]
    old: str
    new: str
    invariants: tuple[int, ...]
    """One of these catches it."""
    seeds: int = SEEDS
    """It is caught within so many."""
    first: int = 0
    """From this one."""
    is_quick: bool = False


MUTANTS: Final = (
    Mutant(
        "where both sides changed, the folder's change is taken",
        planner._View.decision,
        "is Side.SAME else Decision.ACT",
        "is Side.SAME else Decision.STEP",
        (1, 6, 16, 22),
    ),
    Mutant(
        "an edit replaces all that this device has received",
        act_writer.ActWriter._edit,
        "base.id, member.node, member.content,",
        "base.id, member.node, getattr(self.state.nodes.get(member.node), 'contents', member.content),",
        (1, 6, 16),
    ),
    Mutant(
        "attributes of equal bytes are left as they are",
        steps.fill_step,
        "source.content.same(target.content)",
        "source.content.same_bytes(target.content)",
        (2, 20, 22),
    ),
    Mutant(
        "no removal takes anything",
        judgement._Court.is_removed,
        "return any(",
        "return False and any(",
        (3, 22),
        is_quick=True,
    ),
    Mutant(
        "every removal counts as beaten",
        registers._note_removal,
        "if node.free:\n        _turn",
        "if True:\n        _turn",
        (3, 22),
    ),
    Mutant(
        "conflict copies have a name of another kind",
        conflicts.conflict_name,
        'f"{stem} (conflict, {label}, {digits}){extension}"',
        'f"{stem} (copy, {label}, {digits}){extension}"',
        (4,),
        is_quick=True,
    ),
    Mutant(
        "an edit replaces nothing",
        act_writer.ActWriter.write_value,
        "named = tuple(sorted(base))",
        "named = ()",
        (3, 5, 22),
    ),
    Mutant(
        "the trash takes a file without a look at it",
        swaps.is_expected,
        "kind = kind_of(found.mode)",
        "return True",
        (1, 3, 4, 6, 16),
    ),
    Mutant(
        "a file is written under its name",
        swaps.Swaps.replace,
        "if self.can_exchange:",
        "fs.truncate(fs.open_file(parent, name, Access.WRITE), 1)\n    if self.can_exchange:",
        (6, 7),
    ),
    Mutant(
        "what is received has no name until it is whole: not so",
        stages.Stage.finish,
        "if self._hash is not None and self._hash != content.hash:",
        "self._fs.truncate(self._handle, self.size // 2)\n        if False:",
        (7,),
    ),
    Mutant("names are compared byte by byte", conflicts.name_key, "if name.isascii():", "if True:", (8, 22)),
    Mutant(
        "no file is found elsewhere",
        matching.Matching._pair,
        "best = lost",
        "continue",
        (3, 5, 9),
    ),
    Mutant(
        "received bytes need not be durable",
        groups.flush_stages,
        "if not stages:",
        "if True:",
        (1, 4, 6, 7, 16),
    ),
    Mutant(
        "names need not be durable",
        groups.flush_names,
        "if not directories:",
        "if True:",
        (1, 3, 6, 16, 20),
    ),
    Mutant("outcomes leave their intents", journal.drop_intents, "db.executemany(", "0 and db.executemany(", (20,)),
    Mutant(
        "a removed file's row stays among the synced ones",
        Stepper._record,
        "synced.drop_all(gone)",
        "pass",
        (20, 22),
    ),
    Mutant(
        "a device takes a new number at every start",
        Recorder.enrol,
        "if not self._follower.record.number:",
        "if True:",
        (10, 20, 21, 22),
    ),
    Mutant(
        "what failed once is not tried again",
        FolderEngine._unblock,
        "return any(",
        "return False and any(",
        (22,),
    ),
    Mutant(
        "nothing is planned when a transfer has ended",
        FolderEngine._job_ended,
        "self._want_plan()",
        "pass",
        (22,),
    ),
    Mutant(
        "what is taken away lies beside the folder",
        swaps.Swaps.delete,
        'self.root.hidden("trash")',
        "self.fs.open_root('/home')",
        (27,),
    ),
    Mutant(
        "pauses depend on the machine",
        waiting.longer,
        "now_s + pause",
        "now_s + pause + __import__('time').perf_counter() % 0.1",
        (28,),
    ),
    Mutant(
        "chunks are stored in clear",
        chunk_sealing._seal,
        "return SealedChunk(row, data)",
        "return SealedChunk(row, bytearray(raw))",
        (15,),
    ),
    Mutant(
        "an entry does not wait for what it needs",
        Ordering._try,
        "if ledger.is_waiting(record.hash):",
        "if False:",
        (10, 20, 22),
    ),
    Mutant(
        "nothing is written down before the disk changes",
        Applier._intents,
        "return intentions.intents",
        "return []",
        (3, 5, 9),
        seeds=300,
    ),
    Mutant(
        "an outcome is noted in the local tree alone",
        Stepper._record,
        "synced.put(item)",
        "pass",
        (20, 22),
    ),
)


def caught(mutant: Mutant) -> tuple[int, int, str]:
    """Return by which invariant a mutant is caught, after how many seeds, and what was said; -1 if it is not."""
    run = live_twice if 28 in mutant.invariants else live
    with mutated(mutant.function, mutant.old, mutant.new):
        for number in range(mutant.seeds):
            result = run(mutant.first + number)
            if result.failure:
                return result.invariant, number + 1, result.failure.split("\n")[0]
    return -1, mutant.seeds, ""


def main(names: list[str]) -> None:
    """Print the table of all mutants, or of those whose description holds one of these words."""
    for mutant in MUTANTS:
        if not names or any(name in mutant.what for name in names):
            invariant, seeds, text = caught(mutant)
            mark = "" if invariant in mutant.invariants else "!! "
            print(
                f"{mark}| {mutant.what} | {mutant.function.__qualname__} | {invariant} | {seeds} | {text}", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
