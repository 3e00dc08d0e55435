"""Histories as files: written down, read again, played again, and made smaller."""

import json
from pathlib import Path

import pytest

from simulations.commands.failures import Teller
from simulations.commands.run import main
from simulations.history import deeds, files, repertoire, runs, script
from simulations.history.shrink import shrink
from simulations.mishaps import SimulationError
from simulations.shrinking import minimise

SEED = 4


class Broken(SimulationError):
    """What a broken deed says."""


def test_a_history_is_what_its_file_says(tmp_path):
    first = runs.script_of(SEED)
    file = tmp_path / "history.json"
    file.write_text(files.write(first))
    assert files.read(file) == first


def test_what_was_played_is_played_again():
    result = runs.live(SEED)
    named = runs.script_of(SEED)._replace(events=result.played, is_drawn=False)
    kinds = (script.What.DEED, script.What.TROUBLE)
    assert all(event.name for event in named.events if event.what in kinds)
    again = runs.play(named).result
    assert again.counts == result.counts
    assert again.failure == result.failure == ""


@pytest.fixture
def broken(monkeypatch):
    """Have each third action or so fail."""

    async def fail(person):
        with person.acting("fails"):
            person.hands.write(person.path("kiwi-broken"), b"kiwi-broken")
        person.device.loop.fail(Broken("it fails"))

    kinds = {**repertoire.DEEDS, "copy_in": repertoire.Kind(fail, 500), "edit": repertoire.Kind(deeds.edit, 12)}
    monkeypatch.setattr(repertoire, "DEEDS", kinds)
    monkeypatch.setattr(runs, "DEEDS", kinds)
    monkeypatch.setattr("simulations.history.course.DEEDS", kinds)
    return next(seed for seed in range(20) if "copy_in" in dict(runs.options_of(seed).deeds))


def test_a_failing_history_is_made_as_small_as_it_gets(broken):
    history = runs.script_of(broken)
    result = runs.play(history).result
    assert result.failure.startswith("Broken")
    smaller = shrink(history, result, seconds=60.0)
    assert [event.name for event in smaller.history.events] == ["copy_in"]
    assert smaller.result.failure.startswith("Broken")
    assert smaller.history.options.weather == "fine"
    assert set(smaller.history.options.personalities) == {"plain"}


def test_a_failure_is_told_with_a_trace_and_a_history_to_play(broken, tmp_path):
    result = runs.live(broken)
    told = Teller(tmp_path, shrink_s=30.0).explain(runs.script_of(broken), result)
    assert "device-" in told.trace.read_text()
    again = runs.play(files.read(told.history)).result
    assert again.failure.startswith("Broken")
    lines = list(told.lines())
    assert f"again: kin-sim run --seed {broken}" in lines
    assert f"again, smaller: kin-sim run --history {told.history}" in lines


