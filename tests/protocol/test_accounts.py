"""Account chains: who may add which link, and what a replay says of the devices."""

import msgspec
import pytest

from protocol import chains, limits, signing
from protocol.accounts import AccountState
from protocol.chains import NO_LINK, ROOT_RECIPIENT, SignedLink
from protocol.errors import AccessDeniedError, BadSignatureError, LimitExceededError, ProtocolError
from protocol.ids import AccountId, FolderId
from tests.protocol.chain_world import TestAccount, TestDevice, fixed, sign_link

replace = msgspec.structs.replace


@pytest.fixture
def anna():
    return TestAccount("anna")


def try_link(account, body, seed):
    """Append a link that need not be right."""
    return account.state.extend([sign_link(body, seed)])


def test_a_genesis_makes_an_account_of_one_device(anna):
    state = anna.state
    assert state.id == anna.links[0].hash == state.head
    assert list(state.active_devices) == [anna.device.id]
    assert (state.seq, state.aek_generation) == (0, 1)
    assert state.aek_wrap(anna.device.id) is not None
    assert state.aek_wrap(ROOT_RECIPIENT) is not None


def test_devices_come_and_go_and_a_replay_agrees(anna):
    second = anna.add("2")
    third = anna.add("3", second.seed)
    anna.revoke(anna.device.id, third.seed)
    state = AccountState.replay(anna.links, account=anna.id)
    assert set(state.active_devices) == {second.id, third.id} == set(anna.state.active_devices)
    assert (state.seq, state.head, state.aek_generation) == (3, anna.state.head, 2)
    first = state.devices[anna.device.id]
    assert (first.added_seq, first.revoked_seq) == (0, 3)
    assert [first.is_active_at(seq) for seq in range(5)] == [True, True, True, False, False]
    assert state.aek_wrap(first.id) is None
    assert state.aek_backs == (b"back",)


def test_a_failed_link_leaves_the_state_as_it_was(anna):
    before = anna.state
    device = TestDevice("x")
    good = sign_link(anna.body(anna.add_op(device), anna.device.keys.sign), anna.device.seed)
    with pytest.raises(ProtocolError):
        before.extend([good, good])
    assert (before.seq, list(before.devices)) == (0, [anna.device.id])


def test_states_share_nothing_that_changes(anna):
    before = anna.state
    anna.add("2")
    other = before.extend([])
    assert len(before.devices) == len(other.devices) == 1
    assert before.seq_of(anna.state.head) is None


def test_positions_of_links_are_known(anna):
    anna.add("2")
    assert [anna.state.seq_of(link.hash) for link in anna.links] == [0, 1]
    assert anna.state.seq_of(NO_LINK) is None


def test_the_root_may_add_and_revoke_when_every_device_is_lost(anna):
    new = anna.add("after the fire", anna.root_seed)
    anna.revoke(anna.device.id, anna.root_seed)
    assert list(anna.state.active_devices) == [new.id]


def test_the_root_outranks_a_thief(anna):
    """S26, as far as the ops go: a thief can revoke, but the phrase comes back and ends the thief."""
    stolen = anna.add("stolen")
    anna.revoke(anna.device.id, stolen.seed)
    again = anna.add("again", anna.root_seed)
    anna.revoke(stolen.id, again.seed)
    assert list(anna.state.active_devices) == [again.id]


def test_a_revoked_device_adds_nothing_more(anna):
    """S24."""
    thief = anna.add("2")
    anna.revoke(thief.id)
    with pytest.raises(AccessDeniedError):
        anna.add("3", thief.seed)


def test_a_revoked_device_never_comes_back(anna):
    gone = anna.add("2")
    anna.revoke(gone.id)
    with pytest.raises(ProtocolError):
        anna.append(anna.add_op(gone))


def test_cuts_are_kept_and_never_moved(anna):
    """S24: what a revocation says of a device's entries cannot be taken back by a later link."""
    folder = FolderId(fixed("folder"))
    second, third = anna.add("2"), anna.add("3")
    anna.revoke(second.id, cut=((folder, 2, 41, fixed("entry")),))
    assert anna.state.cut_of(folder, 2) == (41, fixed("entry"))
    anna.revoke(third.id, cut=((folder, 2, 99, fixed("later")), (folder, 3, 5, fixed("third"))))
    assert anna.state.cut_of(folder, 2) == (41, fixed("entry"))
    assert anna.state.cut_of(folder, 3) == (5, fixed("third"))
    assert anna.state.cut_of(folder, 4) is None


BODIES = [
    ("of another version", {"version": 2}, ProtocolError),
    ("of another suite", {"suite": 2}, ProtocolError),
    ("of another account", {"account": fixed("other")}, ProtocolError),
    ("of the genesis's form", {"account": b""}, ProtocolError),
    ("with a gap", {"seq": 2}, ProtocolError),
    ("at the same place", {"seq": 0}, ProtocolError),
    ("after another link", {"previous": fixed("other")}, ProtocolError),
    ("signed by nobody we know", {"signer": signing.public_key(fixed("stranger"))}, AccessDeniedError),
    ("signed by nothing", {"signer": b""}, AccessDeniedError),
]


