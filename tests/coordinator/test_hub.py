"""Who hears what, how fast one may talk, and how two devices meet in a mailbox."""

from __future__ import annotations

import pytest

from coordinator.core.hub import Hub
from coordinator.core.limiter import Attempts, Pace, site_of
from coordinator.core.mailboxes import OPEN_PER_SESSION_MAX, SILENT_S, WAITING_MAX, Mailboxes
from protocol import limits
from protocol.errors import AccessDeniedError, LimitExceededError
from protocol.history import Checkpoint, SignedCheckpoint
from protocol.ids import AccountId, DeviceId, FolderId, LinkHash
from protocol.messages import FolderHead
from tests.protocol.chain_world import fixed

ALICE, BOB = AccountId(fixed("alice")), AccountId(fixed("bob"))
PHONE, LAPTOP = DeviceId(fixed("phone")), DeviceId(fixed("laptop"))


def head(folder: str, position: int, registered: int = 0) -> FolderHead:
    checkpoint = Checkpoint(0, FolderId(fixed(folder)), position, bytes(32), LinkHash(bytes(32)), 0)
    return FolderHead(SignedCheckpoint(checkpoint, bytes(64)), registered)


def test_a_session_keeps_the_newest_of_each_folder():
    hub = Hub()
    hub.join(1, ALICE, PHONE)
    hub.join(2, BOB, LAPTOP)
    assert hub.post_head([ALICE], head("f", 3)) == [1]
    assert hub.post_head([ALICE], head("f", 5)) == []  # it was woken already
    hub.post_head([ALICE], head("f", 4))
    hub.post_head([ALICE], head("g", 1))
    hub.post_account([ALICE, BOB], BOB, 7)
    news = hub.take(1)
    assert sorted(h.checkpoint.checkpoint.position for h in news.heads.values()) == [1, 5]
    assert news.accounts == {BOB: 7}
    assert not hub.take(1)
    assert not hub.take(2).heads


def test_registered_entries_are_news_too():
    hub = Hub()
    hub.join(1, ALICE, PHONE)
    hub.post_head([ALICE], head("f", 3, 1))
    hub.post_head([ALICE], head("f", 3, 2))
    assert [h.registered for h in hub.take(1).heads.values()] == [2]


def test_a_device_has_a_few_sockets_and_the_newest_win():
    hub = Hub()
    for session in range(limits.SOCKETS_PER_DEVICE_MAX):
        assert hub.join(session, ALICE, PHONE) == []
    assert hub.join(90, ALICE, PHONE) == [0]
    hub.leave(0)
    assert hub.sessions(ALICE, PHONE) == [1, 2, 90]


def test_an_account_has_so_many_sockets_and_no_more():
    hub = Hub()
    for session in range(limits.SOCKETS_PER_ACCOUNT_MAX):
        hub.join(session, ALICE, DeviceId(fixed(str(session))))
    with pytest.raises(LimitExceededError):
        hub.join(1000, ALICE, PHONE)
    hub.leave(0)
    hub.join(1000, ALICE, PHONE)


def test_presence_ends_with_the_last_session():
    hub = Hub()
    hub.join(1, ALICE, PHONE)
    hub.join(2, ALICE, PHONE)
    hub.leave(1)
    assert hub.online(ALICE) == {PHONE}
    hub.leave(2)
    hub.leave(2)
    assert hub.online(ALICE) == set()
    assert not hub.has_any([ALICE])


def test_a_burst_passes_and_then_the_rate_holds():
    pace = Pace(50, 200, 0.0)
    assert all(pace.take(0.0) == 0 for _ in range(200))
    assert pace.take(0.0) == pytest.approx(0.02)
    assert pace.take(0.04) == 0
    assert sum(pace.take(1000.0) == 0 for _ in range(300)) == 200


def test_attempts_slide_and_are_forgiven():
    attempts = Attempts(2, 60)
    attempts.count(b"a", 0)
    attempts.count(b"a", 30)
    assert attempts.are_spent(b"a", 59)
    assert not attempts.are_spent(b"a", 61)
    assert not attempts.are_spent(b"b", 0)
    attempts.count(b"a", 61)
    attempts.forgive(b"a")
    assert not attempts.are_spent(b"a", 61)


def boxes() -> Mailboxes:
    drawn = iter(range(1, 1000))
    return Mailboxes(lambda count: next(drawn).to_bytes(count, "big"))


