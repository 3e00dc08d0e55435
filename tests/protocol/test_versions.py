"""Version vectors: the least cover, and an order that is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, versions
from protocol.errors import ProtocolError
from protocol.versions import Order

devices = st.integers(1, 6)
vectors = st.dictionaries(devices, st.integers(1, 5)).map(lambda found: tuple(sorted(found.items())))


@given(vectors, vectors)
def test_a_merge_is_the_least_vector_that_covers_both(one, other):
    both = versions.merge((one, other))
    versions.check(both)
    assert versions.covers(both, one)
    assert versions.covers(both, other)
    for place, (device, counter) in enumerate(both):
        lower = both[:place] + (((device, counter - 1),) if counter > 1 else ()) + both[place + 1 :]
        assert not (versions.covers(lower, one) and versions.covers(lower, other))


@given(vectors, vectors, vectors)
def test_merging_knows_no_order_and_no_repetition(one, two, three):
    assert versions.merge((one, two)) == versions.merge((two, one))
    assert versions.merge((versions.merge((one, two)), three)) == versions.merge((one, versions.merge((two, three))))
    assert versions.merge((one, one)) == one == versions.merge((one, ()))


@given(vectors, vectors)
def test_two_histories_lie_to_each_other_in_one_way(one, other):
    mirrored = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}
    found = versions.compare(one, other)
    assert versions.compare(other, one) is mirrored.get(found, found)
    assert (found is Order.EQUAL) == (one == other)
    assert (found in {Order.AFTER, Order.EQUAL}) == (versions.merge((one, other)) == one)


@given(vectors, vectors, vectors)
def test_what_covers_a_cover_covers(one, two, three):
    if versions.covers(one, two) and versions.covers(two, three):
        assert versions.covers(one, three)


@given(vectors, devices)
def test_a_change_comes_after_all_that_its_author_had_seen(vector, device):
    seq = dict(vector).get(device, 0) + 1
    assert versions.compare(versions.bump(vector, device, seq), vector) is Order.AFTER


@given(st.dictionaries(st.integers(1, 200), st.integers(1, 1000), min_size=60, max_size=90), st.data())
def test_a_long_vector_keeps_its_own_component_and_the_highest(components, data):
    vector = tuple(sorted(components.items()))
    own = data.draw(st.sampled_from(sorted(components)))
    kept = versions.trim(vector, own)
    versions.check(kept)
    assert dict(kept)[own] == components[own]
    assert set(kept) <= set(vector)
    dropped = [counter for device, counter in vector if (device, counter) not in kept]
    if dropped:
        assert len(kept) == limits.VECTOR_COMPONENTS_MAX
        assert max(dropped) <= min(counter for device, counter in kept if device != own)


@pytest.mark.parametrize(
    "vector",
    [
        ((2, 1), (1, 1)),
        ((1, 1), (1, 2)),
        ((1, 0),),
        ((0, 1),),
        ((1, 1 << 63),),
        ((limits.DEVICE_NUMBER_MAX + 1, 1),),
        tuple((device, 1) for device in range(1, limits.VECTOR_COMPONENTS_MAX + 2)),
    ],
)
def test_any_other_form_is_refused(vector):
    with pytest.raises(ProtocolError):
        versions.check(vector)
