"""Entries find their places in the log: in any order of arrival nothing is lost, blocked or counted twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import versions
from protocol.chains import Role, SetRole
from protocol.entries import Expect, Register, parse_entry
from protocol.history import ItemKind, VoidReason
from protocol.ids import Dot, EntryHash
from tests.builders import Author, chunk, hash_of, node_id, segment
from tests.coordinator.bench import Bench, authors, enrolled_folder
from tests.protocol.chain_world import TestAccount, TestFolder

ALICE, BOB = TestAccount("alice"), TestAccount("bob")
FOLDER = enrolled_folder(ALICE, BOB)


def fresh() -> tuple[Bench, Author, Author]:
    bench = Bench(FOLDER)
    a, b = authors(FOLDER)
    return bench, a, b


def reason(bench: Bench, entry: bytes) -> VoidReason | None:
    record = bench.record(entry)
    assert record.position
    return record.void


def test_entries_take_positions_as_they_come():
    bench, a, b = fresh()
    start = bench.head.position
    one, two, three = a.entry("x"), b.entry("y"), a.entry("z")
    assert bench.register(one, two, three) == ["", "", ""]
    assert [bench.record(e).position for e in (one, two, three)] == [start + 1, start + 2, start + 3]
    bench.check_log()


def test_a_second_delivery_changes_nothing():
    bench, a, _ = fresh()
    one = a.entry("x")
    bench.register(one)
    before = bench.head
    assert bench.register(one, one) == ["", ""]
    assert bench.head == before


def test_a_gap_and_a_second_branch_of_a_device_are_refused():
    bench, a, _ = fresh()
    one = a.entry("x")
    twin = a.entry("twin", seq=1, previous=EntryHash(bytes(32)), keep=False)
    two, three = a.entry("y"), a.entry("z")
    assert bench.register(one, three, twin, two, three) == ["", "gap", "chain", "", ""]


def test_an_entry_waits_for_what_it_needs_even_if_that_comes_later():
    bench, a, b = fresh()
    base = a.entry("x")
    built = b.entry("y", needs=[hash_of(base)])
    after = b.entry("z")
    bench.register(built, after)
    assert bench.record(built).is_pending
    assert bench.record(after).is_ordered  # its device is not held up
    bench.register(base)
    assert bench.record(base).position < bench.record(built).position
    assert not bench.pending()


def test_an_entry_waits_for_a_quorum_of_its_segment_and_of_each_chunk():
    bench, a, _ = fresh()
    one = segment("s", chunk("1"), chunk("2"))
    entry = a.entry("x", pins=[one.segment.id])
    bench.register(entry)
    bench.receipt(1, [one.segment, chunk("1"), chunk("2")])
    bench.declare(one)
    bench.receipt(1, [one.segment, chunk("1"), chunk("2")])  # one node is one node, however often it says so
    assert bench.record(entry).is_pending
    bench.receipt(2, [one.segment, chunk("1")])
    assert bench.record(entry).is_pending
    bench.receipt(3, [chunk("2")])
    assert bench.record(entry).is_ordered
    assert bench.waits() == 0


def test_receipts_before_the_declaration_and_the_entry_count_as_well():
    bench, a, _ = fresh()
    one = segment("s", chunk("1"))
    bench.receipt(1, [one.segment, chunk("1")])
    bench.receipt(2, [one.segment, chunk("1")])
    bench.declare(one)
    entry = a.entry("x", pins=[one.segment.id])
    bench.register(entry)
    assert bench.record(entry).is_ordered


def test_a_replaced_entry_is_void_and_its_dependants_wait_for_the_replacement():
    bench, a, b = fresh()
    gone = a.entry("x", pins=[segment("never").segment.id])
    built = b.entry("y", needs=[hash_of(gone)])
    bench.register(gone, built)
    instead = a.entry("x", replaces=[hash_of(gone)])
    late = b.entry("z", needs=[hash_of(gone)])
    bench.register(instead, late)
    assert reason(bench, gone) is VoidReason.REPLACED
    assert bench.record(gone).replaced_by == hash_of(instead)
    assert bench.record(instead).position < bench.record(built).position < bench.record(late).position
    assert bench.waits() == 0
    bench.check_log()


def test_who_replaces_what_was_ordered_is_void():
    bench, a, _ = fresh()
    ordered, waiting = a.entry("x"), a.entry("y", pins=[chunk("never").id])
    bench.register(ordered, waiting)
    instead = a.entry("z", replaces=[hash_of(ordered), hash_of(waiting)])
    bench.register(instead)
    assert reason(bench, instead) is VoidReason.REPLACED_WAS_ORDERED
    assert bench.record(waiting).is_pending


def test_only_ones_own_entries_can_be_replaced():
    bench, a, b = fresh()
    theirs = b.entry("x", pins=[chunk("never").id])
    bench.register(theirs)
    instead = a.entry("z", replaces=[hash_of(theirs)])
    bench.register(instead)
    assert reason(bench, instead) is VoidReason.PRECONDITION
    assert bench.record(theirs).is_pending


def test_an_entry_that_builds_on_what_it_replaces_is_void():
    bench, a, b = fresh()
    first = a.entry("x", pins=[chunk("never").id])
    built = b.entry("y", needs=[hash_of(first)])
    bench.register(first, built)
    instead = a.entry("x", needs=[hash_of(built)], replaces=[hash_of(first)])
    bench.register(instead)
    assert reason(bench, instead) is VoidReason.PRECONDITION
    assert bench.record(first).is_pending


def test_a_ring_of_waits_that_closes_late_is_broken():
    bench, a, b = fresh()
    first = a.entry("x", pins=[chunk("never").id])
    built = b.entry("y", needs=[hash_of(first)])
    instead = a.entry("x", needs=[hash_of(built)], replaces=[hash_of(first)])
    bench.register(first, instead)
    assert reason(bench, first) is VoidReason.REPLACED
    bench.register(built)  # waits for "instead", which waits for it
    assert reason(bench, built) is VoidReason.NEEDS_VOID
    assert reason(bench, instead) is VoidReason.NEEDS_VOID
    assert not bench.pending()


def test_what_needs_a_void_entry_is_void_all_the_way():
    bench, a, b = fresh()
    failing = a.entry("x", expect=[Expect(node_id("n"), Register.CONTENT, ((1, 7),))])
    built = b.entry("y", needs=[hash_of(failing)])
    more = a.entry("z", needs=[hash_of(built)])
    bench.register(built)
    bench.register(failing, more)
    assert reason(bench, failing) is VoidReason.PRECONDITION
    assert reason(bench, built) is VoidReason.NEEDS_VOID
    assert reason(bench, more) is VoidReason.NEEDS_VOID


def test_expect_is_judged_when_the_entry_gets_its_position():
    bench, a, b = fresh()
    base = a.entry("n")
    vector = parse_entry(base).header.changes[0].vector
    good = b.entry("other", expect=[Expect(node_id("n"), Register.CONTENT, vector)], needs=[hash_of(base)])
    bench.register(good)
    bench.register(base)
    assert bench.record(good).is_ordered
    late = b.entry("other", expect=[Expect(node_id("n"), Register.CONTENT, ())])
    bench.register(late)
    assert reason(bench, late) is VoidReason.PRECONDITION


def test_a_counter_above_what_its_device_registered_is_void():
    bench, a, b = fresh()
    bench.register(a.entry("x"))
    honest = b.entry(changes=[b.change("x", vector=((1, 1),))])
    claims = b.entry(changes=[b.change("x", vector=((1, 2),))])
    base = b.entry(changes=[b.change("x", base=[Dot(1, 9, 0)], vector=((1, 1),))])
    bench.register(honest, claims, base)
    assert bench.record(honest).is_ordered
    assert reason(bench, claims) is VoidReason.PRECONDITION
    assert reason(bench, base) is VoidReason.PRECONDITION


def test_vectors_are_summed_up():
    bench, a, b = fresh()
    bench.register(a.entry("x"), b.entry("x"))
    vector = bench.work(lambda _r, ledger, _o: ledger.vector(node_id("x"), Register.CONTENT))
    assert vector == ((1, 1), (2, 1))
    assert versions.compare(vector, ((1, 1),)) is versions.Order.AFTER


def test_a_member_that_is_removed_loses_what_waits_and_keeps_what_was_ordered():
    alice, bob = TestAccount("alice"), TestAccount("bob")
    folder = enrolled_folder(alice, bob)
    bench = Bench(folder)
    a, b = authors(folder)
    done, waits = b.entry("x"), b.entry("y", pins=[chunk("never").id])
    built = a.entry("z", needs=[hash_of(waits)])
    late = b.entry("late")
    bench.register(done, waits, built)
    folder.unshare(bob)
    bench.follow()
    assert bench.record(done).is_ordered
    assert reason(bench, waits) is VoidReason.AUTHOR_REMOVED
    assert reason(bench, built) is VoidReason.NEEDS_VOID
    assert bench.register(late) == ["access_denied"]


def test_a_writer_made_reader_writes_no_more():
    alice, bob = TestAccount("alice"), TestAccount("bob")
    folder = enrolled_folder(alice, bob)
    bench = Bench(folder)
    _, b = authors(folder)
    waits = b.entry("y", pins=[chunk("never").id])
    late = b.entry("late")
    bench.register(waits)
    folder.append(SetRole(bob.id, Role.READER), folder.epoch_op())
    bench.follow()
    assert reason(bench, waits) is VoidReason.AUTHOR_REMOVED
    assert bench.register(late) == ["access_denied"]


def test_a_revoked_device_counts_up_to_its_cut():
    alice = TestAccount("alice")
    phone = alice.add("phone")
    folder = TestFolder(alice)
    folder.append(_enrol(phone, 2), device=phone)
    bench = Bench(folder)
    a, p = authors(folder)
    first, second, third = (p.entry(n, pins=[segment("s").segment.id]) for n in "xyz")
    bench.register(first, second)
    alice.revoke(phone.id, cut=((folder.id, 2, 1, bytes(hash_of(first))),))
    bench.add_account(alice)
    bench.recheck()
    assert bench.record(first).is_pending
    assert reason(bench, second) is VoidReason.AUTHOR_REMOVED
    assert bench.register(third) == ["access_denied"]
    bench.declare(segment("s"))
    for node in (1, 2):
        bench.receipt(node, [segment("s").segment])
    assert bench.record(first).is_ordered
    assert a.number == 1


def _enrol(device, number):
    from protocol.chains import EnrolDevice

    return EnrolDevice(device.id, 1, number)


def test_what_was_registered_before_a_loss_is_ordered_and_what_comes_after_it_is_sealed_anew():
    alice, bob = TestAccount("alice"), TestAccount("bob")
    folder = enrolled_folder(alice, bob)
    bench = Bench(folder)
    a, _ = authors(folder)
    old = a.entry("x", pins=[segment("s").segment.id])
    bench.register(old)
    folder.append(folder.epoch_op())  # a periodic bump locks nobody out
    bench.follow()
    after_bump = a.entry("y", epoch=old_epoch(old))
    bench.register(after_bump)
    assert bench.record(after_bump).is_ordered
    folder.unshare(bob)
    bench.follow()
    assert bench.register(a.entry("z", epoch=old_epoch(old), keep=False)) == ["epoch"]
    assert bench.register(old) == [""]  # it is here already
    bench.declare(segment("s"))
    for node in (1, 2):
        bench.receipt(node, [segment("s").segment])
    assert bench.record(old).is_ordered
    assert bench.register(a.entry("z")) == [""]


def old_epoch(entry: bytes) -> int:
    return parse_entry(entry).header.epoch


# Any history, any order of arrival.

STEP = st.fixed_dictionaries(
    {
        "author": st.integers(0, 1),
        "needs": st.sets(st.integers(0, 9), max_size=3),
        "replaces": st.sets(st.integers(0, 9), max_size=2),
        "pin": st.sampled_from([None, None, "s1", "s2"]),
        "expect": st.sampled_from([False, False, False, True]),
        "node": st.sampled_from("xyz"),
    }
)


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=9), order=st.randoms(use_true_random=False))
def test_whatever_arrives_in_whatever_order_is_ordered_or_void(steps, order):
    """Everything that is named arrives in the end, so nothing may stay pending; and each rule holds for each entry."""
    bench, a, b = fresh()
    entries: list[bytes] = []
    owners: list[int] = []
    for step in steps:
        who = step["author"]
        mine = [i for i in step["replaces"] if i < len(entries) and owners[i] == who]
        expect = [Expect(node_id(step["node"]), Register.CONTENT, ())] if step["expect"] else []
        entries.append(
            (a, b)[who].entry(
                step["node"],
                needs=[hash_of(entries[i]) for i in step["needs"] if i < len(entries)],
                replaces=[hash_of(entries[i]) for i in mine],
                pins=[segment(step["pin"]).segment.id] if step["pin"] else [],
                expect=expect,
            )
        )
        owners.append(who)
    segments = [segment("s1", chunk("1")), segment("s2", chunk("1"), chunk("2"))]
    events: list[tuple[str, Any]] = [("entry", e) for e in entries]
    events += [("segment", s) for s in segments]
    events += [("receipt", (n, s)) for n in (1, 2) for s in segments]
    events += order.choices(events, k=3)  # some come twice
    order.shuffle(events)
    while events:
        left = []
        for kind, what in events:
            if kind == "entry":
                code = bench.register(what)[0]
                assert code in ("", "gap")
                if code:
                    left.append((kind, what))
            elif kind == "segment":
                bench.declare(what)
            else:
                bench.receipt(what[0], [what[1].segment, *what[1].chunks])
        events = left
    records = {hash_of(e): bench.record(e) for e in entries}
    assert not bench.pending()
    assert bench.waits() == 0
    items = bench.check_log()
    assert len({r.position for r in records.values()}) == len(entries)
    assert sum(item.kind is not ItemKind.CONTROL for item in items) == len(entries)
    for entry in entries:
        record, header = records[hash_of(entry)], parse_entry(entry).header
        needs = []
        for need in header.needs:
            standing = records[need]
            while standing.replaced_by is not None:
                standing = records[standing.replaced_by]
            needs.append(standing)
        if record.is_ordered:
            assert all(one.is_ordered and one.position < record.position for one in needs)
        if record.void is VoidReason.REPLACED:
            assert (
                record.hash in parse_entry(next(e for e in entries if hash_of(e) == record.replaced_by)).header.replaces
            )
        if record.void is VoidReason.REPLACED_WAS_ORDERED:
            assert any(records[one].is_ordered for one in header.replaces)
    before = bench.head
    bench.register(*entries)
    assert bench.head == before
    bench.close()
