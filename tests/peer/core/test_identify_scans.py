"""Scans that see only part: unreadable names, listings that are repeated, and looks into some directories alone."""

from __future__ import annotations

import pytest

from peer.core.identify import Identification, Identified
from peer.core.observations import Listing
from simulations.plan.disk import Hash
from tests.peer.core.disks import acts, scanned

# --- What cannot be seen


def test_108_an_unreadable_directory_keeps_its_rows():
    watcher = scanned("D/", "D/f=1", "D/E/", "D/E/g=2", "h=3")
    watcher.disk.unreadable.add("D")
    watcher.disk.write("h", "4")
    watcher.identify()
    assert acts(watcher) == ["Edit h"]


def test_an_unreadable_root_says_nothing():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.unreadable.add("")
    assert watcher.identify() == Identified((), (), (), (), ())


def test_an_unreadable_directory_that_moved_takes_its_rows_along():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.move("D", "E")
    watcher.disk.unreadable.add("E")
    watcher.identify()
    assert acts(watcher) == ["Move D -> E"]


def test_a_new_unreadable_directory_is_an_item_without_children():
    watcher = scanned()
    watcher.disk.mkdir("D")
    watcher.disk.write("D/f", "1")
    watcher.disk.unreadable.add("D")
    watcher.identify()
    assert acts(watcher) == ["Create D"]
    assert watcher.last.wanted == ()


@pytest.mark.parametrize("problem", ["unreadable", "changing", "name"])
def test_a_name_with_a_problem_keeps_its_row(problem):
    watcher = scanned("f=1", "D/", "D/g=2")
    watcher.disk.problems |= {"f": problem, "D": problem}
    watcher.identify()
    assert acts(watcher) == []


def test_a_file_that_cannot_be_read_keeps_its_row_and_is_named():
    watcher = scanned("f=1")
    watcher.disk.write("f", "2")
    watcher.disk.write("n", "3")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(watcher.disk.list(""))
    result = found.result({"f": Hash(b"", watcher.disk.at("f").fingerprint(), problem="unreadable")})
    assert result.unread == (("f", "unreadable"), ("n", "changing"))
    assert result.puts == ()
    assert result.drops == ()


def test_a_file_that_moved_and_cannot_be_read_is_not_removed():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.move("D/f", "g")
    watcher.disk.write("g", "22")
    watcher.disk.remove("D")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    for listing in watcher.disk.scan():
        found.observe(listing)
    assert found.requests() == ("g",)
    assert found.result({}).drops == ()


def test_a_fifo_in_the_place_of_a_file_is_a_removal():
    watcher = scanned("f=1")
    listing = watcher.disk.list("")
    (sighting,) = listing.sightings
    fifo = type(sighting)("f", None, sighting.fingerprint._replace(mode=0o010644))
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(Listing("", (fifo,)))
    assert len(found.result({}).drops) == 1


def test_nothing_that_was_not_listed_is_removed():
    watcher = scanned("D/", "D/f=1")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(watcher.disk.list(""))
    assert found.result({}) == Identified((), (), (), (), ())


# --- Listings that are repeated


def test_a_later_listing_replaces_an_earlier_one():
    watcher = scanned("D/", "D/f=1", "g=2")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    for listing in watcher.disk.scan():
        found.observe(listing)
    watcher.disk.remove("D")
    watcher.disk.mkdir("D")
    watcher.disk.write("D/n", "3")
    for listing in watcher.disk.scan():
        found.observe(listing)
    watcher.local.apply(found.result({path: watcher.disk.hash(path) for path in found.requests()}))
    watcher.check()


def test_the_listing_of_a_directory_that_went_during_the_scan_is_forgotten():
    watcher = scanned("D/", "D/f=1")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    for listing in watcher.disk.scan():
        found.observe(listing)
    watcher.disk.remove("D")
    found.observe(watcher.disk.list(""))
    watcher.local.apply(found.result({}))
    watcher.check()


def test_a_listing_is_forgotten_when_its_directory_was_replaced_during_the_scan():
    watcher = scanned("D/", "D/f=1")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    watcher.disk.remove("D/f")
    for listing in watcher.disk.scan():
        found.observe(listing)
    watcher.disk.move("D", "E")
    watcher.disk.write("E/f", "1")
    watcher.disk.mkdir("D")
    found.observe(watcher.disk.list(""))
    result = found.result({})
    assert result.drops == ()
    assert result.wanted == ("D", "E")


