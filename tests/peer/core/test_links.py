"""The links that a device makes: accepted by every replay, and open to just those they are for."""

import msgspec
import pytest

from peer.core import links
from peer.core.hpke import EphemeralHpke
from peer.core.keys import AccountKeys, DeviceSecrets, open_device_name
from peer.core.membership import open_account_keys, open_epochs, open_name
from protocol.chains import EnrolDevice, Role, SignedLink, folder_context, parse_account_link, parse_control_link
from protocol.codec import encode
from protocol.errors import ProtocolError, SecurityError
from protocol.ids import AccountId
from protocol.membership import AccountState, ControlState
from tests.peer.core.key_world import NOW_MS, RealAccount, RealFolder, Stream

replace = msgspec.structs.replace


@pytest.fixture
def anna():
    return RealAccount("anna")


@pytest.fixture
def ben():
    return RealAccount("ben")


def test_an_account_opens_for_its_device_and_its_root(anna):
    for holder in (anna.device, anna.root):
        assert open_account_keys(anna.state, holder, anna.hpke).secrets == anna.keys.secrets
    assert open_device_name(anna.state.active_devices[anna.device.id], anna.keys) == "anna's laptop"


def test_a_new_device_opens_all_generations(anna):
    first = anna.add("Phone")
    anna.revoke(first)
    second = anna.add("Tablet")
    keys = open_account_keys(anna.state, second, anna.hpke)
    assert sorted(keys.secrets) == [1, 2]
    assert keys.secrets == anna.keys.secrets
    names = {open_device_name(record.keys, keys) for record in anna.state.devices.values()}
    assert names == {"anna's laptop", "Phone", "Tablet"}
    AccountState.replay(anna.links, account=anna.state.id)


def test_a_revoked_device_opens_no_newer_generation(anna):
    """S27 in small."""
    thief = anna.add("Phone")
    before = open_account_keys(anna.state, thief, anna.hpke)
    anna.revoke(thief)
    with pytest.raises(SecurityError):
        open_account_keys(anna.state, thief, anna.hpke)
    with pytest.raises(SecurityError):
        open_account_keys(anna.state, thief, anna.hpke, known=before)


def test_known_generations_are_not_opened_again(anna):
    known = anna.keys
    gone = anna.add("Phone")
    anna.revoke(gone)
    opened = open_account_keys(anna.state, anna.device, anna.hpke, known=known)
    assert opened.secrets == anna.keys.secrets
    assert open_account_keys(anna.state, anna.device, anna.hpke, known=opened) is opened


def test_the_root_may_bring_a_device_in_and_revoke_the_lost_one(anna):
    new = DeviceSecrets.create(Stream("new"))
    keys = open_account_keys(anna.state, anna.root, anna.hpke)
    public = new.public(b"name")
    anna.append(
        links.make_add_device(
            anna.state, keys, public, new.prove(public), new.id, signer=anna.root, hpke=anna.hpke, now_ms=NOW_MS
        )
    )
    link, keys = links.make_revoke_device(
        anna.state, keys, anna.device.id, [], signer=new, hpke=anna.hpke, entropy=anna.entropy, now_ms=NOW_MS
    )
    anna.append(link)
    assert open_account_keys(anna.state, new, anna.hpke).secrets == keys.secrets
    assert list(anna.state.active_devices) == [new.id]


def test_a_folder_is_made_by_one_link_and_opens(anna):
    folder = RealFolder(anna, "Dokumente und Ä")
    keys = open_epochs(folder.state, anna.state.id, anna.keys, anna.hpke)
    assert list(keys) == [1]
    assert keys[1].fek == folder.keys.fek
    assert open_name(folder.state, keys) == "Dokumente und Ä"
    assert folder.state.may_write(1)
    assert b"Dokumente" not in folder.links[0].body


