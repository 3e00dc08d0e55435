"""The pages of a report: one for each history that is shown, and an index of all.

Rule 1: a page needs nothing but itself: no script, style, font or picture from elsewhere.
Rule 2: whatever comes from a history is escaped: people there choose names freely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from protocol.entries import Kind
from simulations.checks.names import is_copy
from simulations.commands import failures
from simulations.commands.tally import Row, Tally
from simulations.history import runs
from simulations.history.options import NODES
from simulations.history.repertoire import TROUBLES
from simulations.history.runs import Lived, Result
from simulations.history.script import Script
from simulations.report.assets import SCRIPT, STYLE
from simulations.report.diagram import KINDS, MARKS, draw, heads, picture, sign, strips, told_deed
from simulations.report.messages import PictureTrace
from simulations.report.scale import told
from simulations.situations.catalogue import NOT_REACHED, SECTIONS, SEEDS_MIN, WORDS, covered
from simulations.situations.operations import last_name

if TYPE_CHECKING:
    from simulations.commands.failures import Told

INDEX: Final = "index.html"


class Report:
    """Writes pages for histories as they come, so that all are there of whatever ends early: all that fail, and some others.

    Args:
        directory: That is there.
        full: How many get a page beside those that fail: each is lived through once more.
        history: The one that is played, where it does not come from a seed.
        file: Where that stands.
    """

    def __init__(self, directory: Path, *, full: int, history: Script | None = None, file: Path | None = None) -> None:
        self._directory = directory
        self._left = full
        self._history = history
        self._file = file
        self._pages: dict[int, str] = {}

    def add(self, result: Result, told: Told | None = None) -> None:
        """Write the page of a history, if it gets one.

        Args:
            result: Of it.
            told: What is told of its failure.

        Raises:
            OSError: It cannot be written.
        """
        if not result.failure:
            self._left -= 1
            if self._left < 0:
                return
        seed = result.options.seed
        script = runs.script_of(seed) if self._history is None else self._history
        self._pages[seed] = first = f"seed-{seed}.html"
        if told is None or not told.is_smaller:
            self._write(first, page(_seen(script), told, again=failures.command(result, self._file)))
            return
        whole = f"seed-{seed}-{_WHOLE}.html"
        beside = Beside(whole, f"the whole history, {len(told.result.played)} events")
        self._write(first, page(_seen(told.script), told, again=told.again, beside=beside))
        beside = Beside(first, f"what is left of it, {len(told.smaller.played)} events")
        self._write(whole, page(_seen(script), told, again=told.whole, beside=beside))

    def end(self, tally: Tally, totals: Mapping[str, Any]) -> Path | None:
        """Write an index if there are several histories; return what to open, if there is anything.

        Raises:
            OSError: It cannot be written.
        """
        if len(tally.rows) == 1 and self._pages:
            return self._directory / next(iter(self._pages.values()))
        if not tally.rows:
            return None
        self._write(INDEX, index_page(tally, self._pages, totals))
        return self._directory / INDEX

    def _write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text, encoding="utf-8", errors="backslashreplace")


_WHOLE: Final = "whole"


class Beside(NamedTuple):
    """Another page that shows the same failure."""

    name: str
    """Of its file."""
    words: str


def _document(title: str, body: str, script: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


# --- One history


def _seen(history: Script) -> Lived:
    """Live through a history as its page needs it."""
    return runs.play(history, trace=PictureTrace(), observes=True)


def page(lived: Lived, failed: Told | None = None, *, again: str, beside: Beside | None = None) -> str:
    """Return the page of a history.

    Args:
        lived: It, lived through with a :class:`simulations.report.messages.PictureTrace`.
        failed: What else is told of its failure.
        again: The command that plays it again.
        beside: Another page about the same failure.
    """
    result, record = lived.result, lived.record
    messages = lived.trace.messages if isinstance(lived.trace, PictureTrace) else []
    shown = picture(
        record, messages, nodes=NODES, involved=result.involved, end_ns=round(result.virtual_s * 1_000_000_000)
    )
    seed = result.options.seed
    what = result.failure.partition("\n")[0] or "all held"
    names = {str(number): list(paths) for number, paths in shown.stories.names.items()}
    body = "\n".join(
        [
            f"<h1>History of seed {seed}: {'something does not hold' if result.failure else 'all held'}</h1>",
            *_verdict(lived, failed, again, beside),
            *_figures(result),
            "<h2>What happened</h2>",
            _legend(),
            '<div class="bar">',
            (
                '<div class="controls"><input type="search" id="search" placeholder="a file: part of its path (/)"'
                ' aria-label="Show the story of files whose path contains this">'
            ),
            '<label><input type="checkbox" data-hides="messages" checked> messages</label>',
            '<label><input type="checkbox" data-hides="faults" checked> faults</label>',
            '<span id="told" role="status"></span></div>',
            f'<div class="scroll">{heads(shown.columns, record.personalities)}</div></div>',
            f'<div class="scroll">{draw(shown)}</div>',
            strips(shown, beside=not result.failure),
            '<div id="tip" role="tooltip" hidden></div>',
            f'<script type="application/json" id="stories">{_json(names)}</script>',
            *_outcome(lived),
            *_situations(result.situations),
            *_options(result),
            *_list(lived),
        ]
    )
    return _document(f"Seed {seed}: {what}", body, SCRIPT)


def _json(value: object) -> str:
    """Return JSON that may stand in a page."""
    return json.dumps(value).replace("<", "\\u003c")


def _verdict(lived: Lived, failed: Told | None, again: str, beside: Beside | None) -> Iterator[str]:
    result = lived.result
    if not result.failure:
        yield (
            '<div class="verdict"><strong>Everything held.</strong> All devices came to rest, agree, and lost nothing;'
            " nothing moved afterwards.</div>"
        )
        return
    first, _, rest = result.failure.partition("\n")
    yield f'<div class="verdict failed" id="violation"><strong>{escape(first)}</strong>'
    actions = lived.course.ledger.actions
    if result.involved:
        yield "<p>It is about:</p><ul>"
        for number in dict.fromkeys(result.involved):
            yield f'<li><a href="#action-{number}">{escape(str(actions[number]))}</a></li>'
        yield "</ul>"
    elif rest:
        yield f"<pre>{escape(rest)}</pre>"
    yield f"<p>Again: <code>{escape(again)}</code></p>"
    if failed is not None:
        yield f"<p>Trace: <code>{escape(str(failed.trace))}</code></p>"
    if beside is not None:
        yield f'<p>There is a page of <a href="{beside.name}">{escape(beside.words)}</a>, too.</p>'
    yield "</div>"


def _figures(result: Result) -> Iterator[str]:
    cpu_s = result.cpu_s or 1e-9
    yield '<div class="figures">'
    for figure, words in (
        (f"{result.actions}", "actions"),
        (f"{result.faults}", "faults"),
        (f"{len(result.situations)}", "situations reached"),
        (told(round(result.virtual_s * 1e9)), "virtual time"),
        (f"{cpu_s:.2f} s", "of one core"),
        (f"{1 / cpu_s:.2f}", "histories a second"),
        (f"{result.actions / cpu_s:.0f}", "actions a second"),
        (f"{result.steps / cpu_s:,.0f}", "steps a second"),
    ):
        yield f"<div><b>{figure}</b><span>{words}</span></div>"
    yield "</div>"


def _legend() -> str:
    def key(svg: str, words: str) -> str:
        return f'<li><svg class="key" width="26" height="16" viewBox="0 0 26 16" aria-hidden="true">{svg}</svg>{words}</li>'

    parts = [
        key(f'<g class="deed {kind}">{sign(kind, 13, 8)}</g>', f"somebody {words}") for kind, words in KINDS.items()
    ]
    parts += [
        key(
            '<g class="deed other"><circle class="ring" cx="13" cy="8" r="7"/></g>',
            "what a broken invariant is about",
        ),
        key('<path class="spread" d="M1 3C1 14 20 2 24 13"/>', "a content comes to another device"),
        key('<rect class="stroke placed" x="10" y="5" width="6" height="6"/>', "an agent puts something there"),
        key('<rect class="stroke taken" x="10" y="5" width="6" height="6"/>', "an agent takes something away"),
        key('<path class="stroke conflict" d="M13 2l6 6l-6 6l-6 -6z"/>', "a conflict copy"),
        key('<line class="message entries" x1="1" y1="5" x2="25" y2="11"/>', "entries of the log"),
        key('<line class="message chunks" x1="1" y1="5" x2="25" y2="11"/>', "chunks"),
        key('<line class="message near" x1="1" y1="5" x2="25" y2="11"/>', "LAN"),
        key('<line class="message talk" x1="1" y1="5" x2="25" y2="11"/>', "other talk"),
        key(
            '<line class="message talk lost" x1="1" y1="8" x2="12" y2="8"/><path class="head lost" d="M10 6l4 4m0 -4l-4 4"/>',
            "a message that never came",
        ),
        key('<g class="fault"><path class="flag" d="M9 3l8 5l-8 5z"/></g>', "a fault is made"),
        key('<rect class="span" x="11" y="1" width="5" height="14"/>', "for so long"),
        key('<rect class="wall" x="1" y="3" width="24" height="10"/>', "a way is cut or clogged"),
        key('<rect class="down" x="10" y="1" width="6" height="14"/>', "no process"),
    ]
    parts += [
        key(f'<text class="machine {what}" x="13" y="12">{mark}</text>', words) for what, (mark, words) in MARKS.items()
    ]
    return f'<ul class="legend" aria-label="Legend">{"".join(parts)}</ul>'


def _outcome(lived: Lived) -> Iterator[str]:
    """Yield what stood there at the last rest."""
    record = lived.record
    yield "<h2>What stood there at the last rest</h2>"
    if len(record.rests) < 2 or not record.rests[-1]:
        yield "<p>Nothing came to rest after the first action.</p>"
        return
    trees = record.rests[-1]
    contents = lived.course.ledger.contents
    paths = sorted({path for tree in trees for path in tree})
    copies = sum(is_copy(last_name(path)) for path in paths)
    yield f"<p>{len(paths)} paths, {copies} of them conflict copies.</p>"
    yield _table_head("What stands on the devices", "path", "what", "bytes#", "written by", "on") + "<tbody>"
    for path in paths:
        seen = next(tree[path] for tree in trees if path in tree)
        where = [f"device-{number}" for number, tree in enumerate(trees) if path in tree]
        number = contents.get(seen.content) if seen.kind is Kind.FILE else None
        by = "" if number is None else f'<a href="#action-{number}">#{number}</a>'
        what = "special" if seen.kind is None else seen.kind.name.lower()
        yield (
            f'<tr><th scope="row">{escape(path)}</th><td>{what}</td>'
            f'<td class="number">{seen.size if seen.kind is Kind.FILE else ""}</td><td>{by}</td>'
            f"<td>{'all' if len(where) == len(trees) else ', '.join(where)}</td></tr>"
        )
    yield "</tbody></table>"


def _situations(reached: Mapping[int, str]) -> Iterator[str]:
    yield f"<h2>Situations that it came through ({len(reached)})</h2>"
    yield _table_head("Situations, with what shows them", "no.#", "situation", "shown by") + "<tbody>"
    for number, evidence in reached.items():
        linked = " ".join(_linked(word) for word in escape(evidence).split(" "))
        yield f'<tr><th scope="row" class="number">{number}</th><td>{escape(WORDS[number])}</td><td>{linked}</td></tr>'
    yield "</tbody></table>"


def _linked(word: str) -> str:
    number = word.strip("#,")
    return f'<a href="#action-{number}">{word}</a>' if word.startswith("#") and number.isdecimal() else word


def _options(result: Result) -> Iterator[str]:
    options = result.options
    yield "<h2>What was drawn</h2><dl>"
    disks = ", ".join(f"device-{number} {name}" for number, name in enumerate(options.personalities))
    for name, value in (
        ("file systems", disks),
        ("storage nodes", f"{NODES}"),
        ("schedule", options.schedule.value),
        ("watchers", options.weather),
        ("pauses", options.pauses),
        ("kinds of actions", ", ".join(f"{name} {weight}" for name, weight in options.deeds)),
        ("kinds of faults", ", ".join(f"{name} {weight}" for name, weight in options.troubles)),
        ("done", ", ".join(f"{name} {count}" for name, count in result.counts.items())),
        ("trace", result.digest),
    ):
        yield f"<dt>{name}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"


def _list(lived: Lived) -> Iterator[str]:
    record = lived.record
    yield "<h2>All actions and faults in words</h2><details><summary>the list</summary><pre>"
    lines = [(deed.time_ns, 0, deed.number, told_deed(deed)) for deed in record.deeds]
    lines += [(fault.began_ns, 1, number, f"fault: {fault}") for number, fault in enumerate(record.faults)]
    for _, _, _, text in sorted(lines):
        yield escape(text.replace("\n", "\n      "))
    yield "</pre></details>"


# --- Many histories


def index_page(tally: Tally, pages: Mapping[int, str], totals: Mapping[str, Any]) -> str:
    """Return the page that lists histories."""
    counts = tally.situations
    failed = totals["failed"]
    body = "\n".join(
        [
            f"<h1>{len(tally.rows)} histories</h1>",
            f'<div class="verdict{" failed" if failed else ""}"><strong>'
            + (f"{failed} failed" if failed else "Everything held in all of them.")
            + "</strong></div>",
            *_totals(totals, counts),
            "<h2>Histories</h2>",
            *_table(tally.rows, pages),
            *_coverage(counts, len(tally.rows)),
            *_done(totals["done"]),
        ]
    )
    words = f"{failed} failed" if failed else "all held"
    return _document(f"{len(tally.rows)} histories: {words}", body)


def _totals(totals: Mapping[str, Any], counts: Mapping[int, int]) -> Iterator[str]:
    yield '<div class="figures">'
    for figure, words in (
        (f"{totals['histories']}", "histories"),
        (f"{totals['failed']}", "failed"),
        (f"{sum(counts.get(number, 0) > 0 for number in WORDS)} of {len(WORDS)}", "situations reached at all"),
        (f"{len(covered(counts))} of {len(WORDS)}", f"situations in {SEEDS_MIN} or more"),
        (f"{totals['histories_a_second']:.2f}", "histories a second, one core"),
        (f"{totals['actions_a_second']:.0f}", "actions a second"),
        (f"{totals['steps_a_second']:,.0f}", "steps a second"),
    ):
        yield f"<div><b>{figure}</b><span>{words}</span></div>"
    yield "</div>"


def _table(rows: Sequence[Row], pages: Mapping[int, str]) -> Iterator[str]:
    yield _table_head(
        "All histories, those that fail first",
        "seed#", "verdict", "devices#", "actions#", "faults#", "situations#", "virtual time#", "CPU#", "what does not hold",
    )  # fmt: skip
    yield "<tbody>"
    for row in sorted(rows, key=lambda one: not one.failure):
        link = f'<a href="{pages[row.seed]}">{row.seed}</a>' if row.seed in pages else f"{row.seed}"
        verdict = '<span class="fail">fail</span>' if row.failure else '<span class="pass">pass</span>'
        yield (
            f'<tr{" class=failed" if row.failure else ""}><th scope="row" class="number">{link}</th><td>{verdict}</td>'
            f'<td class="number">{row.devices}</td><td class="number">{row.actions}</td>'
            f'<td class="number">{row.faults}</td><td class="number">{row.situations}</td>'
            f'<td class="number">{told(round(row.virtual_s * 1e9))}</td><td class="number">{row.cpu_s:.2f} s</td>'
            f"<td>{escape(row.failure)}</td></tr>"
        )
    yield "</tbody></table>"


def _coverage(counts: Mapping[int, int], seeds: int) -> Iterator[str]:
    met = sum(counts.get(number, 0) > 0 for number in WORDS)
    yield (
        f"<h2>Situations: {met} of {len(WORDS)} reached at all,"
        f" {len(covered(counts))} in {SEEDS_MIN} or more histories</h2>"
    )
    least = min(SEEDS_MIN, seeds)
    yield _table_head(
        f"Grey: in less than {least} histories", "no.#", "situation", "histories#", "how many of all, or why none"
    )
    for section, numbers in SECTIONS.items():
        yield f'<tbody><tr><th colspan="4" scope="rowgroup">{escape(section)}</th></tr>'
        for number in numbers:
            count = counts.get(number, 0)
            why = NOT_REACHED.get(number)
            bar = f'<span class="meter" style="width:{round(180 * count / max(1, seeds))}px"></span>' if count else ""
            yield (
                f'<tr{" class=seldom" if count < least else ""}><th scope="row" class="number">{number}</th>'
                f'<td>{escape(WORDS[number])}</td><td class="number">{"-" if why else count}</td>'
                f"<td>{escape(why) if why else bar}</td></tr>"
            )
        yield "</tbody>"
    yield "</table>"


def _table_head(caption: str, *columns: str) -> str:
    """Return how a table begins; a column of numbers has a ``#`` behind its name."""
    heads = "".join(
        f'<th scope="col"{" class=number" if name.endswith("#") else ""}>{escape(name.rstrip("#"))}</th>'
        for name in columns
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"


def _done(done: Mapping[str, int]) -> Iterator[str]:
    for title, wanted in (("Faults made", True), ("Actions done", False)):
        yield f'<h2>{title}</h2><div class="columns">'
        for name, count in sorted(done.items(), key=lambda item: -item[1]):
            if (name in TROUBLES) is wanted:
                yield f"<p>{escape(name)}: {count}</p>"
        yield "</div>"