def test_a_directory_that_is_seen_at_two_places_stays_where_it_was():
    watcher = scanned("D/", "D/f=1")
    for name in ("A", "E"):
        watcher.disk.root.names[name] = watcher.disk.at("D")  # as a bind mount shows it
    watcher.disk.write("D/f", "22")
    watcher.identify()
    assert acts(watcher) == ["Edit f"]
    assert watcher.last.undecided == ()
    assert watcher.last.unread == (("A", "unreadable"), ("E", "unreadable"))


def test_a_directory_moves_only_once_its_old_place_was_looked_at():
    watcher = scanned("X/", "X/D/", "X/D/f=1", "Y/")
    watcher.disk.move("X/D", "Y/D")
    watcher.identify("Y", recursive=True)
    assert acts(watcher) == []
    assert watcher.last.undecided == ("X/D", "Y/D")
    watcher.identify("X", "Y", recursive=True)
    assert acts(watcher) == ["Move D -> D"]


def test_a_directory_moves_also_when_all_above_it_went():
    watcher = scanned("X/", "X/E/", "X/E/D/", "X/E/D/f=1", "Y/")
    watcher.disk.move("X/E/D", "Y/D")
    watcher.disk.remove("X")
    watcher.identify("", "Y", "Y/D", recursive=False)
    assert acts(watcher) == ["Move D -> D", "Remove X E"]


def test_what_is_missing_may_stand_in_a_directory_that_was_not_looked_into_yet():
    watcher = scanned("X/", "X/f=1", "g=2")
    watcher.disk.mkdir("N")
    watcher.disk.move("X/f", "N/f")
    watcher.disk.move("g", "N/g")
    watcher.disk.remove("X")
    watcher.identify("", recursive=False)
    assert acts(watcher) == ["Create N"]
    assert watcher.last.undecided == ("X", "g")
    assert watcher.last.wanted == ("N",)
    watcher.identify("", "N", recursive=False)
    assert sorted(acts(watcher)) == ["Create N", "Move f -> f", "Move g -> g", "Remove X"]


def test_what_is_missing_may_stand_in_a_directory_that_is_not_to_be_looked_into_yet():
    watcher = scanned("A/", "A/f=1", "g=2", "X/")
    watcher.disk.move("A", "X/A")
    watcher.disk.move("g", "X/g")
    watcher.disk.write("n", "3")
    watcher.disk.problems |= {"X": "changing"}
    watcher.identify()
    assert acts(watcher) == ["Create n"]
    assert (watcher.last.hides, watcher.last.undecided) == (True, ("A", "g"))
    watcher.disk.problems.clear()
    watcher.identify()
    assert sorted(acts(watcher)) == ["Create n", "Move A -> A", "Move g -> g"]
    assert not watcher.last.hides


def test_what_came_out_of_a_directory_that_is_not_to_be_looked_into_yet_waits():
    watcher = scanned("A/", "A/B/", "A/B/f=1")
    watcher.disk.move("A/B/f", "f")
    watcher.disk.problems |= {"A": "changing"}
    watcher.identify()
    assert acts(watcher) == []
    assert watcher.last.undecided == ("f",)
    watcher.disk.problems.clear()
    watcher.identify()
    assert acts(watcher) == ["Move f -> f"]


def test_what_came_out_of_a_directory_that_cannot_be_read_has_moved_if_it_is_the_same():
    watcher = scanned("A/", "A/f=1", "A/g=2", "B/")
    watcher.disk.move("A/f", "B/f")
    watcher.disk.remove("A/g")
    watcher.disk.write("B/n", "3")  # takes the inode
    watcher.disk.unreadable.add("A")
    assert watcher.identify("B").undecided == ("A/f", "A/g", "B/f", "B/n")
    assert watcher.identify("A", "B").undecided == ()
    assert sorted(acts(watcher)) == ["Create n", "Move f -> f"]
    watcher.disk.unreadable.clear()
    watcher.identify()
    assert sorted(acts(watcher)) == ["Create n", "Move f -> f", "Remove g"]


