"""The runner of cases with real processes: it fails what is wrong, skips what it cannot do, and the product passes.

``KIN_CASES`` names a file of cases; else it is looked for beside the checkout. With ``KIN_TEST_FULL=1`` all of them run.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from simulations.cases.contents import Origin
from simulations.cases.grammar import Skipped, expand, load
from simulations.cases.runner import Runner, expanded, perform
from simulations.cases.world import Failed, Site, World
from simulations.launcher import Launcher

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(os.environ.get("KIN_CASES", ROOT.parent / "shared" / "conflict_cases" / "cases.json"))
CASES = {case["id"]: case for case in load(FILE)} if FILE.is_file() else {}
QUICK = ("KD-09", "OC-06", "RB-01", "ST-05", "ST-14", "UN-08", "UN-10")
CHOSEN = tuple(CASES) if os.environ.get("KIN_TEST_FULL") == "1" else QUICK

PLAYED = {
    "id": "OWN-1",
    "devices": ["A", "B"],
    "setup": [
        {"op": "write", "path": "f", "token": "v0"},
        {"op": "write", "path": "d/g", "token": "v1"},
        {"op": "mkdir", "path": "e"},
        {"op": "write", "path": "t", "token": "t0"},
    ],
    "steps": [
        {"phase": 1, "device": "A", "op": "write", "path": "f", "token": "a1"},
        {"phase": 1, "device": "B", "op": "write", "path": "f", "token": "b1"},
        {"phase": 1, "device": "A", "op": "append", "path": "t", "token": "t1"},
        {"phase": 1, "device": "A", "op": "symlink", "path": "l", "target": "f"},
        {"phase": 1, "device": "B", "op": "plant_outside", "path": "/outside/x", "token": "theirs"},
        {"phase": 2, "device": "*", "op": "settle"},
        {"phase": 3, "device": "A", "op": "sync"},
        {"phase": 3, "device": "B", "op": "sync"},
    ],
    "expectation": {"converged": True},
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("cases"), lanes=1) as running:
        yield running


@pytest.mark.skipif(not CASES, reason=f"there is no file {FILE.name} beside the checkout, and KIN_CASES names none")
@pytest.mark.parametrize("name", CHOSEN)
def test_a_case_holds_in_both_orders(runner, name):
    outcomes = runner.run([CASES[name]], lambda _: None)
    assert not [outcome for outcome in outcomes if outcome.verdict == "fail"]
    assert name not in QUICK or "pass" in {outcome.verdict for outcome in outcomes}


# --- The runner itself


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The judge of a world in which two devices changed the same file, at rest with a fresh device."""
    place = tmp_path_factory.mktemp("judged")
    with Site(place / "site") as site:
        case = next(expand(PLAYED))
        yield perform(World(site.account(), case, case.devices, place / "devices", "seed"))


