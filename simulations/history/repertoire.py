"""All that people do and all that goes wrong, by name, with how often each comes among the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple

from simulations.history import commands, deeds, encounters, liars, mischief, oddities, saves, troubles


class Kind(NamedTuple):
    """One kind of action or trouble."""

    do: Callable[..., Awaitable[Any]]
    weight: int
    is_shared: bool = False
    """Whether several people do it."""
    size: int = 1
    """How many actions it comes to, about."""


def _meet(kind: encounters.Encounter, course: Any, chance: Random) -> Awaitable[None]:
    return encounters.meet(course, chance, kind)


DEEDS: Final = {
    "create": Kind(deeds.create, 12),
    "edit": Kind(deeds.edit, 12),
    "append": Kind(deeds.append, 4),
    "patch": Kind(deeds.patch, 4),
    "patch_unseen": Kind(deeds.patch_unseen, 2),
    "text": Kind(deeds.write_text, 4),
    "truncate": Kind(deeds.truncate, 2),
    "make_directory": Kind(deeds.make_directory, 8),
    "rename": Kind(deeds.rename, 8),
    "move": Kind(deeds.move, 10),
    "swap": Kind(deeds.swap, 3),
    "copy": Kind(deeds.copy, 4),
    "copy_in": Kind(deeds.copy_in, 2),
    "remove": Kind(deeds.remove, 6),
    "remove_tree": Kind(deeds.remove_tree, 4),
    "write_again": Kind(deeds.write_again, 4),
    "change_kind": Kind(deeds.change_kind, 3),
    "respell": Kind(deeds.respell, 5),
    "odd_name": Kind(deeds.odd_name, 8),
    "touch": Kind(deeds.touch, 2),
    "set_executable": Kind(deeds.set_executable, 2),
    "make_link": Kind(deeds.make_link, 3),
    "edit_copy": Kind(deeds.edit_copy, 6),
    "put_over": Kind(deeds.put_over, 4),
    "save_over": Kind(saves.over, 4, size=2),
    "save_as_vim": Kind(saves.vim, 3, size=3),
    "save_as_emacs": Kind(saves.emacs, 2),
    "save_as_office": Kind(saves.office, 3, size=4),
    "write_slowly": Kind(saves.slowly, 3, size=2),
    "rotate": Kind(saves.rotate, 2, size=3),
    "sync": Kind(commands.sync, 3),
    "go_offline": Kind(commands.go_offline, 3),
    "stay_offline": Kind(commands.stay_offline, 2),
    "resolve": Kind(commands.resolve, 5),
    "restore": Kind(commands.restore, 2),
    "snapshot": Kind(commands.snapshot, 1),
    **{
        name: Kind(do, oddities.WEIGHTS.get(name, 2), size=oddities.SIZES.get(name, 1))
        for name, do in oddities.ALL.items()
    },
    **{name: Kind(partial(_meet, kind), 2, True, kind.size) for name, kind in encounters.ALL.items()},
    **{name: Kind(do, 2, True, size) for name, (do, size) in encounters.LONG.items()},
}
UNLISTED: Final = ("sync", "go_offline", "stay_offline", "snapshot")
"""Of these no action is noted."""
TROUBLES: Final = {
    "kill": Kind(troubles.kill, 6),
    "cut_power": Kind(troubles.cut_power, 6),
    "crash_soon": Kind(troubles.crash_soon, 8),
    "restart": Kind(troubles.restart, 2),
    "holiday": Kind(troubles.holiday, 1),
    "leave": Kind(troubles.leave, 5),
    "cut": Kind(troubles.cut, 3),
    "clog": Kind(troubles.clog, 3),
    "half_open": Kind(troubles.half_open, 2),
    "reset": Kind(troubles.reset, 3),
    "lose_a_disk": Kind(troubles.lose_a_disk, 2),
    "set_back_coordinator": Kind(troubles.set_back_coordinator, 10),
    "set_back_device": Kind(troubles.set_back_device, 8),
    "jump_clock": Kind(troubles.jump_clock, 4),
    "fail_disk": Kind(troubles.fail_disk, 5),
    "fill_disk": Kind(mischief.fill_disk, 4),
    "far_clock": Kind(mischief.far_clock, 3),
    "sleep": Kind(troubles.sleep, 2),
    "lack": Kind(troubles.lack, 3),
    "island": Kind(mischief.island, 10),
    "split": Kind(mischief.split, 20),
    "lock": Kind(mischief.lock, 5),
    "hide_root": Kind(mischief.hide_root, 2),
    "rot": Kind(mischief.rot, 2),
    "repeat": Kind(mischief.repeat, 2),
    "lie": Kind(liars.lie, 4),
    "spoil": Kind(liars.spoil, 4),
    "garble": Kind(liars.garble, 3),
}
