"""Histories as files: written down, read again, played again, and made smaller."""

import json

import pytest

from simulations.commands.failures import Teller
from simulations.commands.run import main
from simulations.history import deeds, repertoire, runs, script
from simulations.history.shrink import shrink
from simulations.mishaps import SimulationError
from simulations.shrinking import minimise

SEED = 4


class Broken(SimulationError):
    """What a broken deed says."""


def test_a_history_is_what_its_file_says(tmp_path):
    first = runs.script_of(SEED)
    file = tmp_path / "history.json"
    file.write_text(script.write(first))
    assert script.read(file) == first


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
    again = runs.play(script.read(told.history)).result
    assert again.failure.startswith("Broken")
    lines = list(told.lines())
    assert f"again: kin-sim run --seed {broken}" in lines
    assert f"again, smaller: kin-sim run --history {told.history}" in lines


def test_the_command_plays_a_file(tmp_path, capsys):
    file = tmp_path / "history.json"
    first = runs.script_of(SEED)
    file.write_text(script.write(first._replace(events=first.events[:3])))
    assert main(["--history", str(file), "--once"]) == 0
    assert f"pass  seed {SEED} " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"version": 2}), '{"version": 1, "options": {}}'])
def test_what_is_no_history_is_told_in_words(tmp_path, capsys, text):
    file = tmp_path / "history.json"
    file.write_text(text)
    assert main(["--history", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_a_missing_file_is_told_in_words(tmp_path, capsys):
    assert main(["--history", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_list_is_made_as_short_as_is_enough():
    assert minimise(list(range(100)), lambda some: {17, 60} <= set(some)) == [17, 60]


def test_events_have_chance_of_their_own():
    first = runs.script_of(SEED)
    assert first.source("deed", 1).random() == first.source("deed", 1).random()
    assert first.source("deed", 1).random() != first.source("deed", 2).random()
