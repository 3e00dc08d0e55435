"""One telling of a story, whole or with a crash in it, and what came of it.

Rule 1: all that holds for histories is checked here, too, against the same kind of ledger.
Rule 2: whatever ended is started again a moment later, as a service manager would.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from typing import Final, NamedTuple

from simulations.checks.watch import WatchedTrace
from simulations.crashes.stories import STORIES
from simulations.history import rest
from simulations.history.course import Course
from simulations.history.options import NODES, Options
from simulations.history.people import GivenUp
from simulations.history.script import Script
from simulations.loop import Schedule
from simulations.mishaps import SimulationError, swept
from simulations.preparation import prepared
from simulations.world import World

DEVICES: Final = 2
MACHINES: Final = (
    "coordinator",
    *(f"node-{number}" for number in range(NODES)),
    *(f"device-{number}" for number in range(DEVICES)),
)
SEED: Final = 1
REVIVE_S: Final = 1.0


class Crash(NamedTuple):
    """Where a machine ends."""

    machine: str
    effect: int
    """The effect before which it ends, counted from 1 at the beginning of the story."""
    loses_power: bool = False
    again: int = 0
    """The effect of its next life before which it ends once more; 0 for none."""

    @property
    def planned(self) -> int:
        """How many crashes are planned."""
        return 2 if self.again else 1

    def __str__(self) -> str:
        kind = "loses power" if self.loses_power else "is killed"
        more = f", and at effect {self.again} of its next life" if self.again else ""
        return f"{self.machine} {kind} at effect {self.effect}{more}"


class Told(NamedTuple):
    """What came of a telling."""

    failure: str
    """Empty if all held."""
    invariant: int
    """That does not hold; 0 for none, or for a failure of another kind."""
    effects: dict[str, int]
    """By machine: how many it had from the beginning of the story, or of its last life, until all were at rest."""
    crashes: int
    """How many of the planned crashes came."""
    digest: str
    """Of the trace."""
    events: tuple[str, ...]
    """What people did and what went wrong, in order."""

    def missed(self, crash: Crash) -> str:
        """Return why a planned crash did not come, so that nothing is known of it; "" if all came, or it failed before."""
        if self.failure or self.crashes >= crash.planned:
            return ""
        life = "its next life" if self.crashes else "this story"
        return f"never: {crash.machine} has only {self.effects[crash.machine]} effects in {life}"


class _Telling(Course):
    """A history of which nothing is drawn.

    Args:
        world: In which it happens.
        story: Its name.
        crash: That is in it.
    """

    def __init__(self, world: World, story: str, crash: Crash | None) -> None:
        options = Options(
            seed=SEED,
            devices=DEVICES,
            personalities=("plain",) * DEVICES,
            lans=(1,) * DEVICES,
            weather="fine",
            schedule=Schedule.FIFO,
            actions=0,
            pauses="rushed",
            deeds=(),
            faults=0,
            troubles=(),
            rests=False,
            restarts=True,
        )
        super().__init__(world, Script(options, ()))
        self.effects: dict[str, int] = {}
        self.crashes = 0
        self._story = STORIES[story]
        self._crash = crash

    async def run(self, world: World) -> None:
        """Tell it, and check what everybody has in the end."""
        self.ledger.rested(world.devices)
        await self._story.before(*self.people)
        await self.rest()
        machines = {machine.name: machine for machine in world.machines}
        began = {name: (machine.lives, machine.host.effects) for name, machine in machines.items()}
        crash = self._crash
        if crash is not None:
            machines[crash.machine].crash_at(crash.effect, loses_power=crash.loses_power)
            if crash.again:
                machines[crash.machine].crash_next_at(crash.again, loses_power=crash.loses_power)
        reviving = asyncio.create_task(self._revive())
        with contextlib.suppress(GivenUp):
            await self._story.act(*self.people)
        await rest.be_still(self)
        reviving.cancel()
        await asyncio.wait([reviving])
        for name, (lives, effects) in began.items():
            machine = machines[name]
            crashes = machine.lives - lives + (not machine.is_running)
            self.crashes += crashes
            self.effects[name] = machine.host.effects - (0 if crashes else effects)
        await self.rest()
        await rest.stay(self)
        await rest.restart(self)

    async def _revive(self) -> None:
        while True:
            await asyncio.sleep(REVIVE_S)
            for machine in self.world.machines:
                if not machine.is_running:
                    self.tell(f"{machine.name} starts again")
                    await self.start(machine)


def tell(story: str, crash: Crash | None = None, *, events_max: int = 0) -> Told:
    """Tell a story once.

    Args:
        story: Its name.
        crash: That is in it; None: nothing goes wrong.
        events_max: How many lines of the trace are kept to be read.
    """
    with swept():
        return _told(story, crash, WatchedTrace(events_max))


def _told(story: str, crash: Crash | None, trace: WatchedTrace) -> Told:
    world = World(SEED, prepared(DEVICES, NODES), trace=trace)
    trace.world = world
    telling = _Telling(world, story, crash)
    failure, invariant = "", 0
    try:
        world.run(telling.run)
    except SimulationError as error:
        failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        found = getattr(error, "invariant", None)
        invariant = found.number if found is not None else 0
    except Exception as error:  # noqa: BLE001  # a defect of what is around the product, told like any other failure
        failure = "".join(traceback.format_exception(error)[-2:]).strip()
    return Told(failure, invariant, telling.effects, telling.crashes, trace.digest(), tuple(telling.told))
