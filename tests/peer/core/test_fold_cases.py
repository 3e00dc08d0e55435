"""What users see after they acted at the same time: the table of architecture 3, row by row, and the counterexamples.

Each case starts from files that all devices hold, lets devices act without knowing of each other, and then lets all
know all, in many orders. Outcomes are written as ``path=token``; ``f(D2)`` is what the conflict suffix by D2 names.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import pytest

from tests.peer.core.devices import Device, Log, token_of

ORDERS = 24
SUFFIX = re.compile(r" \(conflict, (D\d), [0-9a-f]+\)")


class Case(NamedTuple):
    name: str
    start: str
    """Files and directories (ending in ``/``) that all hold, as ``path=token``."""
    acts: dict[int, str]
    """By device: acts separated by ``;``."""
    outcomes: set[str]
    """Each outcome that some order gives; all are reached, and no other."""
    then: tuple[tuple[int, str], ...] = ()
    """Acts of a device that has seen everything, one after the other; all learn of each before the next."""


CASES = [
    # --- Contents
    Case(
        "edit / edit: the first in the log has the name, the other is one copy labelled by its author",
        "f=v",
        {1: "edit f a", 2: "edit f b"},
        {"f=a f(D2)=b", "f=b f(D1)=a"},
    ),
    Case(
        "edit / edit / edit: two copies",
        "f=v",
        {1: "edit f a", 2: "edit f b", 3: "edit f c"},
        {
            "f=a f(D2)=b f(D3)=c",
            "f=b f(D1)=a f(D3)=c",
            "f=c f(D1)=a f(D2)=b",
        },
    ),
    Case("edit / edit to the same bytes: one content", "f=v", {1: "edit f a", 2: "edit f a"}, {"f=a"}),
    Case("touch / touch: attributes alone never conflict", "f=v", {1: "touch f 1", 2: "touch f 2"}, {"f=v"}),
    Case("edit / touch: a touch of replaced bytes is no edit", "f=v", {1: "edit f a", 2: "touch f 1"}, {"f=a"}),
    Case("edits in a row are one line, whatever arrives when", "f=v", {1: "edit f a;edit f b;edit f c"}, {"f=c"}),
    Case("edit and back / edit: what was changed back counts as unchanged", "f=v", {1: "edit f a;edit f v", 2: "edit f b"}, {"f=b"}),
    Case("edit and back, both: unchanged", "f=v", {1: "edit f a;edit f v", 2: "edit f b;edit f v"}, {"f=v"}),
    Case(
        "edit and back beside a copy that its author saw is an edit: he sees what he wrote",
        "f=v",
        {1: "edit f a", 2: "edit f b"},
        {"f=v f(D2)=b", "f=v f(D1)=a"},
        then=((3, "edit f v"),),
    ),
    Case("same file made twice: one file", "", {1: "create f s", 2: "create f s"}, {"f=s"}),
    Case(
        "other files made under one name: the later is suffixed by the author of its place",
        "",
        {1: "create f a", 2: "create f b"},
        {"f=a f(D2)=b", "f=b f(D1)=a"},
    ),
    # --- Contents and removals
    Case("edit / remove: the edit stays", "f=v", {1: "edit f a", 2: "remove f"}, {"f=a"}),
    Case("remove / remove: gone", "f=v", {1: "remove f", 2: "remove f"}, {""}),
    Case("touch / remove: gone, attributes keep nothing", "f=v", {1: "remove f", 2: "touch f 1"}, {""}),
    Case("edit and remove / edit: the other edit stays", "f=v", {1: "edit f a;remove f", 2: "edit f b"}, {"f=b"}),
    Case(
        "remove and make anew / edit: both",
        "f=v",
        {1: "remove f;create f a", 2: "edit f b"},
        {"f=a f(D1)=b", "f=b f(D1)=a"},
    ),
    Case("a file that an edit revived takes its old bytes again", "f=v", {1: "remove f", 2: "edit f b"}, {"f=v"}, then=((1, "edit f v"),)),
    # --- Places
    Case("rename / edit: both", "f=v", {1: "move f g", 2: "edit f b"}, {"g=b"}),
    Case("move / move: the first in the log", "f=v", {1: "move f g", 2: "move f h"}, {"g=v", "h=v"}),
    Case("move / remove: the move stays", "f=v", {1: "move f g", 2: "remove f"}, {"g=v"}),
    Case(
        "move / make at the target: both",
        "f=v",
        {1: "move f g", 2: "create g b"},
        {"g=v g(D2)=b", "g=b g(D1)=v"},
    ),
    Case(
        "two moves to one name: both, suffixed by the author of the place",
        "f=v g=w",
        {1: "move f x", 2: "move g x"},
        {"x=v x(D2)=w", "x=w x(D1)=v"},
    ),
    Case("swap / edit: the edit follows the file", "f=v g=w", {1: "move f x;move g f;move x g", 2: "edit f b"}, {"g=b f=w"}),
    Case(
        "moved over another / edit of that: both", "f=v g=w", {1: "over f g", 2: "edit g b"}, {"g=v g(D1)=b"}
    ),
    Case("moved, and another made in its place / edit", "f=v", {1: "move f g;create f n", 2: "edit f b"}, {"g=b f=n"}),
    # --- Directories
    Case("same directory made twice: one path", "", {1: "mkdir X;create X/a a", 2: "mkdir X;create X/b b"}, {"X/ X/a=a X/b=b"}),
    Case(
        "file / directory of one name: both",
        "",
        {1: "create X a", 2: "mkdir X"},
        {"X=a X(D2)/", "X/ X(D1)=a"},
    ),
    Case("rename of a directory / edit in it", "D/ D/f=v", {1: "move D E", 2: "edit D/f b"}, {"E/ E/f=b"}),
    Case("rename of a directory / new file in it", "D/", {1: "move D E", 2: "create D/n b"}, {"E/ E/n=b"}),
    Case("rename of a directory / rename in it", "D/ D/f=v", {1: "move D E", 2: "move D/f D/g"}, {"E/ E/g=v"}),
    Case("rename of a directory / removal in it", "D/ D/f=v", {1: "move D E", 2: "remove D/f"}, {"E/"}),
    Case("move of a directory cancels its removal for the whole subtree", "D/ D/f=v D/g=w", {1: "move D E", 2: "remove D"}, {"E/ E/f=v E/g=w"}),
    Case(
        "and not another removal in it (F7)",
        "D/ D/f=v D/g=w",
        {1: "remove D", 2: "edit D/f b;remove D/f", 3: "move D E"},
        {"E/ E/g=w"},
    ),
    Case("remove / new file in it: the directory with just that", "D/ D/f=v", {1: "remove D", 2: "create D/n b"}, {"D/ D/n=b"}),
    Case("remove / edit in it: just that", "D/ D/f=v D/g=w", {1: "remove D", 2: "edit D/f b"}, {"D/ D/f=b"}),
    Case("remove and make anew / new file in it: one directory", "D/ D/f=v", {1: "remove D;mkdir D", 2: "create D/n b"}, {"D/ D/n=b"}),
    Case("file becomes directory / edit", "f=v", {1: "remove f;mkdir f", 2: "edit f b"}, {"f/ f(D1)=b", "f=b f(D1)/"}),
    Case("moved out, directory removed / edit", "D/ D/f=v", {1: "move D/f f;remove D", 2: "edit D/f b"}, {"f=b"}),
    Case("moved into what another removes: it stays", "X/ X/x=v Y/", {1: "move X Y/X", 2: "remove Y"}, {"Y/ Y/X/ Y/X/x=v"}),
    # --- Cycles
    Case("A into B / B into A: the later stays where it was", "A/ A/x=v B/", {1: "move A B/A", 2: "move B A/B"}, {"B/ B/A/ B/A/x=v", "A/ A/B/ A/x=v"}),
    Case(
        "a cycle of three: one move is dropped",
        "A/ B/ C/",
        {1: "move A B/A", 2: "move B C/B", 3: "move C A/C"},
        {"C/ C/B/ C/B/A/", "A/ A/C/ A/C/B/", "B/ B/A/ B/A/C/"},
    ),
    Case("A/B turned inside out is no cycle", "A/ A/B/ A/B/x=v", {1: "invert A/B", 2: "edit A/B/x b"}, {"A/ A/B/ A/x=b"}),
    Case(
        "own moves are admitted in an order that closes no cycle (F3)",
        "a/ b/ a/D/ a/D/c/ a/f=v",
        {1: "move a/D b/D;move a b/D/c/a"},
        {"b/ b/D/ b/D/c/ b/D/c/a/ b/D/c/a/f=v"},
    ),
    # --- Copies, and the names of others
    Case("who edits the main file keeps the copy (F1)", "f=v", {1: "edit f a", 2: "edit f b"}, {"f=c f(D2)=b", "f=c f(D1)=a"}, then=((3, "edit f c"),)),
    Case(
        "what is edited keeps its name, however often (F2)",
        "f=v",
        {1: "edit f a", 2: "edit f b"},
        {"f=d f(D2)=b", "f=d f(D1)=a"},
        then=((2, "edit f c"), (1, "edit f d")),
    ),
    Case("removing the main file renames no copy (F4)", "f=v", {1: "edit f a", 2: "edit f b"}, {"f(D2)=b", "f(D1)=a"}, then=((3, "remove f"),)),
    Case("moving the main file moves no copy", "D/ f=v", {1: "edit f a", 2: "edit f b"}, {"D/ D/g=a f(D2)=b", "D/ D/g=b f(D1)=a"}, then=((3, "move f D/g"),)),
    Case(
        "a suffixed file keeps its name when the other leaves (F4)",
        "",
        {1: "create f a", 2: "create f b"},
        {"g=a f(D2)=b", "g=b f(D1)=a"},
        then=((3, "move f g"),),
    ),
    Case(
        "a suffixed file keeps its label when another edits it (F5)",
        "",
        {1: "create f a", 2: "create f b"},
        {"f=a f(D2)=c", "f=b f(D1)=c"},
        then=((3, "edit ~ c"),),
    ),
    Case("a copy that is edited is a file of its own", "f=v", {1: "edit f a", 2: "edit f b"}, {"f=a f(D2)=d", "f=b f(D1)=d"}, then=((1, "edit ~ c"), (2, "edit ~ d"))),
    Case("a copy moved over the main file takes its place", "f=v", {1: "edit f a", 2: "edit f b"}, {"f=b", "f=a"}, then=((3, "over ~ f"),)),
    Case("main and copy removed by two: nothing comes back", "f=v", {1: "edit f a", 2: "edit f b"}, {""}, then=((1, "remove f"), (2, "remove ~"))),
    Case("what was removed stays so when the node is moved (F6)", "f=v", {1: "edit f a;remove f", 2: "edit f b"}, {"g=b"}, then=((1, "move f g"),)),
    Case("kept by a move, then removed by one who has all: gone", "D/ D/f=v", {1: "move D E", 2: "remove D"}, {""}, then=((1, "remove E"),)),
    Case(
        "what a move brought back stays when it is moved on and the rest removed",
        "D/ D/f=v D/g=w",
        {1: "move D E", 2: "remove D"},
        {"f=v"},
        then=((1, "move E/f f"), (1, "remove E")),
    ),
]  # fmt: skip


def perform(device: Device, acts: str) -> None:
    for act in filter(None, acts.split(";")):
        op, *words = act.split()
        words = [next(p for p in sorted(device.paths()) if SUFFIX.search(p)) if word == "~" else word for word in words]
        match op:
            case "mkdir":
                device.create(words[0], "DIR")
            case "touch":
                device.touch(words[0], int(words[1]))
            case "over":
                device.move(words[0], words[1], over=True)
            case _:
                getattr(device, op)(*words)


def outcome(device: Device) -> str:
    shown = []
    for path, item in device.paths().items():
        plain = SUFFIX.sub(r"(\1)", path)
        shown.append(f"{plain}/" if item.is_directory else f"{plain}={token_of(item.content)}")
    return " ".join(sorted(shown))


def run(case: Case, seed: int) -> str:
    chance = random.Random(seed)
    log = Log()
    devices = {number: Device(number, log) for number in (1, 2, 3)}

    def settle() -> None:
        while len(log.ordered) < len(log.entries):
            log.order(chance, 1)
        for device in devices.values():
            device.pull(len(log.ordered))
            device.apply()
        assert len({outcome(device) for device in devices.values()}) == 1

    for path in case.start.split():
        name, _, token = path.rstrip("/").partition("=")
        devices[1].create(name, token or "DIR")
    settle()
    for number, acts in case.acts.items():
        perform(devices[number], acts)
    settle()
    for number, acts in case.then:
        perform(devices[number], acts)
        settle()
    return outcome(devices[1])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_users_see(case):
    """All devices show one of the outcomes, and every outcome is shown in some order."""
    wanted = {" ".join(sorted(each.split())) for each in case.outcomes}
    reached = {run(case, seed) for seed in range(ORDERS)}
    assert reached == wanted
