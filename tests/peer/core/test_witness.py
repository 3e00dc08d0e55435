"""What the watcher saw, as far as it can be trusted: by name, bounded, and over once a scan has seen everything."""

from __future__ import annotations

from peer.core.witness import NAMES_MAX, Witness
from protocol.effects import DiskEvent, DiskEventKind

GONE, MADE, WRITTEN = DiskEventKind.DELETED, DiskEventKind.CREATED, DiskEventKind.MODIFIED
LEFT, CAME = DiskEventKind.MOVED_FROM, DiskEventKind.MOVED_TO


def witness(*events):
    seen = Witness()
    for kind, path, *directory in events:
        above, _, name = path.rpartition("/")
        seen.handle(DiskEvent(kind, above, name, is_directory=bool(directory)))
    return seen


def move(old, new, cookie):
    for kind, path in ((LEFT, old), (CAME, new)):
        above, _, name = path.rpartition("/")
        yield DiskEvent(kind, above, name, is_directory=True, cookie=cookie)


def test_half_of_a_directory_s_move_is_nothing_heard():
    seen = witness((GONE, "d/gone", True), (LEFT, "d/f"), (LEFT, "d/e", True))
    for event in (*move("a", "b", 1), *move("b", "c", 2)):
        seen.handle(event)
    (half, _), (_, other) = move("g", "h", 3), move("i", "j", 4)
    seen.handle(half)
    seen.handle(other)
    assert [path for path in ("d/gone", "d/f", "a", "b", "c", "j") if not seen.heard_of(path)] == []
    assert [path for path in ("d/e", "d/e/f", "g", "i") if seen.heard_of(path)] == []
    assert seen.saw_go("g"), "whoever did it"
    seen.settle(seen.turn(), [""], {"g"})
    assert (seen.heard_of("a"), seen.heard_of("g")) == (False, False)
    seen.handle(DiskEvent(GONE, "", "g", is_directory=True))
    assert seen.heard_of("g"), "another one of that name was removed"


def test_what_was_deleted_or_moved_away_was_seen_to_go():
    seen = witness((GONE, "d/f"), (LEFT, "g"))
    assert seen.saw_go("d/f")
    assert seen.saw_go("g")
    assert not seen.saw_go("d")
    assert not seen.saw_go("d/other")


def test_a_directory_takes_along_what_is_under_it():
    seen = witness((GONE, "d/e/f"), (LEFT, "d", True))
    assert seen.saw_go("d/e/f")
    assert seen.saw_go("d/never named")


def test_what_came_back_has_to_be_seen_to_go_again():
    seen = witness((GONE, "f"), (MADE, "f"))
    assert not seen.saw_go("f")
    assert seen.saw_written("f")


def test_what_was_written_to_or_put_in_place_was_seen():
    seen = witness((WRITTEN, "f"), (CAME, "g"), (MADE, "d", True), (WRITTEN, "e", True))
    assert all(seen.saw_written(path) for path in ("f", "g", "d/new"))
    assert not seen.saw_written("e/old"), "attributes of a directory say nothing about what is in it"


def test_a_lost_root_or_a_finished_scan_ends_it():
    seen = witness((GONE, "f"))
    turn = seen.turn()
    seen.handle(DiskEvent(GONE, "", "during the scan"))
    assert seen.saw_go("f")
    seen.settle(turn)
    assert not seen.saw_go("f")
    assert seen.saw_go("during the scan")
    seen.handle(DiskEvent(DiskEventKind.ROOT_GONE))
    assert not seen.saw_go("during the scan")


def test_a_scan_of_some_directories_ends_what_it_judged():
    seen = witness((GONE, "d/f"), (GONE, "d/held"), (GONE, "e/f"))
    seen.settle(seen.turn(), ["d"], {"d/held"})
    assert [path for path in ("d/f", "d/held", "e/f") if seen.saw_go(path)] == ["d/held", "e/f"]


def test_it_forgets_what_is_beyond_its_bound_and_then_says_no():
    seen = Witness()
    for number in range(NAMES_MAX + 1):
        seen.handle(DiskEvent(GONE, "d", str(number)))
    assert seen.saw_go(f"d/{NAMES_MAX - 1}")
    assert not seen.saw_go(f"d/{NAMES_MAX}")
    seen.handle(DiskEvent(GONE, "", "d", is_directory=True))  # one name for all of them
    assert seen.saw_go(f"d/{NAMES_MAX}")
