"""``kin-sim crash``: short stories with a crash of each machine at each of its steps, and what that leaves."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from simulations.commands import arguments
from simulations.commands.console import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, misused
from simulations.commands.workers import JOBS_MAX, Workers

if TYPE_CHECKING:
    from simulations.crashes.telling import Crash, Told

EFFECT_MAX: Final = 1_000_000
BATCH: Final = 8
PROGRESS_S: Final = 1.0
KINDS: Final = {"kill": (False,), "power": (True,), "both": (False, True)}
NAME: Final = "crash"
COMMAND: Final = f"kin-sim {NAME}"

DESCRIPTION: Final = """\
Tell short stories on virtual time: once whole, to count what each machine does to its disks, its database and the network,
then once more for each of these effects, with that machine killed, or its power cut, just before it. Whatever ended is
started again; then everything must come to rest, and all that holds for histories must hold."""
EXAMPLES: Final = """\
examples:
  kin-sim crash                        every story, machine and effect, killed and without power: six minutes on one core
  kin-sim crash --every 20 --jobs 2    every 20th of these, in two processes
  kin-sim crash --story edit --twice --every 10
                                       with a second crash in the recovery from the first, of both each 10th alone
  kin-sim crash --story edit --machine device-0 --effect 17 --kind power
                                       one telling, with all that happened
