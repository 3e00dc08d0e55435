"""What devices may show otherwise than others do: invariant 2."""

from __future__ import annotations

from simulations.checks import trees
from simulations.history.ledger import look
from simulations.personalities import PERSONALITIES
from simulations.preparation import prepared
from simulations.world import World
from tests.simulations.test_checks import breaks


def test_2_what_a_disk_has_no_name_for_keeps_the_one_that_it_had():
    kinds = [PERSONALITIES[name] for name in ("plain", "mac", "plain")]

    async def story(world):
        one, two, three = world.devices
        for device in world.devices:
            device.user.write(device.path("a.txt"), b"one")
        for device in (one, three):
            device.user.write(device.path("A.TXT"), b"two")
        two.user.write(two.path("old"), b"two")
        trees.check_convergence(world, [look(device) for device in world.devices])
        two.user.write(two.path("old"), b"three")
        with breaks(2):
            trees.check_convergence(world, [look(device) for device in world.devices])

    World(1, prepared(), personalities=kinds).run(story)


def folding(*plain):
    """Have these stand on two devices, files but what ends in a slash; compare with what stands on a disk that folds case."""

    def compare(*there, kind="mac"):
        async def story(world):
            one, two, three = world.devices
            for device, paths in ((one, plain), (two, there), (three, plain)):
                for path in paths:
                    name, _, content = path.partition("=")
                    if name.endswith("/"):
                        device.user.make_directories(device.path(name[:-1]))
                    else:
                        device.user.write(device.path(name), content.encode(), parents=True)
            trees.check_convergence(world, [look(device) for device in world.devices])

        World(1, prepared(), personalities=[PERSONALITIES[name] for name in ("plain", kind, "plain")]).run(story)

    return compare


def test_2_a_disk_that_folds_names_shows_all_that_has_a_place_there():
    compare = folding("a.txt=one", "D/b.txt=two", "E/")
    compare("a.txt=one", "D/b.txt=two", "E/")
    compare("A.TXT=one", "d/b.txt=two", "e/", "E/~1.tmp=three")
    for there in (
        (),
        ("a.txt=one", "D/b.txt=two"),
        ("a.txt=one", "D/", "E/"),
        ("a.txt=two", "D/b.txt=two", "E/"),
        ("a.txt=one", "D/b.txt=two", "E=one"),
    ):
        with breaks(2):
            compare(*there)


def test_2_what_has_no_place_on_a_disk_excuses_nothing_else():
    compare = folding("a.txt=one", "A.TXT=two", "D/c.txt=three", "d/c.txt=four", "E/b.txt=five", "F/")
    compare("a.txt=one", "D/c.txt=three", "E/b.txt=five", "F/")
    compare("A.txt=two", "d/c.txt=four", "old/c.txt=three", "E/b.txt=five", "F/")
    compare("A.txt=two", "d/c.txt=four", "old/", "E/b.txt=five", "F/")
    compare("A.txt=two", "d/", "E=one", "F/")  # where what was renamed stands, nothing else can
    for there in (
        ("a.txt=one", "D/c.txt=three", "E/b.txt=five"),
        ("a.txt=one", "D/c.txt=three", "F/"),
        ("a.txt=one", "D/c.txt=three", "E/b.txt=five", "F/", "x/", "y/", "z/"),
        ("D/c.txt=three", "E/b.txt=six", "F/"),
    ):
        with breaks(2):
            compare(*there)


def test_2_a_name_that_a_disk_refuses_is_missed_by_nobody():
    compare = folding("a.txt=one", "\udcff/b.txt=two", "\u0151" * 100 + "=three")
    compare("a.txt=one", "\u0151" * 100 + "=three")
    compare("a.txt=one", kind="old-mac")
    with breaks(2):
        compare("\u0151" * 100 + "=three")
    with breaks(2):
        compare("a.txt=one")


def test_2_a_directory_may_stay_for_what_never_leaves_its_device():
    async def story(world):
        one, two, _ = world.devices
        one.user.write(one.path("D/E/~1.tmp"), b"one", parents=True)
        trees.check_convergence(world, [look(device) for device in world.devices])
        two.user.make_directories(two.path("D/F"))
        with breaks(2):
            trees.check_convergence(world, [look(device) for device in world.devices])
        two.user.remove_directory(two.path("D/F"))
        two.user.remove_directory(two.path("D"))
        one.user.make_directory(one.path("D/F"))
        with breaks(2):
            trees.check_convergence(world, [look(device) for device in world.devices])

    World(1, prepared()).run(story)
