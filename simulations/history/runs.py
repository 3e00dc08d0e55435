"""One history from a seed: drawn, lived through, checked, and told."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from typing import NamedTuple

from simulations.checks.violation import DETERMINISM
from simulations.checks.watch import WatchedTrace
from simulations.history.course import Course
from simulations.history.options import NODES, WEATHERS, Options, draw
from simulations.history.repertoire import DEEDS, TROUBLES
from simulations.mishaps import SimulationError, swept
from simulations.preparation import prepared
from simulations.world import World


class Result(NamedTuple):
    """What came of a history."""

    options: Options
    failure: str
    """Empty if all held."""
    invariant: int
    """That does not hold; 0 for none, or for a failure of another kind."""
    digest: str
    """Of the trace."""
    actions: int
    """What people did: each at one instant, or one command."""
    steps: int
    virtual_s: float
    cpu_s: float
    counts: dict[str, int]
    """How often each kind of action was done and each trouble made."""
    events: tuple[str, ...]
    """What people did and what went wrong, in order."""


def options_of(seed: int) -> Options:
    """Return what a seed draws."""
    weights = ({name: kind.weight for name, kind in kinds.items()} for kinds in (DEEDS, TROUBLES))
    return draw(seed, *weights)


def live(seed: int, *, events_max: int = 0) -> Result:
    """Live through the history of a seed, once.

    Args:
        seed: Which.
        events_max: How many of its last events are kept to be read.
    """
    with swept():
        return _live(seed, events_max)


def _live(seed: int, events_max: int) -> Result:
    trace = WatchedTrace(events_max)
    options = options_of(seed)
    image = prepared(options.devices, NODES)
    began = time.process_time()
    world = World(
        seed,
        image,
        schedule=options.schedule,
        personalities=options.kinds(),
        weather=WEATHERS[options.weather],
        lans=options.lans,
        trace=trace,
    )
    trace.world = world
    course = Course(world, options)
    failure, invariant = "", 0
    try:
        world.run(course.run)
    except SimulationError as error:
        failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        found = getattr(error, "invariant", None)
        invariant = found.number if found is not None else 0
    except Exception as error:  # noqa: BLE001  # a defect of what is around the product, told like any other failure
        failure = "".join(traceback.format_exception(error)[-2:]).strip()
    return Result(
        options,
        failure,
        invariant,
        world.loop.trace.digest(),
        course.done,
        world.loop.steps,
        world.loop.now_ns / 1e9,
        time.process_time() - began,
        dict(sorted(course.counts.items())),
        tuple(course.told),
    )


def live_twice(seed: int) -> Result:
    """Live through the history of a seed, and if all holds once more: the traces must be the same (invariant 28).

    What counts is the first time.
    """
    result = live(seed)
    if result.failure:
        return result
    again = live(seed)
    if again.digest == result.digest:
        return result
    failure = f"invariant {DETERMINISM.number} ({DETERMINISM.name}): {result.digest}, then {again.digest}"
    return result._replace(failure=f"Violation: {failure}", invariant=DETERMINISM.number)


def prepare(seeds: Iterable[int]) -> None:
    """Make the images that histories begin from, so that processes forked later share them."""
    for devices in sorted({options_of(seed).devices for seed in seeds}):
        prepared(devices, NODES)