A crash that never comes, since the machine has fewer effects than that, is told as one that failed: it shows nothing.
exit codes: 0 all held, 1 an invariant is broken, 2 usage, as an --effect that there is not, 130 interrupted"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``kin-sim``."""
    number = arguments.number(1, EFFECT_MAX)
    parser = commands.add_parser(
        NAME,
        help="short stories with a crash at every step",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--story", metavar="NAME", action="append", default=[], help="this one alone; may be repeated")
    parser.add_argument("--machine", metavar="NAME", action="append", default=[], help="this one alone, as device-0")
    parser.add_argument("--kind", choices=tuple(KINDS), default="both", help="how machines end (both)")
    parser.add_argument("--every", metavar="N", type=number, default=1, help="each N-th crash alone (1)")
    parser.add_argument("--twice", action="store_true", help="with a second crash in the recovery from the first")
    parser.add_argument(
        "--effect", metavar="N", type=number, help="one story, one machine: a crash at this effect alone"
    )
    parser.add_argument("--again", metavar="N", type=number, default=0, help="and at this one of its next life")
    parser.add_argument(
        "--jobs", metavar="N", type=arguments.number(1, JOBS_MAX), default=1, help="processes side by side (1)"
    )
    parser.add_argument("--list", action="store_true", help="print the stories, with how many effects each machine has")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Tell what was asked for and return the exit code."""
    from simulations.crashes.stories import STORIES
    from simulations.crashes.telling import MACHINES

    for what, asked, known in (("story", options.story, STORIES), ("machine", options.machine, MACHINES)):
        if unknown := [name for name in asked if name not in known]:
            return misused(NAME, f"there is no {what} {unknown[0]!r}: {', '.join(known)}")
    if wrong := _wrong(options):
        return misused(NAME, wrong)
    stories = options.story or list(STORIES)
    if options.list:
        return _list(stories, as_json=options.json)
    if options.effect is not None:
        return _one(options)
    return _many(options, stories)


def _wrong(options: argparse.Namespace) -> str:
    """Return what does not go together; "" for nothing."""
    many = [name for name, is_given in _of_many(options).items() if is_given]
    if options.list and (many or options.machine or options.kind != "both" or options.effect or options.again):
        return "--list goes with --story and --json alone"
    if options.effect is None:
        return "--again needs --effect" if options.again else ""
    if many:
        return f"{many[0]} goes with many tellings, and --effect is about one"
    is_one = (len(options.story), len(options.machine)) == (1, 1)
    return "" if is_one else "--effect needs one --story and one --machine"


def _of_many(options: argparse.Namespace) -> dict[str, bool]:
    return {"--every": options.every != 1, "--twice": options.twice, "--jobs": options.jobs != 1}


def _list(stories: Iterable[str], *, as_json: bool) -> int:
    from simulations.crashes.telling import tell

    effects = {story: tell(story).effects for story in stories}
    if as_json:
        print(json.dumps({"version": 1, "stories": effects}))
        return EXIT_DONE
    for story, counts in effects.items():
        print(f"{story:18}{', '.join(f'{machine} {count}' for machine, count in counts.items())}")
    return EXIT_DONE


def _one(options: argparse.Namespace) -> int:
    from simulations.crashes.telling import Crash

    codes = {EXIT_DONE}
    for loses_power in KINDS[options.kind]:
        crash = Crash(options.machine[0], options.effect, loses_power, options.again)
        story, crash, told = _tell((options.story[0], crash))
        codes.add(EXIT_FAILED if told.failure else EXIT_USAGE if told.missed(crash) else EXIT_DONE)
        if options.json:
            print(json.dumps({"version": 1, **_row(story, crash, told), "events": told.events}))
            continue
        for event in told.events:
            print(f"      {event}")
        _say(story, crash, told)
    return EXIT_FAILED if EXIT_FAILED in codes else max(codes)


def _many(options: argparse.Namespace, stories: Iterable[str]) -> int:
    began, counts, failures = time.monotonic(), {"tellings": 0, "crashes": 0}, []
    shown = began
    for story, crash, told in _all(options, stories):
        counts["tellings"] += 1
        counts["crashes"] += told.crashes
        if told.failure or told.missed(crash):
            failures.append(_row(story, crash, told))
            if not options.json:
                _say(story, crash, told)
        elif sys.stderr.isatty() and time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            sys.stderr.write(f"\r{counts['tellings']} tellings, {story}: {crash}\x1b[K")
    seconds = time.monotonic() - began
    totals = {**counts, "failed": len(failures), "seconds": round(seconds, 1)}
    if options.json:
        print(json.dumps({"version": 1, "totals": totals, "failures": failures}))
    else:
        print(
            f"{counts['tellings']} tellings with {counts['crashes']} crashes, {len(failures)} failed, in {seconds:.0f} s"
        )
    return EXIT_FAILED if failures else EXIT_DONE


def _all(options: argparse.Namespace, stories: Iterable[str]) -> Iterator[tuple[str, Crash, Told]]:
    """Yield every telling that was asked for, those with one crash first."""
    from simulations.crashes.stories import STORIES
    from simulations.crashes.telling import DEVICES, Crash, tell
    from simulations.history.options import NODES
    from simulations.preparation import prepared

    prepared(DEVICES, NODES)  # once, for all processes
    with Workers(options.jobs) as workers:
        for story in stories:
            effects = tell(story).effects
            first = [
                (story, Crash(machine, effect, loses_power))
                for machine in options.machine or effects
                for effect, loses_power in product(range(1, effects[machine] + 1), KINDS[options.kind])
            ]
            second: list[tuple[str, Crash]] = []
            for _, crash, told in workers.map(_tell, first[:: options.every], chunk=BATCH):
                yield story, crash, told
                if options.twice and STORIES[story].is_small and told.crashes:
                    count = told.effects[crash.machine]
                    second += [(story, crash._replace(again=again)) for again in range(1, count + 1)]
            yield from workers.map(_tell, second[:: options.every], chunk=BATCH)


def _tell(what: tuple[str, Crash]) -> tuple[str, Crash, Told]:
    from simulations.crashes.telling import tell

    return *what, tell(*what)


def _row(story: str, crash: Crash, told: Told) -> dict[str, Any]:
    again = f" --again {crash.again}" if crash.again else ""
    kind = "power" if crash.loses_power else "kill"
    return {
        "story": story,
        **crash._asdict(),
        "crashes": told.crashes,
        "failure": told.failure or told.missed(crash),
        "invariant": told.invariant,
        "command": f"{COMMAND} --story {story} --machine {crash.machine} --kind {kind} --effect {crash.effect}{again}",
    }


def _say(story: str, crash: Crash, told: Told) -> None:
    failure = told.failure or told.missed(crash)
    print(f"{'fail' if failure else 'pass':6}{story}: {crash}", flush=True)
    if failure:
        for line in failure.split("\n"):
            print(f"      {line}")
        print(f"      again: {_row(story, crash, told)['command']}", flush=True)
