"""A crash at every step: a part of all tellings, a product in which it matters, and what the command says.

With ``KIN_TEST_FULL=1``: every story, machine and effect.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import product

import pytest

from peer.disk import groups, recovery
from simulations.commands import crash as crash_command
from simulations.crashes import telling
from simulations.crashes.stories import STORIES
from simulations.crashes.telling import MACHINES, Crash, tell
from tests.simulations.mutation import mutated

EVERY = 1 if "KIN_TEST_FULL" in os.environ else 211


def crashes(story, machines=MACHINES, kinds=(False, True)):
    told = tell(story)
    assert not told.failure, told.failure
    effects = told.effects
    return [
        Crash(machine, effect, kind)
        for machine in machines
        for effect, kind in product(range(1, effects[machine] + 1), kinds)
    ]


@pytest.mark.parametrize("story", STORIES)
def test_a_story_ends_well_wherever_a_machine_ends(story):
    told = [(crash, tell(story, crash)) for crash in crashes(story)[13 * list(STORIES).index(story) % EVERY :: EVERY]]
    assert not [(crash, one.failure) for crash, one in told if one.failure]
    assert all(one.crashes == 1 for crash, one in told)


@pytest.mark.parametrize("story", ["edit", "decide", "file-to-directory"])
def test_a_story_ends_well_though_a_device_ends_once_all_seems_done(story):
    """At its last effect: when it looks for the last time at what it took from a user's name."""
    for machine in ("device-0", "device-1"):
        told = tell(story, crashes(story, [machine])[-1])
        assert not told.failure, told.failure
        assert told.crashes == 1


@pytest.mark.parametrize("story", [name for name, story in STORIES.items() if story.is_small])
def test_a_story_ends_well_though_its_recovery_is_cut_too(story):
    first = Crash("device-0", 9, loses_power=True)
    count = tell(story, first).effects[first.machine]
    for again in range(1, count + 1, 1 if EVERY == 1 else 23):
        told = tell(story, first._replace(again=again))
        assert not told.failure, (again, told.failure)
        assert told.crashes == 2


@pytest.mark.parametrize(
    ("function", "old", "new", "story", "kind", "invariants"),
    [
        (groups.flush_stages, "if not stages:", "if True:", "edit", True, {1, 6, 7, 16}),
        (recovery.recover, "for swap in list(journal.rows()):", "for swap in ():", "swap", False, {1, 6, 19, 20, 22}),
    ],
)
def test_a_product_that_does_not_survive_it_is_caught(function, old, new, story, kind, invariants):
    places = crashes(story, ["device-1"], [kind])
    with mutated(function, old, new):
        caught = next((told for told in (tell(story, crash) for crash in places) if told.failure), None)
    assert caught is not None
    assert caught.invariant in invariants, caught.failure


def command(args):
    parser = argparse.ArgumentParser()
    crash_command.add_to(parser.add_subparsers())
    return crash_command.run(parser.parse_args(["crash", *args]))


def kin_sim(*args):
    script = "import sys; from simulations.cli import main; sys.argv[0] = 'kin-sim'; main()"
    return subprocess.run([sys.executable, "-c", script, "crash", *args], capture_output=True, text=True, check=False)


def test_the_command_tells_one_crash_with_all_that_happened():
    where = ("--story", "edit", "--machine", "device-0", "--effect", "9", "--again", "4", "--kind", "power")
    made = kin_sim(*where)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "device-0 writes kiwi-a" in made.stdout
    assert made.stdout.splitlines()[-1].startswith("pass  edit: device-0 loses power at effect 9, and at effect 4")
    made = kin_sim(*where, "--json")
    assert json.loads(made.stdout)["crashes"] == 2


@pytest.mark.parametrize(("effect", "again", "life"), [(99999, 0, "this story"), (9, 99999, "its next life")])
def test_a_crash_that_never_comes_is_no_pass(capsys, effect, again, life):
    where = ["--story", "create", "--machine", "device-0", "--effect", str(effect), "--kind", "kill"]
    code = command([*where, "--again", str(again)] if again else where)
    said = capsys.readouterr().out
    assert code == 2, said
    assert not any(line.startswith("pass") for line in said.splitlines())
    told = tell("create", Crash("device-0", effect, again=again))
    assert f"never: device-0 has only {told.effects['device-0']} effects in {life}" in said


def test_a_crash_that_never_comes_fails_among_many(monkeypatch, capsys):
    real = telling.tell
    monkeypatch.setattr(telling, "tell", lambda story, crash=None: real(story, crash and crash._replace(effect=9999)))
    code = command(["--story", "create", "--machine", "node-2", "--kind", "kill", "--every", "9999"])
    assert code == 1
    assert "1 tellings with 0 crashes, 1 failed" in capsys.readouterr().out


def test_the_command_counts_what_it_tells():
    made = kin_sim("--story", "create", "--machine", "device-1", "--every", "20", "--jobs", "2", "--json")
    assert made.returncode == 0, made.stdout + made.stderr
    totals = json.loads(made.stdout)["totals"]
    assert totals["tellings"] == totals["crashes"] == len(crashes("create", ["device-1"])[::20])
    assert totals["failed"] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--story", "nothing"], "there is no story 'nothing'"),
        (["--machine", "node-9"], "there is no machine 'node-9'"),
        (["--every", "0"], "'0' is no number from 1 to"),
        (["--again", "3"], "--again needs --effect"),
        (["--effect", "3"], "--effect needs one --story and one --machine"),
        (["--story", "edit", "--effect", "3"], "--effect needs one --story and one --machine"),
        (["--story", "edit", "--machine", "device-0", "--effect", "3", "--every", "2"], "--every goes with many"),
        (["--story", "edit", "--machine", "device-0", "--effect", "3", "--twice"], "--twice goes with many"),
        (["--list", "--machine", "device-0"], "--list goes with --story and --json alone"),
        (["--what"], "--what"),
    ],
)
def test_wrong_usage_is_told_in_words(capsys, args, words):
    try:
        assert command(args) == 2
    except SystemExit as left:
        assert left.code == 2  # noqa: PT017 - one of the two ends it
    assert words in capsys.readouterr().err
