"""Fold signed entries into the remote tree: pure, deterministic, incremental (architecture 3).

    fold(state, entries, position=...)      registers -> cycles -> liveness -> names -> items

Rule 1: the result depends on the sequence of entries alone, not on how it was cut into calls.
Rule 2: all changes of an entry, or of a whole batch, are applied before anything is judged.
Rule 3: order decides names, never what is kept.
Rule 4: the cost of an entry depends on what it changes, not on what was folded before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeVar

from msgspec.structs import replace

from peer.core.fold_state import VOID_BATCH, EntryRow, FoldState
from peer.core.fold_work import Work
from peer.core.judgement import judge, keep_off_cycles
from peer.core.registers import ORDER_BITS, detach, write_content, write_place
from peer.core.tree import ItemId
from peer.core.view import list_nodes, show
from protocol.entries import AdmittedEntry, Batch, ContentValue, DetachValue, Entry, Header, SegmentKey
from protocol.ids import EntryHash

__all__ = ["fold", "order_tail", "void"]

AnEntry = TypeVar("AnEntry", AdmittedEntry, Entry)


def fold(state: FoldState, entries: Sequence[AdmittedEntry], *, position: int) -> frozenset[ItemId]:
    """Fold entries, each as a whole; a batch shows only when all of its entries are there, where the last one stands.

    Args:
        state: Is brought up to date.
        entries: In the order of the log, or of :func:`order_tail`.
        position: Of the first entry; the others follow. Above all positions folded so far; positions may be left out.

    Returns:
        The ids of all items of ``state.tree`` that changed, appeared or vanished.
    """
    work = Work(state)
    for count, entry in enumerate(entries):
        whole = _whole(state, entry)
        if whole:
            _apply(work, whole, position + count)
    judge(work)
    list_nodes(work)
    show(work)
    return work.finish()


def void(state: FoldState, entry: AdmittedEntry) -> None:
    """Remember that an entry will never be ordered: whoever builds on its values builds on what they were made from.

    A batch of which one entry is void never becomes complete, so all of it is void.
    """
    _void_values(state, entry)
    batch = entry.header.batch
    if batch is not None:
        key = _batch_key(entry.header, batch)
        state.batches.put(key, VOID_BATCH)
        for index, part in list(state.parts.under(key)):
            _void_values(state, part)
            state.parts.drop((key, index))


def order_tail(known: Collection[EntryHash], tail: Iterable[AnEntry]) -> list[AnEntry]:
    """Return the entries of a provisional tail in causal order, ties by the smallest hash.

    An entry comes after all that it needs, and after those that its device wrote before it.

    Args:
        known: Hashes of all entries that are ordered or void.
        tail: Entries that are not; those that lack one of their needs are held back.
    """
    waiting: dict[EntryHash, list[AnEntry]] = {}
    missing: dict[EntryHash, int] = {}
    ready: list[tuple[EntryHash, AnEntry]] = []
    unique = {entry.hash: entry for entry in tail if entry.hash not in known}
    for entry in unique.values():
        needs = {need for need in entry.header.needs if need not in known}
        if entry.header.previous in unique:
            needs.add(entry.header.previous)
        missing[entry.hash] = len(needs)
        for need in needs:
            waiting.setdefault(need, []).append(entry)
        if not needs:
            ready.append((entry.hash, entry))
    heapify(ready)
    ordered: list[AnEntry] = []
    while ready:
        hash, entry = heappop(ready)
        ordered.append(entry)
        for other in waiting.get(hash, ()):
            missing[other.hash] -= 1
            if not missing[other.hash]:
                heappush(ready, (other.hash, other))
    return ordered


# --- Batches


def _batch_key(header: Header, batch: Batch) -> bytes:
    return header.device.to_bytes(2, "big") + batch.count.to_bytes(2, "big") + batch.id


def _whole(state: FoldState, entry: AdmittedEntry) -> list[AdmittedEntry]:
    """Return what shows now that this entry is there: itself, or its whole batch, or nothing yet."""
    batch = entry.header.batch
    if batch is None or batch.count == 1:
        return [entry]
    key = _batch_key(entry.header, batch)
    present = state.batches.get(key) or 0
    if present == VOID_BATCH or state.parts.get((key, batch.index)) is not None:
        _void_values(state, entry)
        return []
    if present + 1 < batch.count:
        state.parts.put((key, batch.index), entry)
        state.batches.put(key, present + 1)
        return []
    parts = [part for _, part in state.parts.under(key)]
    for part in parts:
        state.parts.drop((key, _index(part)))
    state.batches.drop(key)
    return sorted([*parts, entry], key=_index)


def _index(entry: AdmittedEntry) -> int:
    return 0 if entry.header.batch is None else entry.header.batch.index


def _void_values(state: FoldState, entry: AdmittedEntry) -> None:
    for index, change in enumerate(entry.header.changes):
        state.voids.put(entry.dot(index), change.base)


# --- Entries


def _apply(work: Work, whole: Sequence[AdmittedEntry], position: int) -> None:
    last = max(entry.header.seq for entry in whole)
    order = position << ORDER_BITS
    for entry in whole:
        header, payload = entry.header, entry.payload
        row = EntryRow(entry.hash, entry.author, payload.label, payload.time_ms, position, last)
        work.state.entries.put((header.device, header.seq), row)
        for index, (change, value) in enumerate(zip(header.changes, payload.values, strict=True)):
            dot = entry.dot(index)
            if isinstance(value, ContentValue):
                content, segments = own_segments(value, payload.segments)
                write_content(work, dot, order, change, content, segments)
            elif isinstance(value, DetachValue):
                detach(work, change, value)
            else:
                write_place(work, dot, order, change, value)
            order += 1
    keep_off_cycles(work)


def own_segments(value: ContentValue, table: Sequence[SegmentKey]) -> tuple[ContentValue, tuple[SegmentKey, ...]]:
    """Return a content with just the segments that it uses, and its spans counting in these."""
    if not value.spans:
        return value, ()
    used = list(dict.fromkeys(span.segment for span in value.spans))
    if used != list(range(len(used))):
        number = {segment: index for index, segment in enumerate(used)}
        spans = tuple(replace(span, segment=number[span.segment]) for span in value.spans)
        value = replace(value, spans=spans)
    return value, tuple(table[segment] for segment in used)
