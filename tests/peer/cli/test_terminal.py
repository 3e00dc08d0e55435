"""What people see and are asked at a terminal."""

from __future__ import annotations

import re

import pytest

from peer.commands.tables import moment
from peer.commands.terminal import safe
from tests.peer.cli.conftest import Kin, Terminal, wait_for

INIT = ("init", "--coordinator", "ws://127.0.0.1:9", "--user", "anna", "--device", "Laptop", "--no-keyring")
QUESTION = "Pho\\x1bne wants to join. Does it show 123 456 too? [y/N] "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, müß, 文字, 👩\u200d👧", "plain, müß, 文字, 👩\u200d👧"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("c1 \x9b31m", "c1 \\x9b31m"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_text_that_could_mislead_is_shown_as_escapes(text, shown):
    assert safe(text) == shown


def test_a_moment_that_is_none_is_shown_as_it_came():
    assert (moment(None), moment("soon")) == ("never", "soon")


def test_the_words_are_shown_once_and_three_are_asked_back(place):
    kin = Kin(place / "home")
    screen = Terminal(kin.command(*INIT))
    screen.expect("\x1b[?1049h")
    page = screen.expect("Press Enter once they are on paper: ")
    words = dict(re.findall(r"(\d+) (word\d+)", page))
    assert len(words) == 24
    screen.type("\n")
    screen.expect("\x1b[?1049l")
    for attempt in range(3):
        number = screen.expect("? ").split()[-1].rstrip("?")
        if attempt == 0:
            screen.type("wrong\n")
            screen.expect("Look at the paper")
            screen.expect(f"Word {number}? ")
        screen.type(f" {words[number].upper()}\n")
    code, seen = screen.end()
    assert code == 0
    assert "Laptop is the first device of anna" in seen


def test_ctrl_c_at_a_question_exits_130_and_says_where_that_leaves_the_account(place):
    screen = Terminal(Kin(place / "home").command(*INIT))
    screen.expect("Press Enter once they are on paper: ")
    screen.type("\x03")
    code, seen = screen.end()
    assert code == 130
    assert "if its words are not on paper" in seen
    assert "Traceback" not in seen


@pytest.mark.parametrize("with_agent", [True, False])
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1)])
def test_linking_asks_both_people_to_compare_six_digits(kin, place, with_agent, answer, code):
    if with_agent:
        kin.agent()
    shows = Terminal(kin.command("link-code"))
    assert shows.expect("\r\n") == "7-amber-lion-tree\r\n"
    shows.expect(QUESTION)
    shows.type(f"{answer}\n")
    got, seen = shows.end()
    assert got == code
    assert ("Phone is now a device" in seen) == (code == 0)
    assert ("the digits differ" in seen) == (code == 1)


def test_the_new_device_asks_too(place):
    joins = Terminal(Kin(place / "new").command("link", "7-amber-lion-tree", "--device", "Phone"))
    joins.expect("Does the other device show 123 456 too? [y/N] ")
    joins.type("n\n")
    code, seen = joins.end()
    assert code == 1
    assert "the digits differ" in seen


def test_progress_is_drawn_at_a_terminal_and_taken_away_again(served):
    screen = Terminal(served.command("get", "photos", "/somewhere/photos"))
    code, seen = screen.end()
    assert code == 0
    assert "fetching photos" in seen
    assert "3.0/3.0 MB" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1
    assert served("remove", "photos").returncode == 0


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(served, env, coloured):
    code, seen = Terminal(served.command("status"), **env).end()
    assert code == 0
    assert ("\x1b[" in seen) == coloured


def test_ctrl_c_ends_a_command_at_a_terminal(kin):
    assert kin("add", "endless").returncode == 0
    screen = Terminal(kin.command("sync"))
    wait_for(kin.home / "syncing")
    screen.type("\x03")
    code, seen = screen.end()
    assert code == 130
    assert "Traceback" not in seen


def test_a_passphrase_is_asked_for_without_showing_it(place):
    kin = Kin(place / "sealed")
    kin.make_device(sealed=True)
    assert kin("folders").returncode == 2
    for typed, code in (("secret\n", 0), ("wrong\n", 1), ("\x03", 130), ("\x04", 1)):
        screen = Terminal(kin.command("folders"))
        screen.expect("Passphrase: ")
        screen.type(typed)
        got, seen = screen.end()
        assert got == code
        assert "secret" not in seen
        assert "Traceback" not in seen


def test_ctrl_c_at_the_passphrase_ends_the_agent_too(place):
    kin = Kin(place / "sealed")
    kin.make_device(sealed=True)
    screen = Terminal(kin.agent_command())
    screen.expect("Passphrase: ")
    screen.type("\x03")
    code, seen = screen.end()
    assert (code, seen.strip()) == (130, "")
