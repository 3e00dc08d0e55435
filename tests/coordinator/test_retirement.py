"""When a node may go: what depends on it, and whether the others can hold what it holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.retirement import (
    Holding,
    Left,
    Member,
    Shortage,
    count_left,
    depends,
    shortage,
    staying,
)

ROOMY = 1 << 40
SETS = st.sets(st.integers(1, 6), min_size=1).map(lambda nodes: tuple(sorted(nodes)))


def member(number: int, *, online: bool = True, away_s: float = 0.0, free: int = ROOMY) -> Member:
    return Member(number, online, away_s, free)


def test_a_chunk_depends_on_a_node_until_enough_others_hold_it():
    assert depends((1, 2), 1, {2, 3}, 2)
    assert not depends((1, 2, 3), 1, {2, 3}, 2)
    assert not depends((2,), 1, {2, 3}, 2)
    # The copy of a node that is lost, or goes itself, is none.
    assert depends((1, 2, 3), 1, {2}, 2)


def test_what_is_left_is_counted_and_what_nobody_can_give():
    holdings = [Holding((1,), 3, 30), Holding((1, 2), 5, 50), Holding((1, 2, 3), 7, 70), Holding((2,), 9, 90)]
    assert count_left(holdings, 1, others={2, 3}, online={2, 3}, replicas=2) == Left(8, 80, 3)
    assert count_left(holdings, 1, others={2, 3}, online={1, 3}, replicas=2) == Left(8, 80, 0)
    assert count_left(holdings, 1, others={2, 3}, online={1, 2, 3}, replicas=1) == Left(3, 30, 0)


def test_too_few_others_are_refused_with_how_many_it_takes():
    assert shortage([], 1, [], 1) == Shortage("nodes", 1, 0)
    assert shortage([], 1, [member(2)], 2) == Shortage("nodes", 2, 1)
    assert shortage([Holding((1, 2), 1, 10)], 1, [member(2), member(3)], 2) is None


def test_too_little_room_is_refused_with_how_much_it_takes():
    holdings = [Holding((1,), 1, 10), Holding((1, 2), 1, 100), Holding((1, 2, 3), 1, 1000)]
    assert shortage(holdings, 1, [member(2, free=60), member(3, free=59)], 2) == Shortage("bytes", 120, 119)
    assert shortage(holdings, 1, [member(2, free=60), member(3, free=60)], 2) is None


def test_who_was_away_for_long_is_not_counted_on_while_somebody_can_know():
    members = [member(1, online=False, away_s=601), member(2, online=False, away_s=599), member(3, away_s=9999)]
    assert [one.number for one in staying(members, is_served=True, gone_after_s=600)] == [2, 3]
    assert staying(members, is_served=False, gone_after_s=600) == members


@given(sets=st.lists(SETS, max_size=8), leaving=st.integers(1, 6), replicas=st.integers(1, 4))
def test_a_node_on_which_nothing_depends_leaves_enough_copies_of_all(sets, leaving, replicas):
    others = set(range(1, 7)) - {leaving}
    holdings = [Holding(nodes, 1, 1) for nodes in sets]
    if count_left(holdings, leaving, others=others, online=others, replicas=replicas).chunks == 0:
        assert all(len(set(nodes) - {leaving}) >= replicas for nodes in sets if leaving in nodes)
