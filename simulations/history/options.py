"""What a seed decides before anything happens: the machines, the kinds of action, the kinds of fault and their rates.

Rule 1: swarm style: each history leaves out much of what could happen, so that the rest meets itself more often.
Rule 2: what is drawn is printed, and the seed alone gives it again.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES, Personality
from simulations.watcher import FINE, Weather

ACTIONS_MIN: Final = 30
ACTIONS_MAX: Final = 31
FAULTS_MIN: Final = 3
FAULTS_MAX: Final = 4
DEVICES: Final = (3,) * 17 + (4,) * 2 + (5,)
NODES: Final = 3
KEPT_SHARE: Final = 0.6
"""How many kinds of action and of fault a history keeps."""
PAUSES_S: Final = {
    "storm": (0.0, 0.0, 0.02, 0.1),
    "rushed": (0.0, 0.05, 0.3),
    "brisk": (0.05, 0.5, 2.0),
    "mixed": (0.0, 0.5, 5.0, 60.0),
    "slow": (1.0, 10.0, 120.0),
}
"""By name, what people wait between two actions, at most."""
_PAUSES: Final = ("storm",) * 12 + ("rushed",) * 5 + ("brisk", "mixed", "slow")
REST_SHARE: Final = 0.1
"""How many histories come to rest once in between."""
RESTART_SHARE: Final = 0.25
"""How many histories end with a restart of everything."""
GIVEN_SHARE: Final = 0.8
"""How many histories begin with something in the folder, and devices that have their numbers in it."""
LANS: Final = ("apart", "apart", "together", "mixed")
"""Which devices hear each other without a coordinator."""
PERSONAL: Final = ("plain", "plain", "plain", "weak", "old-kernel", "no-exchange", "by-link", "network")
"""File systems that can hold whatever a Linux disk holds."""
FOLDING: Final = ("mac", "old-mac")
"""File systems for which some names are one."""
_PLAIN_SHARE: Final = 0.7
"""How many histories have no disk that takes some names for one."""
WEATHERS: Final = {
    "fine": FINE,
    "late": Weather(late_s=3.0),
    "mixed": Weather(late_s=0.5, mixes_directories=True, repeated=0.2, merged=0.3),
    "lossy": Weather(late_s=0.5, lost=0.3),
    "flooded": Weather(late_s=0.2, overflows=0.2),
}


class Options(NamedTuple):
    """What one history is like."""

    seed: int
    devices: int
    personalities: tuple[str, ...]
    lans: tuple[int, ...]
    """The LAN that each device is on."""
    weather: str
    schedule: Schedule
    actions: int
    pauses: str
    deeds: tuple[tuple[str, int], ...]
    """Kinds of action, with how often each comes among the others."""
    faults: int
    troubles: tuple[tuple[str, int], ...]
    """Kinds of fault, likewise."""
    rests: bool
    """Whether everything comes to rest once in between."""
    restarts: bool
    """Whether everything is started again at the end."""
    is_given: bool = False
    """Whether something stands in the folder before all begins, and every device wrote there before."""

    def kinds(self) -> list[Personality]:
        """Return the devices' file systems."""
        return [PERSONALITIES[name] for name in self.personalities]

    def lines(self) -> list[str]:
        """Return the options for a person."""
        return [
            f"devices: {self.devices} ({', '.join(self.personalities)}), nodes: {NODES}",
            f"LANs: {self.lans}, schedule: {self.schedule.value}, watchers: {self.weather}, pauses: {self.pauses}",
            f"begins with files: {self.is_given}, rests in between: {self.rests}, restarts at the end: {self.restarts}",
            f"actions: {self.actions} of {', '.join(name for name, _ in self.deeds)}",
            f"faults: {self.faults} of {', '.join(name for name, _ in self.troubles)}",
        ]


def draw(seed: int, deeds: dict[str, int], troubles: dict[str, int]) -> Options:
    """Return the options of a seed.

    Args:
        seed: Of the history.
        deeds: All kinds of action, with how often each comes.
        troubles: All kinds of fault, likewise.
    """
    chance = Random(f"{seed}/options")
    devices = chance.choice(DEVICES)
    kinds = PERSONAL if chance.random() < _PLAIN_SHARE else PERSONAL + FOLDING * 3
    personalities = ("plain", *(chance.choice(kinds) for _ in range(devices - 1)))
    return Options(
        seed,
        devices,
        personalities,
        _lans(chance, devices),
        chance.choice(list(WEATHERS)),
        chance.choice(list(Schedule)),
        chance.randint(ACTIONS_MIN, ACTIONS_MAX),
        chance.choice(_PAUSES),
        _some(chance, deeds),
        chance.randint(FAULTS_MIN, FAULTS_MAX),
        _some(chance, troubles),
        chance.random() < REST_SHARE,
        chance.random() < RESTART_SHARE,
        chance.random() < GIVEN_SHARE,
    )


def _lans(chance: Random, devices: int) -> tuple[int, ...]:
    kind = chance.choice(LANS)
    if kind == "mixed":
        return tuple(chance.randrange(2) for _ in range(devices))
    return tuple(range(devices)) if kind == "apart" else (0,) * devices


def _some(chance: Random, kinds: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Return some of these, at least one, each more or less often than usual."""
    kept = [name for name in kinds if chance.random() < KEPT_SHARE] or [chance.choice(list(kinds))]
    return tuple((name, max(1, kinds[name] * chance.choice((1, 2, 4)) // 2)) for name in kept)
