"""What a file of cases says, and what of it nobody here knows."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from simulations.cases import contents, grammar, real, virtual
from simulations.cases.grammar import Skipped
from simulations.cases.judgement import is_copy_of
from simulations.cases.runner import check, run_virtual
from simulations.commands.cases import run_cases

CASE = {"id": "X-1", "devices": ["A", "B"], "setup": [], "steps": [], "expectation": {"converged": True}}


def a_case(**changes):
    return {**CASE, **changes}


def labels(raw):
    return [case.label for case in grammar.expand(raw)]


def test_a_grid_is_run_once_for_each_combination():
    raw = a_case(
        params={"n": [1, 2], "p": ["x", "y"]},
        steps=[{"op": "write", "device": "A", "path": "$p/$n", "token": "$n"}],
    )
    assert labels(raw) == ["X-1 [n=1, p=x]", "X-1 [n=1, p=y]", "X-1 [n=2, p=x]", "X-1 [n=2, p=y]"]
    step = next(grammar.expand(raw)).steps[0]
    assert (step["path"], step["token"]) == ("x/1", 1)  # alone, a parameter keeps its type


def test_rows_of_variants_are_not_multiplied():
    raw = a_case(params={"variants": [{"n": 1, "s": 10}, {"n": 2, "s": 20}]}, expectation={"exists": {"f$n": "$s"}})
    assert [case.expectation for case in grammar.expand(raw)] == [{"exists": {"f1": 10}}, {"exists": {"f2": 20}}]


def test_a_range_names_devices():
    case = next(grammar.expand(a_case(devices=["U1..U3", "D1"])))
    assert case.devices == ("U1", "U2", "U3", "D1")
    assert case.named("U2..U3,D1") == ["U2", "U3", "D1"]
    assert case.named("OWNER") == ["U1"]


@pytest.mark.parametrize(
    ("kind", "op", "path", "survive"),
    [
        ("file", "write", "z", ["a", "b"]),
        ("empty_dir", "mkdir", "z", ["a"]),
        ("dir_with_file", "write", "z/inner", ["a", "b"]),
    ],
)
def test_what_the_other_device_creates_is_a_parameter_of_the_world(kind, op, path, survive):
    raw = a_case(
        params={"B_creates": [kind]},
        steps=[{"op": "write", "device": "B", "path": "z", "token": "b"}],
        expectation={"survive": ["a", "b"]},
    )
    case = next(grammar.expand(raw))
    assert (case.steps[0]["op"], case.steps[0]["path"]) == (op, path)
    assert case.expectation == {"survive": survive}


@pytest.mark.parametrize(
    "raw",
    [
        a_case(surprise=1),
        a_case(params={"weather": ["rain"]}),
        a_case(steps=[{"op": "write", "device": "A", "path": "$nothing", "token": "t"}]),
        a_case(steps=[{"op": "levitate", "device": "A"}]),
        a_case(needs=["telepathy"]),
        a_case(needs=["gc"]),
        a_case(expectation={"harmony": True}),
    ],
)
@pytest.mark.parametrize("means", [real.MEANS, virtual.MEANS], ids=["real", "virtual"])
def test_what_nobody_knows_is_skipped_and_never_passed(raw, means):
    with pytest.raises(Skipped):
        for case in grammar.expand(raw):
            check(case, means)


@pytest.mark.parametrize(
    "raw",
    [
        a_case(params={"fs_B": ["normalising_to_NFD"]}),
        a_case(steps=[{"op": "hook_during_sync", "device": "A", "do": "write_many count=1"}]),
        a_case(needs=["case_insensitive_fs:B"]),
        a_case(steps=[{"op": "upload_start", "device": "A", "path": "f", "token": "t"}]),
    ],
)
def test_what_only_the_simulator_can_do_is_skipped_with_real_processes(raw):
    (case,) = grammar.expand(raw)
    check(case, virtual.MEANS)
    with pytest.raises(Skipped):
        check(case, real.MEANS)


def test_the_other_order_swaps_the_first_two_devices():
    case = next(grammar.expand(a_case(devices=["A", "B", "C"])))
    assert grammar.orders(case) == [("A", "B", "C"), ("B", "A", "C")]
    every = next(grammar.expand(a_case(devices=["A", "B", "C"], params={"delivery": ["all permutations"]})))
    assert len(set(grammar.orders(every))) == 6


@pytest.mark.parametrize(
    ("text", "size"),
    [(7, 7), ("3KB", 3072), ("1MB+32", (1 << 20) + 32), ("1.5chunk", 6 << 20), ("0.1chunk", 419430)],
)
def test_sizes(text, size):
    assert grammar.size_of(text) == size


def test_a_content_proves_itself():
    data = contents.content("token", 1024)
    assert len(data) == 1024
    assert data.startswith(b"token\n")
    assert hashlib.sha256(data[:-64]).hexdigest() == data[-64:].decode()
    assert contents.content("token", 1) == contents.content("token", 60)  # never shorter than without filler


def test_a_token_of_appended_blocks_stands_for_all_their_bytes():
    known = contents.Contents()
    first = contents.content("a", 100)
    known.note("a", contents.digest_of(first), contents.Origin("A", "f"), 100)
    assert known.digests("a+b") == {contents.digest_of(first + contents.content("b"))}
    with pytest.raises(Skipped):
        known.digests("never")


@pytest.mark.parametrize(
    ("copy", "path", "is_one"),
    [
        ("f (conflict, B, 1a2b3c4d)", "f", True),
        ("d/a (conflict, B, 1a2b3c4d).tar.gz", "d/a.tar.gz", True),
        ("a (conflict, B, 1a2b3c4d).tar.gz", "d/a.tar.gz", False),
        ("g (conflict, B, 1a2b3c4d)", "f", False),
    ],
)
def test_a_conflict_copy_is_named_after_its_file(copy, path, is_one):
    assert is_copy_of(copy, path) == is_one


# --- The command


def kin_sim(*args):
    return subprocess.run(
        [sys.executable, "-P", "-m", "simulations.cli", *args], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_case_is_played_on_virtual_time(tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps([CASE, a_case(id="X-2", expectation={"exists": {"f": "t"}})]))
    result = kin_sim("cases", str(tmp_path / "cases.json"), "--seeds", "2", "--json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["totals"] == {"pass": 1, "fail": 1, "skipped": 0}
    assert found["cases"][1]["reason"].startswith("in the order A,B, seed 0: exists: ")


def test_real_processes_take_no_seed(tmp_path):
    (tmp_path / "cases.json").write_text("[]")
    result = kin_sim("cases", str(tmp_path / "cases.json"), "--real", "--seeds", "2")
    assert result.returncode == 2
    assert "real processes take no seed" in result.stderr


def test_what_is_not_there_yet_says_so():
    result = kin_sim("capacity")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "not in this version" in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("{}", "not a list of cases"),
        ("[]", "no cases in"),
        ("[3]", "case 1 of 1: not an object"),
        ('[{"no": "id"}]', "case 1 of 1: it has no id"),
        ('[{"id": "X"}]', "X needs a list of names as its devices"),
        (json.dumps([CASE, a_case(devices=[])]), "case 2 of 2: X-1 needs a list of names as its devices"),
        (json.dumps([a_case(steps=[{"op": "write"}])]), "X-1 needs a list of objects with op and device as its steps"),
        (json.dumps([a_case(expectation=[])]), "X-1 needs an object as its expectation"),
        (json.dumps([a_case(params={"n": []})]), "X-1 needs an object of lists, none of them empty"),
        (json.dumps([a_case(params={"side": ["middle"]})]), "X-1 says what cannot be read: KeyError: 'middle'"),
    ],
)
def test_a_file_that_holds_no_cases_is_named(tmp_path, capsys, text, words):
    file = tmp_path / "cases.json"
    file.write_text(text)
    assert run_cases([file], [], run_virtual, as_json=False) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("kin-sim cases: ")
    assert str(file) in line
    assert words in line


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert run_cases([tmp_path / "none.json"], [], run_virtual, as_json=False) == 2
    said = capsys.readouterr().err
    assert said == f"kin-sim cases: cannot read {tmp_path / 'none.json'}: No such file or directory\n"


def test_cases_of_which_all_are_skipped_show_nothing(tmp_path, capsys):
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([a_case(needs=["gc"])]))
    assert run_cases([file], [], run_virtual, as_json=False) == 0
    told = capsys.readouterr()
    assert told.out.endswith("0 pass, 0 fail, 1 skipped\n")
    assert told.err == "kin-sim cases: nothing was checked\n"


def test_a_case_that_is_not_there_is_named(tmp_path):
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([CASE]))
    result = kin_sim("cases", str(file), "--real", "--only", "X-2")
    assert (result.returncode, result.stderr) == (2, "kin-sim cases: no case X-2 in these files\n")
