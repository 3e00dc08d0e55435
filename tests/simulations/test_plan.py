"""The first tier of the simulator: a fixed set of seeds, a few fresh ones, the scenarios, and what a failure tells.

``KIN_PLAN_SEED`` is the first of the fresh seeds, to play them again.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from peer.core import planner
from peer.core.observations import Fingerprint
from peer.core.tree import Content, Item
from protocol.entries import Kind
from protocol.ids import ROOT, NodeId
from simulations.plan import history, runner, triples
from simulations.plan.checkers import TITLES, Violation
from simulations.plan.local import MemoryLocal
from simulations.plan.shrink import fails, shrink
from simulations.shrinking import minimise
from tests.simulations.mutation import mutated

FIXED = {runner.HISTORY: (0, 199), runner.TRIPLE: (0, 1999)}
FRESH = {runner.HISTORY: 40, runner.TRIPLE: 500}
FIRST = int(os.environ.get("KIN_PLAN_SEED", random.SystemRandom().randrange(1 << 40)))
SCENARIOS = sorted((Path(__file__).parents[2] / "simulations" / "scenarios").glob("plan-*.json"))


def told(outcome: runner.Outcome) -> str:
    return "\n".join(line for failure in outcome.failures for line in failure.lines())


@pytest.mark.parametrize("kind", FIXED)
def test_what_holds_for_fixed_seeds(kind):
    first, last = FIXED[kind]
    outcome = runner.run(first, last, kind=kind)
    assert not outcome.failures, told(outcome)
    assert outcome.trees == last - first + 1
    if kind == runner.HISTORY:
        for what in ("conflict copies", "merged paths", "voids"):
            assert outcome.reached[what], f"no history reached: {what}"
    else:
        assert all(outcome.reached[f"{way} triples"] for way in ("moved", "apart", "kinds", "idle"))


@pytest.mark.parametrize("kind", FRESH)
def test_what_holds_for_fresh_seeds(kind):
    print(f"KIN_PLAN_SEED={FIRST}")
    outcome = runner.run(FIRST, FIRST + FRESH[kind] - 1, kind=kind)
    assert not outcome.failures, f"KIN_PLAN_SEED={FIRST}\n{told(outcome)}"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_what_failed_once(path):
    """A history or a triple that once broke an invariant, made as small as it gets."""
    scenario = json.loads(path.read_text(encoding="utf-8"))
    assert scenario["invariant"] in TITLES
    if "triple" in scenario:
        triples.play(scenario["triple"])
        return
    drawn = scenario["options"]
    options = history.Options(**{**drawn, "folding": tuple(drawn["folding"])})
    history.play(options, [history.Action(*action) for action in scenario["actions"]])


def test_the_same_seed_gives_the_same_trace_whatever_the_hash_seed():
    script = (
        "from simulations.plan import runner; [runner.play(k, s, print) for k, s in (('history', 3), ('triple', 5))]"
    )
    traces = []
    for hash_seed in ("0", "1", "2"):
        made = subprocess.run(
            [sys.executable, "-P", "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.append(made.stdout)
    assert len(traces[0]) > 500
    assert traces[0] == traces[1] == traces[2]


def test_a_smaller_history_breaks_the_same_invariant():
    """With a planner that takes the folder's word where both sides changed something."""
    with mutated(planner._View.decision, "is Side.SAME else Decision.ACT", "is Side.SAME else Decision.STEP"):
        outcome = runner.run(0, 999, kind=runner.HISTORY, failures_max=1)
        [failure] = outcome.failures
        options, actions = history.draw(failure.seed)
        smaller, left = shrink(options, actions, failure.invariant)
        assert len(left) < len(actions)
        assert smaller.devices <= options.devices
        with pytest.raises(Violation) as found:
            history.play(smaller, left)
        assert found.value.invariant == failure.invariant
        for one in range(len(left)):
            assert not fails(smaller, [*left[:one], *left[one + 1 :]], failure.invariant)
    text = "\n".join(failure.lines())
    assert f"history {failure.seed} breaks invariant {failure.invariant}" in text
    assert f"kin-sim plan --kind history --seed {failure.seed} --trace" in text
    assert f"devices={options.devices}" in text
    history.play(smaller, left)  # the real planner holds


def test_two_rows_at_one_place_are_both_there():
    """As the tables have it: a look would not miss what stands behind, and its row would stay for ever."""
    local = MemoryLocal()
    first, second = (Item(NodeId(bytes(15) + bytes([n])), ROOT, "f", Content(Kind.DIRECTORY)) for n in (1, 2))
    other = Item(NodeId(bytes(15) + bytes([3])), ROOT, "g", Content(Kind.DIRECTORY))
    for number, item in enumerate((first, second, other)):
        local.note(item, Fingerprint(1, number, 0, 0, 0, 0))
    assert {item.id for item, _ in local.rows(ROOT)} == {first.id, second.id, other.id}
    local.forget(second.id)
    assert [item.id for item, _ in local.rows(ROOT)] == [first.id, other.id]


def test_minimising_leaves_what_is_needed_in_its_order():
    assert minimise(list(range(20)), lambda some: {3, 11, 12} <= set(some)) == [3, 11, 12]
    assert minimise([1], lambda some: True) == []


def kin_sim(*args: str) -> subprocess.CompletedProcess[str]:
    script = "import sys; from simulations.cli import main; sys.argv[0] = 'kin-sim'; main()"
    return subprocess.run([sys.executable, "-c", script, "plan", *args], capture_output=True, text=True, check=False)


def test_the_command_counts_both_kinds_of_trees():
    made = kin_sim("--seeds", "0..99", "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["trees"], told["histories"], told["triples"]) == (100, 5, 95)
    assert told["seeds"] == [0, 99]
    assert told["failures"] == []
    assert told["trees_per_s"] > 0


def test_the_command_tells_one_seed_step_by_step():
    made = kin_sim("--kind", "triple", "--seed", "5", "--trace")
    assert made.returncode == 0, made.stderr
    assert "synced" in made.stdout
    assert made.stdout.endswith("triple 5: all holds\n")


@pytest.mark.parametrize("args", [("--seeds", "9..1"), ("--count", "0"), ("--trace",), ("--seed", "x"), ("--what",)])
def test_wrong_usage_is_told_in_words(args):
    made = kin_sim(*args)
    assert made.returncode == 2
    assert "Traceback" not in made.stderr
    assert "kin-sim" in made.stderr
