"""The ledger: what it makes of what people do on the disks of a world that does not run."""

from __future__ import annotations

import pytest
from blake3 import blake3

from simulations.history.commands import meaning
from simulations.history.ledger import EMPTY, Back, Decision, Ledger, held, look
from simulations.preparation import prepared
from simulations.world import World


class Scene:
    """Three devices with their disks, and who writes down what happens on them."""

    def __init__(self):
        self.world = World(1, prepared())
        self.ledger = Ledger(3)

    def act(self, number, *steps):
        """Do something on a device's disk, and have it noted as one action."""
        device = self.world.devices[number]
        with self.ledger.acting(device, number, "acts"):
            for method, *args in steps:
                getattr(device.user, method)(device.path(args[0]), *self._paths(device, method, args[1:]))
        return self.ledger.actions[-1]

    def come(self, number, path, data):
        """Let something stand on a device's disk that nobody there did."""
        device = self.world.devices[number]
        device.user.write(device.path(path), data, parents=True)

    def tree(self, number):
        return look(self.world.devices[number])

    @staticmethod
    def _paths(device, method, args):
        return [device.path(args[0])] if method in {"rename", "copy", "link"} else args


def of(data):
    return blake3(data).digest()


@pytest.fixture
def scene():
    return Scene()


def test_an_action_is_what_the_disk_shows_after_it_and_not_before(scene):
    action = scene.act(0, ("write", "a.txt", b"one"), ("make_directory", "D"))
    assert action.came == {"a.txt": of(b"one")}
    assert action.gone == frozenset()
    assert action.touched == {"a.txt", "D"}
    action = scene.act(0, ("write", "a.txt", b"two"))
    assert (action.came, action.gone) == ({"a.txt": of(b"two")}, {of(b"one")})
    assert scene.ledger.contents == {of(b"one"): 0, of(b"two"): 1}
    assert [each.number for each in scene.ledger.makers[of(b"two")]] == [1]
    assert [each.number for each in scene.ledger.enders[of(b"one")]] == [1]
    assert of(b"one") in scene.ledger.replaced
    assert {"a.txt", "D"} <= scene.ledger.names


def test_nobody_owns_the_bytes_of_an_empty_file(scene):
    action = scene.act(0, ("write", "a.txt", b""))
    assert action.came == {}
    assert EMPTY not in scene.ledger.contents
    assert held(scene.tree(0)) == {}


