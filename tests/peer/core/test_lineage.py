"""Ancestry by links against ancestry by sets, on random histories of one register."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peer.core.fold_state import Lineage
from peer.core.lineage import beyond, climb, goes_before, is_ancestor, last_common, links
from peer.core.memory_state import MemoryTable
from protocol.ids import Dot


class History:
    """Values in the order in which they were folded, with all their ancestors as sets and paths."""

    def __init__(self, bases):
        self.table: MemoryTable[Dot, Lineage] = MemoryTable()
        self.rows: list[Lineage] = []
        self.ancestors: list[set[int]] = []
        self.paths: list[tuple[int, ...]] = []
        for order, drawn in enumerate(bases):
            base = sorted({each % order for each in drawn}) if order else []
            # A base never names a value beside one that already replaced it.
            base = [b for b in base if not any(b in self.ancestors[other] for other in base)]
            dot = Dot(1, order + 1, 0)
            made = links(self.table, dot, [self.rows[b] for b in base])
            row = Lineage(dot, order, tuple(self.rows[b].dot for b in base), (), *made)
            self.table.put(dot, row)
            self.rows.append(row)
            self.ancestors.append(set(base).union(*(self.ancestors[b] for b in base)))
            self.paths.append((*min((self.paths[b] for b in base), default=()), order))

    def orders(self, rows):
        return sorted(row.order for row in rows)


histories = st.builds(History, st.lists(st.lists(st.integers(0, 1 << 16), max_size=3), min_size=2, max_size=40))
"""Mostly merges and forks."""
long_lines = st.builds(
    lambda steps: History([[order - 1 - step] for order, step in enumerate(steps)]),
    st.lists(st.sampled_from([0] * 12 + [1, 2, 7]), min_size=2, max_size=200),
)
"""Mostly one line, with a fork now and then."""


@given(st.one_of(histories, long_lines))
def test_ancestry(history):
    """Every pair of values is told apart as their sets of ancestors tell."""
    rows, table = history.rows[-40:], history.table
    for new in rows:
        for old in rows:
            assert is_ancestor(table, old, new) == (old.order in history.ancestors[new.order])


@given(st.one_of(histories, long_lines))
def test_order_of_names(history):
    """Two values are compared where their lines part, the line whose value came first goes first."""
    rows, table = history.rows[-40:], history.table
    for left in rows:
        for right in rows:
            if left is not right:
                assert goes_before(table, left, right) == (history.paths[left.order] < history.paths[right.order])


@given(st.one_of(histories, long_lines))
def test_last_common_ancestors(history):
    """Of all common ancestors just those are found that no other common one has replaced."""
    rows, table = history.rows[-30:], history.table
    for left in rows:
        for right in rows:
            up, down = history.ancestors[left.order], history.ancestors[right.order]
            if left is right or left.order in down or right.order in up:
                continue
            last = [c for c in up & down if not any(c in history.ancestors[other] for other in up & down)]
            assert history.orders(last_common(table, left, right)) == sorted(last)


@given(histories, st.data())
def test_what_lies_beyond(history, data):
    """The walk finds every value that the known ones have not replaced, and nothing else."""
    pick = st.lists(st.sampled_from(history.rows), max_size=3, unique_by=lambda row: row.order)
    heads, known, above = data.draw(pick), data.draw(pick), data.draw(st.none() | st.sampled_from(history.rows))

    def closed(rows):
        return {row.order for row in rows}.union(*(history.ancestors[row.order] for row in rows))

    wanted = closed(heads) - closed(known)
    if above is not None:
        wanted = {order for order in wanted if above.order in history.ancestors[order]}
    assert history.orders(beyond(history.table, heads, known, above=above)) == sorted(wanted)


def test_steps_grow_with_the_logarithm():
    """In a line of 100,000 values any ancestor is found in some dozens of steps."""
    table: MemoryTable[Dot, Lineage] = MemoryTable()
    row = Lineage(Dot(1, 1, 0), 0, (), (), *links(table, Dot(1, 1, 0), []))
    table.put(row.dot, row)
    for order in range(1, 100_000):
        dot = Dot(1, order + 1, 0)
        row = Lineage(dot, order, (row.dot,), (), *links(table, dot, [row]))
        table.put(dot, row)
    looked = 0
    get = table.get

    def counting(key, /):
        nonlocal looked
        looked += 1
        return get(key)

    table.get = counting  # type: ignore[assignment]  # counts what goes through
    assert climb(table, row, 1).order == 1
    assert looked <= 40
