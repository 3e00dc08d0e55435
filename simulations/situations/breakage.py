"""Situations that faults make: crashes at this moment or that, disks, clocks, backups, and ways by which things spread.

Rule 1: what a process was at is told by what its disk and its links show of it, before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from protocol.entries import Kind
from simulations.checks.names import is_copy, is_local, wanted
from simulations.history.ledger import EMPTY
from simulations.loop import SECOND_NS
from simulations.situations import pairs
from simulations.situations.operations import What, is_below, last_name
from simulations.situations.pairs import Evidence, Judge, fills, removes
from simulations.situations.record import Did, Fault, Life, Record, Stroke

_MOMENT_NS: Final = SECOND_NS
_SOON_NS: Final = 30 * SECOND_NS
_DAY_NS: Final = 86_400 * SECOND_NS
_YEARS_NS: Final = 10 * 365 * _DAY_NS
_LONG_NS: Final = 540 * _DAY_NS
COORDINATOR: Final = "coordinator"
_DEVICE: Final = "device-"


def _number(machine: str) -> int:
    return int(machine.removeprefix(_DEVICE))


def _content(did: Did) -> bytes:
    return did.op.new.content if did.op.new is not None else EMPTY


def _written(record: Record) -> Iterator[Did]:
    for did in record.of(What.CREATE, What.EDIT, kind=Kind.FILE):
        if _content(did) != EMPTY:
            yield did


def _sent_to_nodes(record: Record, device: int, since_ns: int, until_ns: int) -> bool:
    name = f"{_DEVICE}{device}"
    return any(
        since_ns < one.time_ns < until_ns and one.source == name and one.target.startswith("node-")
        for one in record.sends
    )


def _elsewhere_ns(record: Record, did: Did) -> int:
    """Return when another device first showed what somebody wrote."""
    return min((one.time_ns for one in record.placed(_content(did), did.deed.device)), default=1 << 62)


# --- Actions at the moment at which a process is at the same thing


def away(record: Record) -> Iterator[Evidence]:
    """Find two who removed one file while a third could hear of nothing (8)."""
    for one, other in record.pairs:
        if removes(one.op) and removes(other.op) and pairs.same(one.op, other.op):
            for number in range(record.devices):
                is_third = number not in {one.deed.device, other.deed.device}
                if is_third and all(record.is_cut_off(number, did.deed.time_ns) for did in (one, other)):
                    yield one, other


def _arriving(record: Record, did: Did, until_ns: int = 0) -> Iterator[Stroke]:
    """Yield what a process had begun to receive for a name when its user did something there."""
    for stroke in record.strokes:
        if (
            stroke.device == did.deed.device
            and stroke.is_placed
            and stroke.kind is Kind.FILE
            and stroke.began_ns <= did.deed.time_ns <= stroke.time_ns + until_ns
            and wanted(last_name(stroke.path)) == wanted(last_name(did.op.to))
            and stroke.content != _content(did)
        ):
            yield stroke


def edited_while_arriving(record: Record) -> Iterator[Evidence]:
    """Find an edit of a file whose next version was coming (11)."""
    for did in record.of(What.EDIT, kind=Kind.FILE):
        for stroke in _arriving(record, did):
            yield did, stroke


def replaced_between(record: Record) -> Iterator[Evidence]:
    """Find a rename over a file, or another save, at the instant at which a process replaced it (12)."""
    for did in record.of(What.EDIT, kind=Kind.FILE):
        for stroke in record.strokes:
            is_at = stroke.device == did.deed.device and stroke.time_ns == did.deed.time_ns
            if (
                is_at
                and wanted(last_name(stroke.path)) == wanted(last_name(did.op.to))
                and stroke.content != _content(did)
            ):
                yield did, stroke


def changed_while_sent(record: Record) -> Iterator[Evidence]:
    """Find a file that changed again while its last version was on its way to the nodes (13)."""
    for did in _written(record):
        for later in record.after(did):
            is_again = later.op.what is What.EDIT and later.op.path == did.op.to and later.deed.number > did.deed.number
            if (
                is_again
                and later.deed.time_ns - did.deed.time_ns < _SOON_NS
                and later.op.old is not None
                and later.op.old.content == _content(did)
                and later.deed.time_ns < _elsewhere_ns(record, did)
                and _sent_to_nodes(record, did.deed.device, did.deed.time_ns, later.deed.time_ns)
            ):
                yield did, later


def sent_side_by_side(record: Record) -> Iterator[Evidence]:
    """Find two versions of one large file that both were sent to the nodes, before either had come to the other's device (22)."""
    for one, other in record.pairs:
        if not (
            pairs.writes_large(one.op)
            and pairs.writes_large(other.op)
            and pairs.differing_at_one_place(one.op, other.op)
        ):
            continue
        since_ns = max(one.deed.time_ns, other.deed.time_ns)
        until_ns = min(_elsewhere_ns(record, one), _elsewhere_ns(record, other))
        if all(_sent_to_nodes(record, did.deed.device, since_ns, until_ns) for did in (one, other)):
            yield one, other


