"""A whole world from a seed: a coordinator, storage nodes and devices, all real but for their doors, on virtual time.

Rule 1: a world begins from an image; making one runs the real set-up (:mod:`simulations.preparation`).
Rule 2: what the product logs as an error fails the run, unless whoever runs it said that it may be.
Rule 3: a run is what its seed, its image and what is done to it make it: nothing else of the process goes in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import structlog

from simulations.devices import DeviceImage, DeviceMachine
from simulations.hosts import HOST
from simulations.lan import Segment
from simulations.loop import Schedule, SimLoop
from simulations.machines import Machine, MachineGone, Surroundings
from simulations.mishaps import SimulationError
from simulations.network import Network
from simulations.personalities import PLAIN, Personality
from simulations.servers import CoordinatorImage, CoordinatorMachine, NodeImage, NodeMachine
from simulations.signatures import remembered
from simulations.trace import Trace
from simulations.watcher import FINE, Weather

SETTLE_S: Final = 3_600.0
"""In so much virtual time after the last fault everything must be at rest."""
LOOK_S: Final = 1.0
"""Between two looks whether it is."""
REST_S: Final = 0.1
LEVEL_ERROR: Final = 40


class WorldImage(NamedTuple):
    """What all machines of a world keep, at one moment at which none of them runs."""

    wall_ns: int
    """How far the wall clocks had come."""
    coordinator: CoordinatorImage | None
    nodes: tuple[NodeImage | None, ...]
    devices: tuple[DeviceImage | None, ...]


class NotSettledError(SimulationError):
    """Everybody is there, nothing is wrong any more, and still something waits."""


class LoggedError(SimulationError):
    """The product logged an error that nothing explains."""


class World:
    """One run.

    Args:
        seed: Of all chance.
        image: What the machines keep at first; a machine without one is new.
        schedule: The order among what is ready.
        trace: Where to note what happens.
        personalities: Of the devices' file systems; plain ones for those not named.
        weather: How badly the devices' watchers do.
        lans: By number, the LANs that the devices are on; the first for those not named.
    """

    def __init__(
        self,
        seed: int,
        image: WorldImage,
        *,
        schedule: Schedule = Schedule.FIFO,
        trace: Trace | None = None,
        personalities: Sequence[Personality] = (),
        weather: Weather = FINE,
        lans: Sequence[int] = (),
    ) -> None:
        self.seed = seed
        self.loop = SimLoop(seed, schedule=schedule, trace=trace)
        self.network = Network(self.loop)
        self._wall_ns = image.wall_ns
        self._around = around = Surroundings(self.loop, self.network, Segment(), image.wall_ns)
        segments = {lan: Segment() for lan in lans} | {0: around.lan}
        self._weather = weather
        self.coordinator = CoordinatorMachine(around, image.coordinator)
        self.nodes = [NodeMachine(around, number, one) for number, one in enumerate(image.nodes)]
        self.devices = [
            DeviceMachine(
                around._replace(lan=segments[lans[number] if number < len(lans) else 0]),
                number,
                one,
                personality=personalities[number] if number < len(personalities) else PLAIN,
                weather=weather,
            )
            for number, one in enumerate(image.devices)
        ]
        self.lost: list[Machine] = []
        """Machines that nobody starts again."""
        self._expected: list[Callable[[str, str], bool]] = []

    def add_device(self, image: DeviceImage | None, personality: Personality = PLAIN) -> DeviceMachine:
        """Have one more device, which does not run."""
        machine = DeviceMachine(self._around, len(self.devices), image, personality=personality, weather=self._weather)
        self.devices.append(machine)
        return machine

    # --- The run

    def run(self, story: Callable[[World], Awaitable[None]], *, begins: bool = True) -> None:
        """Run what happens, to its end.

        Args:
            story: What happens.
            begins: Whether everything is started before.

        Raises:
            SimulationError: Something went wrong that nobody expected.
        """

        async def main() -> None:
            if begins:
                await self.start_all()
            await story(self)

        with self._hearing(), remembered():
            self.loop.run(main())

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All machines, those first on which others rely."""
        return self.coordinator, *self.nodes, *self.devices

    async def start_all(self) -> None:
        """Start what does not run, but for what was lost."""
        for group in ([self.coordinator], self.nodes, self.devices):
            await asyncio.gather(*(one.start() for one in group if not one.is_running and one not in self.lost))

    async def stop_all(self) -> None:
        """End everything in good order, those last on which others rely."""
        for group in (self.devices, self.nodes, [self.coordinator]):
            await asyncio.gather(*(one.stop() for one in group if one.is_running))

    def image(self) -> WorldImage:
        """Return what all machines keep; none may run."""
        return WorldImage(
            self._wall_ns + self.loop.now_ns,
            self.coordinator.backup(),
            tuple(node.image() for node in self.nodes),
            tuple(device.image() for device in self.devices),
        )

    # --- Coming to rest

    async def settle(self, limit_s: float = SETTLE_S) -> None:
        """End all faults, start what does not run, and wait until every device is in sync and nothing moves any more.

        Nothing moves if after all devices found themselves in sync, full scans and questions at the coordinator find nothing.

        Raises:
            NotSettledError: That does not come to be in so much virtual time; it says who waits for what.
        """
        self.loop.note("settle")
        self.network.calm()
        await self.start_all()
        last: dict[str, list[str]] = {}
        try:
            async with asyncio.timeout(limit_s):
                before: list[tuple[int, int]] = []
                while True:
                    last = dict(await asyncio.gather(*(self._sync(device) for device in self.devices)))
                    now = [(device.position, device.disk.version) for device in self.devices]
                    if not any(last.values()) and now == before:
                        return
                    before = now
                    await asyncio.sleep(LOOK_S if any(last.values()) else REST_S)
        except TimeoutError:
            raise NotSettledError(f"after {limit_s:g} s:\n{self._waits(last)}") from None

    async def _sync(self, device: DeviceMachine) -> tuple[str, list[str]]:
        try:
            if not device.is_running:
                await device.start()  # a crash that was planned for its life came only now
            left = await device.sync()
        except MachineGone:
            return device.name, ["it crashed"]
        return device.name, left["remains"] or ([] if left["in_sync"] else ["it is not in sync"])

    def _waits(self, last: dict[str, list[str]]) -> str:
        lines = []
        for device in self.devices:
            lines.append(f"{device.name} at {device.position}:")
            lines += [f"  {line}" for line in last.get(device.name, ())]
            for engine in device.device.engines.values():
                lines.append(
                    f"  {engine.outlook.trouble or engine.failed or 'no trouble'}; {len(engine.outlook.blocked)} items wait"
                )
        return "\n".join(lines)

    # --- What is logged

    def may_log(self, event: str, machine: str = "") -> None:
        """Expect this error from now on, of one machine or of any."""
        self._expected.append(lambda name, text: text == event and machine in ("", name))

    def may_log_when(self, expects: Callable[[str], bool]) -> None:
        """Expect whatever error this says yes to, told its text."""
        self._expected.append(lambda _, text: expects(text))

    def _heard(self, _: Any, level: str, event: MutableMapping[str, Any]) -> Any:
        name = HOST.get(self.loop.world).name
        text = str(event["event"])
        self.loop.note(f"log {level}", text)
        if not any(expects(name, text) for expects in self._expected):
            error = event.get("exc_info")
            cause = _current_error() if error is True else error if isinstance(error, BaseException) else None
            more = {key: value for key, value in event.items() if key not in {"event", "exc_info"}}
            self.loop.fail(LoggedError(f"{name or 'the world'} logged {text!r} {more}: {cause!r}"), cause)
        raise structlog.DropEvent

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        before = structlog.get_config()
        structlog.configure(
            processors=[self._heard],
            wrapper_class=structlog.make_filtering_bound_logger(LEVEL_ERROR),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)


def _current_error() -> BaseException | None:
    import sys

    return sys.exc_info()[1]
