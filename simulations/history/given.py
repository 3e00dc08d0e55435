"""What stands in the folder before most histories begin, on all devices: then whoever meets has something to meet at.

Rule 1: its contents are of tokens that no action draws.
"""

from __future__ import annotations

from typing import Final

from simulations.devices import DeviceMachine
from simulations.history import names
from simulations.history.contents import content

_TOKEN: Final = 1_000_000_000
_BYTES: Final = 40


def give(device: DeviceMachine) -> None:
    """Let a device's user have a few files, directories in directories, and a link."""
    user = device.user
    for name in names.DIRECTORIES:
        user.make_directories(device.path(f"{name}/{name}-in"))
    first, second, third = names.FILES[:3]
    paths = (first, second, third, f"{names.DIRECTORIES[0]}/{first}", f"{names.DIRECTORIES[1]}/{third}")
    for number, path in enumerate(paths):
        user.write(device.path(path), content(_TOKEN + number, _BYTES))
    user.make_link(device.path("kiwi-link"), first)