def created_while_arriving(record: Record) -> Iterator[Evidence]:
    """Find a new file of a name for which another was coming (14)."""
    for did in record.of(What.CREATE, kind=Kind.FILE):
        for stroke in _arriving(record, did):
            yield did, stroke


def kept_ignored(record: Record) -> Iterator[Evidence]:
    """Find a directory removed that holds, on another device, what never leaves it (59)."""
    for did in record.of(What.REMOVE, kind=Kind.DIRECTORY):
        for device in record.by_device:
            last = [deed for deed in device if deed.number < did.deed.number and deed.device != did.deed.device][-1:]
            for deed in last:
                if any(is_below(path, did.op.path) and is_local(path) for path in deed.after):
                    yield did, deed


def unscanned(record: Record) -> Iterator[Evidence]:
    """Find a file put into a directory just before a process took away what was in it (60)."""
    for did in record.of(What.CREATE, kind=Kind.FILE):
        above = did.op.to.rpartition("/")[0]
        for stroke in record.strokes:
            if (
                above
                and stroke.device == did.deed.device
                and not stroke.is_placed
                and (stroke.path == above or is_below(stroke.path, above) or is_below(above, stroke.path))
                and 0 <= stroke.time_ns - did.deed.time_ns < _MOMENT_NS
            ):
                yield did, stroke


def copies_at_once(record: Record) -> Iterator[Evidence]:
    """Find two conflict copies of one name within a second (87)."""
    found = [one for one in record.strokes if one.is_placed and is_copy(last_name(one.path))]
    for one, other in pairwise(found):
        if (
            one.device == other.device
            and one.path != other.path
            and wanted(last_name(one.path)) == wanted(last_name(other.path))
            and other.time_ns - one.time_ns < _MOMENT_NS
        ):
            yield one, other


def locked(record: Record) -> Iterator[Evidence]:
    """Find a file that a process could not touch since a program held it, while another device's version of it was made (96)."""
    held = list(record.of_kind("lock"))
    for fault in held:
        for did in _written(record):
            if (
                f"{_DEVICE}{did.deed.device}" not in fault.machines
                and did.op.to == fault.facts.get("path")
                and (fault.began_ns - _SOON_NS < did.deed.time_ns < fault.end_ns)
            ):
                yield fault, did


# --- Crashes and disks


def _crashes(record: Record, *whats: str) -> Iterator[Life]:
    for life in record.lives:
        if life.machine.startswith(_DEVICE) and life.what in (whats or ("crash",)):
            yield life


def crash_while_sending(record: Record) -> Iterator[Evidence]:
    """Find a crash between a user's action and the moment at which anybody else had it, with something sent since (101)."""
    for life in _crashes(record):
        for did in _written(record):
            if (
                did.deed.device == _number(life.machine)
                and did.deed.time_ns < life.time_ns < _elsewhere_ns(record, did)
                and life.time_ns - did.deed.time_ns < _SOON_NS
                and _sent_to_nodes(record, did.deed.device, did.deed.time_ns, life.time_ns)
            ):
                yield did, life


def crash_while_applying(record: Record) -> Iterator[Evidence]:
    """Find a crash while what a device was receiving was not in its place (102)."""
    for life in _crashes(record):
        for stroke in record.strokes:
            if (
                stroke.is_placed
                and stroke.device == _number(life.machine)
                and (stroke.began_ns < life.time_ns <= stroke.time_ns)
            ):
                yield stroke, life


def crash_between(record: Record) -> Iterator[Evidence]:
    """Find a crash after what a user had was taken from its place, and before it stood at another (103)."""
    for life in _crashes(record):
        device = _number(life.machine)
        taken = [
            one
            for one in record.strokes
            if one.device == device
            and not one.is_placed
            and one.kind is Kind.FILE
            and (0 <= life.time_ns - one.time_ns < _MOMENT_NS)
        ]
        for one in taken:
            for other in record.strokes:
                is_back = other.device == device and other.is_placed and other.content == one.content != EMPTY
                if is_back and other.time_ns >= life.time_ns:
                    yield one, life, other