def test_every_epoch_opens_from_the_newest(anna, ben):
    folder = RealFolder(anna)
    made = {1: folder.keys}
    for number in (2, 3):
        folder.rotate()
        made[number] = folder.keys
    folder.share(ben)
    made[4] = folder.keys
    folder.unshare(ben)
    made[5] = folder.keys
    opened = open_epochs(folder.state, anna.state.id, anna.keys, anna.hpke)
    assert list(opened) == [1, 2, 3, 4, 5]
    for number, keys in opened.items():
        assert (keys.fek, keys.cdc, keys.cdc_id) == (made[number].fek, made[number].cdc, made[number].cdc_id)
    ControlState.replay(folder.links, folder.accounts, folder=folder.state.id)


def test_known_epochs_are_not_opened_again(anna):
    folder = RealFolder(anna)
    known = open_epochs(folder.state, anna.state.id, anna.keys, anna.hpke)
    folder.rotate()
    opened = open_epochs(folder.state, anna.state.id, anna.keys, anna.hpke, known=known)
    assert opened[1] is known[1]
    assert list(known) == [1]


def test_a_chunking_secret_changes_only_when_somebody_loses_access(anna, ben):
    """Security 3.5: a periodic epoch must not cost a new upload."""
    folder = RealFolder(anna)
    first = folder.keys
    folder.rotate()
    folder.share(ben)
    assert (folder.keys.cdc, folder.keys.cdc_id) == (first.cdc, first.cdc_id)
    folder.unshare(ben)
    assert folder.keys.cdc != first.cdc
    assert folder.keys.cdc_id != first.cdc_id
    last = folder.keys
    folder.rotate(lost=True)
    assert folder.keys.cdc != last.cdc


def test_members_open_everything_and_ex_members_nothing_new(anna, ben):
    """S27."""
    folder = RealFolder(anna)
    folder.share(ben)
    bens = open_epochs(folder.state, ben.state.id, ben.keys, ben.hpke)
    assert sorted(bens) == [1, 2]
    folder.unshare(ben)
    with pytest.raises(SecurityError):
        open_epochs(folder.state, ben.state.id, ben.keys, ben.hpke, known=bens)
    newest = folder.state.epoch
    for keys in bens.values():
        for old in (keys.fek, keys.entry, keys.chunk, keys.cdc):
            assert old not in (newest.back, newest.cdc)


def test_a_member_who_renewed_its_key_opens_the_next_epoch(anna, ben):
    folder = RealFolder(anna)
    folder.share(ben)
    phone = ben.add("Phone")
    ben.revoke(phone)
    folder.rotate(lost=True)
    assert folder.state.epoch_min == 3
    assert sorted(open_epochs(folder.state, ben.state.id, ben.keys, ben.hpke)) == [1, 2, 3]
    with pytest.raises(SecurityError):
        old = AccountKeys(ben.root.sign_public, {1: ben.keys.generation(1).secret})
        open_epochs(folder.state, ben.state.id, old, ben.hpke)


def test_members_enrol_and_change_roles(anna, ben):
    folder = RealFolder(anna)
    folder.share(ben, Role.READER)
    folder.append(links.enrol_op(folder.state, ben.device.id), by=ben)
    assert folder.state.role_of_number(2) is Role.READER
    ops, folder.keys = links.role_ops(
        folder.state, folder.keys, ben.state.id, Role.WRITER, folder.accounts, hpke=anna.hpke, entropy=anna.entropy
    )
    folder.append(*ops)
    assert folder.state.may_write(2)
    folder.append(links.enrol_op(folder.state, ben.device.id), by=ben)
    assert folder.state.numbers[-1].incarnation == 2
    folder.append(links.name_op(folder.state, folder.keys, "Renamed", ben.entropy), by=ben)
    keys = open_epochs(folder.state, anna.state.id, anna.keys, anna.hpke)
    assert open_name(folder.state, keys) == "Renamed"


# What an evil member or server may put into a link.


def with_epoch(folder, account, change):
    """Return the folder's state after an epoch op that a member changed before signing."""
    ops, _ = links.rotate_ops(
        folder.state, folder.keys, folder.accounts, hpke=folder.owner.hpke, entropy=folder.owner.entropy, lost=False
    )
    link = links.make_control_link(folder.state, account.state, account.device, [change(ops[0])], now_ms=NOW_MS)
    return folder.state.extend([link], folder.accounts)