def test_a_history_from_a_file_is_played_again_from_that_file(broken, tmp_path, capsys):
    """The seed alone is another history; and what is kept beside the file does not take its place."""
    file = tmp_path / "history.json"
    first = runs.script_of(broken)
    file.write_text(files.write(first))
    before = file.read_bytes()
    assert main(["--history", str(file), "--shrink", "20", "--keep", str(tmp_path), "--report", str(tmp_path)]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"again: kin-sim run --history {file}" in lines
    assert not any("--seed" in line for line in lines)
    assert file.read_bytes() == before
    [smaller] = [line.rpartition(" ")[2] for line in lines if line.startswith("again, smaller: ")]
    assert runs.play(files.read(Path(smaller))).result.failure.startswith("Broken")
    pages = {page.name: page.read_text() for page in tmp_path.glob("*.html")}
    assert not any("--seed" in text for text in pages.values())
    small, whole = f"seed-{broken}.html", f"seed-{broken}-whole.html"
    assert f'href="{whole}"' in pages[small]
    assert f'href="{small}"' in pages[whole]
    assert f"<code>kin-sim run --history {smaller}</code>" in pages[small]
    assert f"<code>kin-sim run --history {file}</code>" in pages[whole]


def test_what_is_not_made_smaller_is_not_told_twice(broken, tmp_path, capsys):
    assert main(["--seed", str(broken), "--shrink", "0", "--keep", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.strip()]
    assert len(set(told)) == len(told)
    assert not any("made smaller" in line or "making it smaller" in line or "again, smaller" in line for line in lines)
    [kept] = tmp_path.glob("*.json")
    assert f"      again, from what is kept: kin-sim run --history {kept}" in lines
    assert files.read(kept) == runs.script_of(broken)


def test_a_directory_that_cannot_be_used_is_told_before_anything_is_played(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("--keep", "--report"):
        assert main([name, str(tmp_path / "file")]) == 2
        assert said(capsys) == f"kin-sim run: {name} {tmp_path / 'file'}: is no directory"


def test_a_failure_that_cannot_be_kept_ends_nothing(broken, tmp_path, capsys):
    keep = tmp_path / "keep"
    (keep / f"seed-{broken}.json").mkdir(parents=True)
    assert main(["--seeds", f"{broken}..{broken + 1}", "--once", "--shrink", "0", "--keep", str(keep)]) == 1
    told = capsys.readouterr()
    assert f"seed-{broken}.json: Is a directory" in told.err
    assert told.out.splitlines()[-1].startswith("2 histories, ")


def test_the_command_plays_a_file(tmp_path, capsys):
    file = tmp_path / "history.json"
    first = runs.script_of(SEED)
    file.write_text(files.write(first._replace(events=first.events[:3])))
    assert main(["--history", str(file), "--once"]) == 0
    assert f"pass  seed {SEED} " in capsys.readouterr().out


def said(capsys):
    """Return what was said of wrong usage: one line."""
    [line] = capsys.readouterr().err.splitlines()
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"version": 2}), '{"version": 1, "options": {}}'])
def test_what_is_no_history_is_told_in_words(tmp_path, capsys, text):
    file = tmp_path / "history.json"
    file.write_text(text)
    assert main(["--history", str(file)]) == 2
    assert str(file) in said(capsys)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("options", "weather"), "hail", "'hail' in its weather"),
        (("options", "personalities"), ["plain", "plain", "odd"], "'odd' in its personalities"),
        (("options", "personalities"), ["plain"], "1 personalities for 3 devices"),
        (("options", "lans"), [1], "1 lans for 3 devices"),
        (("options", "devices"), 0, "0 as its devices"),
        (("options", "devices"), "3", "$.options.devices"),
        (("options", "seed"), "abc", "$.options.seed"),
        (("options", "pauses"), "zzz", "'zzz' in its pauses"),
        (("options", "deeds"), [], "its options name no deed"),
        (("options", "deeds"), [["edit", 0]], "weight below 1"),
        (("options", "more"), 1, "$.options"),
        (("events", 0, "name"), "nonsense", "'nonsense'"),
        (("events", 0, "pause_s"), "x", "$.events[0].pause_s"),
        (("events", 0, "pause_s"), -5, "pause of -5"),
        (("events", 0, "who"), 17, "user 17"),
        (("events", 0, "number"), "x", "$.events[0].number"),
        (("events", 0, "number"), 1, "stands there twice"),
        (("events", 0, "what"), "party", "'party'"),
        (("events",), 3, "$.events"),
    ],
)
def test_what_no_history_can_be_is_told_with_where_it_stands(tmp_path, capsys, where, value, words):
    file = tmp_path / "history.json"
    found = json.loads(files.write(runs.script_of(SEED)))
    inside = found
    for key in where[:-1]:
        inside = inside[key]
    inside[where[-1]] = value
    file.write_text(json.dumps(found))
    assert main(["--history", str(file)]) == 2
    assert words in said(capsys)


def test_a_missing_file_is_told_in_words(tmp_path, capsys):
    assert main(["--history", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_list_is_made_as_short_as_is_enough():
    assert minimise(list(range(100)), lambda some: {17, 60} <= set(some)) == [17, 60]


def test_events_have_chance_of_their_own():
    first = runs.script_of(SEED)
    assert first.source("deed", 1).random() == first.source("deed", 1).random()
    assert first.source("deed", 1).random() != first.source("deed", 2).random()