def power_takes_bytes(record: Record) -> Iterator[Evidence]:
    """Find a cut of power that took bytes of a file whose name it left, and that a process had put there, or a user written (104)."""
    for life in _crashes(record, "power"):
        for path in life.torn:
            for did in _written(record):
                if did.deed.device == _number(life.machine) and did.op.to == path and did.deed.time_ns <= life.time_ns:
                    yield did, life
            for stroke in record.strokes:
                if (
                    stroke.is_placed
                    and stroke.device == _number(life.machine)
                    and stroke.path == path
                    and stroke.time_ns <= life.time_ns
                ):
                    yield stroke, life


def files_ahead(record: Record) -> Iterator[Evidence]:
    """Find a database put back to a time before its files (105)."""
    for fault in record.of_kind("set_back_device"):
        if fault.facts.get("database") and not fault.facts.get("files"):
            yield (fault,)


def database_ahead(record: Record) -> Iterator[Evidence]:
    """Find files of which a cut of power, or a backup, has taken what the database knows (106)."""
    for life in _crashes(record, "power"):
        if life.lost:
            yield (life,)
    for fault in record.of_kind("set_back_device"):
        if fault.facts.get("files") and not fault.facts.get("database") and fault.facts.get("gone"):
            yield (fault,)


def full_disk(record: Record) -> Iterator[Evidence]:
    """Find a disk that had no room for something, while others' contents were to come to it (107)."""
    for fault in record.of_kind("fill_disk"):
        device = _number(fault.machines[0])
        for stroke in record.strokes:
            if (
                stroke.device == device
                and stroke.is_placed
                and stroke.kind is Kind.FILE
                and (stroke.time_ns >= fault.began_ns and stroke.began_ns <= fault.end_ns)
            ):
                yield fault, stroke


def refusing_disk(record: Record) -> Iterator[Evidence]:
    """Find a disk that refused some calls (108)."""
    for fault in record.of_kind("fail_disk"):
        if fault.machines[0].startswith(_DEVICE):
            yield (fault,)


def clocks(record: Record) -> Iterator[Evidence]:
    """Find a device whose clock was put elsewhere while it ran, or that slept, and whose user acted after that, or meanwhile (111)."""
    for fault in record.of_kind("jump_clock", "sleep"):
        (name,) = fault.machines
        if not name.startswith(_DEVICE) or record.is_down(name, fault.began_ns):
            continue
        until_ns = fault.end_ns if fault.kind == "sleep" else fault.began_ns + _SOON_NS
        for deed in record.by_device[_number(name)]:
            if fault.began_ns <= deed.time_ns <= until_ns and deed.operations:
                yield fault, deed


def crash_while_excluding(record: Record) -> Iterator[Evidence]:
    """Find a crash within seconds of a change of what a device leaves out (113)."""
    for asked in record.asked:
        for life in _crashes(record):
            if (
                asked.method == "exclude"
                and _number(life.machine) == asked.device
                and (0 <= life.time_ns - asked.time_ns < 5 * SECOND_NS)
            ):
                yield asked, life


# --- Backups and time


def _set_back(*, files: bool, database: bool) -> Judge:
    def judge(record: Record) -> Iterator[Evidence]:
        for fault in record.of_kind("set_back_device"):
            if (fault.facts.get("files"), fault.facts.get("database")) == (files, database):
                yield (fault,)

    return judge


def database_back_files_missing(record: Record) -> Iterator[Evidence]:
    """Find a database put back to a time at which files stood that are not there (115)."""
    for fault in record.of_kind("set_back_device"):
        if fault.facts.get("database") and not fault.facts.get("files") and fault.facts.get("missing"):
            yield (fault,)


def far_clock(record: Record) -> Iterator[Evidence]:
    """Find two whose clocks were years apart, and who did something to one thing without knowing of each other (120)."""
    for one, other in pairs.concurrent_conflicts(record):
        apart_ns = (one.deed.wall_ns - one.deed.time_ns) - (other.deed.wall_ns - other.deed.time_ns)
        if abs(apart_ns) >= _YEARS_NS:
            yield one, other