@pytest.mark.parametrize(
    "change",
    [
        lambda op: replace(op, commit=bytes(32)),
        lambda op: replace(op, back=op.cdc),
        lambda op: replace(op, cdc=op.back),
        lambda op: replace(op, back=bytes(len(op.back))),
        lambda op: replace(op, wraps=tuple(replace(wrap, sealed=bytes(80)) for wrap in op.wraps)),
        lambda op: replace(
            op, wraps=tuple(replace(w, sealed=o.sealed) for w, o in zip(op.wraps, op.wraps[::-1], strict=True))
        ),
    ],
    ids=["commit", "back", "cdc", "zeros", "wraps", "swapped wraps"],
)
def test_an_epoch_that_does_not_hold_what_it_says_opens_for_nobody(anna, ben, change):
    """S05: everybody finds it out, and nobody uses a key that others were not given."""
    folder = RealFolder(anna)
    folder.share(ben)
    state = with_epoch(folder, ben, change)
    for account in (anna, ben):
        with pytest.raises(SecurityError):
            open_epochs(state, account.state.id, account.keys, account.hpke)


def test_keys_of_another_folder_epoch_or_account_do_not_open(anna, ben):
    """S05: wraps swapped between folders, epochs, recipients."""
    folder, other = RealFolder(anna), RealFolder(anna, "Other")
    for one in (folder, other):
        one.share(ben)
    for source in (other.state.epochs[1], folder.state.epochs[0]):
        sealed = {wrap.account: wrap.sealed for wrap in source.wraps}
        state = with_epoch(
            folder,
            anna,
            lambda op, sealed=sealed: replace(
                op, wraps=tuple(replace(w, sealed=sealed.get(w.account, w.sealed)) for w in op.wraps)
            ),
        )
        with pytest.raises(SecurityError):
            open_epochs(state, anna.state.id, anna.keys, anna.hpke)


def test_the_infos_of_wraps_name_everything():
    infos = {
        links.epoch_wrap_info(context, epoch, account, generation)
        for context in (b"x" * 32, b"y" * 32)
        for epoch in (1, 256)
        for account in (AccountId(b"a" * 32), AccountId(b"b" * 32))
        for generation in (1, 256)
    } | {
        links.account_wrap_info(root, generation, recipient)
        for root in (b"x" * 32, b"y" * 32)
        for generation in (1, 256)
        for recipient in (b"a" * 32, b"b" * 32)
    }
    assert len(infos) == 24


def test_an_account_key_that_is_not_the_chain_s_is_refused(anna):
    """S01: a wrap made by the server is no key of the account."""
    evil = EphemeralHpke(Stream("evil"))
    info = links.account_wrap_info(anna.root.sign_public, 1, anna.device.id)
    state = anna.state.extend([])
    state._wraps = {anna.device.id: evil.seal(anna.device.box_public, info, b"e" * 32)}
    with pytest.raises(SecurityError):
        open_account_keys(state, anna.device, anna.hpke)
    state._wraps = {anna.device.id: evil.seal(anna.device.box_public, info, b"short")}
    with pytest.raises(SecurityError):
        open_account_keys(state, anna.device, anna.hpke)


def test_a_signed_link_travels_as_it_was_signed(anna):
    """S62: what is signed is what was received; another encoding of it is another link."""
    folder = RealFolder(anna)
    assert encode(parse_control_link(folder.links[0])) == folder.links[0].body
    assert encode(parse_account_link(anna.links[0])) == anna.links[0].body
    longer = folder.links[0].body[:1] + b"\xcc\x01" + folder.links[0].body[2:]
    with pytest.raises(ProtocolError, match="canonical"):
        ControlState(SignedLink(longer, folder.links[0].signature), folder.accounts)


def test_two_folders_never_have_the_same_context(anna):
    contexts = {folder_context(RealFolder(anna).state.genesis) for _ in range(3)}
    assert len(contexts) == 3


def test_an_enrolment_is_the_device_s_own(anna, ben):
    folder = RealFolder(anna)
    folder.share(ben)
    op = links.enrol_op(folder.state, ben.device.id)
    assert op == EnrolDevice(ben.device.id, 1, 2)
