"""Runs cases: each in its own world, several at once, in both orders of the devices.

Rule 1: a case passes only if each of its keys was judged and held in each order.
Rule 2: an account that came to harm is given up; the next case gets a new one.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from simulations.cases import judgement, steps
from simulations.cases.grammar import Case, Skipped, expand, orders
from simulations.cases.judgement import Judge
from simulations.cases.world import FRESH, Account, Failed, Site, World

LANES: Final = 3
"""Cases at once: on two cores, one waits for the disk or the network most of the time."""

Verdict = Literal["pass", "fail", "skipped"]


class Outcome(NamedTuple):
    """What came of one case with one set of parameters."""

    label: str
    verdict: Verdict
    reason: str
    """Why it failed or was skipped; of a case that passed, what was judged otherwise than it is written."""
    seconds: float


class Runner:
    """Runs cases with real processes on a disk; leaving the block ends all processes."""

    def __init__(self, root: Path, *, lanes: int = LANES) -> None:
        """Make one that is not started.

        Args:
            root: Where everything lives; it must not be a network file system.
            lanes: How many cases run at once.
        """
        self._root = root
        self._lanes = lanes
        self._site = Site(root / "site")
        self._accounts: queue.SimpleQueue[Account] = queue.SimpleQueue()
        self._number = 0

    def __enter__(self) -> Self:
        self._site.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._site.__exit__()

    def run(self, raw: Sequence[Mapping[str, Any]], show: Callable[[Outcome], None]) -> list[Outcome]:
        """Run cases, and show each as it ends; return all outcomes in the order of the cases."""
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

    def _outcome(self, label: str, case: Case | Skipped) -> Outcome:
        started_s = time.monotonic()
        verdict, reason = self._verdict(case)
        return Outcome(label, verdict, " ".join(reason.split()), time.monotonic() - started_s)

    def _verdict(self, case: Case | Skipped) -> tuple[Verdict, str]:
        order: Sequence[str] = ()
        remarks = []
        try:
            if isinstance(case, Skipped):
                raise case
            check(case)
            for order in orders(case):
                remarks += [f"in the order {','.join(order[:3])}: {remark}" for remark in self._run(case, order)]
        except Skipped as reason:
            return "skipped", str(reason)
        except Failed as failure:
            return "fail", f"in the order {','.join(order[:3])}: {failure}"
        except Exception as error:  # noqa: BLE001 - a defect of the runner fails this case, and the others go on
            return "fail", f"in the order {','.join(order[:3])}: {type(error).__name__}: {error}"
        return "pass", "; ".join(remarks)

    def _run(self, case: Case, order: Sequence[str]) -> list[str]:
        """Run a case in one order, and return what was judged otherwise than it is written.

        Raises:
            Failed: It failed.
            Skipped: It cannot be run.
        """
        with contextlib.ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="case-", dir=self._root)))
            if steps.needs_own_servers(case):
                account = stack.enter_context(Site(place / "site", metered=True)).account()
            elif steps.needs_own_account(case):
                account = self._site.account()
            else:
                account = stack.enter_context(self._lent())
            world = World(account, case, order, place / "devices", f"{case.label}:{','.join(order)}")
            try:
                return _play(world)
            finally:
                world.close()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Account]:
        """Lend an account that other cases have used; it comes back only if all went well."""
        try:
            account = self._accounts.get_nowait()
        except queue.Empty:
            account = self._site.account()
        yield account
        self._accounts.put(account)


def expanded(raw: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Case | Skipped]]:
    """Yield (label, case) once for each combination of parameters, or why there is none."""
    for each in raw:
        try:
            for case in expand(each):
                yield case.label, case
        except Skipped as reason:
            yield each["id"], reason


def check(case: Case) -> None:
    """Skip a case with a step, a capability or a key that is not known here.

    Raises:
        Skipped: It has one.
    """
    steps.check_known(case)
    for key in case.expectation:
        if key not in judgement.KNOWN:
            raise Skipped(f"the runner cannot judge {key}")


def _play(world: World) -> list[str]:
    """Do a case's steps and judge what came of them; return what was judged otherwise than it is written.

    Raises:
        Failed: Something is otherwise than expected.
        Skipped: It cannot be done or judged here.
    """
    judge = perform(world)
    _, at_the_end, old = judge.split()
    peers = list(world.peers.values())
    if expects_rest(world.case):
        judge.converged()
    judge.check(at_the_end, peers)
    if expects_rest(world.case) and world.case.expectation.get("stable", True) and (found := world.is_at_rest()):
        raise Failed(f"stable: {found}")
    judge.check(old, peers)
    return [f"{token} was written over in a conflict copy, and is in the history" for token in judge.written_over()]


def expects_rest(case: Case) -> bool:
    """Whether all come to one state in the end, with a fresh device."""
    return bool(case.expectation.get("converged", True))


def perform(world: World) -> Judge:
    """Do a case's steps, judge what is judged at once, and bring the world to where all else is judged.

    Raises:
        Failed: It does not come to rest, or what is judged at once is otherwise.
        Skipped: It cannot be done or judged here.
    """
    judge = Judge(world)
    stepper = steps.Stepper(world, judge)
    stepper.set_up()
    stepper.run()
    at_once, _, _ = judge.split()
    judge.check(at_once, list(world.peers.values()))
    if expects_rest(world.case):
        _settle_with_a_fresh_device(world, judge)
    else:
        judge.note_transfers()
    return judge


def _settle_with_a_fresh_device(world: World, judge: Judge) -> None:
    for peer in world.peers.values():
        peer.is_stopped = False
    world.settle()
    judge.note_transfers()
    fresh = world.join(FRESH)
    world.get(fresh)
    world.sync(fresh)


def run_all(
    raw: Sequence[Mapping[str, Any]], show: Callable[[Outcome], None], *, root: Path | None = None
) -> list[Outcome]:
    """Run cases below a directory that is removed in the end."""
    place = Path(tempfile.mkdtemp(prefix="kin-cases-", dir=root))
    try:
        with Runner(place) as runner:
            return runner.run(raw, show)
    finally:
        shutil.rmtree(place, ignore_errors=True)
