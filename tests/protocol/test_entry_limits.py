"""What no honest device writes into an entry: every bound of header and payload, at the limit and one above."""

import msgspec
import pytest

from protocol import limits
from protocol.entries import (
    Batch,
    Change,
    ContentValue,
    DetachValue,
    Expect,
    Header,
    Kind,
    Payload,
    PlaceValue,
    Register,
    RemovalValue,
    RowSpan,
    Seen,
    SegmentKey,
    check_header,
    check_name,
    check_payload,
    is_reserved,
)
from protocol.errors import LimitExceededError, ProtocolError
from protocol.ids import ROOT, ChunkId, Dot, EntryHash, FolderId, LinkHash, NodeId

replace = msgspec.structs.replace
NODE = NodeId(b"n" * 16)


def numbered(count):
    return tuple(EntryHash(number.to_bytes(32, "big")) for number in range(count))


def change(node=NODE, register=Register.PLACE, base=(), vector=((3, 41),)):
    return Change(node, register, base, vector)


HEADER = Header(
    version=1,
    folder=FolderId(bytes(32)),
    epoch=1,
    control_head=LinkHash(bytes(32)),
    device=3,
    seq=41,
    previous=EntryHash(bytes(32)),
    needs=(),
    expect=(),
    replaces=(),
    batch=None,
    changes=(change(),),
    pins=(),
    source=None,
    payload_hash=bytes(32),
)
PAYLOAD = Payload(Seen(0, 0, bytes(32), ()), (), "Laptop", 0, "", (), (PlaceValue(ROOT, b"a", weak=False),))
SEGMENT = SegmentKey(ChunkId(b"s" * 32), b"o" * 32, 4)


def dots(count):
    return tuple(Dot(1, number, 0) for number in range(1, count + 1))


def vector(count):
    return (*((number, 1) for number in range(4, count + 3)),)


LISTS = {
    "changes": (limits.ENTRY_CHANGES_MAX, lambda n: {"changes": (change(),) * n}),
    "needs": (limits.ENTRY_NEEDS_MAX, lambda n: {"needs": numbered(n)}),
    "replaces": (limits.ENTRY_NEEDS_MAX, lambda n: {"replaces": numbered(n)}),
    "pins": (limits.ENTRY_PINS_MAX, lambda n: {"pins": tuple(ChunkId(one) for one in numbered(n))}),
    "expect": (limits.ENTRY_CHANGES_MAX, lambda n: {"expect": (Expect(NODE, Register.PLACE, ()),) * n}),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_a_header_are_bounded(name):
    most, make = LISTS[name]
    check_header(replace(HEADER, **make(most)))
    with pytest.raises(LimitExceededError):
        check_header(replace(HEADER, **make(most + 1)))


def test_a_base_is_bounded():
    check_header(replace(HEADER, changes=(change(base=dots(limits.CHANGE_BASE_MAX)),)))
    with pytest.raises(ProtocolError):
        check_header(replace(HEADER, changes=(change(base=dots(limits.CHANGE_BASE_MAX + 1)),)))


def test_a_vector_is_bounded():
    check_header(replace(HEADER, changes=(change(vector=((3, 41), *vector(limits.VECTOR_COMPONENTS_MAX))),)))
    with pytest.raises(ProtocolError):
        check_header(replace(HEADER, changes=(change(vector=((3, 41), *vector(limits.VECTOR_COMPONENTS_MAX + 1))),)))


def test_a_batch_is_bounded():
    most = limits.BATCH_ENTRIES_MAX
    check_header(replace(HEADER, batch=Batch(b"b" * 16, most - 1, most)))
    for batch in (
        Batch(b"b" * 16, most, most + 1),
        Batch(b"b" * 16, most, most),
        Batch(b"b" * 16, -1, 1),
        Batch(b"b" * 15, 0, 1),
    ):
        with pytest.raises(ProtocolError):
            check_header(replace(HEADER, batch=batch))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"version": 2},
        {"folder": FolderId(bytes(31))},
        {"control_head": LinkHash(bytes(33))},
        {"previous": EntryHash(b"")},
        {"payload_hash": b""},
        {"device": 0},
        {"device": limits.DEVICE_NUMBER_MAX + 1},
        {"seq": 0},
        {"seq": 1 << 63},
        {"epoch": -1},
        {"epoch": 1 << 31},
        {"source": FolderId(b"f")},
        {"expect": (Expect(NodeId(b"n"), Register.PLACE, ()),)},
        {"expect": (Expect(NODE, Register.PLACE, ((2, 1), (1, 1))),)},
        {"changes": (change(base=(Dot(1, 1 << 63, 0),)),)},
        {"needs": numbered(2)[::-1]},
        {"needs": numbered(1) * 2},
        {"pins": (ChunkId(b"p"),)},
        {"replaces": (EntryHash(bytes(31)),)},
        {"changes": (change(node=ROOT),)},
        {"changes": (change(node=NodeId(b"short")),)},
        {"changes": (change(base=dots(2)[::-1]),)},
        {"changes": (change(base=(Dot(0, 1, 0),)),)},
        {"changes": (change(base=(Dot(1, 0, 0),)),)},
        {"changes": (change(base=(Dot(1, 1, -1),)),)},
        {"changes": (change(base=(Dot(1, 1, limits.ENTRY_CHANGES_MAX),)),)},
        {"changes": (change(base=(Dot(3, 41, 0),)),)},
        {"changes": (change(vector=()),)},
        {"changes": (change(vector=((3, 40),)),)},
        {"changes": (change(vector=((3, 41), (2, 1))),)},
        {"changes": (change(vector=((2, 0), (3, 41))),)},
    ],
    ids=str,
)
def test_such_a_header_is_refused(fields):
    with pytest.raises(ProtocolError):
        check_header(replace(HEADER, **fields))