def test_two_sides_meet_and_nobody_else():
    some = boxes()
    box = some.open(1, 0.0)
    assert some.send(1, box.number, b"early", 1.0) is None
    joined = some.join(2, box.number, 2.0)
    assert joined.waiting == [b"early"]
    assert some.send(2, box.number, b"x", 3.0) == 1
    assert some.send(1, box.number, b"x", 3.0) == 2
    with pytest.raises(AccessDeniedError):
        some.join(3, box.number, 4.0)
    with pytest.raises(AccessDeniedError):
        some.send(3, box.number, b"x", 4.0)
    assert some.close(2, box.number, 5.0) == 1
    with pytest.raises(AccessDeniedError):
        some.send(1, box.number, b"x", 6.0)


@pytest.mark.parametrize("speaker", [1, 2])
@pytest.mark.parametrize("how", ["leave", "close", "silence"])
def test_a_code_is_used_once_even_if_its_user_leaves(speaker, how):
    """One message either way is the only attempt."""
    some = boxes()
    box = some.open(1, 0.0)
    some.join(2, box.number, 1.0)
    some.send(speaker, box.number, b"hello", 1.0)
    assert not some.is_idle(2)
    if how == "leave":
        assert some.leave(2) == [(1, box.number)]
    elif how == "close":
        assert some.close(2, box.number, 1.0) == 1
    with pytest.raises(AccessDeniedError):
        some.join(3, box.number, 1.0 + SILENT_S)


def test_a_message_that_waited_is_an_attempt_of_whoever_got_it():
    some = boxes()
    box = some.open(1, 0.0)
    some.send(1, box.number, b"early", 0.0)
    some.join(2, box.number, 1.0)
    assert some.leave(2) == [(1, box.number)]
    with pytest.raises(AccessDeniedError):
        some.join(3, box.number, 2.0)


@pytest.mark.parametrize("how", ["leave", "close", "silence"])
def test_whoever_joins_and_says_nothing_leaves_the_code_unused(how):
    some = boxes()
    box = some.open(1, 0.0)
    some.join(2, box.number, 1.0)
    assert some.is_idle(2)
    with pytest.raises(AccessDeniedError):
        some.join(3, box.number, SILENT_S)
    if how == "leave":
        assert some.leave(2) == []
    elif how == "close":
        assert some.close(2, box.number, 2.0) is None
    some.join(3, box.number, 1.0 + SILENT_S)
    for refused in (some.send, lambda *args: some.close(args[0], args[1], args[3])):
        with pytest.raises(AccessDeniedError):
            refused(2, box.number, b"late", 2.0 + SILENT_S)
    assert some.leave(2) == []
    assert some.send(3, box.number, b"hello", 2.0 + SILENT_S) == 1
    with pytest.raises(AccessDeniedError):
        some.join(4, box.number, 3.0 + 2 * SILENT_S)


def test_the_first_message_of_a_joiner_is_one_attempt():
    some = boxes()
    box = some.open(1, 0.0)
    some.join(2, box.number, 0.0)
    assert not some.try_once(1, box.number, 0.0)
    assert some.try_once(2, box.number, 0.0)
    assert not some.try_once(2, box.number, 0.0)
    with pytest.raises(AccessDeniedError):
        some.try_once(3, box.number, 0.0)


@pytest.mark.parametrize("drawn", [0, 1, 899_999, 900_000, (1 << 64) - 1])
def test_numbers_are_drawn_at_random_and_have_six_digits(drawn):
    number = Mailboxes(lambda count: drawn.to_bytes(count, "big")).open(1, 0.0).number
    assert number == 100_000 + drawn % 900_000
    assert len(str(number)) == 6


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("elsewhere", "elsewhere"),
    ],
)
def test_all_addresses_of_a_site_count_as_one(address, site):
    assert site_of(address) == site


def test_a_mailbox_ends_after_its_time():
    some = boxes()
    box = some.open(1, 0.0)
    with pytest.raises(AccessDeniedError):
        some.join(2, box.number, float(limits.LINK_MAILBOX_S))


@pytest.mark.parametrize(
    ("length", "fits"), [(limits.LINK_MESSAGE_BYTES_MAX, True), (limits.LINK_MESSAGE_BYTES_MAX + 1, False)]
)
def test_a_linking_message_has_a_limit(length, fits):
    some = boxes()
    box = some.open(1, 0.0)
    some.join(2, box.number, 0.0)
    if fits:
        assert some.send(1, box.number, bytes(length), 0.0) == 2
    else:
        with pytest.raises(LimitExceededError):
            some.send(1, box.number, bytes(length), 0.0)


def test_what_waits_in_mailboxes_is_bounded():
    some = boxes()
    box, *_ = [some.open(1, 0.0) for _ in range(OPEN_PER_SESSION_MAX)]
    with pytest.raises(LimitExceededError):
        some.open(1, 0.0)
    for _ in range(WAITING_MAX):
        some.send(1, box.number, b"x", 0.0)
    with pytest.raises(LimitExceededError):
        some.send(1, box.number, b"x", 0.0)
