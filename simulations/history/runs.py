"""One history from a seed or from a script: drawn, lived through, checked, and told."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from typing import NamedTuple

from simulations.checks.violation import DETERMINISM, Violation
from simulations.checks.watch import WatchedTrace
from simulations.history import script
from simulations.history.course import Course
from simulations.history.given import give
from simulations.history.ledger import Action
from simulations.history.options import NODES, WEATHERS, Options, draw
from simulations.history.repertoire import DEEDS, TROUBLES
from simulations.history.script import Event, Script
from simulations.mishaps import SimulationError, swept
from simulations.preparation import prepared
from simulations.printing import one_line
from simulations.situations.catalogue import reached
from simulations.situations.record import Record
from simulations.world import World, WorldImage


class Result(NamedTuple):
    """What came of a history."""

    options: Options
    failure: str
    """Empty if all held."""
    invariant: int
    """That does not hold; 0 for none, or for a failure of another kind."""
    involved: tuple[int, ...]
    """The numbers of the ledger's actions that the failure is about."""
    digest: str
    """Of the trace."""
    actions: int
    """What people did: each at one instant, or one command."""
    steps: int
    virtual_s: float
    cpu_s: float
    faults: int
    """How many troubles took effect."""
    counts: dict[str, int]
    """How often each kind of action was done and each trouble made."""
    events: tuple[str, ...]
    """What people did and what went wrong, in order."""
    situations: dict[int, str]
    """By number, the situations that it came through, with what shows it; of a history that was observed."""
    is_observed: bool
    played: tuple[Event, ...]
    """What came to happen, to be played again."""

    @property
    def kind(self) -> tuple[int, str]:
        """What two failures of one kind have in common: the invariant, or else the first word."""
        return self.invariant, "" if self.invariant else self.failure.partition(":")[0]


class Lived(NamedTuple):
    """A history that was lived through, and all that is left of it."""

    result: Result
    course: Course
    trace: WatchedTrace

    @property
    def record(self) -> Record:
        """What was observed; somebody did."""
        assert self.course.observer is not None
        return self.course.observer.record


def options_of(seed: int) -> Options:
    """Return what a seed draws."""
    weights = ({name: kind.weight for name, kind in kinds.items()} for kinds in (DEEDS, TROUBLES))
    return draw(seed, *weights)


def script_of(seed: int) -> Script:
    """Return what a seed has happen: as many deeds as come to about its actions, and all its troubles among them."""
    options = options_of(seed)
    weights = sum(weight for _, weight in options.deeds)
    size = sum(DEEDS[name].size * weight for name, weight in options.deeds) / weights
    return script.drawn(options, round(options.actions / size))


def live(seed: int, *, observes: bool = False) -> Result:
    """Live through the history of a seed, once.

    Args:
        seed: Which.
        observes: Whether to find what situations it came through.
    """
    return outcome(script_of(seed), observes=observes)


def outcome(history: Script, *, observes: bool = False) -> Result:
    """Live through a history, once, and let go of its world: what :func:`play` returns holds all of it."""
    with swept():
        return _play(history, WatchedTrace(), observes=observes).result


def play(history: Script, *, events_max: int = 0, trace: WatchedTrace | None = None, observes: bool = False) -> Lived:
    """Live through a history, once.

    Args:
        history: Which.
        events_max: How many of the last events of its trace are kept to be read.
        trace: A trace that keeps something else.
        observes: Whether to find what situations it came through.
    """
    with swept():
        return _play(history, WatchedTrace(events_max) if trace is None else trace, observes=observes)


def _play(history: Script, trace: WatchedTrace, *, observes: bool) -> Lived:
    options = history.options
    image = _image(options)
    began = time.process_time()
    world = World(
        options.seed,
        image,
        schedule=options.schedule,
        personalities=options.kinds(),
        weather=WEATHERS[options.weather],
        lans=options.lans,
        trace=trace,
    )
    trace.world = world
    course = Course(world, history)
    if observes:
        trace.hear = course.observe().hear
    failure, invariant = "", 0
    involved: tuple[Action, ...] = ()
    try:
        world.run(course.run)
    except SimulationError as error:
        failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        if isinstance(error, Violation):
            invariant, involved = error.invariant.number, error.actions
            what, actions = f"{error.invariant.name}): {error.text}", [f"  {action}" for action in involved]
            failure = "\n".join(map(one_line, [f"Violation: invariant {invariant} ({what}", *actions]))
    except Exception as error:  # noqa: BLE001  # a defect of what is around the product, told like any other failure
        failure = "".join(traceback.format_exception(error)[-2:]).strip()
    cpu_s = time.process_time() - began
    result = Result(
        options,
        failure,
        invariant,
        tuple(action.number for action in involved),
        world.loop.trace.digest(),
        course.done,
        world.loop.steps,
        world.loop.now_ns / 1e9,
        cpu_s,
        course.faults_met,
        dict(sorted(course.counts.items())),
        tuple(course.told),
        {} if course.observer is None else reached(course.observer.record),
        observes,
        tuple(event for _, event in sorted(course.played.items())),
    )
    return Lived(result, course, trace)


def _image(options: Options) -> WorldImage:
    return prepared(options.devices, NODES, give=give if options.is_given else None, enrols=options.is_given)


def live_twice(seed: int, *, observes: bool = False) -> Result:
    """Live through the history of a seed, and if all holds once more: the traces must be the same (invariant 28).

    What counts is the first time.
    """
    return play_twice(script_of(seed), observes=observes)


def play_twice(history: Script, *, observes: bool = False) -> Result:
    """Live through a history, and if all holds once more, as :func:`live_twice`; nobody observes it then."""
    result = outcome(history, observes=observes)
    if result.failure:
        return result
    again = outcome(history)
    if again.digest == result.digest:
        return result
    failure = f"invariant {DETERMINISM.number} ({DETERMINISM.name}): {result.digest}, then {again.digest}"
    return result._replace(failure=f"Violation: {failure}", invariant=DETERMINISM.number)


def prepare(seeds: Iterable[int]) -> None:
    """Make the images that histories begin from, so that processes forked later share them."""
    for seed in seeds:
        _image(options_of(seed))
