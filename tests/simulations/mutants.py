"""Play the whole list of broken products, and write by which invariant each was caught and after how many seeds.

``python -m tests.simulations.mutants [WORD...]``: all, or those whose description holds one of the words.
``--write``: put what came of it into docs/simulation.md, in place of what that says of the same mutants, as it comes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.simulations.mutation import Found, Mutant, caught
from tests.simulations.plan_mutants import PLAN
from tests.simulations.run_mutants import RUN

MUTANTS: Final = (*PLAN, *RUN)
DOCUMENT: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "simulation.md"
_HEAD: Final = "| broken | function | about | caught by | after | tier |\n|---|---|---|---|---|---|\n"
_SHOWN: Final = 150
_BLOCK: Final = re.compile(r"(<!-- generated: mutants -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def row(mutant: Mutant, found: Found) -> str:
    """Return what the table says of a mutant."""
    about, name = mutant.invariants[0] if mutant.invariants else "", mutant.function.__qualname__
    first = f" from {mutant.first}" if mutant.first else ""
    return f"| {mutant.what} | `{name}` | {about} | {found.invariant} | {found.seeds}{first} | {mutant.tier.value} |"


def rows(text: str) -> dict[str, str]:
    """Return the rows that stand in the document, by what is broken and the tier."""
    block = _BLOCK.search(text)
    assert block is not None
    lines = block[2].removeprefix(_HEAD).splitlines()
    return {key(line): line for line in lines}


def key(line: str) -> str:
    """Return what tells a row from others."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return f"{cells[0]} ({cells[-1]})"


def write(played: Iterable[str]) -> None:
    """Put rows into the document, in the order of the list; rows of what is in the list no more go."""
    text = DOCUMENT.read_text()
    known = rows(text) | {key(line): line for line in played}
    order = [f"{mutant.what} ({mutant.tier.value})" for mutant in MUTANTS]
    made = table(known[name] for name in order if name in known)
    DOCUMENT.write_text(_BLOCK.sub(lambda block: block[1] + made + block[3], text))


def table(lines: Iterable[str]) -> str:
    """Return the table with these rows."""
    return _HEAD + "".join(f"{line}\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Play and print; return 1 if one was not caught as expected."""
    words = [word for word in arguments if word != "--write"]
    status = 0
    for mutant in MUTANTS:
        if words and not any(word in mutant.what for word in words):
            continue
        found = caught(mutant)
        is_expected = found.invariant in mutant.invariants
        status |= not is_expected
        line = row(mutant, found)
        print(f"{'' if is_expected else '!! '}{line} {found.text[:_SHOWN]}", flush=True)
        if "--write" in arguments and is_expected:
            write([line])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
