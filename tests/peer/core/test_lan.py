"""What a device shows on a LAN, whom it takes for kin, whom it lets in."""

import ipaddress

import pytest

from peer.core import lan
from peer.core.keys import discovery_tag
from peer.core.lan import DAY_MS
from protocol import limits
from protocol.chains import Role
from tests.peer.core.key_world import NOW_MS, RealAccount, RealFolder

KEYS = [bytes([number]) * 32 for number in range(3)]
DAY = lan.day_of(NOW_MS)


def test_announcements_of_two_days_or_ports_have_no_tag_in_common():
    """Whoever listens without a key cannot tell that one device made both."""

    def tags(day, port):
        data = lan.tags_shown(KEYS, day, port, 0)
        return {data[i : i + 8] for i in range(0, len(data), 8)}

    assert len(tags(DAY, 4000)) == len(KEYS)
    for other in (tags(DAY + 1, 4000), tags(DAY, 4001)):
        assert not tags(DAY, 4000) & other


@pytest.mark.parametrize(("shift", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)], ids=str)
def test_clocks_may_be_a_day_apart(shift, good):
    tags = lan.tags_shown(KEYS[:1], DAY + shift, 4000, 0)
    assert lan.is_kin(tags, KEYS, lan.days_heard(NOW_MS, 0), 4000) is good


def test_a_clock_that_is_years_off_hears_by_the_coordinators():
    tags = lan.tags_shown(KEYS[:1], DAY, 4000, 0)
    assert lan.is_kin(tags, KEYS, lan.days_heard(NOW_MS - 3000 * DAY_MS, NOW_MS + 5), 4000)
    assert not lan.is_kin(tags, KEYS, lan.days_heard(NOW_MS - 3000 * DAY_MS, 0), 4000)


@pytest.mark.parametrize("now_ms", [-1, 0, 1 << 62])
def test_any_clock_gives_a_day_that_can_be_hashed(now_ms):
    assert all(discovery_tag(KEYS[0], day, 1) for day in lan.days_heard(now_ms, now_ms))


@pytest.mark.parametrize(
    ("tags", "port"),
    [
        (b"", 4000),
        (b"x" * 7, 4000),
        (b"x" * 8, 4000),
        (b"x" * 8 * limits.LAN_TAGS_MAX, 4000),
        (lan.tags_shown(KEYS, DAY, 4000, 0), 4001),
        (lan.tags_shown(KEYS, DAY, 4000, 0) * limits.LAN_TAGS_MAX, 4000),
        (lan.tags_shown(KEYS, DAY, 4000, 0), 0),
        (lan.tags_shown(KEYS, DAY, 4000, 0), 1 << 16),
    ],
)
def test_whatever_a_stranger_announces_is_not_kin(tags, port):
    assert not lan.is_kin(tags, KEYS, {DAY}, port)


def test_many_folders_take_turns():
    keys = [number.to_bytes(32, "big") for number in range(100)]
    shown = [lan.tags_shown(keys, DAY, 4000, turn) for turn in range(25)]
    assert {len(each) for each in shown} == {8 * limits.LAN_TAGS_MAX}
    for key in keys:
        assert any(lan.is_kin(each, [key], {DAY}, 4000) for each in shown)


def test_a_former_key_counts_for_ninety_days():
    anna, bert = RealAccount("anna"), RealAccount("bert")
    folder = RealFolder(anna)
    folder.share(bert, Role.READER)
    assert folder.state.epoch.number == 2
    assert lan.epochs_shown(folder.links, NOW_MS + 89 * DAY_MS) == {1, 2}
    assert lan.epochs_shown(folder.links, NOW_MS + 90 * DAY_MS) == {2}


def allowed(anna, accounts, members):
    found = lan.allowed_devices(anna.state.id, anna.device.id, [a.state for a in accounts], members)
    return {device.device for device in found.values()}


def test_active_devices_of_members_are_let_in_and_nobody_else():
    anna, bert, carl = RealAccount("anna"), RealAccount("bert"), RealAccount("carl")
    desktop, phone = anna.add("desktop"), anna.add("phone")
    everybody = (anna, bert, carl)
    members = {b"f": (anna.state.id, bert.state.id)}
    assert allowed(anna, everybody, members) == {desktop.id, phone.id, bert.device.id}
    anna.revoke(phone)
    assert allowed(anna, everybody, members) == {desktop.id, bert.device.id}
    assert allowed(anna, everybody, {b"f": (anna.state.id,)}) == {desktop.id}
    assert allowed(anna, everybody, {}) == set()


def test_only_addresses_on_our_networks_are_dialled():
    networks = [ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00::/64")]
    announced = ["192.168.1.9", "10.0.0.1", "8.8.8.8", "127.0.0.1", "fd00::5", "fe80::1", "nonsense", ""]
    assert lan.addresses_to_dial(announced, networks) == ["192.168.1.9", "fd00::5"]
    assert len(lan.addresses_to_dial([f"192.168.1.{n}" for n in range(99)], networks)) == lan.ADDRESSES_MAX


def test_who_fails_again_is_left_alone_longer_and_never_for_good():
    pauses = [lan.avoid_s(count) for count in range(1, 40)]
    assert pauses[0] == lan.AVOID_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == lan.AVOID_S_MAX
