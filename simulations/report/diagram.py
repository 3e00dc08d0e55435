"""The space-time diagram of a history, as SVG: machines side by side, virtual time downwards.

Rule 1: whatever is drawn can be asked for its words: a title of its own, which the page's script shows, too.
Rule 2: nothing is told by colour alone: actions have signs, and messages lines, that differ in shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final, NamedTuple

from protocol.entries import Kind
from simulations.checks.names import is_copy
from simulations.history.ledger import EMPTY
from simulations.report.messages import CHUNKS, ENTRIES, NEAR, TALK, Message
from simulations.report.scale import Scale, told
from simulations.report.stories import Stories
from simulations.situations.operations import What, last_name
from simulations.situations.record import Deed, Fault, Record, Stroke

WIDTH: Final = 1_240
LEFT: Final = 84
_SERVER_WIDTH: Final = 74
_COORDINATOR_WIDTH: Final = 104
_LANE: Final = 11.0
"""So far beside a machine's line run the arrows to it."""
_BEND: Final = 34.0
_BUNDLE_NS: Final = 5
_LABEL_PX: Final = 6.1
_STRIP: Final = 790
"""So much of the diagram stands on one sheet of paper."""
_BESIDE: Final = 240
"""So much stands on a sheet with what comes before it on the page."""
_OVERLAP: Final = 14
"""So much stands on two sheets, so that no label is cut on both."""
_DRAWING: Final = "drawing"
_LOST: Final = (
    '<marker id="head-lost" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8"'
    ' markerUnits="userSpaceOnUse"><path d="M1 1L7 7M7 1L1 7" class="head lost"/></marker>'
)
"""Where a message ends that never came."""
MARKS: Final = {
    "crash": ("✕", "process ends"),
    "power": ("⚡", "power cut"),
    "start": ("▲", "process starts"),
    "stop": ("■", "process is stopped"),
    "suspend": ("☾", "falls asleep"),
    "resume": ("☀", "wakes up"),
    "restore": ("↺", "is put back"),
    "wipe": ("⌫", "has a new disk"),
}
"""By what happens to a machine: its sign, and its words."""
KINDS: Final = {
    "write": "writes",
    "move": "moves",
    "remove": "removes",
    "other": "does something else",
}
MESSAGE_WORDS: Final = {ENTRIES: "entries of the log", CHUNKS: "chunks", NEAR: "LAN", TALK: "other talk"}


class Columns:
    """Where machines stand.

    Args:
        devices: How many there are.
        nodes: How many storage nodes.
    """

    def __init__(self, devices: int, nodes: int) -> None:
        servers = ["coordinator", *(f"node-{number}" for number in range(nodes))]
        self.names = [f"device-{number}" for number in range(devices)] + servers
        room = WIDTH - LEFT - _COORDINATOR_WIDTH - nodes * _SERVER_WIDTH
        self.wide = room / devices
        self._at = {f"device-{number}": LEFT + 14 + number * self.wide for number in range(devices)}
        for number, name in enumerate(servers):
            more = _COORDINATOR_WIDTH - _SERVER_WIDTH if number else 0
            self._at[name] = LEFT + devices * self.wide + 24 + number * _SERVER_WIDTH + more

    def at(self, machine: str) -> float:
        """Return where a machine stands, in pixels from the left."""
        return self._at[machine]


class Picture(NamedTuple):
    """All that is drawn."""

    record: Record
    messages: list[Message]
    scale: Scale
    columns: Columns
    stories: Stories
    involved: frozenset[int]
    """The numbers of the actions that a broken invariant is about."""
    rows: dict[int, float]
    """By number, where actions stand; faults by their number from the end, below 0."""


def picture(record: Record, messages: list[Message], *, nodes: int, involved: Iterable[int], end_ns: int) -> Picture:
    """Return what is to be drawn of a history."""
    others = [life.time_ns for life in record.lives] + [stroke.time_ns for stroke in record.strokes]
    others += [fault.end_ns for fault in record.faults] + [0, end_ns]
    labelled = [deed.time_ns for deed in record.deeds] + [fault.began_ns for fault in record.faults]
    scale = Scale(labelled, others)
    rows = {deed.number: scale.row(deed.time_ns) for deed in record.deeds}
    rows |= {~number: scale.row(fault.began_ns) for number, fault in enumerate(record.faults)}
    return Picture(record, messages, scale, Columns(record.devices, nodes), Stories(record), frozenset(involved), rows)