def test_a_folder_s_largest_numbers_are_fine():
    most = limits.DEVICE_NUMBER_MAX
    last = change(vector=((most, (1 << 63) - 1),))
    check_header(replace(HEADER, device=most, seq=(1 << 63) - 1, changes=(last,)))


# Payloads.

BAD_DOTS = [
    Dot(0, 1, 0),
    Dot(65_536, 1, 0),
    Dot(-1, 1, 0),
    Dot(1, 0, 0),
    Dot(1, 1 << 63, 0),
    Dot(1, 1, -1),
    Dot(1, 1, 1000),
]


@pytest.mark.parametrize("dot", BAD_DOTS, ids=str)
def test_no_value_holds_a_dot_that_no_entry_has(dot):
    """S59: a conflict copy's id is made from a dot, so one out of range must not reach the fold."""
    detach = replace(HEADER, changes=(change(register=Register.DETACH),))
    check_payload(detach, replace(PAYLOAD, values=(DetachValue(Dot(1, 1, 0)),)))
    for head, value in ((detach, DetachValue(dot)), (HEADER, RemovalValue((dot,), ROOT, b"a", bytes(16)))):
        with pytest.raises(ProtocolError):
            check_payload(head, replace(PAYLOAD, values=(value,)))
    with pytest.raises(ProtocolError):
        check_content(content(body=dot))


@pytest.mark.parametrize(
    "fields",
    [
        {"time_ms": -1},
        {"time_ms": 1 << 63},
        {"seen": Seen(-1, 0, bytes(32), ())},
        {"seen": Seen(0, 1 << 63, bytes(32), ())},
        {"seen": Seen(0, 0, bytes(31), ())},
        {"seen": Seen(0, 0, bytes(32), (EntryHash(b"e"),))},
        {"account_heads": ((b"a", 0, LinkHash(bytes(32))),)},
        {"account_heads": ((bytes(32), -1, LinkHash(bytes(32))),)},
        {"account_heads": ((bytes(32), 0, LinkHash(b"h")),)},
    ],
    ids=str,
)
def test_such_a_payload_is_refused(fields):
    with pytest.raises(ProtocolError):
        check_payload(HEADER, replace(PAYLOAD, **fields))


def content(**fields):
    made = ContentValue(
        kind=Kind.FILE,
        body=None,
        hash=bytes(32),
        size=5,
        mtime_ns=0,
        executable=False,
        target=b"",
        chunker="fixed-1MiB/1",
        spans=(RowSpan(0, 0, 1),),
    )
    return replace(made, **fields)


def check_content(value, segments=(SEGMENT,)):
    head = replace(HEADER, changes=(change(register=Register.CONTENT),), pins=tuple(sorted({s.id for s in segments})))
    check_payload(head, replace(PAYLOAD, segments=segments, values=(value,)))


def test_names_are_bounded():
    check_payload(HEADER, replace(PAYLOAD, values=(PlaceValue(ROOT, b"n" * limits.NAME_BYTES_MAX, weak=False),)))
    with pytest.raises(LimitExceededError):
        check_name(b"n" * (limits.NAME_BYTES_MAX + 1))


@pytest.mark.parametrize("field", ["label", "snapshot"])
def test_labels_are_bounded(field):
    check_payload(HEADER, replace(PAYLOAD, **{field: "ä" * 127}))
    with pytest.raises(LimitExceededError):
        check_payload(HEADER, replace(PAYLOAD, **{field: "ä" * 128}))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\x00b"])
def test_names_that_no_file_can_have_are_refused(name):
    """S46."""
    with pytest.raises(ProtocolError):
        check_payload(HEADER, replace(PAYLOAD, values=(PlaceValue(ROOT, name, weak=False),)))


