"""The runner of cases: it fails what is wrong and skips what it cannot do; and the product passes, on virtual time and for real.

``KIN_CASES`` names a file of cases; else it is looked for beside the checkout. With ``KIN_TEST_FULL=1`` all of them run with
real processes too.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from simulations.cases import judgement
from simulations.cases.contents import Origin
from simulations.cases.grammar import Skipped, expand, load
from simulations.cases.hands import LATER, Failed
from simulations.cases.judgement import Judge
from simulations.cases.real import RealWorlds
from simulations.cases.runner import Runner, expanded, perform, run_virtual
from simulations.cases.virtual import VirtualWorlds
from simulations.cases.world import World
from simulations.launcher import Launcher

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(os.environ.get("KIN_CASES", ROOT.parent / "shared" / "conflict_cases" / "cases.json"))
CASES = {case["id"]: case for case in load(FILE)} if FILE.is_file() else {}
QUICK = ("KD-09", "OC-06", "RB-01", "ST-05", "ST-14", "UN-08", "UN-10")
CHOSEN = tuple(CASES) if os.environ.get("KIN_TEST_FULL") == "1" else QUICK

needs_cases = pytest.mark.skipif(
    not CASES, reason=f"no file {FILE.name} is beside the checkout, and KIN_CASES names none"
)


@needs_cases
@pytest.mark.parametrize("name", CASES)
def test_a_case_holds_in_both_orders_on_virtual_time(name):
    """Or is skipped for want of what the product does not have yet, and for no other reason."""
    outcomes = run_virtual([CASES[name]], lambda _: None)
    assert outcomes
    assert not [outcome for outcome in outcomes if outcome.verdict == "fail"]
    assert {outcome.reason for outcome in outcomes if outcome.verdict == "skipped"} <= LATER


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with RealWorlds(tmp_path_factory.mktemp("cases")) as worlds:
        yield Runner(worlds)


@needs_cases
@pytest.mark.parametrize("name", CHOSEN)
def test_a_case_holds_in_both_orders_with_real_processes(runner, name):
    outcomes = runner.run([CASES[name]], lambda _: None)
    assert not [outcome for outcome in outcomes if outcome.verdict == "fail"]
    assert name not in QUICK or "pass" in {outcome.verdict for outcome in outcomes}


def test_every_case_is_known_or_says_why_not():
    """None of them comes to nothing."""
    assert {label.partition(" ")[0] for label, _ in expanded(list(CASES.values()))} == set(CASES)
    assert json.dumps(list(CASES))


# --- The judge

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
        {
            "phase": 3,
            "device": "A",
            "op": "write_slow",
            "path": "s",
            "token": "s1",
            "size": 3000,
            "block": 1000,
            "interval_s": 9,
        },
        {"phase": 3, "device": "A", "op": "sync_during"},
        {"phase": 4, "device": "A", "op": "sync"},
        {"phase": 4, "device": "B", "op": "sync"},
        {"phase": 4, "device": "B", "op": "wipe_folder_and_rejoin"},
    ],
    "expectation": {"converged": True, "survive": ["a1"], "db_unchanged": "A"},
}


ROWS = {
    "id": "OWN-2",
    "devices": ["A", "B"],
    "setup": [{"op": "sqlite_db", "path": "rows.db", "rows": 3}],
    "steps": [{"phase": 1, "device": "B", "op": "sqlite_txn", "path": "rows.db", "rows": 2}],
    "expectation": {"converged": True},
}
FOLDERS = {
    "id": "OWN-3",
    "devices": ["A", "B"],
    "needs": ["multi_folder"],
    "setup": [{"op": "write", "path": "F1/x", "token": "x"}, {"op": "write", "path": "F2/y", "token": "y"}],
    "steps": [],
    "expectation": {"converged": True},
}


class Probe(NamedTuple):
    """One key of an expectation: where it holds, and where it does not."""

    key: str
    right: Any
    wrong: Any
    match: str = ""
    """What is said of the wrong one."""
    spoil: Callable[[Judge], contextlib.AbstractContextManager[None]] | None = None
    """What is done to the world before the wrong one is judged; taken back afterwards."""
    played: Mapping[str, Any] = PLAYED
    """In which world."""


def has(path: str, data: bytes, device: str = "B") -> Callable[[Judge], contextlib.AbstractContextManager[None]]:
    """Let something lie at a path of a device."""

    @contextlib.contextmanager
    def spoil(judge: Judge) -> Iterator[None]:
        peer = judge.world.peers[device]
        target = peer.at(path)
        kept = (peer.disk.read(target), peer.disk.stat(target).mtime_ns) if peer.disk.exists(target) else None
        peer.disk.write(target, data)
        yield
        if kept is None:
            peer.disk.remove(target)
        else:
            peer.disk.write(target, kept[0])
            peer.disk.set_mtime(target, kept[1])

    return spoil


def knows(attribute: str, **entries: Any) -> Callable[[Judge], contextlib.AbstractContextManager[None]]:
    """Let the world remember something that did not happen."""

    @contextlib.contextmanager
    def spoil(judge: Judge) -> Iterator[None]:
        memory = getattr(judge.world, attribute)
        before = dict(memory)
        memory.update({key.replace("_", " "): value for key, value in entries.items()})
        yield
        memory.clear()
        memory.update(before)

    return spoil


def database(statement: str) -> Callable[[Judge], contextlib.AbstractContextManager[None]]:
    """Change what device A knows."""

    @contextlib.contextmanager
    def spoil(judge: Judge) -> Iterator[None]:
        machine = judge.world.peers["A"].machine
        before = machine.machine.kept_database  # type: ignore[attr-defined]  # it is a simulated one
        with machine.database(writes=True) as connection:
            connection.execute(statement)
            connection.commit()
        yield
        machine.machine.tamper(before)  # type: ignore[attr-defined]  # see above

    return spoil


@contextlib.contextmanager
def a_pass_that_removed(judge: Judge) -> Iterator[None]:
    passes = judge.world.passes
    passes.append(passes[-1]._replace(device="A", lost=frozenset({"d/g"})))
    yield
    passes.pop()


@contextlib.contextmanager
def a_late_pass_that_changed(judge: Judge) -> Iterator[None]:
    passes = judge.world.passes
    passes.append(passes[-1]._replace(changed=True))
    judge.world.sync_steps.append((len(passes) - 1, len(passes)))
    yield
    judge.world.sync_steps.pop()
    passes.pop()


@contextlib.contextmanager
def a_grown_log(judge: Judge) -> Iterator[None]:
    judge.world.head += 1
    yield
    judge.world.head -= 1


@contextlib.contextmanager
def something_made_and_gone(judge: Judge) -> Iterator[None]:
    judge.world.peers["A"].made["gone"] = "0" * 64
    yield
    del judge.world.peers["A"].made["gone"]


@contextlib.contextmanager
def something_seen_half(judge: Judge) -> Iterator[None]:
    judge.world.seen.append(("s", "B", "0" * 64))
    yield
    judge.world.seen.pop()


@contextlib.contextmanager
def blocks_that_never_were(judge: Judge) -> Iterator[None]:
    judge.world.contents.blocks["f"] = ["t2"]
    yield
    del judge.world.contents.blocks["f"]


@contextlib.contextmanager
def another_model(judge: Judge) -> Iterator[None]:
    judge.world.model_of = "A"
    with has("more", b"more")(judge):
        yield
    judge.world.model_of = ""


@contextlib.contextmanager
def an_unreachable_path(judge: Judge) -> Iterator[None]:
    peer = judge.world.peers["A"]
    whole = peer.tree
    peer.made["there/not"] = "0" * 64
    peer.tree = lambda: {**whole(), "there/not": "0" * 64}  # type: ignore[method-assign]  # a tree with a knot in it
    yield
    del peer.made["there/not"], peer.tree


@contextlib.contextmanager
def a_later_time(judge: Judge) -> Iterator[None]:
    peer = judge.world.peers["A"]
    target = peer.at("f")
    before = peer.disk.stat(target).mtime_ns
    peer.disk.set_mtime(target, before + 10**10)
    yield
    peer.disk.set_mtime(target, before)


@contextlib.contextmanager
def another_choice(judge: Judge) -> Iterator[None]:
    judge.world.memory["downloads:B"].append({"f": "0" * 64})
    yield
    judge.world.memory["downloads:B"].pop()


@contextlib.contextmanager
def a_leak(judge: Judge) -> Iterator[None]:
    peer = judge.world.peers["B"]
    peer.disk.copy(peer.at("F1/x"), peer.at("F2/x"))
    yield
    peer.disk.remove(peer.at("F2/x"))


@contextlib.contextmanager
def one_identity(judge: Judge) -> Iterator[None]:
    one, other = (judge.world.peers[name].machine.machine for name in "AB")  # type: ignore[attr-defined]  # simulated ones
    before = other.kept_database, other.keys
    other.tamper(one.kept_database)
    other.keys = one.keys
    yield
    other.tamper(before[0])
    other.keys = before[1]


@contextlib.contextmanager
def a_file_that_was_lost(judge: Judge) -> Iterator[None]:
    judge.world.memory["before fault"] = {"A": {"lost": "0" * 64}}
    yield
    del judge.world.memory["before fault"]


NFC, NFD = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"


@contextlib.contextmanager
def two_spellings(judge: Judge) -> Iterator[None]:
    with has(NFC, b"1")(judge), has(NFD, b"2")(judge):
        yield


PROBES = [
    Probe("exists", {"f": "a1", "d": "<dir>", "l": "<link:f>"}, {"f": "b1"}, "is not b1"),
    Probe("exists", {"t": "t0+t1"}, {"t": "t0"}, "is not t0"),
    Probe("exists", {"l": "<any>"}, {"nothing": "<any>"}, "has no nothing"),
    Probe("tree_subset", {"l": "<link:f>"}, {"l": "<link:g>"}, "is not <link:g>"),
    Probe("tree", None, {"f": "a1"}, "also has"),
    Probe("absent", ["nothing"], ["d/g"], "has d/g"),
    Probe("absent_on", {"B": ["nothing"]}, {"B": ["l"]}, "B has l"),
    Probe("empty_dirs", ["e"], ["d"], "no empty directory"),
    Probe("many", {"dir": "d", "count": 1, "all_hash_ok": True}, {"dir": "d", "count": 2}, "1 files in d, not 2"),
    Probe("many", {"dir": ".", "count": ">=3"}, {"dir": ".", "count": ">=9"}, "not >=9"),
    Probe("many", None, {"dir": "d", "count": 1, "all_hash_ok": True}, "no step wrote", has("d/g", b"half")),
    Probe("survive", ["a1", "b1", "v1"], ["v0"], "no file with v0"),
    Probe("survive_if", {"scope_has_files": ["a1"]}, {"scope_has_files": ["v0"]}, "no file with v0"),
    Probe("survive_substring", ["t1"], ["t2"], "no file with the block t2"),
    Probe("survive_or_history", ["a1", "v0"], ["lost"], "no version has lost"),
    Probe("survive_rows", {"B": 2, "setup": 3}, {"B": 3}, "no database with the 3 rows", None, ROWS),
    Probe("no_duplicates", ["a1"], ["v0"], "has v0 0 times"),
    Probe("history_has", ["v0", "a1"], ["lost"], "no version has lost"),
    Probe("history_or_trash_has", ["v0"], ["lost"], "no version has lost"),
    Probe("content_in", {"f": ["a1", "b1"]}, {"f": ["v0", "v1"]}, "holds none of"),
    Probe("no_foreign_content", True, True, "no whole content", has("half", b"half a content")),
    Probe("conflicts", {"min": 1, "total": 1, "of": {"f": 1}}, {"total": 0}, "1 conflict copies"),
    Probe("conflicts", {"min": 1, "max": 2}, {"of": {"d/g": 1}}, "0 conflict copies of d/g"),
    Probe("conflicts", {"max": 2}, {"min": 2}, "1 conflict copies"),
    Probe("conflicts", {"max": 1}, {"max": 0}, "1 conflict copies"),
    Probe("one_of", [{"exists": {"f": "b1"}}, {"exists": {"f": "a1"}}], [{"absent": ["f"]}, {"absent": ["d"]}], "none"),
    Probe("on", {"fresh": {"survive": ["b1"]}}, {"fresh": {"absent": ["f"]}}, "fresh has f"),
    Probe("on_ci", {"B": {"exists": {"F": "a1"}}}, {"B": {"absent": ["F"]}}, "B has F"),
    Probe("on_ci", {"B": {"exists": {"F": "a1"}}}, {"B": {}}, "are one name there", has("F", b"")),
    Probe("case_sensitive_devices_exact", None, {"f": "a1"}, "also has"),
    Probe("deterministic_choice_on", "B", "B", "showed", another_choice),
    Probe("local_preserved", {"A": ["b1"]}, {"A": ["v0"]}, "no file with v0"),
    Probe("visible", {"A": ["b1"]}, {"A": ["v0"]}, "no file with v0"),
    Probe("invisible", {"A": ["v0"]}, {"A": ["b1"]}, "a file with b1"),
    Probe("no_local_loss", "A", "A", "gone on A", something_made_and_gone),
    Probe("all_allowed_names_on", "B", "B", "neither has gone", something_made_and_gone, FOLDERS),
    Probe("name_bytes_equal_content_on", None, "A", "does not hold its name"),
    Probe("no_duplicate_by_normalisation", True, True, "equal in NFC", two_spellings),
    Probe("no_cross_folder_leak", True, True, "holds what was written to F1", a_leak, FOLDERS),
    Probe("outside_untouched", True, True, "beside lies outside", has("../outside/beside", b"ours")),
    Probe("outside_untouched", True, True, "x outside the root was touched", has("/outside/x", b"theirs, changed")),
    Probe("no_remote_deletes", True, True, "removed d/g", a_pass_that_removed),
    Probe("no_mass_delete", True, True, "removed d/g", a_pass_that_removed),
    Probe("no_deletes_on", None, ["A"], "A has lost lost", a_file_that_was_lost),
    Probe("remote_unchanged", None, True, "the log grew", a_grown_log),
    Probe("db_unchanged", None, "A", "the state of A changed", database("DELETE FROM local_item")),
    Probe("guard", None, {"kind": "mass_delete", "device": "A", "remote_unchanged": True}, "A changed|no hold|B changed"),
    Probe("errors", [], [{"device": "A", "kind": "permission", "path": "f"}], "does not list f as unreadable"),
    Probe("errors_allowed", ["permission"], [], "lists f as", database("INSERT INTO problem SELECT key, CAST('f' AS BLOB), 'unreadable' FROM folder")),
    Probe("halted_or_warned", None, True, "no status says"),
    Probe("duplicate_identity_detected", True, True, "two devices have one identity", one_identity),
    Probe("no_reused_versions", "A", "A", "two entries have the version", database("UPDATE entry SET hash = zeroblob(32)")),
    Probe("transfers", {"uploaded_bytes_max": "1MB", "downloaded_bytes_max": "1MB"}, {"uploaded_bytes": 0}, "took"),
    Probe("transfers", None, {"uploaded_bytes_max": 1}, "more than 1"),
    Probe("transfers", None, {"downloaded_bytes_max": 1}, "more than 1"),
    Probe("no_content_transfer", None, True, "a storage node took"),
    Probe("quiesce_within_syncs", 2, 2, "still changed something", a_late_pass_that_changed),
    Probe("mtime", {"path": "f", "tolerance_s": 1}, {"path": "f", "tolerance_s": 1}, "off by 10 s", a_later_time),
    Probe("source_mtime_untouched", "A", "A", "changed the time of f", a_later_time),
    Probe("published_versions_are_prefixes_or_full", "s", "s", "no beginning", something_seen_half),
    Probe("last_append_present", "t", "f", "lacks t2", blocks_that_never_were),
    Probe("no_append_lost_without_conflict", "t", "f", "has lost t2", blocks_that_never_were),
    Probe("sqlite_ok", "rows.db", "rows.db", "malformed|not a database|integrity", has("rows.db", b"SQLite format 3\0" + b"x" * 9000), ROWS),
    Probe("no_temp_leak", True, True, "left in its directory tmp", has(".kinfolder/tmp/left", b"left")),
    Probe("no_stale_db_rows", True, True, "a row of", database("UPDATE local_item SET name = CAST('gone' AS BLOB) WHERE name = CAST('t' AS BLOB)")),
    Probe("no_cycle", True, True, "does not reach there/not", an_unreachable_path),
    Probe("equals_model", None, True, "B is not what the model is", another_model),
    Probe("explainable_by", None, "the state machine of 6.1", "no generator ran"),
    Probe("simfs_equals_realfs", None, True, "file to link", knows("memory", renames_differ=["file to link"])),
    Probe("converged", True, True, "converged: A / B: more", has("more", b"more")),
]  # fmt: skip
ASK_FOR_OLD_VERSIONS = {
    "history_has",
    "survive_or_history",
    "history_or_trash_has",
    "published_versions_are_prefixes_or_full",
}
NOBODY_JUDGES = {"location_of", "no_merge_without_consent"}
"""Keys about what the product does not have: whatever is expected, the case is skipped."""
BY_THE_RUNNER = {"stable", "converged_members_only"}


class Verdicts(NamedTuple):
    right: Exception | None
    wrong: Exception | None


async def judged(judge: Judge, key: str, value: Any) -> Exception | None:
    """Return why a key does not hold, or None if it does."""
    try:
        if key == "converged":
            await judge.converged()
        else:
            await judge.check({key: value}, list(judge.world.peers.values()))
    except (Failed, Skipped) as error:
        return error
    return None


@pytest.fixture(scope="module")
def verdicts() -> dict[int, Verdicts]:
    """What the judge says of each probe, by number: at rest, with a fresh device; most in a world with one conflict."""
    found: dict[int, Verdicts] = {}

    async def probed(judge: Judge) -> None:
        judge.world.contents.note("lost", "0" * 64, Origin("A", "f"))
        # Whoever asks for old versions leaves traces of that in what devices know, so those come last.
        for number in sorted(range(len(PROBES)), key=lambda number: PROBES[number].key in ASK_FOR_OLD_VERSIONS):
            probe = PROBES[number]
            if probe.played["id"] != judge.world.case.id:
                continue
            right = None if probe.right is None else await judged(judge, probe.key, probe.right)
            with contextlib.nullcontext() if probe.spoil is None else probe.spoil(judge):
                wrong = await judged(judge, probe.key, probe.wrong)
            found[number] = Verdicts(right, wrong)

    for played in (PLAYED, ROWS, FOLDERS):
        in_a_world(played, probed, scope="files+db")
    return found


@pytest.mark.parametrize("number", range(len(PROBES)), ids=[f"{probe.key}-{n}" for n, probe in enumerate(PROBES)])
def test_what_is_so_passes_and_what_is_not_fails(verdicts, number):
    probe, found = PROBES[number], verdicts[number]
    assert found.right is None
    with pytest.raises(Failed, match=probe.match):
        raise found.wrong or AssertionError("it held")


def test_every_key_has_a_probe_in_which_it_does_not_hold():
    assert {probe.key for probe in PROBES} | NOBODY_JUDGES | BY_THE_RUNNER == judgement.KNOWN


def in_a_world(raw: Mapping[str, Any], act: Callable[[Judge], Any], **values: Any) -> None:
    """Do something with the judge of a case that has been played."""
    case = next(expand(raw))._replace(values=values)

    async def story(hands: Any) -> None:
        await act(await perform(World(hands, case, case.devices, "seed")))

    VirtualWorlds().run(case, "seed", story)


def test_what_a_step_wrote_over_in_a_copy_is_asked_of_the_history():
    async def act(judge: Judge) -> None:
        contents = judge.world.contents
        contents.note("gone", "0" * 64, Origin("A", "f"))
        contents.written_over |= contents.digests("v0") | {"0" * 64}
        _, plain, old = judge.split()
        assert (plain["survive"], old["history_has"]) == (["b1"], ["v0", "gone"])
        assert judge.written_over() == ["v0", "gone"]
        assert await judged(judge, "history_has", ["v0"]) is None
        with pytest.raises(Failed, match="no version has gone"):
            await judge.check(old, list(judge.world.peers.values()))

    in_a_world({**PLAYED, "expectation": {"survive": ["v0", "b1", "gone"]}}, act)


def test_a_key_that_nobody_can_judge_skips_and_a_failure_beside_it_fails():
    async def act(judge: Judge) -> None:
        peers = list(judge.world.peers.values())
        with pytest.raises(Skipped, match="harmony"):
            await judge.check({"harmony": True}, peers)
        with pytest.raises(Failed):
            await judge.check({"harmony": True, "absent": ["f"]}, peers)
        for key in NOBODY_JUDGES:
            assert isinstance(await judged(judge, key, {}), Skipped)

    in_a_world(PLAYED, act)


# --- Whole cases

WRITE = {"phase": 1, "device": "A", "op": "write", "path": "f", "token": "a"}
OWN = {"id": "OWN-4", "devices": ["A", "B"], "setup": [], "steps": [WRITE], "expectation": {"converged": True}}


def outcome_of(**changes: Any) -> tuple[str, str]:
    """Run a case of our own; return its verdict and the reason."""
    (outcome,) = run_virtual([{**OWN, **changes}], lambda _: None)
    return outcome.verdict, outcome.reason


def test_a_wrong_case_fails_and_an_unknown_one_is_skipped():
    right = {"converged": True, "exists": {"f": "a"}}
    assert outcome_of(expectation=right) == ("pass", "")
    assert outcome_of(expectation={**right, "absent": ["f"]}) == ("fail", "in the order A,B: absent: A has f")
    assert outcome_of(expectation={"harmony": True}) == ("skipped", "the runner cannot judge harmony")


def step(op: str, device: str = "A", phase: int = 2, **fields: Any) -> dict[str, Any]:
    return {"phase": phase, "device": device, "op": op, **fields}


SLOW = step("write_slow", path="s", token="s", size="4KB", block="1KB", interval_s=1)
OF_STEPS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "write_slow": ([SLOW, step("sync_during"), step("sync", "B")], {"exists": {"s": "s"}, "published_versions_are_prefixes_or_full": "s"}),
    "write_sparse": ([step("write_sparse", path="s", size="1MB", data_at=["64KB", "1MB"], token="s")], {"exists": {"s": "s"}}),
    "write_name_matrix": ([step("write_name_matrix", set="ascii_punct_positions")], {"many": {"dir": ".", "count": 97, "all_hash_ok": True}}),
    "windows": ([step("write_name_matrix", set="windows_forbidden")], {"many": {"dir": ".", "count": 9, "all_hash_ok": True}}),
    "fsx": ([step("fsx", ops=20, max_size="64KB", settle_every=5)], {"equals_model": True, "no_foreign_content": True}),
    "restore_disk": (
        [step("sync", "*"), step("write", path="f", token="a2"), step("sync", "*"), step("restore_disk", "B", scope="all", age="old")],
        {"exists": {"f": "a2"}, "conflicts": {"total": 0}},
    ),
    "register_dead_peers": ([step("register_dead_peers", count=3)], {"exists": {"f": "a"}}),
    "upload": (
        [step("upload_start", path="g", token="g"), step("check", "B", absent=["g"]), step("upload_start_dedup", "B", path="h", token="a"),
         step("upload_finish"), step("upload_finish", "B")],
        {"exists": {"g": "g", "h": "a"}},
    ),
    "reap_tombstones": ([step("sync"), step("delete", path="f"), step("sync"), step("reap_tombstones", "COORD")], {"tree": {}}),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_STEPS)
def test_steps_that_no_case_of_the_file_has(name):
    steps, expectation = OF_STEPS[name]
    assert outcome_of(steps=[WRITE, *steps], expectation={"converged": True, **expectation}) == ("pass", "")


def test_folders_beside_each_other_are_folders_of_their_own():
    setup = [{"op": "write", "path": "F1/x", "token": "1"}, {"op": "write", "path": "F2/y", "token": "2"}]
    steps = [step("rename", src="F1/x", dst="F2/x"), step("write", "B", path="F3/z", token="3")]
    expectation = {"converged": True, "exists": {"F2/x": "1", "F2/y": "2", "F3/z": "3"}, "absent": ["F1/x"]}
    assert outcome_of(needs=["multi_folder"], setup=setup, steps=steps, expectation=expectation) == ("pass", "")


def test_a_crash_at_every_step_needs_steps():
    nothing = [step("set_ignore_dir", "B", path="F", crash_at="$every_step")]
    setup = [{"op": "write", "path": "F/x", "token": "x"}]
    assert outcome_of(setup=setup, steps=nothing)[0] == "pass"


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