def draw(shown: Picture) -> str:
    """Return the diagram as one SVG element."""
    height = shown.scale.bottom + 20
    parts = [
        (
            f'<svg id="diagram" class="diagram" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
            ' role="group" aria-label="Space-time diagram: machines side by side, time downwards">'
        ),
        "<defs>",
        *(
            f'<marker id="head-{kind}" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
            f'<path d="M0 0L6 3L0 6z" class="head {kind}"/></marker>'
            for kind in ("story", ENTRIES, CHUNKS, NEAR, TALK)
        ),
        _LOST,
        "</defs>",
        f'<g id="{_DRAWING}">',
        *_lifelines(shown, height),
        *_ticks(shown),
        *_spans(shown),
        *_bundles(shown),
        *_spreading(shown),
        *_strokes(shown),
        *_lives(shown),
        *_faults(shown),
        *_deeds(shown),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts)


def _attributes(kind: str, stories: Iterable[int] = ()) -> str:
    return f'class="{kind}" data-s="{" ".join(map(str, stories))}"'


def sign(kind: str, x: float, y: float) -> str:
    """Return the sign of a kind of action, one of :data:`KINDS`: a disc, an arrowhead, a ring with a bar, a ring."""
    shape = {
        "write": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "move": f"M{x - 4:.1f} {y - 4.5:.1f}l9 4.5l-9 4.5z",
        "remove": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0zM{x - 4:.1f} {y:.1f}h8",
        "other": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    }
    return f'<path class="sign" d="{shape[kind]}"/>'


# --- The ground


def _lifelines(shown: Picture, height: float) -> Iterator[str]:
    for name in shown.columns.names:
        x = shown.columns.at(name)
        yield f'<line class="life" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height:.0f}"/>'
        for began, until in shown.record.spans.get(name, ()):
            top, bottom = shown.scale.place(began), shown.scale.place(until)
            words = f"{name} has no process from {told(began)} to {told(until)}"
            yield (
                f'<rect x="{x - 3:.1f}" y="{top:.1f}" width="6" height="{max(2.0, bottom - top):.1f}"'
                f" {_attributes('down')}><title>{escape(words)}</title></rect>"
            )


def _ticks(shown: Picture) -> Iterator[str]:
    for y, time_ns in shown.scale.ticks():
        yield f'<text class="tick" x="4" y="{y + 4:.1f}">{told(time_ns)}</text>'
        yield f'<line class="grid" x1="{LEFT - 10}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>'
    for y, gap_ns in shown.scale.idle():
        yield f'<text class="idle" x="4" y="{y:.1f}">⋮ {told(gap_ns)}</text>'


# --- Faults


def _spans(shown: Picture) -> Iterator[str]:
    """Yield the ways between machines, and the machines, that something was wrong with for a while."""
    for fault in shown.record.faults:
        if fault.until_ns is None:
            continue
        top, bottom = shown.scale.place(fault.began_ns), shown.scale.place(fault.until_ns)
        height = max(3.0, bottom - top)
        words = f"{fault.kind} from {told(fault.began_ns)} to {told(fault.until_ns)}: {fault.text}"
        for way in fault.facts.get("ways", ()):
            one, other = sorted(map(shown.columns.at, way))
            shut = max(3.0, shown.scale.place(fault.facts["until_ns"].get(way, fault.until_ns)) - top)
            yield (
                f'<rect x="{one:.1f}" y="{top:.1f}" width="{other - one:.1f}" height="{shut:.1f}"'
                f" {_attributes('wall')}><title>{escape(words)}</title></rect>"
            )
        for machine in fault.machines:
            x = shown.columns.at(machine)
            yield (
                f'<rect x="{x - 9:.1f}" y="{top:.1f}" width="5" height="{height:.1f}"'
                f" {_attributes('span')}><title>{escape(words)}</title></rect>"
            )


def _faults(shown: Picture) -> Iterator[str]:
    for number, fault in enumerate(shown.record.faults):
        y = shown.rows[~number]
        words = f"fault: {fault}"
        x = shown.columns.at(_place_of(fault)) if _place_of(fault) else LEFT - 10
        label = fault.kind if fault.machines else f"{fault.kind}: {fault.text}"
        is_device = x < shown.columns.at("coordinator")
        room = shown.columns.wide - 14 if is_device else shown.columns.wide
        at = f'x="{x + 11:.1f}"' if is_device else f'x="{x - 4:.1f}" text-anchor="end"'
        yield (
            f'<g tabindex="0" role="img" id="fault-{number}" {_attributes("fault")}><title>{escape(words)}</title>'
            f'<path class="flag" d="M{x:.1f} {y - 7:.1f}l8 5l-8 5z"/>'
            f'<text {at} y="{y + 2:.1f}">{escape(_cut(label, room))}</text></g>'
        )


def _place_of(fault: Fault) -> str:
    if fault.machines:
        return fault.machines[0]
    ways = fault.facts.get("ways", ())
    return str(ways[0][0]) if ways else ""