@pytest.mark.parametrize("name", [b".kinfolder", b".KINFOLDER", b".KinFolder"])
def test_our_own_directory_is_nobody_s(name):
    """S55."""
    assert is_reserved(name)
    for value in (PlaceValue(ROOT, name, weak=False), RemovalValue((), ROOT, name, bytes(16))):
        with pytest.raises(ProtocolError):
            check_payload(HEADER, replace(PAYLOAD, values=(value,)))
    check_payload(HEADER, replace(PAYLOAD, values=(PlaceValue(NODE, name, weak=False),)))


@pytest.mark.parametrize(
    "value",
    [
        PlaceValue(NodeId(b"short"), b"a", weak=False),
        RemovalValue((), ROOT, b"a", bytes(15)),
        RemovalValue(dots(2)[::-1], ROOT, b"a", bytes(16)),
        content(),
    ],
    ids=["parent", "removal id", "removed", "register"],
)
def test_values_that_do_not_fit_are_refused(value):
    with pytest.raises(ProtocolError):
        check_payload(HEADER, replace(PAYLOAD, values=(value,)))


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_one_value_for_each_change(count):
    with pytest.raises(ProtocolError):
        check_payload(HEADER, replace(PAYLOAD, values=PAYLOAD.values * count))


CONTENTS = [
    ("a negative size", {"size": -1}),
    ("a size out of range", {"size": 1 << 63}),
    ("a size without rows", {"spans": ()}),
    ("rows without a size", {"size": 0}),
    ("a time out of range", {"mtime_ns": 1 << 63}),
    ("a short hash", {"hash": bytes(31)}),
    ("a target", {"target": b"x"}),
    ("a segment that is not there", {"spans": (RowSpan(1, 0, 1),)}),
    ("a negative segment", {"spans": (RowSpan(-1, 0, 1),)}),
    ("a negative start", {"spans": (RowSpan(0, -1, 1),)}),
    ("no rows in a run", {"spans": (RowSpan(0, 0, 0),)}),
    ("a run beyond its segment", {"spans": (RowSpan(0, 3, 2),)}),
    ("rows of a directory", {"kind": Kind.DIRECTORY, "hash": b"", "size": 0}),
    ("a size of a directory", {"kind": Kind.DIRECTORY, "hash": b"", "spans": ()}),
    ("a hash of a directory", {"kind": Kind.DIRECTORY, "size": 0, "spans": ()}),
    ("a link without a target", {"kind": Kind.LINK, "size": 0, "spans": ()}),
    ("rows of a link", {"kind": Kind.LINK, "target": b"x", "size": 0}),
]


@pytest.mark.parametrize("fields", [case[1] for case in CONTENTS], ids=[case[0] for case in CONTENTS])
def test_such_a_content_is_refused(fields):
    """S09: size and count of what a file is made of are part of what its author signed."""
    check_content(content())
    with pytest.raises(ProtocolError):
        check_content(content(**fields))


def test_the_name_of_a_chunker_is_bounded():
    check_content(content(chunker="c" * limits.LABEL_BYTES_MAX))
    with pytest.raises(LimitExceededError):
        check_content(content(chunker="c" * (limits.LABEL_BYTES_MAX + 1)))


def test_link_targets_are_bounded():
    link = content(kind=Kind.LINK, target=b"t" * limits.LINK_TARGET_BYTES_MAX, size=0, spans=())
    check_content(link)
    with pytest.raises(LimitExceededError):
        check_content(replace(link, target=b"t" * (limits.LINK_TARGET_BYTES_MAX + 1)))


def test_rows_of_a_content_are_bounded():
    segment = replace(SEGMENT, rows=limits.SEGMENT_ROWS_MAX)
    full, rest = divmod(limits.CONTENT_ROWS_MAX, limits.SEGMENT_ROWS_MAX)
    spans = (*([RowSpan(0, 0, limits.SEGMENT_ROWS_MAX)] * full), RowSpan(0, 0, rest))
    check_content(content(spans=spans), (segment,))
    with pytest.raises(LimitExceededError):
        check_content(content(spans=(*spans, RowSpan(0, 0, 1))), (segment,))


@pytest.mark.parametrize("fields", [{"rows": 0}, {"rows": limits.SEGMENT_ROWS_MAX + 1}, {"opener": bytes(31)}], ids=str)
def test_such_a_segment_is_refused(fields):
    with pytest.raises(ProtocolError):
        check_content(content(spans=(RowSpan(0, 0, 1),)), (replace(SEGMENT, **fields),))


def test_pins_are_just_the_segments():
    head = replace(HEADER, changes=(change(register=Register.CONTENT),))
    for pins in ((), (ChunkId(b"x" * 32),), (SEGMENT.id, ChunkId(b"x" * 32))):
        with pytest.raises(ProtocolError):
            check_payload(replace(head, pins=pins), replace(PAYLOAD, segments=(SEGMENT,), values=(content(),)))