@pytest.mark.parametrize(("change", "error"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_link_that_does_not_follow_is_refused(anna, change, error):
    body = replace(anna.body(anna.add_op(TestDevice("x")), anna.device.keys.sign), **change)
    with pytest.raises(error):
        try_link(anna, body, anna.device.seed)


def test_a_signature_by_another_key_or_over_other_bytes_is_refused(anna):
    body = anna.body(anna.add_op(TestDevice("x")), anna.device.keys.sign)
    good = sign_link(body, anna.device.seed)
    as_control = SignedLink(good.body, signing.sign("control-link", good.body, anna.device.seed))
    for bad in (
        sign_link(body, fixed("stranger")),
        SignedLink(good.body, bytes(64)),
        SignedLink(good.body, good.signature[:-1]),
        SignedLink(good.body, b""),
        as_control,
    ):
        with pytest.raises(BadSignatureError):
            anna.state.extend([bad])
    with pytest.raises(ProtocolError):
        anna.state.extend([SignedLink(good.body + b"\0", good.signature)])


OPS = [
    ("sign key short", lambda keys: replace(keys, sign=b"s" * 31), ProtocolError),
    ("box key long", lambda keys: replace(keys, box=b"b" * 33), ProtocolError),
    ("no certificate", lambda keys: replace(keys, certificate=b""), ProtocolError),
    ("certificate large", lambda keys: replace(keys, certificate=bytes(2049)), LimitExceededError),
    ("name large", lambda keys: replace(keys, sealed_name=bytes(1025)), LimitExceededError),
    ("key used twice", lambda keys: replace(keys, box=keys.sign), ProtocolError),
    (
        "certificate of another device",
        lambda keys: replace(keys, certificate=fixed("anna/1/certificate", 200)),
        ProtocolError,
    ),
    ("box key of another device", lambda keys: replace(keys, box=fixed("anna/1/box")), ProtocolError),
    ("box key of the root", lambda keys: replace(keys, box=fixed("anna/root-box")), ProtocolError),
]


@pytest.mark.parametrize(("change", "error"), [case[1:] for case in OPS], ids=[case[0] for case in OPS])
def test_a_device_with_such_keys_is_refused(anna, change, error):
    device = TestDevice("x")
    device.keys = change(device.keys)
    device.proof = device.prove()
    with pytest.raises(error):
        anna.append(anna.add_op(device))


def test_certificates_and_names_may_be_as_large_as_the_limit(anna):
    device = TestDevice("x")
    device.keys = replace(
        device.keys,
        certificate=bytes(limits.CERTIFICATE_BYTES_MAX),
        sealed_name=bytes(limits.SEALED_NAME_BYTES_MAX),
    )
    device.proof = device.prove()
    anna.append(anna.add_op(device))


def test_a_device_must_prove_that_it_holds_its_keys(anna):
    """S03: the server cannot add a key that nobody holds, nor bind one to another device's."""
    device = TestDevice("x")
    for proof in (b"", bytes(64), TestDevice("y").proof):
        with pytest.raises(BadSignatureError):
            anna.append(replace(anna.add_op(device), device_proof=proof))


@pytest.mark.parametrize(
    "change", [{"aek_generation": 0}, {"aek_generation": 2}, {"aek_wrap": b""}, {"aek_wrap": bytes(81)}], ids=str
)
def test_a_new_device_is_given_the_newest_key(anna, change):
    with pytest.raises(ProtocolError):
        anna.append(replace(anna.add_op(TestDevice("x")), **change))


def test_a_device_cannot_revoke_itself(anna):
    anna.add("2")
    with pytest.raises(AccessDeniedError):
        anna.revoke(anna.device.id)


REVOCATIONS = [
    ("of a stranger", lambda op: replace(op, device=TestDevice("x").id)),
    ("without a new generation", lambda op: replace(op, aek_generation=1)),
    ("with a generation left out", lambda op: replace(op, aek_generation=3)),
    ("with the old key", lambda op: replace(op, aek_public=fixed("anna/aek1"))),
    ("with a device's key", lambda op: replace(op, aek_public=fixed("anna/1/box"))),
    ("with a short key", lambda op: replace(op, aek_public=b"k" * 31)),
    ("without the former key", lambda op: replace(op, aek_back=b"")),
    ("with a large former key", lambda op: replace(op, aek_back=bytes(513))),
    ("that leaves a device out", lambda op: replace(op, aek_wraps=op.aek_wraps[:-1])),
    ("that leaves the root out", lambda op: replace(op, aek_wraps=op.aek_wraps[1:])),
    (
        "that seals to the revoked",
        lambda op: replace(op, aek_wraps=tuple(sorted([*op.aek_wraps, (op.device, bytes(80))]))),
    ),
    ("with unsorted wraps", lambda op: replace(op, aek_wraps=op.aek_wraps[::-1])),
    ("with a wrap twice", lambda op: replace(op, aek_wraps=(op.aek_wraps[0], *op.aek_wraps))),
    ("with a long wrap", lambda op: replace(op, aek_wraps=tuple((r, bytes(81)) for r, _ in op.aek_wraps))),
    ("with a bad folder", lambda op: replace(op, cut=((FolderId(b"f"), 1, 1, fixed("e")),))),
    ("with a bad entry", lambda op: replace(op, cut=((FolderId(fixed("f")), 1, 1, b"e"),))),
    ("with number 0", lambda op: replace(op, cut=((FolderId(fixed("f")), 0, 1, fixed("e")),))),
    ("with a number too large", lambda op: replace(op, cut=((FolderId(fixed("f")), 65536, 1, fixed("e")),))),
    ("with a negative seq", lambda op: replace(op, cut=((FolderId(fixed("f")), 1, -1, fixed("e")),))),
    ("with a cut twice", lambda op: replace(op, cut=((FolderId(fixed("f")), 1, 1, fixed("e")),) * 2)),
]


@pytest.mark.parametrize("change", [case[1] for case in REVOCATIONS], ids=[case[0] for case in REVOCATIONS])
def test_a_revocation_that_does_not_renew_the_key_rightly_is_refused(anna, change):
    second = anna.add("2")
    with pytest.raises(ProtocolError):
        anna.append(change(anna.revoke_op(second.id)))


def test_a_device_is_revoked_once(anna):
    second = anna.add("2")
    anna.revoke(second.id)
    with pytest.raises(ProtocolError):
        anna.append(anna.revoke_op(second.id))


def test_cuts_are_bounded(anna):
    second, third = anna.add("2"), anna.add("3")
    cuts = tuple((FolderId(fixed("f")), number, 0, fixed("e")) for number in range(1, limits.REVOKE_CUTS_MAX + 2))
    with pytest.raises(LimitExceededError):
        anna.revoke(second.id, cut=cuts)
    anna.revoke(third.id, cut=cuts[:-1])


def test_devices_are_bounded_and_revoked_ones_do_not_count(anna):
    last = [anna.add(str(number)) for number in range(2, limits.ACCOUNT_DEVICES_MAX + 1)][-1]
    with pytest.raises(LimitExceededError):
        anna.add("one more")
    anna.revoke(last.id)
    anna.add("in its place")


def test_a_chain_is_bounded(anna, monkeypatch):
    monkeypatch.setattr(limits, "ACCOUNT_CHAIN_LINKS_MAX", 3)
    anna.add("2")
    anna.add("3")
    with pytest.raises(LimitExceededError):
        anna.add("4")


GENESIS = [
    ("with an account", {"account": fixed("x")}, ProtocolError),
    ("not at the beginning", {"seq": 1}, ProtocolError),
    ("after a link", {"previous": fixed("x")}, ProtocolError),
    ("of another version", {"version": 0}, ProtocolError),
    ("signed by its device", {"signer": TestDevice("anna/1").keys.sign}, AccessDeniedError),
]


@pytest.mark.parametrize(("change", "error"), [case[1:] for case in GENESIS], ids=[case[0] for case in GENESIS])
def test_such_a_genesis_is_refused(anna, change, error):
    with pytest.raises(error):
        AccountState(sign_link(replace(anna.genesis_body(), **change), anna.root_seed))


@pytest.mark.parametrize(
    "change",
    [
        {"root_sign": b"short"},
        {"root_box": b"short"},
        {"aek_public": b"short"},
        {"aek_public": fixed("anna/root-box")},
        {"aek_wraps": ()},
        {"device": TestDevice("other").keys},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_genesis_with_such_keys_is_refused(anna, change):
    op = replace(anna.genesis_op(), **change)
    body = replace(anna.genesis_body(), op=op, signer=op.root_sign)
    with pytest.raises((ProtocolError, BadSignatureError)):
        AccountState(sign_link(body, anna.root_seed))


def test_another_op_is_no_genesis_and_a_genesis_no_other_op(anna):
    with pytest.raises(ProtocolError):
        AccountState(sign_link(replace(anna.genesis_body(), op=anna.add_op(TestDevice("x"))), anna.root_seed))
    with pytest.raises(ProtocolError):
        anna.append(anna.genesis_op())


def test_a_replay_of_nothing_or_of_another_account_is_refused(anna):
    with pytest.raises(ProtocolError):
        AccountState.replay([])
    with pytest.raises(AccessDeniedError):
        AccountState.replay(anna.links, account=AccountId(fixed("other")))


def test_links_of_another_account_do_not_replay(anna):
    """S23."""
    ben = TestAccount("ben")
    ben.add("2")
    with pytest.raises(ProtocolError):
        anna.state.extend(ben.links[1:])


def test_a_link_above_its_limit_is_refused_before_it_is_parsed(anna):
    with pytest.raises(LimitExceededError):
        anna.state.extend([SignedLink(bytes(limits.CONTROL_LINK_BYTES_MAX + 1), bytes(64))])
    with pytest.raises(ProtocolError):
        anna.state.extend([SignedLink(bytes(limits.CONTROL_LINK_BYTES_MAX), bytes(64))])


def test_every_op_has_a_case_here():
    """A new op must be judged by the replay before it can be written."""
    assert set(chains.AccountOp.__args__) == {chains.AccountGenesis, chains.AddDevice, chains.RevokeDevice}