def long_away(record: Record) -> Iterator[Evidence]:
    """Find a device without a process for a year and a half, whose user edited before or meanwhile, as others did (121)."""
    for number in range(record.devices):
        for began, until in record.spans.get(f"{_DEVICE}{number}", ()):
            if until - began < _LONG_NS:
                continue
            own = [
                did for did in _written(record) if did.deed.device == number and _is_unsent(record, did, began, until)
            ]
            others = [did for did in record.did if did.deed.device != number and began <= did.deed.time_ns < until]
            if own and others:
                yield own[0], others[0]


def _is_unsent(record: Record, did: Did, began_ns: int, until_ns: int) -> bool:
    return (
        did.deed.time_ns < until_ns
        and _elsewhere_ns(record, did) >= until_ns
        and (did.deed.time_ns >= began_ns - _SOON_NS)
    )


# --- Servers and networks


def rotten_chunk(record: Record) -> Iterator[Evidence]:
    """Find a node that read from a pack of which its disk had changed bytes (135)."""
    return ((fault,) for fault in record.of_kind("rot"))


def spoilt(record: Record) -> Iterator[Evidence]:
    """Find a node that served other bytes than it holds, or whose disk has changed them (135)."""
    yield from rotten_chunk(record)
    yield from ((fault,) for fault in record.of_kind("spoil"))


def false_log(record: Record) -> Iterator[Evidence]:
    """Find a coordinator that left out, repeated, reordered or changed what it said to a device (142)."""
    return ((fault,) for fault in record.of_kind("lie"))


def false_neighbour(record: Record) -> Iterator[Evidence]:
    """Find a device that sent a neighbour on the LAN what no device sends (144)."""
    return ((fault,) for fault in record.of_kind("garble"))


def lost_disk(record: Record) -> Iterator[Evidence]:
    """Find a node that took chunks and lost them (136)."""
    for fault in record.of_kind("lose_a_disk"):
        if fault.facts.get("packs"):
            yield (fault,)


def coordinator_back(record: Record) -> Iterator[Evidence]:
    """Find a coordinator put back to before something that it had ordered (140)."""
    for fault in record.of_kind("set_back_coordinator"):
        since_ns = fault.facts.get("since_ns")
        if since_ns is None:
            continue
        for did in _written(record):
            if since_ns < did.deed.time_ns < fault.began_ns and _elsewhere_ns(record, did) < fault.began_ns:
                yield fault, did


def _cut_from_coordinator(record: Record, device: int, time_ns: int) -> bool:
    """Tell whether a device can reach the coordinator in no way, and others perhaps."""
    if record.is_down(COORDINATOR, time_ns):
        return True
    name = f"{_DEVICE}{device}"
    for fault in record.made("island", "cut", "clog"):
        for way in ((name, COORDINATOR), (COORDINATOR, name)):
            if _is_shut(fault, way, time_ns):
                return True
    return any(
        fault.began_ns <= time_ns <= fault.end_ns and COORDINATOR in fault.machines for fault in record.made("leave")
    )


def _is_shut(fault: Fault, way: tuple[str, str], time_ns: int) -> bool:
    """Tell whether nothing got through on a way because of a fault."""
    return way in fault.facts["ways"] and fault.began_ns <= time_ns < fault.facts["until_ns"].get(way, fault.end_ns)


def withheld(record: Record) -> Iterator[Evidence]:
    """Find a device to which the coordinator's word did not come though it could say its own, while others went on (143)."""
    for fault in record.of_kind("cut", "clog", "island"):
        for source, target in fault.facts.get("ways", ()):
            if source != COORDINATOR or not target.startswith(_DEVICE) or (target, source) in fault.facts["ways"]:
                continue
            until_ns = fault.facts["until_ns"].get((source, target), fault.end_ns)
            if not record.sent(source, target, fault.began_ns, until_ns):
                continue
            for did in _written(record):
                if fault.began_ns < did.deed.time_ns < until_ns and did.deed.device != _number(target):
                    yield fault, did
                    break


def _by_lan(record: Record) -> Iterator[tuple[Did, Stroke]]:
    """Yield what came to a device while it or its writer could not reach the coordinator."""
    for did in _written(record):
        for stroke in record.placed(_content(did), did.deed.device):
            if _cut_from_coordinator(record, did.deed.device, stroke.time_ns) and (
                _cut_from_coordinator(record, did.deed.device, did.deed.time_ns)
            ):
                yield did, stroke
                break


def lan_alone(record: Record) -> Iterator[Evidence]:
    """Find an edit that spread by LAN alone, and another's of the same file who could not hear of it (146)."""
    spread = list(_by_lan(record))
    for did, stroke in spread:
        for one, other in pairs.concurrent_conflicts(record):
            if one is did and other.deed.device not in {did.deed.device, stroke.device}:
                yield did, stroke, other


