"""Runs cases: each in its own world, several at once, in both orders of the devices.

Rule 1: a case passes only if each of its keys was judged and held in each order.
Rule 2: an account that came to harm is given up; the next case gets a new one.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from simulations.cases import judgement, steps
from simulations.cases.grammar import Case, Skipped, expand, orders
from simulations.cases.hands import Failed, Hands, Means
from simulations.cases.judgement import Judge
from simulations.cases.real import RealWorlds
from simulations.cases.virtual import VirtualWorlds
from simulations.cases.world import FRESH, World

T = TypeVar("T")

LANES: Final = 3
"""Cases at once: on two cores, one waits for the disk or the network most of the time."""

Verdict = Literal["pass", "fail", "skipped"]


_EVERY_STEP: Final = "$every_step"


class Outcome(NamedTuple):
    """What came of one case with one set of parameters."""

    label: str
    verdict: Verdict
    reason: str
    """Why it failed or was skipped; of a case that passed, what was judged otherwise than it is written."""
    seconds: float


class Worlds(Protocol):
    """Makes a world for each run of a case."""

    @property
    def means(self) -> Means:
        """What these worlds cannot do."""

    def run(self, case: Case, seed: str, story: Callable[[Any], Coroutine[Any, Any, T]], /) -> T:
        """Do something in a world of its own, which is given as its hands, and return what comes of it."""


class Runner:
    """Runs cases in worlds of one kind."""

    def __init__(self, worlds: Worlds, *, lanes: int = 1, seeds: int = 1) -> None:
        """Make one.

        Args:
            worlds: Of which kind.
            lanes: How many cases run at once.
            seeds: How often each case runs in each order.
        """
        self._worlds = worlds
        self._lanes = lanes
        self._seeds = seeds

    def run(self, raw: Sequence[Mapping[str, Any]], show: Callable[[Outcome], None]) -> list[Outcome]:
        """Run cases, and show each as it ends; return all outcomes in the order of the cases."""
        if self._lanes == 1:
            return [self._shown(label, case, show) for label, case in expanded(raw)]
        with ThreadPoolExecutor(self._lanes, thread_name_prefix="lane") as pool:
            waiting = [pool.submit(self._outcome, label, case) for label, case in expanded(raw)]
            outcomes = []
            try:
                for each in waiting:
                    outcomes.append(each.result())
                    show(outcomes[-1])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what runs ends; nothing else begins
                raise
        return outcomes

    def _shown(self, label: str, case: Case | Skipped, show: Callable[[Outcome], None]) -> Outcome:
        outcome = self._outcome(label, case)
        show(outcome)
        return outcome

    def _outcome(self, label: str, case: Case | Skipped) -> Outcome:
        started_s = time.monotonic()
        verdict, reason = self._verdict(case)
        return Outcome(label, verdict, " ".join(reason.split()), time.monotonic() - started_s)

    def _verdict(self, case: Case | Skipped) -> tuple[Verdict, str]:
        where = ""
        remarks: dict[str, None] = {}
        try:
            if isinstance(case, Skipped):
                raise case
            check(case, self._worlds.means)
            for order in orders(case):
                for number in range(self._seeds):
                    where = f"in the order {','.join(order[:3])}{f', seed {number}' if self._seeds > 1 else ''}: "
                    remarks |= dict.fromkeys(where + remark for remark in self._run(case, order, number))
        except Skipped as reason:
            return "skipped", str(reason)
        except Failed as failure:
            return "fail", f"{where}{failure}"
        except Exception as error:  # noqa: BLE001 - a defect of the runner fails this case, and the others go on
            return "fail", f"{where}{type(error).__name__}: {error}"
        return "pass", "; ".join(remarks)

    def _run(self, case: Case, order: Sequence[str], number: int) -> list[str]:
        """Run a case in one order with one seed, at each of its steps that is to crash, if it says so.

        Returns:
            What was judged otherwise than it is written.

        Raises:
            Failed: It failed.
            Skipped: It cannot be run.
        """
        remarks, effects = self._run_once(case, order, number, 0)
        if not effects and any(_EVERY_STEP in step.values() for step in case.steps):
            raise Failed("there is no effect to crash at")
        for effect in range(1, effects + 1):
            try:
                remarks += self._run_once(case, order, number, effect)[0]
            except Failed as failure:
                raise Failed(f"with a crash at effect {effect} of {effects}: {failure}") from failure
        return remarks

    def _run_once(self, case: Case, order: Sequence[str], number: int, effect: int) -> tuple[list[str], int]:
        seed = f"{case.label}:{','.join(order)}:{number}"

        async def story(hands: Hands) -> tuple[list[str], int]:
            world = World(hands, case, order, seed)
            world.crash_effect = effect
            try:
                return await _play(world), world.effects
            finally:
                world.close()

        return self._worlds.run(case, seed, story)


def expanded(raw: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Case | Skipped]]:
    """Yield (label, case) once for each combination of parameters, or why there is none."""
    for each in raw:
        try:
            for case in expand(each):
                yield case.label, case
        except Skipped as reason:
            yield each["id"], reason


def check(case: Case, means: Means) -> None:
    """Skip a case with a step, a capability or a key that is not known here.

    Raises:
        Skipped: It has one.
    """
    steps.check_known(case, means)
    for key in case.expectation:
        if key not in judgement.KNOWN:
            raise Skipped(f"the runner cannot judge {key}")


async def _play(world: World) -> list[str]:
    """Do a case's steps and judge what came of them; return what was judged otherwise than it is written.

    Raises:
        Failed: Something is otherwise than expected.
        Skipped: It cannot be done or judged here.
    """
    judge = await perform(world)
    _, at_the_end, old = judge.split()
    peers = list(world.peers.values())
    if expects_rest(world.case):
        await judge.converged()
    await judge.check(at_the_end, peers)
    if expects_rest(world.case) and world.case.expectation.get("stable", True) and (found := await world.is_at_rest()):
        raise Failed(f"stable: {found}")
    await judge.check(old, peers)
    return [f"{token} was written over in a conflict copy, and is in the history" for token in judge.written_over()]


def expects_rest(case: Case) -> bool:
    """Whether all come to one state in the end, with a fresh device."""
    return bool(case.expectation.get("converged", True))


async def perform(world: World) -> Judge:
    """Do a case's steps, judge what is judged at once, and bring the world to where all else is judged.

    Raises:
        Failed: It does not come to rest, or what is judged at once is otherwise.
        Skipped: It cannot be done or judged here.
    """
    judge = Judge(world)
    await world.begin()
    stepper = steps.Stepper(world, judge)
    await stepper.set_up()
    await stepper.run()
    at_once, _, _ = judge.split()
    await judge.check(at_once, list(world.peers.values()))
    if expects_rest(world.case):
        await _settle_with_a_fresh_device(world, judge)
    else:
        judge.note_transfers()
    return judge


async def _settle_with_a_fresh_device(world: World, judge: Judge) -> None:
    for peer in world.peers.values():
        peer.is_stopped = False
    await world.settle()
    judge.note_transfers()
    await world.sync(await world.join(FRESH))


def run_real(
    raw: Sequence[Mapping[str, Any]], show: Callable[[Outcome], None], *, root: Path | None = None
) -> list[Outcome]:
    """Run cases with real processes, below a directory that is removed in the end."""
    place = Path(tempfile.mkdtemp(prefix="kin-cases-", dir=root))
    try:
        with RealWorlds(place) as worlds:
            return Runner(worlds, lanes=LANES).run(raw, show)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run_virtual(
    raw: Sequence[Mapping[str, Any]],
    show: Callable[[Outcome], None],
    *,
    seeds: int = 1,
    full_size: bool = False,
) -> list[Outcome]:
    """Run cases on virtual time."""
    return Runner(VirtualWorlds(full_size=full_size), seeds=seeds).run(raw, show)