def test_what_is_moved_is_not_gone_and_what_is_copied_was_put_twice(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    moved = scene.act(0, ("rename", "a.txt", "b.txt"))
    assert moved.gone == frozenset()
    assert moved.made == {}
    copied = scene.act(0, ("copy", "b.txt", "c.txt"))
    assert copied.made == {of(b"one"): 1}
    assert scene.ledger.enders == {}


def test_what_stood_at_two_paths_is_removed_with_both_also_where_one_was_exchanged_for_another(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    scene.act(0, ("copy", "a.txt", "c.txt"))
    for path, data in (("a.txt", b"one"), ("b.txt", b"two"), ("c.txt", b"one")):
        scene.come(1, path, data)
    swapped = scene.act(0, ("rename", "a.txt", "x"), ("rename", "b.txt", "a.txt"), ("rename", "x", "b.txt"))
    assert (swapped.made, swapped.added) == ({of(b"one"): 1, of(b"two"): 1}, {})
    scene.act(1, ("write", "a.txt", b"three"))
    assert of(b"one") not in scene.ledger.replaced
    scene.act(0, ("remove", "c.txt"))
    assert of(b"one") in scene.ledger.replaced


def test_a_move_over_another_file_is_a_version_of_that_one(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    over = scene.act(0, ("rename", "a.txt", "b.txt"))
    assert over.made == {of(b"one"): 1}
    assert over.gone == {of(b"two")}


def test_who_removes_one_of_two_places_that_nobody_gave_it_removes_the_content(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(0, "again.txt", b"one")
    scene.act(0, ("remove", "a.txt"))
    assert of(b"one") in scene.ledger.replaced
    assert scene.ledger.enders == {}


def test_what_stood_at_two_paths_is_replaced_once_somebody_ended_each(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("copy", "a.txt", "b.txt"))
    scene.come(1, "a.txt", b"one")
    scene.come(1, "b.txt", b"one")
    scene.act(0, ("remove", "a.txt"))
    assert of(b"one") not in scene.ledger.replaced
    scene.act(1, ("write", "b.txt", b"two"))
    assert of(b"one") in scene.ledger.replaced


@pytest.mark.parametrize("later_ns", [0, 1_000])
def test_what_is_written_over_and_put_back_at_one_instant_was_not_put_there_once_more(scene, later_ns):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("copy", "a.txt", "b.txt"))
    scene.come(1, "a.txt", b"one")
    scene.come(1, "b.txt", b"one")
    scene.act(0, ("write", "a.txt", b"two"))
    scene.world.loop.now_ns += later_ns
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(1, ("write", "a.txt", b"three"))
    assert of(b"one") not in scene.ledger.replaced
    scene.act(0, ("remove", "b.txt"))
    assert (of(b"one") in scene.ledger.replaced) is (later_ns == 0)


def test_who_edits_what_a_conflict_copy_shows_too_replaces_it(scene):
    scene.act(0, ("write", "tmp", b"one"), ("write", "a.txt", b"zero"))
    scene.act(0, ("rename", "tmp", "a.txt"))
    scene.come(0, "a (conflict, device-0, 0123abcd).txt", b"one")
    scene.act(0, ("write", "a.txt", b"two"))
    assert of(b"one") in scene.ledger.replaced


def test_what_a_program_wrote_into_a_file_without_a_name_is_known_and_may_be_gone(scene):
    device = scene.world.devices[0]
    file = device.user.open(device.path("a.txt"))
    device.user.remove(device.path("a.txt"))
    file.write(b"one")
    action = scene.act(0, ("write", "b.txt", b"two"))
    scene.ledger.wrote(file.inode.digest())
    assert scene.ledger.contents[of(b"one")] == action.number
    assert of(b"one") in scene.ledger.excused
    scene.ledger.wrote(of(b"two"))
    assert of(b"two") not in scene.ledger.excused


def test_others_have_seen_what_stood_on_their_disk_when_they_looked(scene):
    first = scene.act(0, ("write", "a.txt", b"one"))
    blind = scene.act(1, ("write", "b.txt", b"two"))
    assert not scene.ledger.had_seen(blind, first, of(b"one"))
    scene.come(1, "a.txt", b"one")
    seeing = scene.act(1, ("write", "b.txt", b"three"))
    assert scene.ledger.had_seen(seeing, first, of(b"one"))
    assert not scene.ledger.had_seen(first, blind, of(b"two"))


def test_nobody_has_seen_what_is_done_later_at_a_path_that_he_knows(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    removal = scene.act(1, ("remove", "a.txt"))
    scene.act(0, ("remove", "a.txt"))
    again = scene.act(0, ("write", "a.txt", b"one"))
    assert not scene.ledger.had_seen(removal, again, of(b"one"))


def test_what_stood_there_before_and_came_back_was_seen_only_by_who_looked_since(scene):
    """Of a file that is moved away and back only a sight of each place tells."""
    scene.come(0, "b.txt", b"one")
    for path in ("a.txt", "b.txt", "a.txt"):
        scene.come(1, path, b"one")
        scene.ledger.see(scene.world.devices[1], 1)
        scene.world.devices[1].user.remove(scene.world.devices[1].path(path))
        scene.ledger.see(scene.world.devices[1], 1)
    assert [len(scene.ledger.sights[1][path, of(b"one")]) for path in ("a.txt", "b.txt")] == [2, 1]
    back = scene.act(0, ("rename", "b.txt", "a.txt"))._replace(time_ns=5)
    removal = scene.act(1, ("write", "c.txt", b"two"))._replace(time_ns=9)
    assert not scene.ledger.had_seen(removal, back, of(b"one"))
    scene.ledger.sights[1]["a.txt", of(b"one")].append(7)
    assert scene.ledger.had_seen(removal, back, of(b"one"))


def test_who_wrote_the_same_himself_has_not_seen_what_another_made_of_it_later(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    other = scene.act(1, ("write", "a.txt", b"one"))
    removal = scene.act(0, ("remove", "a.txt"))
    assert not scene.ledger.had_seen(removal, other, of(b"one"))


def test_what_came_and_went_since_a_time_is_told_whoever_put_it(scene):
    device = scene.world.devices[0]
    scene.act(0, ("write", "a.txt", b"one"), ("write", "stays.txt", b"two"))
    scene.act(1, ("write", "b.txt", b"three"), ("write", "other.txt", b"four"))
    scene.ledger.put[0][of(b"three")] = 0
    device.user.remove(device.path("a.txt"))
    assert scene.ledger.passed(device, 0, 0) == {of(b"one"), of(b"three")}
    assert scene.ledger.passed(device, 0, device.loop.now_ns + 1) == frozenset()


def test_what_somebody_put_there_himself_is_no_sign_that_he_saw_it_of_another(scene):
    other = scene.act(0, ("write", "a.txt", b"one"))
    scene.act(1, ("write", "a.txt", b"one"))
    later = scene.act(1, ("write", "a.txt", b"two"))
    assert not scene.ledger.had_seen(later, other, of(b"one"))


def test_who_puts_something_into_a_directory_touches_its_name(scene):
    scene.act(0, ("make_directory", "D"))
    assert scene.act(0, ("write", "D/a.txt", b"one")).touched == {"D", "a.txt"}


def test_on_one_device_the_later_has_seen_the_earlier(scene):
    first, second = scene.act(0, ("write", "a.txt", b"one")), scene.act(0, ("write", "a.txt", b"two"))
    assert scene.ledger.had_seen(second, first, of(b"one"))
    assert not scene.ledger.had_seen(first, second, of(b"two"))


def test_after_a_rest_everybody_has_seen_everything(scene):
    first = scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.rested(scene.world.devices)
    later = scene.act(2, ("write", "b.txt", b"two"))
    assert scene.ledger.had_seen(later, first, of(b"one"))


def test_of_two_who_wrote_the_same_nobody_knows_whom_a_third_has_seen(scene):
    """The history 7000290."""
    first = scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    seen = scene.act(1, ("write", "b.txt", b"two"))
    assert scene.ledger.had_seen(seen, first, of(b"one"))
    second = scene.act(2, ("write", "a.txt", b"one"))
    later = scene.act(1, ("remove", "a.txt"))
    assert not scene.ledger.had_seen(later, first, of(b"one"))
    assert not scene.ledger.had_seen(later, second, of(b"one"))
    scene.come(2, "c.txt", b"three")
    third = scene.act(0, ("write", "c.txt", b"three"))
    scene.come(1, "c.txt", b"three")
    moved = scene.act(2, ("rename", "c.txt", "d.txt"), ("rename", "d.txt", "c.txt"), ("copy", "c.txt", "d.txt"))
    assert moved.came == {"d.txt": of(b"three")}
    assert scene.ledger.had_seen(scene.act(1, ("remove", "c.txt")), third, of(b"three")), "he had it"
    scene.ledger.rested(scene.world.devices)
    assert scene.ledger.had_seen(scene.act(1, ("write", "b.txt", b"four")), second, of(b"one")), "all were at rest"


def test_what_a_command_is_to_do_counts_before_the_disk_shows_it(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    device = scene.world.devices[0]
    before = scene.ledger.see(device, 0)
    meant = Decision({"a.txt": of(b"two")}, frozenset([of(b"one")]))
    action = scene.ledger.note_by_command(device, 0, "decides", before, meant, since_ns=0)
    assert scene.ledger.makers[of(b"two")][-1] == action == scene.ledger.actions[-1]
    assert action.made == {of(b"two"): 1}, "the history 7000430: also where the copy stays, since somebody moved it"
    assert action.gone == {of(b"one")}
    assert of(b"one") not in scene.ledger.enders, "it stands there yet"
    assert of(b"one") in scene.ledger.replaced
    device.user.remove(device.path("a.txt"))
    action = scene.ledger.note_by_command(device, 0, "decides", before, meant, since_ns=1)
    assert scene.ledger.enders[of(b"one")] == [action]


def test_a_copy_that_went_elsewhere_with_its_directory_is_decided_about_where_it_stands(scene):
    copy = "a (conflict, device-1, 63d0d090).txt"
    scene.act(0, ("make_directory", "E"), ("write", f"E/{copy}", b"one"), ("write", "E/a.txt", b"two"))
    tree = scene.tree(0)
    assert meaning(tree, f"D/{copy}", "D/a.txt", keep=True) == Decision(
        {"E/a.txt": of(b"one")}, frozenset([of(b"two")])
    )
    assert meaning(tree, f"D/{copy}", "D/a.txt", keep=False) == Decision({}, frozenset([of(b"one")]))
    assert meaning(tree, "D/b (conflict, device-1, 63d0d090).txt", "D/b.txt", keep=True) is None
    scene.act(0, ("make_directory", "F"), ("copy", f"E/{copy}", f"F/{copy}"))
    assert meaning(scene.tree(0), f"D/{copy}", "D/a.txt", keep=True) is None, "nobody can tell which of them"


@pytest.mark.parametrize("forgets", [False, True])
def test_a_command_did_nothing_of_what_a_backup_took_away_meanwhile(scene, forgets):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    device = scene.world.devices[0]
    before = scene.ledger.see(device, 0)
    device.user.remove(device.path("b.txt"))
    scene.ledger.backs[0] = Back(5, scene.tree(0), forgets)
    device.user.remove(device.path("a.txt"))
    scene.ledger.note_by_command(device, 0, "restores", before, since_ns=5)
    assert not scene.ledger.enders.get(of(b"one"))
    assert of(b"two") in scene.ledger.replaced
    assert len(scene.ledger.enders[of(b"two")]) == (not forgets), "of what it knows nothing of, nobody may ever hear"
    meant = Decision({"a.txt": of(b"two")}, frozenset([of(b"one")]))
    scene.ledger.note_by_command(device, 0, "decides", before, meant, since_ns=5)
    assert not scene.ledger.enders.get(of(b"one"))
    scene.ledger.note_by_command(device, 0, "restores", before, since_ns=6)
    assert scene.ledger.enders[of(b"one")], "nothing was put back since then"


def test_what_a_device_removed_since_its_backup_may_come_back(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("remove", "a.txt"))
    scene.ledger.forget_removals(1, 0, ())
    assert scene.ledger.enders[of(b"one")]
    scene.ledger.forget_removals(0, 0, ())
    assert not scene.ledger.enders[of(b"one")]


@pytest.mark.parametrize(
    ("others", "rests", "is_known"), [((), 0, True), ((of(b"one"),), 0, False), ((of(b"one"),), 1, True)]
)
def test_what_a_device_removed_before_its_backup_may_come_back_if_nobody_had_heard_of_it(
    scene, others, rests, is_known
):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("remove", "a.txt"))
    for _ in range(rests):
        scene.ledger.rested(scene.world.devices)
    scene.ledger.forget_removals(0, scene.ledger.actions[-1].time_ns + 1, others)
    assert bool(scene.ledger.enders[of(b"one")]) is is_known


def test_what_vanishes_while_rules_leave_it_out_was_removed_by_nobody(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    scene.ledger.ignored[0].add("a.txt")
    action = scene.act(0, ("remove", "a.txt"), ("remove", "b.txt"))
    assert action.gone == {of(b"one"), of(b"two")}
    assert not scene.ledger.enders.get(of(b"one"))
    assert scene.ledger.enders[of(b"two")] == [action]


def test_what_was_said_to_be_safe_keeps_its_first_time(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.acknowledge(scene.tree(0), 5)
    scene.ledger.acknowledge(scene.tree(0), 9)
    assert scene.ledger.acknowledged == {of(b"one"): 5}


def test_a_restore_removes_nothing_that_rules_leave_out_by_then(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    device = scene.world.devices[0]
    before = scene.ledger.see(device, 0)
    for name in ("a.txt", "b.txt"):
        device.user.remove(device.path(name))
    scene.ledger.ignored[0].add("a.txt")
    action = scene.ledger.note_by_command(device, 0, "restores", before, Decision({}, frozenset()), since_ns=0)
    assert not scene.ledger.enders.get(of(b"one"))
    assert scene.ledger.enders[of(b"two")] == [action]