def relayed(record: Record) -> Iterator[Evidence]:
    """Find an edit that came to others by LAN, and a later one of the same file by the same user (147)."""
    for did, stroke in _by_lan(record):
        for later in record.after(did):
            if fills(later.op) and later.op.path == did.op.to and later.deed.time_ns > stroke.time_ns:
                yield did, stroke, later


def split(record: Record) -> Iterator[Evidence]:
    """Find conflicts in both halves of a network that had come apart (148)."""
    for fault in record.of_kind("split"):
        halves = fault.facts["halves"]
        met = []
        for half in halves:
            inside = [
                one
                for one, other in pairs.concurrent_conflicts(record)
                if one.deed.device in half
                and other.deed.device in half
                and all(fault.began_ns < did.deed.time_ns < fault.end_ns for did in (one, other))
            ]
            met.append(inside)
        if all(met):
            yield fault, *(inside[0] for inside in met)


def copy_on_both(record: Record) -> Iterator[Evidence]:
    """Find a conflict copy that two devices made of their own files, before either had it from the other (149)."""
    found: dict[tuple[str, bytes], Stroke] = {}
    for stroke in record.strokes:
        if not (stroke.is_placed and is_copy(last_name(stroke.path)) and stroke.content != EMPTY):
            continue
        first = found.setdefault((stroke.path, stroke.content), stroke)
        if first.device != stroke.device and stroke.time_ns - first.time_ns < _MOMENT_NS:
            yield first, stroke


def conflict_again(record: Record) -> Iterator[Evidence]:
    """Find a second conflict about a file of which there was a copy already (153)."""
    for one, other in pairs.concurrent_conflicts(record):
        for path, seen in one.deed.before.items():
            if (
                seen.kind is Kind.FILE
                and is_copy(last_name(path))
                and wanted(last_name(path)) == wanted(last_name(one.op.path))
            ):
                yield one, other


def messages(record: Record) -> Iterator[Evidence]:
    """Find connections that broke in the middle, or messages that came twice (154)."""
    return ((fault,) for fault in record.of_kind("reset", "half_open", "repeat"))


def one_way(record: Record) -> Iterator[Evidence]:
    """Find a machine that sent something, and did not hear what the other sent it (155)."""
    for fault in record.of_kind("cut", "clog"):
        ways, until_ns = fault.facts["ways"], fault.facts["until_ns"]
        for source, target in ways:
            if (target, source) not in ways:
                span = fault.began_ns, until_ns.get((source, target), fault.end_ns)
                if record.sent(source, target, *span) and record.sent(target, source, *span):
                    yield (fault,)


def excluded_name(record: Record) -> Iterator[Evidence]:
    """Find something made on a device at a path that it leaves out (157)."""
    for asked in record.asked:
        if asked.method != "exclude":
            continue
        for did in record.of(What.CREATE, What.MOVE):
            if did.deed.device == asked.device and did.deed.time_ns > asked.time_ns and did.op.to == asked.path:
                yield asked, did


def root_gone(record: Record) -> Iterator[Evidence]:
    """Find a folder's root that was not there for a while, while a process looked after it (74)."""
    return ((fault,) for fault in record.of_kind("hide_root"))


JUDGES: Final[dict[int, Judge]] = {
    8: away,
    11: edited_while_arriving,
    12: replaced_between,
    13: changed_while_sent,
    14: created_while_arriving,
    22: sent_side_by_side,
    59: kept_ignored,
    60: unscanned,
    74: root_gone,
    87: copies_at_once,
    96: locked,
    101: crash_while_sending,
    102: crash_while_applying,
    103: crash_between,
    104: power_takes_bytes,
    105: files_ahead,
    106: database_ahead,
    107: full_disk,
    108: refusing_disk,
    111: clocks,
    113: crash_while_excluding,
    114: _set_back(files=True, database=True),
    115: database_back_files_missing,
    116: _set_back(files=True, database=False),
    120: far_clock,
    121: long_away,
    135: spoilt,
    136: lost_disk,
    140: coordinator_back,
    142: false_log,
    143: withheld,
    144: false_neighbour,
    146: lan_alone,
    147: relayed,
    148: split,
    149: copy_on_both,
    153: conflict_again,
    154: messages,
    155: one_way,
    157: excluded_name,
}
