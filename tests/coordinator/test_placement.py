"""Placement: everywhere the same, as far apart as there are nodes for it, and little moves when nodes come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import placement
from coordinator.core.placement import Place
from protocol import limits
from protocol.ids import Pseudonym, StorageNodeId
from tests.protocol.chain_world import fixed


def place(name: str, operator: str = "", zone: str = "", *, online: bool = True) -> Place:
    return Place(StorageNodeId(fixed(name)), operator or name, zone or name, online)


def groups(count: int) -> list[bytes]:
    return [placement.group(Pseudonym(fixed(f"p{i}", 16))) for i in range(count)]


PLACES = st.lists(
    st.builds(
        lambda n, o, z, up: Place(StorageNodeId(fixed(f"n{n}")), f"o{o}", f"z{z}", up),
        st.integers(0, 30),
        st.integers(0, 4),
        st.integers(0, 4),
        st.booleans(),
    ),
    unique_by=lambda p: p.id,
    max_size=20,
)


@given(places=PLACES, replicas=st.integers(1, 4), seed=st.integers(0, 100))
def test_operators_and_zones_are_distinct_whenever_there_are_any(places, replicas, seed):
    group = groups(seed + 1)[-1]
    order = placement.order(group, places, replicas)
    assert order == placement.order(group, places[::-1], replicas)
    assert len(order) == min(len(places), limits.PLACEMENT_NODES_MAX)
    assert len(set(order)) == len(order)
    chosen = order[:replicas]
    operators = {p.operator for p in places}
    assert len({p.operator for p in chosen}) == min(replicas, len(operators), len(places))
    rest = order[replicas:]
    assert [p.online for p in rest] == sorted((p.online for p in rest), reverse=True) or len(
        places
    ) > limits.PLACEMENT_NODES_MAX
    if placement.sharing(chosen):
        # Then no choice of as many nodes shares less: there are too few operators or zones.
        zones = {p.zone for p in places}
        assert len(operators) < replicas or len(zones) < replicas or _is_tight(places, replicas)


def _is_tight(places, replicas) -> bool:
    """Whether operators and zones cross so that taking the best first cannot have both."""
    return len({(p.operator, p.zone) for p in places}) < len({p.operator for p in places}) * len(
        {p.zone for p in places}
    )


def test_copies_of_one_operator_are_the_last_resort():
    one = [place("a1", "a", "z1"), place("a2", "a", "z2"), place("b1", "b", "z1")]
    for group in groups(50):
        chosen = placement.order(group, one, 2)[:2]
        assert {p.operator for p in chosen} == {"a", "b"}


def test_adding_a_node_moves_only_its_share():
    """A rendezvous hash moves about one copy in n + 1 to the new node, and nothing between the old ones."""
    before = [place(f"n{i}") for i in range(9)]
    after = [*before, place("new")]
    moved = 0
    for group in groups(1000):
        old = set(placement.order(group, before, 3)[:3])
        new = set(placement.order(group, after, 3)[:3])
        assert new - old in ({after[-1]}, set())
        moved += len(new - old)
    assert 200 < moved < 400  # 3 copies of 1000 groups over 10 nodes: 300


def test_the_load_is_spread():
    nodes = [place(f"n{i}") for i in range(10)]
    load = dict.fromkeys(nodes, 0)
    for group in groups(1000):
        for one in placement.order(group, nodes, 3)[:3]:
            load[one] += 1
    assert all(220 < count < 380 for count in load.values())


def test_a_further_copy_keeps_away_from_those_that_are_there():
    held = [place("a1", "a", "z1")]
    candidates = [place("a2", "a", "z2"), place("b1", "b", "z1"), place("c1", "c", "z3"), *held]
    for group in groups(20):
        assert [p.operator for p in placement.spread(placement.rank(group, candidates), 1, held)] == ["c"]