RIGHT_AND_WRONG = [
    ({"exists": {"f": "a1", "d": "<dir>", "l": "<link:f>"}}, {"exists": {"f": "b1"}}),
    ({"exists": {"t": "t0+t1"}}, {"exists": {"t": "t0"}}),
    ({"exists": {"l": "<any>"}}, {"exists": {"nothing": "<any>"}}),
    ({"tree_subset": {"l": "<link:f>"}}, {"tree_subset": {"l": "<link:g>"}}),
    ({"on": {"B": {"exists": {"f": "a1"}}}}, {"tree": {"f": "a1"}}),
    ({"absent": ["nothing"]}, {"absent": ["d/g"]}),
    ({"absent_on": {"B": ["nothing"]}}, {"absent_on": {"B": ["l"]}}),
    ({"empty_dirs": ["e"]}, {"empty_dirs": ["d"]}),
    ({"many": {"dir": "d", "count": 1, "all_hash_ok": True}}, {"many": {"dir": "d", "count": 2}}),
    ({"many": {"dir": ".", "count": ">=3"}}, {"many": {"dir": ".", "count": ">=4"}}),
    ({"survive": ["a1", "b1", "v1"]}, {"survive": ["v0"]}),
    ({"survive_substring": ["t1"]}, {"survive_substring": ["t2"]}),
    ({"no_duplicates": ["a1"]}, {"no_duplicates": ["v0"]}),
    ({"content_in": {"f": ["a1", "b1"]}}, {"content_in": {"f": ["v0", "v1"]}}),
    ({"local_preserved": {"A": ["b1"]}}, {"local_preserved": {"A": ["v0"]}}),
    ({"invisible": {"A": ["v0"]}}, {"invisible": {"A": ["b1"]}}),
    ({"conflicts": {"total": 1, "of": {"f": 1}}}, {"conflicts": {"total": 0}}),
    ({"conflicts": {"min": 1, "max": 1}}, {"conflicts": {"of": {"d/g": 1}}}),
    ({"conflicts": {"max": 2}}, {"conflicts": {"min": 2}}),
    (
        {"one_of": [{"exists": {"f": "b1"}}, {"exists": {"f": "a1"}}]},
        {"one_of": [{"absent": ["f"]}, {"absent": ["d"]}]},
    ),
    ({"on": {"fresh": {"survive": ["b1"]}}}, {"on": {"fresh": {"absent": ["f"]}}}),
    ({"history_has": ["a1"]}, None),
    ({"no_remote_deletes": True, "no_mass_delete": True, "no_cycle": True}, None),
    ({"quiesce_within_syncs": 1}, None),
    ({"last_append_present": "t"}, {"last_append_present": "f"}),
    ({"no_append_lost_without_conflict": "t"}, None),
    ({"errors_allowed": []}, {"errors": [{"device": "A", "kind": "permission", "path": "f"}]}),
    ({"no_temp_leak": True, "no_stale_db_rows": True, "no_reused_versions": "A", "outside_untouched": True}, None),
    ({"transfers": {"uploaded_bytes_max": "1MB"}}, {"transfers": {"uploaded_bytes": 0}}),
    ({"no_duplicate_by_normalisation": True}, {"name_bytes_equal_content_on": "A"}),
]


@pytest.mark.parametrize(("right", "wrong"), RIGHT_AND_WRONG)
def test_what_is_so_passes_and_what_is_not_fails(judge, right, wrong):
    peers = list(judge.world.peers.values())
    judge.check(right, peers)
    if wrong is not None:
        if "last_append_present" in wrong:
            judge.world.contents.blocks["f"] = ["t1"]
        with pytest.raises((Failed, Skipped)) as caught:
            judge.check(wrong, peers)
        assert isinstance(caught.value, Failed) or "t2" in str(wrong)


@pytest.fixture
def spoilt(judge):
    """A device whose tree a test spoils; it is as before in the end."""
    peer = judge.world.peers["B"]
    made = []

    def write(path: str, data: bytes) -> None:
        made.append(peer.root / path)
        made[-1].write_bytes(data)

    yield peer, write
    for path in made:
        path.unlink(missing_ok=True)


def test_a_difference_between_devices_fails(judge, spoilt):
    judge.converged()
    spoilt[1]("more", b"more")
    with pytest.raises(Failed, match="converged: A / B: more"):
        judge.converged()


@pytest.mark.parametrize(
    ("key", "value", "path", "data"),
    [
        ("no_foreign_content", True, "half", b"half a content"),
        ("no_temp_leak", True, ".kinfolder/tmp/left", b"left"),
        ("outside_untouched", True, "../outside/beside", b"ours"),
        ("outside_untouched", True, "../outside/x", b"theirs, changed"),
        ("no_duplicate_by_normalisation", True, "\N{LATIN SMALL LETTER E WITH ACUTE}", b""),
    ],
)
def test_what_lies_where_nothing_may_lie_fails(judge, spoilt, key, value, path, data):
    peer, write = spoilt
    if key == "no_duplicate_by_normalisation":
        write("e\N{COMBINING ACUTE ACCENT}", b"")
    kept = (peer.root / path).read_bytes() if (peer.root / path).exists() else None
    write(path, data)
    try:
        with pytest.raises(Failed):
            judge.check({key: value}, [peer])
    finally:
        if kept is not None:
            (peer.root / path).write_bytes(kept)
            (peer.root / path).rename(peer.outside / "kept")


