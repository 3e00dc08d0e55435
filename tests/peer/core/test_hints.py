"""When what is looked at: the one-second rule, without a second of waiting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.hints import (
    DEBOUNCE_S,
    GONE_S,
    HELD_MAX,
    HOLD_S,
    HOLD_S_MAX,
    SPOTS_MAX,
    Hints,
    Look,
    Settled,
    Spot,
    is_temporary_name,
)
from protocol.effects import DiskEvent, DiskEventKind

K = DiskEventKind
SOON = DEBOUNCE_S


def event(kind, directory="", name="", *, is_directory=False, cookie=0):
    return DiskEvent(kind, directory, name, is_directory, cookie)


def looks(*timed, until=30.0):
    """Feed timed events and return (time, look) for every look, each made as soon as it is due."""
    hints = Hints()
    made: list[tuple[float, Look]] = []
    events = sorted(timed, key=lambda one: one[0])
    now = 0.0
    while True:
        times = [t for t in (hints.next_deadline(), events[0][0] if events else None) if t is not None]
        if not times or min(times) > until:
            return made
        now = max(now, min(times))
        while events and events[0][0] <= now:
            hints.handle(events.pop(0)[1], now)
        look = hints.due(now)
        if look is not None:
            made.append((round(now, 3), look))


def spots(*paths):
    return tuple(Spot(path, recursive) for path, recursive in paths)


@pytest.mark.parametrize(
    ("what", "events", "expected"),
    [
        ("a creation", [event(K.CREATED, "d", "f")], [(SOON, spots(("d", False)), set())]),
        ("an edit", [event(K.MODIFIED, "d", "f")], [(SOON, spots(("d", False)), set())]),
        ("half of a save", [event(K.CREATED, "d", "f.tmp")], [(HOLD_S, spots(("d", False)), set())]),
        (
            "a file beside half of a save",
            [event(K.CREATED, "d", "f.tmp"), event(K.CREATED, "d", "g"), event(K.MODIFIED, "d", "f.tmp")],
            [(SOON, spots(("d", False)), {"d/f.tmp"}), (HOLD_S, spots(("d", False)), set())],
        ),
        ("a new directory", [event(K.APPEARED, "d")], [(SOON, spots(("d", True)), set())]),
        ("a removal", [event(K.DELETED, "d", "f")], [(HOLD_S, spots(("d", False)), set())]),
        ("a removed directory", [event(K.DELETED, "", "d", is_directory=True)], [(GONE_S, spots(("", False)), set())]),
        (
            "a removed directory, with what was in it",
            [
                event(K.DELETED, "d/e", "f"),
                event(K.DELETED, "d", "e", is_directory=True),
                event(K.DELETED, "d", "g"),
                event(K.DELETED, "", "d", is_directory=True),
            ],
            [(GONE_S, spots(("", False), ("d", False), ("d/e", False)), set())],
        ),
        (
            "a removed directory, and a removed file elsewhere: all are released together",
            [
                event(K.DELETED, "d", "f"),
                event(K.DELETED, "", "d", is_directory=True),
                event(K.DELETED, "e", "g"),
            ],
            [(HOLD_S, spots(("", False), ("d", False), ("e", False)), set())],
        ),
        (
            "a directory that is written anew",
            [
                event(K.DELETED, "d", "f"),
                event(K.DELETED, "", "d", is_directory=True),
                event(K.CREATED, "", "d", is_directory=True),
                event(K.APPEARED, "d"),
            ],
            [
                (SOON, spots(("", False), ("d", True)), {"d", "d/f"}),
                (HOLD_S, spots(("", False), ("d", False)), set()),
            ],
        ),
        (
            "a moved file: both ends by one scan",
            [event(K.MOVED_FROM, "d", "f", cookie=1), event(K.MOVED_TO, "e", "g", cookie=1)],
            [(HOLD_S, spots(("d", False), ("e", False)), set())],
        ),
        (
            "a moved directory: at once",
            [
                event(K.MOVED_FROM, "a", "d", cookie=1, is_directory=True),
                event(K.MOVED_TO, "b", "e", cookie=1, is_directory=True),
            ],
            [(SOON, spots(("a", False), ("b", False), ("b/e", True)), set())],
        ),
        (
            "a directory moved away: like a removal",
            [event(K.MOVED_FROM, "a", "d", cookie=1, is_directory=True)],
            [(HOLD_S, spots(("a", False)), set())],
        ),
        (
            "a directory moved in",
            [event(K.MOVED_TO, "a", "d", cookie=1, is_directory=True)],
            [(SOON, spots(("a", False), ("a/d", True)), set())],
        ),
        (
            "a creation beside a removal: the scan leaves the removed name out",
            [event(K.DELETED, "d", "f"), event(K.CREATED, "d", "g")],
            [(SOON, spots(("d", False)), {"d/f"}), (HOLD_S, spots(("d", False)), set())],
        ),
        ("lost events", [event(K.OVERFLOW)], [(SOON, (), set())]),
        ("lost watches", [event(K.DEGRADED)], [(SOON, (), set())]),
        ("a lost root", [event(K.ROOT_GONE)], [(SOON, (), set())]),
    ],
)
def test_when_and_where(what, events, expected):
    found = [(at, look.spots, set(look.unsettled)) for at, look in looks(*((0.0, one) for one in events))]
    assert found == [(pytest.approx(at, abs=0.001), where, unsettled) for at, where, unsettled in expected]


def test_vim_saves_and_no_scan_judges_the_name_in_between():
    """Case 91: 4913 comes and goes, f becomes f~, f is written anew, f~ goes."""
    made = looks(
        (0.00, event(K.CREATED, "", "4913")),
        (0.01, event(K.DELETED, "", "4913")),
        (0.06, event(K.MOVED_FROM, "", "f", cookie=1)),
        (0.06, event(K.MOVED_TO, "", "f~", cookie=1)),
        (0.20, event(K.CREATED, "", "f")),
        (0.21, event(K.MODIFIED, "", "f")),
        (0.22, event(K.DELETED, "", "f~")),
    )
    for at, look in made[:-1]:
        assert at < 1.2
        assert at < 0.06 or {"f", "f~"} <= look.unsettled
    assert made[-1][0] == pytest.approx(0.22 + HOLD_S)
    assert not made[-1][1].unsettled


def test_a_chain_of_moves_is_judged_by_one_scan():
    """A file moved twice within its second is not missed between its second and its third place."""
    made = looks(
        (0.0, event(K.MOVED_FROM, "a", "f", cookie=1)),
        (0.0, event(K.MOVED_TO, "b", "f", cookie=1)),
        (0.8, event(K.MOVED_FROM, "b", "f", cookie=2)),
        (0.8, event(K.MOVED_TO, "c", "f", cookie=2)),
    )
    places = spots(("a", False), ("b", False), ("c", False))
    assert made == [(1.8, Look(full=False, spots=places, unsettled=frozenset(), moved=frozenset({"a/f", "b/f"})))]


def test_names_that_never_rest_are_released_after_their_own_second():
    churn = [(n * 0.5, event(K.DELETED, "d", f"f{n}")) for n in range(60)]
    made = looks(*churn)
    first = made[0]
    assert first[0] == pytest.approx(HOLD_S_MAX, abs=0.5)
    assert all(float(path[3:]) * 0.5 + HOLD_S > at for at, look in made for path in look.unsettled)


def test_held_names_move_with_their_directory():
    made = looks(
        (0.0, event(K.DELETED, "d", "f")),
        (0.1, event(K.MOVED_FROM, "", "d", cookie=1, is_directory=True)),
        (0.1, event(K.MOVED_TO, "", "e", cookie=1, is_directory=True)),
    )
    assert made[0][1].unsettled == {"e/f"}
    assert made[-1][1].spots == spots(("e", False))


def test_a_directory_that_changes_all_the_time_is_looked_at_ever_less_often():
    made = looks(*((n * 0.01, event(K.MODIFIED, "", "log")) for n in range(1000)))
    times = [at for at, _ in made]
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert max(gaps) == pytest.approx(2.0, abs=0.1)
    assert len(made) < 15


def test_a_directory_that_was_quiet_is_looked_at_at_once_again():
    made = looks((0.0, event(K.MODIFIED, "", "f")), (5.0, event(K.MODIFIED, "", "f")))
    assert [at for at, _ in made] == [pytest.approx(SOON), pytest.approx(5 + SOON)]


def test_too_many_places_become_one_full_scan():
    made = looks(*((0.0, event(K.CREATED, f"d{n}", "f")) for n in range(SPOTS_MAX + 1)))
    assert [(look.full, look.spots) for _, look in made] == [(True, ())]


def test_too_many_held_names_become_one_full_scan_when_they_rest():
    made = looks(*((n / HELD_MAX, event(K.DELETED, "d", str(n))) for n in range(HELD_MAX + 10)))
    assert made[0][1].full
    assert made[0][0] >= 1.0 + HOLD_S - 0.01


def test_a_full_scan_of_another_cause_forgets_the_hints():
    hints = Hints()
    hints.handle(event(K.DELETED, "", "f"), 0.0)
    hints.handle(event(K.CREATED, "", "g"), 0.0)
    hints.clear()
    assert hints.next_deadline() is None
    assert hints.due(9.0) is None


EVENTS = st.builds(
    DiskEvent,
    kind=st.sampled_from(list(K)),
    directory=st.sampled_from(["", "a", "a/b", "c"]),
    name=st.sampled_from(["x", "y", "b"]),
    is_directory=st.booleans(),
    cookie=st.integers(0, 3),
)


@given(st.lists(st.tuples(st.floats(0, 5), EVENTS), max_size=40))
def test_every_event_is_looked_at_in_the_end_and_then_all_is_quiet(timed):
    """After the last event, its directory is scanned once more with nothing unsettled, and no deadline remains."""
    made = looks(*timed, until=1000.0)
    if not timed:
        assert made == []
        return
    assert made
    assert not made[-1][1].unsettled
    for at, one in timed:
        assert any(
            time >= at
            and (look.full or (one.directory in {spot.path for spot in look.spots}) or one.kind is K.APPEARED)
            for time, look in made
        ) or _moved(one, timed)


def _moved(one, timed):
    """Whether a directory move may have carried the hint to another path."""
    return any(other.is_directory and other.kind in {K.MOVED_FROM, K.MOVED_TO} for _, other in timed)


def test_both_ends_of_a_directory_s_moves_are_looked_at_by_one_scan():
    """Also where one end is a busy place that is looked at less often, and the directory has moved on meanwhile."""

    def moved(at, old, new, cookie):
        one, two = old.rpartition("/"), new.rpartition("/")
        return [
            (at, event(K.MOVED_FROM, one[0], one[2], cookie=cookie, is_directory=True)),
            (at, event(K.MOVED_TO, two[0], two[2], cookie=cookie, is_directory=True)),
        ]

    busy = [(at / 10, event(K.MODIFIED, "busy", "f")) for at in range(20)]
    early = [(1.99, event(K.MODIFIED, "from", "f"))]
    made = looks(*busy, *early, *moved(2.0, "from/d", "busy/d", 1), *moved(2.02, "busy/d", "to/d", 2))
    after = [{spot.path for spot in look.spots} for at, look in made if at > 2.0]
    ends = {"from", "busy", "to", "to/d"}
    assert [ends <= paths for paths in after if paths & {"from", "to", "to/d"}][:1] == [True]


def test_what_is_untold_is_what_a_scan_may_miss_though_it_stands_elsewhere():
    hints = Hints()
    for one in (
        event(K.DELETED, "", "gone"),
        event(K.MOVED_FROM, "D", "f", cookie=1),
        event(K.MOVED_TO, "", "g", cookie=1),
        event(K.MOVED_FROM, "D", "away", cookie=2),
        event(K.MOVED_FROM, "", "E", cookie=3, is_directory=True),
        event(K.MOVED_TO, "X", "E", cookie=3, is_directory=True),
    ):
        hints.handle(one, 0.0)
    assert hints.untold() == {"gone", "D/f", "g", "D/away", "E"}
    assert hints.untold(moved=True) == {"D/f", "E"}
    hints.handle(event(K.MOVED_FROM, "", "D", cookie=4, is_directory=True), 0.0)
    hints.handle(event(K.MOVED_TO, "X", "D", cookie=4, is_directory=True), 0.0)
    assert hints.untold(moved=True) == {"X/D/f", "D", "E"}
    while (deadline := hints.next_deadline()) is not None:
        hints.due(deadline)
    assert hints.untold() == hints.untold(moved=True) == set()


def test_a_name_in_a_directory_that_went_elsewhere_is_not_settled():
    hints = Hints()
    for one in (
        event(K.MOVED_FROM, "D/E", "f", cookie=1),
        event(K.MOVED_TO, "", "f", cookie=1),
        event(K.MOVED_FROM, "", "D", cookie=2, is_directory=True),
        event(K.MOVED_TO, "X", "D", cookie=2, is_directory=True),
    ):
        hints.handle(one, 0.0)
    settled = Settled(lambda _: True)
    settled.untold = hints.untold()
    assert [path in settled for path in ("D/E/f", "X/D/E/f", "X/D/E/g", "D", "g")] == [False, False, True, False, True]


def test_a_look_tells_what_moved_to_where_it_looks_and_was_not_removed_there():
    made = looks(
        (0.0, event(K.MOVED_FROM, "", "D", cookie=1, is_directory=True)),
        (0.0, event(K.MOVED_TO, "X", "D", cookie=1, is_directory=True)),
        (0.1, event(K.MOVED_FROM, "", "f", cookie=2)),
        (0.1, event(K.MOVED_TO, "X/D", "g", cookie=2)),
        (0.2, event(K.MOVED_FROM, "", "h", cookie=3)),
        (0.2, event(K.MOVED_TO, "X/D", "i", cookie=3)),
        (0.3, event(K.DELETED, "X/D", "i")),
    )
    assert [set(look.moved) for _, look in made] == [{"D"}, {"f"}]


def test_until_all_is_looked_at_that_is_wanted():
    hints = Hints()
    wanted = [hints.wants_everything]
    hints.look_everywhere(100.0)
    wanted.append(hints.wants_everything)
    assert hints.due(100.0 + DEBOUNCE_S) == Look(full=True, spots=(), unsettled=frozenset())
    assert [*wanted, hints.wants_everything] == [False, True, False]


@pytest.mark.parametrize(
    "name",
    [
        *("x.tmp", "film.mkv.part", "film.mkv.crdownload", "a.txt___jb_tmp___", "a.txt~", ".a.txt.q8Zt2a"),
        *("notes.txt.qXvR1s", "5D3B2A00", "sedA1b2C3", "4913", "odd\n.tmp"),
    ],
)
def test_names_of_halves_of_saves_wait_a_moment(name):
    assert is_temporary_name(name)


@pytest.mark.parametrize(
    "name", ["a.txt", "photo.sqlite", "README", "a.tar.gz", "2024", "x.tmpl", ".bashrc", "ABCDEF", "tmp"]
)
def test_other_names_go_at_once(name):
    assert not is_temporary_name(name)