def test_a_directory_in_the_place_of_one_that_went_elsewhere_is_another():
    watcher = scanned("D/", "D/f=1", "X/")
    watcher.disk.move("D", "X/D")
    watcher.disk.mkdir("D")
    watcher.disk.write("D/n", "2")
    watcher.identify("", "D", recursive=False, moved=["D"])
    assert acts(watcher) == []
    watcher.identify("", recursive=True, moved=["D"])
    assert sorted(acts(watcher)) == ["Create D", "Create n", "Move D -> D"]


def test_a_directory_that_is_told_to_have_gone_is_known_by_its_inode_whatever_is_in_it():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.remove("D/f")
    watcher.disk.write("D/n", "2")
    watcher.disk.move("D", "E")
    watcher.identify("", "E", moved=["D"])
    assert sorted(acts(watcher)) == ["Create n", "Move D -> E", "Remove f"]


# --- Partial scans


def test_single_files_that_vanish_wait_until_their_new_home_can_have_been_seen():
    watcher = scanned("A/", "A/f=1", "B/")
    watcher.disk.move("A/f", "B/f")
    watcher.identify("A", settled=[])
    assert watcher.last.undecided == ("A/f",)
    assert acts(watcher) == []
    watcher.identify("A", "B", settled=["A/f"])
    assert acts(watcher) == ["Move f -> f"]


def test_a_file_that_may_have_come_from_elsewhere_waits():
    watcher = scanned("A/", "A/f=1", "B/")
    watcher.disk.move("A/f", "B/f")
    watcher.identify("B")
    assert watcher.last.undecided == ("A/f", "B/f")
    assert acts(watcher) == []
    watcher.identify("A", "B")
    assert acts(watcher) == ["Move f -> f"]


def test_a_hard_link_elsewhere_is_new_once_the_old_name_was_seen():
    watcher = scanned("A/", "A/f=1", "B/")
    watcher.disk.link("A/f", "B/g")
    watcher.identify("B")
    assert acts(watcher) == []
    watcher.identify("A", "B")
    assert acts(watcher) == ["Create g"]


def test_a_save_seen_half_done_is_an_edit_in_the_end():
    watcher = scanned("f=1")
    watcher.disk.move("f", "f.old")
    watcher.identify("", settled=[])
    assert acts(watcher) == []
    watcher.disk.write("f", "new")
    watcher.identify("", settled=[])
    assert acts(watcher) == []
    watcher.disk.remove("f.old")
    watcher.identify("", settled=["f"])
    assert acts(watcher) == ["Edit f"]


def test_what_moved_and_is_not_where_it_went_has_moved_on():
    watcher = scanned("f=1", "g=2", "D/", "D/h=3", "X/")
    watcher.disk.move("f", "X/f")
    watcher.disk.move("D", "X/D")
    watcher.disk.remove("g")
    watcher.identify("", moved=["f", "D"])
    assert acts(watcher) == ["Remove g"]
    assert watcher.last.undecided == ("D", "f")
    watcher.identify("", "X", moved=["f", "D"], recursive=True)
    assert sorted(acts(watcher)) == ["Move D -> D", "Move f -> f", "Remove g"]


def test_what_was_moved_over_another_file_is_seen_there():
    watcher = scanned("f=1", "g=2")
    watcher.disk.move("f", "g")
    watcher.identify("", moved=["f"])
    assert acts(watcher) == ["Edit g", "Remove f"]
    assert watcher.last.undecided == ()


def test_a_move_over_another_file_is_held_on_both_sides():
    watcher = scanned("f=1", "g=2")
    watcher.disk.move("f", "g")
    watcher.identify("", settled=[])
    assert acts(watcher) == []
    assert watcher.last.undecided == ("f", "g")
    watcher.identify("", settled=["f", "g"])
    assert acts(watcher) == ["Edit g", "Remove f"]


def test_a_swap_that_is_held_is_held_on_both_sides():
    watcher = scanned("f=1", "g=2")
    watcher.disk.swap("f", "g")
    watcher.identify("", settled=["f"])
    assert acts(watcher) == []
    assert watcher.last.undecided == ("f", "g")
    watcher.identify("", settled=["f", "g"])
    assert acts(watcher) == ["Move g -> f", "Move f -> g"]


def test_edits_and_new_files_and_moves_of_directories_are_not_held():
    watcher = scanned("f=1", "g=2", "D/", "D/h=3")
    watcher.disk.write("f", "11")
    watcher.disk.write("tmp", "new")
    watcher.disk.move("tmp", "g")
    watcher.disk.write("n", "4")
    watcher.disk.move("D", "E")
    watcher.identify("", recursive=True, settled=[])
    assert acts(watcher) == ["Move D -> E", "Create n", "Edit f", "Edit g"]