def test_a_removal_that_nobody_asked_for_fails(judge):
    world = judge.world
    last = world.passes[-1]
    world.passes.append(last._replace(lost=frozenset({"d/g"})))
    try:
        with pytest.raises(Failed, match="removed d/g"):
            judge.check({"no_remote_deletes": True}, [])
    finally:
        world.passes.pop()


def test_a_content_that_a_step_made_and_no_step_took_away_must_be_there(judge):
    judge.check({"no_local_loss": "A"}, [])
    judge.world.peers["A"].made["gone"] = "0" * 64
    try:
        with pytest.raises(Failed, match="gone"):
            judge.check({"no_local_loss": "A"}, [])
    finally:
        del judge.world.peers["A"].made["gone"]


def test_old_versions_are_asked_of_the_product(judge):
    """Where it keeps none, the case is skipped and not failed."""
    world, peers = judge.world, list(judge.world.peers.values())
    world.contents.note("lost", "0" * 64, Origin("A", "f"))
    if world.site.has("history") and world.site.has("restore"):
        judge.check({"history_has": ["v0"]}, peers)
        with pytest.raises(Failed):
            judge.check({"history_has": ["lost"]}, peers)
    else:
        with pytest.raises(Skipped, match="not in this version"):
            judge.check({"history_has": ["v0"]}, peers)


def test_what_a_step_wrote_over_in_a_copy_is_asked_of_the_history(judge, monkeypatch):
    world, peers = judge.world, list(judge.world.peers.values())
    world.contents.note("gone", "0" * 64, Origin("A", "f"))
    monkeypatch.setitem(world.case.expectation, "survive", ["v0", "b1", "gone"])
    monkeypatch.setattr(world.contents, "written_over", world.contents.digests("v0") | {"0" * 64})
    _, plain, old = judge.split()
    assert (plain["survive"], old["history_has"]) == (["b1"], ["v0", "gone"])
    assert judge.written_over() == ["v0", "gone"]
    judge.check({"history_has": ["v0"]}, peers)
    with pytest.raises(Failed, match="no version has gone"):
        judge.check(old, peers)


def test_a_key_that_nobody_can_judge_skips_and_a_failure_beside_it_fails(judge):
    peers = list(judge.world.peers.values())
    with pytest.raises(Skipped, match="harmony"):
        judge.check({"harmony": True}, peers)
    with pytest.raises(Failed):
        judge.check({"harmony": True, "absent": ["f"]}, peers)


def test_a_wrong_case_fails_and_an_unknown_one_is_skipped(runner):
    step = {"phase": 1, "device": "A", "op": "write", "path": "f", "token": "a"}
    own = {"id": "OWN-2", "devices": ["A", "B"], "setup": [], "steps": [step]}
    raw = [
        {**own, "expectation": {"converged": True, "exists": {"f": "a"}, "absent": ["f"]}},
        {**own, "id": "OWN-3", "expectation": {"harmony": True}},
    ]
    outcomes = runner.run(raw, lambda _: None)
    assert [(outcome.verdict, outcome.reason) for outcome in outcomes] == [
        ("fail", "in the order A,B: absent: A has f"),
        ("skipped", "the runner cannot judge harmony"),
    ]


def test_every_case_is_known_or_says_why_not():
    """None of them comes to nothing."""
    assert {label.partition(" ")[0] for label, _ in expanded(list(CASES.values()))} == set(CASES)
    assert json.dumps(list(CASES))


# --- The launcher


def test_a_launched_command_is_a_process_of_its_own(tmp_path):
    with Launcher(tmp_path) as launcher:
        asked = launcher.run(["--home", str(tmp_path / "home"), "status", "--json"], 60)
        assert asked.code == 1
        assert json.loads(asked.out)["error"]["code"]
        assert launcher.run(["frobnicate"], 60).code == 2
        version = launcher.spawn(["--version"])
        assert version.line(60).startswith("kin ")
        assert version.wait(60).code == 0


def test_a_launched_command_that_does_not_end_is_killed(tmp_path):
    with Launcher(tmp_path) as launcher, pytest.raises(TimeoutError):
        home = tmp_path / "home"
        started_s = time.monotonic()
        launcher.run(["--home", str(home), "init", "--coordinator", "ws://127.0.0.1:1", "--invite", "x"], 0.0)
        assert time.monotonic() > started_s