def _lives(shown: Picture) -> Iterator[str]:
    for life in shown.record.lives:
        sign, what = MARKS.get(life.what, ("?", life.what))
        if life.machine not in shown.columns.names or (life.what == "start" and life.time_ns == 0):
            continue
        x, y = shown.columns.at(life.machine), shown.scale.place(life.time_ns)
        words = f"{life.machine}: {what} at {told(life.time_ns)}"
        if life.lost:
            words += f"; its disk lost {', '.join(life.lost[:5])}"
        yield (
            f'<text x="{x:.1f}" y="{y + 4:.1f}" {_attributes(f"machine {life.what}")}>{sign}'
            f"<title>{escape(words)}</title></text>"
        )


# --- Messages


def _bundles(shown: Picture) -> Iterator[str]:
    """Yield arrows for messages; those of one kind on one way that leave and come at one place are one arrow."""
    found: dict[tuple[str, str, str, int, int], list[Message]] = {}
    for message in shown.messages:
        sent = message.sent
        if sent.source not in shown.columns.names or sent.target not in shown.columns.names:
            continue
        top = shown.scale.place(sent.time_ns)
        bottom = -1.0 if message.arrived_ns is None else shown.scale.place(message.arrived_ns)
        key = (sent.kind, sent.source, sent.target, int(top // _BUNDLE_NS), int(bottom // _BUNDLE_NS))
        found.setdefault(key, []).append(message)
    for (kind, source, target, _, _), bundle in found.items():
        first = bundle[0]
        x1, y1 = shown.columns.at(source), shown.scale.place(first.sent.time_ns)
        x2 = shown.columns.at(target)
        y2 = y1 + 8 if first.arrived_ns is None else shown.scale.place(first.arrived_ns)
        is_lost = first.arrived_ns is None
        lost = " lost" if is_lost else ""
        if is_lost:
            x2 = x1 + (x2 - x1) * 0.3
        words = _told_bundle(kind, source, target, bundle)
        end = f' marker-end="url(#head-{"lost" if is_lost else kind})"'
        yield (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{end}'
            f" {_attributes(f'message {kind}{lost}')}><title>{escape(words)}</title></line>"
        )


def _told_bundle(kind: str, source: str, target: str, bundle: list[Message]) -> str:
    names = dict.fromkeys(message.sent.name for message in bundle)
    size = sum(message.sent.size for message in bundle)
    lost = " (lost)" if bundle[0].arrived_ns is None else ""
    return (
        f"{len(bundle)} of {MESSAGE_WORDS[kind]} ({', '.join(list(names)[:4])}), {size} bytes,"
        f" {source} to {target} at {told(bundle[0].sent.time_ns)}{lost}"
    )


def _spreading(shown: Picture) -> Iterator[str]:
    """Yield arrows from who wrote a content to where processes put it on other devices for the first time."""
    makers: dict[bytes, Deed] = {}
    for deed in shown.record.deeds:
        for op in deed.operations:
            if op.new is not None and op.new.kind is Kind.FILE and op.new.content != EMPTY and op.what is not What.MOVE:
                makers.setdefault(op.new.content, deed)
    seen: set[tuple[bytes, int]] = set()
    for stroke in shown.record.strokes:
        maker = makers.get(stroke.content)
        if maker is None or not stroke.is_placed or (stroke.content, stroke.device) in seen:
            continue
        seen.add((stroke.content, stroke.device))
        if maker.device == stroke.device or maker.time_ns > stroke.time_ns:
            continue
        x1, y1 = shown.columns.at(f"device-{maker.device}"), shown.rows[maker.number]
        x2, y2 = shown.columns.at(f"device-{stroke.device}"), shown.scale.place(stroke.time_ns)
        words = (
            f"what #{maker.number} wrote comes to device-{stroke.device} as {stroke.path},"
            f" {told(stroke.time_ns - maker.time_ns)} later"
        )
        yield (
            f'<path d="{_curve(x1, y1, x2, y2)}"'
            f' marker-end="url(#head-story)" {_attributes("spread", shown.stories.of_deed(maker))}>'
            f"<title>{escape(words)}</title></path>"
        )


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a way from one point to another: over to the other machine at once, and down beside its line."""
    if y2 - y1 < _BEND + _LANE:
        return f"M{x1:.1f} {y1:.1f}L{x2 - 4:.1f} {y2:.1f}"
    lane = x2 - _LANE
    return (
        f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + _BEND:.1f} {lane:.1f} {y1:.1f} {lane:.1f} {y1 + _BEND:.1f}"
        f"V{y2 - _LANE:.1f}L{x2 - 4:.1f} {y2:.1f}"
    )


# --- Files


def _strokes(shown: Picture) -> Iterator[str]:
    for stroke in shown.record.strokes:
        x, y = shown.columns.at(f"device-{stroke.device}"), shown.scale.place(stroke.time_ns)
        words = f"{_told_stroke(stroke)}, at {told(stroke.time_ns)}"
        is_conflict = stroke.is_placed and is_copy(last_name(stroke.path))
        kind = "stroke conflict" if is_conflict else "stroke placed" if stroke.is_placed else "stroke taken"
        shape = (
            f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"'
            if is_conflict
            else f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"'
        )
        end = "path" if is_conflict else "rect"
        yield f"{shape} {_attributes(kind, shown.stories.of_stroke(stroke))}><title>{escape(words)}</title></{end}>"


def _told_stroke(stroke: Stroke) -> str:
    content = f" ({stroke.content.hex()[:6]})" if stroke.kind is Kind.FILE else ""
    if not stroke.is_placed:
        return f"the agent of device-{stroke.device} takes {stroke.path}{content} away"
    copy = "the conflict copy " if is_copy(last_name(stroke.path)) else ""
    return f"the agent of device-{stroke.device} places {copy}{stroke.path}{content}"


def _deeds(shown: Picture) -> Iterator[str]:
    for deed in shown.record.deeds:
        x, y = shown.columns.at(f"device-{deed.device}"), shown.rows[deed.number]
        words = told_deed(deed)
        involved = " involved" if deed.number in shown.involved else ""
        kind = f"deed {kind_of(deed)}{involved}"
        label = f"#{deed.number} {deed.what}"
        yield (
            f'<g tabindex="0" role="button" aria-pressed="false" id="action-{deed.number}"'
            f" {_attributes(kind, shown.stories.of_deed(deed))}>"
            f"<title>{escape(words)}</title>"
            + (f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="10"/>' if involved else "")
            + sign(kind_of(deed), x, y)
            + f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{escape(_cut(label, shown.columns.wide - 20))}</text></g>'
        )


def kind_of(deed: Deed) -> str:
    """Return what kind of action it is, one of :data:`KINDS`."""
    whats = {op.what for op in deed.operations}
    if whats & {What.CREATE, What.EDIT, What.RETYPE}:
        return "write"
    if What.MOVE in whats:
        return "move"
    return "remove" if What.REMOVE in whats else "other"


def told_deed(deed: Deed) -> str:
    """Return an action in words, with all that it did."""
    lines = [f"#{deed.number} device-{deed.device} {deed.what}, at {told(deed.time_ns)}"]
    for op in deed.operations[:12]:
        came = f" {op.new.content.hex()[:6]}" if op.new is not None and op.new.kind is Kind.FILE else ""
        gone = f" instead of {op.old.content.hex()[:6]}" if op.what is What.EDIT and op.old is not None else ""
        to = f" to {op.to}" if op.to != op.path else ""
        lines.append(f"{op.what.value} {op.path}{to}{came}{gone}")
    return "\n".join(lines)


def _cut(text: str, room: float) -> str:
    most = max(3, int(room / _LABEL_PX))
    return text if len(text) <= most else text[: most - 1] + "…"


def heads(columns: Columns, personalities: tuple[str, ...]) -> str:
    """Return the row of machine names, which stays at the top while the page scrolls."""
    parts = [f'<svg class="heads" viewBox="0 0 {WIDTH} 34" width="{WIDTH}" height="34" aria-hidden="true">']
    for name in columns.names:
        x = columns.at(name)
        number = columns.names.index(name)
        disk = personalities[number] if number < len(personalities) else ""
        parts.append(f'<text class="name" x="{x - 8:.1f}" y="15">{escape(name)}</text>')
        parts.append(f'<text class="disk" x="{x - 8:.1f}" y="29">{escape(disk)}</text>')
    return "".join([*parts, "</svg>"])


def strips(shown: Picture, *, beside: bool) -> str:
    """Return the diagram as it is printed: cut into pieces, each of which fits a sheet and begins with the machines' names.

    Args:
        shown: What is drawn.
        beside: Whether there is room for a little of it on the first sheet.
    """
    height, top = shown.scale.bottom + 20, 0.0
    head, parts = heads(shown.columns, shown.record.personalities), []
    most = _BESIDE if beside else _STRIP
    while top < height - _OVERLAP:
        piece = min(most, height - top)
        parts.append(
            f'<div class="strip">{head}<svg class="diagram" viewBox="0 {top:.0f} {WIDTH} {piece:.0f}"'
            f' width="{WIDTH}" height="{piece:.0f}"><use href="#{_DRAWING}"/></svg></div>'
        )
        top += piece - _OVERLAP
        most = _STRIP
    return f'<div class="strips" aria-hidden="true">{"".join(parts)}</div>'