def test_a_directory_that_vanishes_waits_too():
    watcher = scanned("D/", "D/f=1", "X/")
    watcher.disk.move("D", "X/D")
    watcher.identify("", settled=[])
    assert watcher.last.undecided == ("D",)
    assert acts(watcher) == []
    watcher.identify("", "X", settled=["D"], recursive=True)
    assert acts(watcher) == ["Move D -> D"]


@pytest.mark.parametrize("problem", ["changing", "name"])
def test_what_stands_at_a_name_that_is_not_judged_yet_is_not_gone(problem):
    """A name that no rule allows is another thing: what got one is gone for all others."""
    watcher = scanned("f=1", "D/", "D/g=2", "X/", "X/Y/", "X/Y/h=3")
    for old, new in (("f", "new-f"), ("D", "new-D"), ("X/Y", "new-Y")):
        watcher.disk.move(old, new)
    watcher.disk.remove("X")
    watcher.disk.problems |= dict.fromkeys(("new-f", "new-D", "new-Y"), problem)
    watcher.identify("", "D", recursive=False)
    if problem == "name":
        assert acts(watcher) == ["Remove D g", "Remove X Y h", "Remove f"]
        return
    assert acts(watcher) == []
    assert watcher.last.undecided == ("D", "X/Y", "f", "new-D", "new-Y", "new-f")  # both places of each
    watcher.disk.problems.clear()
    watcher.identify("", recursive=True)
    assert sorted(acts(watcher)) == ["Move D -> new-D", "Move Y -> new-Y", "Move f -> new-f", "Remove X"]


def test_what_stands_in_a_directory_that_waits_is_not_gone():
    """Where it came from was not looked at: what went into it waits with it, or it would be removed and made anew."""
    watcher = scanned("D/", "D/f=1", "X/", "X/Y/", "g=2", "h=3")
    for old, new in (("D", "T"), ("X/Y", "D"), ("T", "D/E"), ("g", "D/g"), ("h", "D/E/h")):
        watcher.disk.move(old, new)
    watcher.identify("", "D", "D/E", moved=["X/Y"])
    assert acts(watcher) == []
    assert {"D", "X/Y", "g", "h"} <= set(watcher.last.undecided)
    watcher.identify("", recursive=True, moved=["X/Y"])
    assert sorted(acts(watcher)) == ["Move D -> E", "Move Y -> D", "Move g -> g", "Move h -> h"]


def test_a_directory_that_appears_in_a_scan_that_did_not_enter_it_is_wanted():
    watcher = scanned("f=1")
    watcher.disk.mkdir("D")
    watcher.disk.write("D/g", "2")
    watcher.identify("")
    assert acts(watcher) == ["Create D"]
    assert watcher.last.wanted == ("D",)
    watcher.identify("D", recursive=True)
    assert acts(watcher) == ["Create D", "Create g"]


def test_a_directory_that_may_be_another_one_is_wanted_before_it_is_judged():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.remove("D")
    watcher.disk.write("x", "1")  # takes the inode
    watcher.disk.mkdir("D")
    watcher.identify("")
    assert watcher.last.wanted == ("D",)
    assert acts(watcher) == ["Create x"]
    watcher.identify("", "D")
    assert acts(watcher) == ["Create x", "Remove f"]


def test_a_listing_without_its_parents_is_not_taken_for_another_directory():
    """D was moved away and E is D now: a look into D alone must not remove what stood in it."""
    watcher = scanned("D/", "D/f=1", "E/", "E/g=2")
    watcher.disk.move("D", "X")
    watcher.disk.move("E", "D")
    watcher.identify("D")
    assert acts(watcher) == []
    assert watcher.last.wanted == ("",)


def test_names_that_the_scanner_holds_back_stay_as_they_were():
    """The scanner reports a name that is not to be judged yet as changing, even where nothing stands there."""
    watcher = scanned("f=1")
    watcher.disk.move("f", "g")
    listing = watcher.disk.list("")
    held = type(listing.sightings[0])("f", None, watcher.disk.root.fingerprint(), problem="changing")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=False)
    found.observe(Listing("", (held, *listing.sightings)))
    result = found.result({})
    assert (result.puts, result.drops, result.undecided) == ((), (), ("g",))
