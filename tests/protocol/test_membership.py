"""Control logs: who may do what in a folder, and what a replay says of members, numbers and epochs."""

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import chains, limits, signing
from protocol.chains import AddMember, EnrolDevice, RemoveMember, Role, SetName, SetRole, SignedLink
from protocol.errors import AccessDeniedError, BadSignatureError, KinfolderError, LimitExceededError, ProtocolError
from protocol.ids import AccountId, EntryHash, FolderId
from protocol.membership import ControlState, accounts_of
from tests.protocol.chain_world import TestAccount, TestFolder, fixed, sign_link

replace = msgspec.structs.replace


@pytest.fixture
def anna():
    return TestAccount("anna")


@pytest.fixture
def ben():
    return TestAccount("ben")


@pytest.fixture
def folder(anna, ben):
    return TestFolder(anna, ben)


def test_a_genesis_makes_a_folder_with_its_owner_as_admin(anna, folder):
    state = folder.state
    assert state.id == folder.links[0].hash
    assert dict(state.members) == {anna.id: Role.ADMIN}
    assert state.role_of_number(1) is Role.ADMIN
    assert state.may_write(1)
    assert (state.epoch.number, state.epoch_min) == (1, 1)
    assert state.name == SetName(1, b"sealed name")
    enrolment = state.enrolment(1)
    assert enrolment is not None
    assert (enrolment.device, enrolment.account, enrolment.incarnation) == (anna.device.id, anna.id, 1)


def test_members_come_and_go_and_a_replay_agrees(anna, ben, folder):
    folder.share(ben, Role.WRITER)
    folder.append(EnrolDevice(ben.device.id, 1, 2), by=ben)
    assert folder.state.may_write(2)
    folder.append(SetRole(ben.id, Role.READER), folder.epoch_op())
    assert folder.state.role_of_number(2) is Role.READER
    assert not folder.state.may_write(2)
    assert folder.state.may_read(ben.id)
    folder.unshare(ben)
    assert folder.state.role_of_number(2) is None
    assert not folder.state.may_read(ben.id)
    replayed = ControlState.replay(folder.links, folder.accounts, folder=folder.id)
    assert (replayed.seq, replayed.head) == (4, folder.state.head)
    assert dict(replayed.members) == {anna.id: Role.ADMIN}
    assert replayed.numbers == folder.state.numbers
    assert replayed.epochs == folder.state.epochs
    assert replayed.epoch_min == folder.state.epoch_min == 4


def test_a_failed_link_leaves_the_state_as_it_was(ben, folder):
    before = folder.state
    with pytest.raises(ProtocolError):
        folder.append(folder.epoch_op(), AddMember(ben.id, Role.READER), RemoveMember(AccountId(fixed("x"))))
    assert folder.state is before
    assert (before.seq, len(before.members), len(before.epochs)) == (0, 1, 1)


def test_old_epochs_count_until_somebody_loses_access(ben, folder):
    folder.share(ben, Role.WRITER)
    assert folder.state.admits_epoch(1)
    folder.append(folder.epoch_op())
    assert [folder.state.admits_epoch(epoch) for epoch in range(5)] == [False, True, True, True, False]
    folder.unshare(ben)
    assert [folder.state.admits_epoch(epoch) for epoch in range(6)] == [False, False, False, False, True, False]


def test_the_epoch_after_a_revoked_device_ends_the_ones_before(anna, folder):
    second = anna.add("2")
    folder.append(folder.epoch_op())
    assert folder.state.epoch_min == 1
    anna.revoke(second.id)
    folder.append(folder.epoch_op())
    assert folder.state.epoch_min == 3


def test_each_incarnation_of_a_device_has_a_number_of_its_own(anna, folder):
    folder.append(EnrolDevice(anna.device.id, 2, 2))
    second = anna.add("2")
    folder.append(EnrolDevice(second.id, 7, 3), device=second)
    state = folder.state
    assert state.number_of(anna.device.id) == 2
    assert state.incarnation_of(anna.device.id) == 2
    assert state.number_of(second.id) == 3
    assert state.may_write(1)
    assert state.is_enrolled(second.id)
    assert not state.is_enrolled(fixed("nobody"))
    assert state.number_of(fixed("nobody")) is None
    assert [state.enrolment(number) for number in (0, 4, -1)] == [None] * 3
    assert not state.may_write(4)


# Who may do what.

RIGHTS = [
    ("add a member", Role.ADMIN, lambda f, b, c: (AddMember(c.id, Role.READER), f.epoch_op([*f.state.members, c.id]))),
    (
        "remove a member",
        Role.ADMIN,
        lambda f, b, c: (RemoveMember(f.other), f.epoch_op(set(f.state.members) - {f.other})),
    ),
    ("raise a role", Role.ADMIN, lambda f, b, c: (SetRole(b.id, Role.ADMIN),)),
    ("begin an epoch", Role.WRITER, lambda f, b, c: (f.epoch_op(),)),
    ("name the folder", Role.WRITER, lambda f, b, c: (SetName(len(f.state.epochs), b"other"),)),
    ("enrol itself", Role.READER, lambda f, b, c: (EnrolDevice(b.device.id, 1, 2),)),
]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("least", "ops"), [case[1:] for case in RIGHTS], ids=[case[0] for case in RIGHTS])
def test_a_role_may_do_just_this(anna, ben, role, least, ops):
    carl, dora = TestAccount("carl"), TestAccount("dora")
    folder = TestFolder(anna, ben, carl, dora)
    folder.share(dora, Role.READER)
    folder.share(ben, role)
    folder.other = dora.id
    made = ops(folder, ben, carl)
    if role >= least:
        folder.append(*made, by=ben)
    else:
        with pytest.raises(AccessDeniedError):
            folder.append(*made, by=ben)


def test_a_stranger_may_do_nothing(ben, folder):
    with pytest.raises(AccessDeniedError):
        folder.append(EnrolDevice(ben.device.id, 1, 2), by=ben)


def test_rights_do_not_grow_within_a_link(ben, folder):
    """A writer cannot make itself an admin in the first op and use it in the second."""
    folder.share(ben, Role.WRITER)
    with pytest.raises(AccessDeniedError):
        folder.append(SetRole(ben.id, Role.ADMIN), SetRole(ben.id, Role.ADMIN), by=ben)


def test_a_device_enrols_nobody_else(anna, ben, folder):
    second = anna.add("2")
    folder.share(ben, Role.READER)
    for device in (second.id, ben.device.id):
        with pytest.raises(AccessDeniedError):
            folder.append(EnrolDevice(device, 1, 2))


@pytest.mark.parametrize(("incarnation", "number"), [(1, 2), (0, 2), (-1, 2), (1 << 31, 2), (2, 1), (2, 3), (2, 0)])
def test_a_number_is_the_next_one_and_an_incarnation_rises(anna, folder, incarnation, number):
    with pytest.raises(ProtocolError):
        folder.append(EnrolDevice(anna.device.id, incarnation, number))


def test_numbers_end_with_two_bytes(anna, folder, monkeypatch):
    monkeypatch.setattr(limits, "DEVICE_NUMBER_MAX", 2)
    folder.append(EnrolDevice(anna.device.id, 2, 2))
    with pytest.raises(LimitExceededError):
        folder.append(EnrolDevice(anna.device.id, 3, 3))


def test_the_owner_stays_an_admin(anna, ben, folder):
    folder.share(ben, Role.ADMIN)
    with pytest.raises(AccessDeniedError):
        folder.unshare(anna, by=ben)
    for by in (anna, ben):
        with pytest.raises(AccessDeniedError):
            folder.append(SetRole(anna.id, Role.READER), folder.epoch_op(), by=by)


def test_nobody_removes_itself(ben, folder):
    folder.share(ben, Role.ADMIN)
    with pytest.raises(AccessDeniedError):
        folder.unshare(ben, by=ben)


# What a link must carry.


def test_a_change_of_members_carries_an_epoch(ben, folder):
    folder.known[ben.id] = ben
    with pytest.raises(ProtocolError):
        folder.append(AddMember(ben.id, Role.READER))
    folder.share(ben, Role.WRITER)
    for ops in ((RemoveMember(ben.id),), (SetRole(ben.id, Role.READER),)):
        with pytest.raises(ProtocolError):
            folder.append(*ops)
    folder.append(SetRole(ben.id, Role.ADMIN))


EPOCHS = [
    ("with the same number", lambda op: replace(op, number=1), ProtocolError),
    ("with a number left out", lambda op: replace(op, number=3), ProtocolError),
    ("with an unknown scope", lambda op: replace(op, dedup_scope="world"), ProtocolError),
    ("with a short commitment", lambda op: replace(op, commit=b"short"), ProtocolError),
    ("without the former key", lambda op: replace(op, back=b""), ProtocolError),
    ("without a chunking secret", lambda op: replace(op, cdc=b""), ProtocolError),
    ("with a large former key", lambda op: replace(op, back=bytes(513)), LimitExceededError),
    ("with a large chunking secret", lambda op: replace(op, cdc=bytes(513)), LimitExceededError),
    ("that leaves a member out", lambda op: replace(op, wraps=op.wraps[:-1]), ProtocolError),
    ("with a member twice", lambda op: replace(op, wraps=(op.wraps[0], *op.wraps)), ProtocolError),
    ("with unsorted members", lambda op: replace(op, wraps=op.wraps[::-1]), ProtocolError),
    (
        "with a short wrap",
        lambda op: replace(op, wraps=tuple(replace(wrap, sealed=b"short") for wrap in op.wraps)),
        ProtocolError,
    ),
    (
        "sealed to a key that is not yet known",
        lambda op: replace(op, wraps=tuple(replace(wrap, aek_generation=2) for wrap in op.wraps)),
        AccessDeniedError,
    ),
    (
        "sealed to no key",
        lambda op: replace(op, wraps=tuple(replace(wrap, aek_generation=0) for wrap in op.wraps)),
        AccessDeniedError,
    ),
]


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(("change", "error"), [case[1:] for case in EPOCHS], ids=[case[0] for case in EPOCHS])
def test_such_an_epoch_is_refused(ben, folder, change, error, fresh):
    folder.known[ben.id] = ben
    op = folder.epoch_op([*folder.state.members, ben.id])
    with pytest.raises(error):
        folder.append(AddMember(ben.id, Role.READER), change(op), fresh=fresh)


def test_an_epoch_sealed_to_strangers_is_refused(ben, folder):
    """S03: the server cannot have a key sealed to whom it likes."""
    with pytest.raises(ProtocolError):
        folder.append(folder.epoch_op([*folder.state.members, ben.id]))


def test_a_link_holds_one_epoch(folder):
    with pytest.raises(ProtocolError):
        folder.append(folder.epoch_op(number=2), folder.epoch_op(number=3))


def test_epochs_are_sealed_to_the_newest_keys_when_they_are_admitted(anna, folder):
    """A signer that has not heard of a revocation yet must not seal to the thief's key."""
    old = folder.epoch_op()
    second = anna.add("2")
    anna.revoke(second.id)
    with pytest.raises(AccessDeniedError):
        folder.append(old, fresh=True)
    before = folder.state
    folder.append(old, fresh=False)
    folder.state = before
    folder.append(folder.epoch_op())


def test_epochs_never_go_back_to_an_older_key_of_a_member(anna, folder):
    second = anna.add("2")
    old = replace(folder.epoch_op(number=3))
    anna.revoke(second.id)
    folder.append(folder.epoch_op())
    with pytest.raises(AccessDeniedError):
        folder.append(old, fresh=False)


@pytest.mark.parametrize("op", [SetName(0, b"x"), SetName(2, b"x"), SetName(1, b""), SetName(1, bytes(1025))], ids=str)
def test_a_name_is_sealed_in_the_newest_epoch(folder, op):
    with pytest.raises(ProtocolError):
        folder.append(op)


def test_a_name_may_be_as_large_as_the_limit(folder):
    folder.append(SetName(1, bytes(limits.SEALED_NAME_BYTES_MAX)))


def test_an_empty_link_and_a_second_genesis_are_refused(folder):
    with pytest.raises(ProtocolError):
        folder.append()
    with pytest.raises(ProtocolError):
        folder.append(folder.genesis)


def test_ops_of_a_link_are_bounded(folder):
    ops = [SetName(1, b"x")] * (limits.CONTROL_OPS_MAX + 1)
    with pytest.raises(LimitExceededError):
        folder.append(*ops)
    folder.append(*ops[:-1])


def test_members_are_bounded(anna, monkeypatch):
    monkeypatch.setattr(limits, "FOLDER_MEMBERS_MAX", 3)
    others = [TestAccount(name) for name in ("ben", "carl", "dora")]
    folder = TestFolder(anna, *others)
    for other in others[:2]:
        folder.share(other, Role.READER)
    with pytest.raises(LimitExceededError):
        folder.share(others[2], Role.READER)
    folder.unshare(others[0])
    folder.share(others[2], Role.READER)


def test_a_member_is_added_once_and_only_members_change(ben, folder):
    folder.share(ben, Role.READER)
    with pytest.raises(ProtocolError):
        folder.append(AddMember(ben.id, Role.ADMIN), folder.epoch_op())
    stranger = AccountId(fixed("stranger"))
    for op in (RemoveMember(stranger), SetRole(stranger, Role.READER)):
        with pytest.raises(ProtocolError):
            folder.append(op, folder.epoch_op())
    with pytest.raises(AccessDeniedError):
        folder.append(AddMember(stranger, Role.READER), folder.epoch_op())


# Which link follows, and who signed it.

BODIES = [
    ("of another version", {"version": 2}, ProtocolError),
    ("of another suite", {"suite": 3}, ProtocolError),
    ("of another folder", {"folder": fixed("other")}, ProtocolError),
    ("of the genesis's form", {"folder": b""}, ProtocolError),
    ("with a gap", {"seq": 2}, ProtocolError),
    ("after another link", {"previous": fixed("other")}, ProtocolError),
    ("of another account", {"account": fixed("other")}, AccessDeniedError),
    ("with an unknown head", {"account_head": fixed("other")}, AccessDeniedError),
    ("by an unknown device", {"signer": fixed("other")}, AccessDeniedError),
]


@pytest.mark.parametrize(("change", "error"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_link_that_does_not_follow_is_refused(anna, folder, change, error):
    body = replace(folder.body((SetName(1, b"x"),), anna), **change)
    with pytest.raises(error):
        folder.state.extend([sign_link(body, anna.device.seed)], folder.accounts)


def test_a_signature_of_another_kind_or_key_is_refused(anna, folder):
    """S23."""
    good = sign_link(folder.body((SetName(1, b"x"),), anna), anna.device.seed)
    for bad in (
        SignedLink(good.body, signing.sign("account-link", good.body, anna.device.seed)),
        SignedLink(good.body, signing.sign("control-link", good.body, anna.root_seed)),
        SignedLink(good.body, bytes(64)),
    ):
        with pytest.raises(BadSignatureError):
            folder.state.extend([bad], folder.accounts)


def test_the_same_link_does_not_count_twice_nor_in_another_folder(anna, folder):
    """S23."""
    other = TestFolder(anna, name="other")
    folder.append(SetName(1, b"x"))
    for state in (folder.state, other.state):
        with pytest.raises(ProtocolError):
            state.extend(folder.links[-1:], folder.accounts)


def test_a_device_that_was_revoked_signs_nothing_new(anna, folder):
    """S24, S25: neither by the newest state nor by an older one, once the folder has seen the newer."""
    thief = anna.add("2")
    head = anna.state.head
    anna.revoke(thief.id)
    body = folder.body((SetName(1, b"x"),), anna, thief)
    now = sign_link(body, thief.seed)
    backdated = sign_link(replace(body, account_head=head), thief.seed)
    for link in (now, backdated):
        with pytest.raises(AccessDeniedError):
            folder.state.extend([link], folder.accounts, fresh=True)
    folder.state.extend([backdated], folder.accounts)  # a replay cannot know which came first
    folder.append(folder.epoch_op())
    late = sign_link(replace(folder.body((SetName(2, b"x"),), anna, thief), account_head=head), thief.seed)
    with pytest.raises(AccessDeniedError):
        folder.state.extend([late], folder.accounts)


def test_a_log_that_knows_of_a_revocation_has_no_more_of_the_device_but_up_to_its_cut(anna, folder):
    """S24: whatever the coordinator says about when it was there."""
    thief = anna.add("2")
    folder.append(EnrolDevice(thief.id, 1, 2), device=thief)
    assert folder.state.may_author(anna.state, 2, 42, EntryHash(fixed("42")))
    anna.revoke(thief.id, cut=((folder.state.id, 2, 41, fixed("41")),))
    assert not folder.state.knows_revoked(anna.state, thief.id)  # what was ordered meanwhile may stand there
    assert folder.state.is_outdated(folder.accounts)
    folder.append(folder.epoch_op())
    assert folder.state.knows_revoked(anna.state, thief.id)
    assert not folder.state.knows_revoked(anna.state, anna.device.id)
    assert not folder.state.is_outdated(folder.accounts)
    for seq, entry, counts in ((40, "40", True), (41, "41", True), (41, "another 41", False), (42, "42", False)):
        assert folder.state.may_author(anna.state, 2, seq, EntryHash(fixed(entry))) is counts
    assert folder.state.may_author(anna.state, 1, 99, EntryHash(fixed("99")))


def test_a_folder_made_before_its_maker_heard_of_a_new_key_is_admitted_and_outdated(anna):
    made = TestFolder(anna, name="made away")
    second = anna.add("2")
    anna.revoke(second.id)
    state = ControlState(made.links[0], made.accounts, fresh=True)
    assert state.is_outdated(made.accounts)


def test_what_was_signed_before_a_revocation_stays(anna, folder):
    second = anna.add("2")
    folder.append(EnrolDevice(second.id, 1, 2), device=second)
    anna.revoke(second.id)
    folder.append(folder.epoch_op())
    replayed = ControlState.replay(folder.links, folder.accounts)
    assert replayed.is_enrolled(second.id)


def test_a_device_that_was_not_yet_enrolled_cannot_sign_by_an_older_state(anna, folder):
    head = anna.state.head
    second = anna.add("2")
    body = replace(folder.body((SetName(1, b"x"),), anna, second), account_head=head)
    for fresh in (True, False):
        with pytest.raises(AccessDeniedError):
            folder.state.extend([sign_link(body, second.seed)], folder.accounts, fresh=fresh)


# The genesis.

GENESES = [
    ("unknown chunker", {"chunker": "fastcdc/2"}),
    ("unseeded chunker", {"chunker": ""}),
    ("unknown padding", {"padding": "none"}),
    ("unknown fold", {"fold_version": 2}),
    ("fold 0", {"fold_version": 0}),
    ("chunks too small", {"chunk_bytes_min": 4095}),
    ("chunks too large", {"chunk_bytes_max": 4 * 1024 * 1024 + 1}),
    ("mean below min", {"chunk_bytes_mean": 1024}),
    ("mean above max", {"chunk_bytes_max": 512 * 1024}),
    ("short salt", {"salt": b"short"}),
]


@pytest.mark.parametrize("change", [case[1] for case in GENESES], ids=[case[0] for case in GENESES])
def test_a_folder_of_an_unknown_kind_is_refused(anna, folder, change):
    """S06: nobody can be talked into an older or weaker format."""
    folder.genesis = replace(folder.genesis, **change)
    with pytest.raises(ProtocolError):
        ControlState(sign_link(folder.genesis_body(), anna.device.seed), folder.accounts)


def test_a_genesis_is_its_owners(anna, ben, folder):
    body = replace(folder.genesis_body(), account=ben.id, account_head=ben.state.head, signer=ben.device.id)
    with pytest.raises(AccessDeniedError):
        ControlState(sign_link(body, ben.device.seed), folder.accounts)


@pytest.mark.parametrize(
    "change",
    [{"folder": fixed("x")}, {"seq": 1}, {"previous": fixed("x")}, {"version": 2}, {"suite": 0}, {"ops": ()}],
    ids=lambda change: next(iter(change)),
)
def test_such_a_first_link_is_refused(anna, folder, change):
    with pytest.raises(ProtocolError):
        ControlState(sign_link(replace(folder.genesis_body(), **change), anna.device.seed), folder.accounts)


def test_a_first_link_without_a_key_is_refused(anna, folder):
    body = folder.genesis_body(ops=(folder.genesis, EnrolDevice(anna.device.id, 1, 1)))
    with pytest.raises(ProtocolError):
        ControlState(sign_link(body, anna.device.seed), folder.accounts)


def test_a_first_link_with_another_op_first_is_refused(anna, folder):
    body = folder.genesis_body(ops=(SetName(1, b"x"), folder.genesis))
    with pytest.raises(ProtocolError):
        ControlState(sign_link(body, anna.device.seed), folder.accounts)


def test_a_replay_of_nothing_or_of_another_folder_is_refused(folder):
    with pytest.raises(ProtocolError):
        ControlState.replay([], folder.accounts)
    with pytest.raises(AccessDeniedError):
        ControlState.replay(folder.links, folder.accounts, folder=FolderId(fixed("other")))


def test_the_accounts_that_a_link_speaks_of_are_found(anna, ben, folder):
    ops = (AddMember(ben.id, Role.READER), folder.epoch_op([anna.id, ben.id]))
    assert accounts_of(folder.body(ops, anna)) == {anna.id, ben.id}
    assert accounts_of(folder.body((SetName(1, b"x"),), anna)) == {anna.id}


def test_two_children_of_one_link_are_each_fine_and_exclude_each_other(anna, ben, folder):
    """Which of them counts is for the coordinator, or the fork alarm, to say."""
    before = folder.state
    folder.share(ben, Role.READER)
    one = folder.links[-1]
    folder.state = before
    folder.append(SetName(1, b"other"))
    other = folder.links[-1]
    for first, second in ((one, other), (other, one)):
        state = before.extend([first], folder.accounts)
        with pytest.raises(ProtocolError):
            state.extend([second], folder.accounts)


def test_every_op_has_a_case_here():
    assert {op.__name__ for op in chains.ControlOp.__args__} == {
        "FolderGenesis",
        "EnrolDevice",
        "AddMember",
        "RemoveMember",
        "SetRole",
        "Epoch",
        "SetName",
    }


# S30: whatever members do in whatever order, the log stays linear and nobody who lost access holds the newest key.

NAMES = ("anna", "ben", "carl", "dora")
WORLD = {name: TestAccount(name) for name in NAMES}


class ControlLog(RuleBasedStateMachine):
    """Members act on what they last saw; what the folder's state refuses must be what a plain model refuses."""

    @initialize()
    def begin(self):
        self.folder = TestFolder(WORLD["anna"], *(WORLD[name] for name in NAMES[1:]))
        self.roles = {"anna": Role.ADMIN}
        self.holders = [{"anna"}]
        self.views = dict.fromkeys(NAMES, self.folder.state)

    @rule(name=st.sampled_from(NAMES))
    def catch_up(self, name):
        self.views[name] = self.folder.state

    @rule(by=st.sampled_from(NAMES), whom=st.sampled_from(NAMES), role=st.sampled_from(list(Role)))
    def add(self, by, whom, role):
        allowed = self.is_admin(by) and whom not in self.roles
        if self.attempt(
            by, allowed, lambda f: (AddMember(WORLD[whom].id, role), self.epoch(f, {*self.named(f), whom}))
        ):
            self.roles[whom] = role
            self.holders.append(set(self.roles))

    @rule(by=st.sampled_from(NAMES), whom=st.sampled_from(NAMES))
    def remove(self, by, whom):
        allowed = self.is_admin(by) and whom in self.roles and whom not in (by, "anna")
        if self.attempt(by, allowed, lambda f: (RemoveMember(WORLD[whom].id), self.epoch(f, self.named(f) - {whom}))):
            del self.roles[whom]
            self.holders.append(set(self.roles))

    @rule(by=st.sampled_from(NAMES), whom=st.sampled_from(NAMES), role=st.sampled_from(list(Role)))
    def set_role(self, by, whom, role):
        allowed = self.is_admin(by) and whom in self.roles and whom != "anna"
        if self.attempt(by, allowed, lambda f: (SetRole(WORLD[whom].id, role), self.epoch(f, self.named(f)))):
            self.roles[whom] = role
            self.holders.append(set(self.roles))

    @rule(by=st.sampled_from(NAMES))
    def rotate(self, by):
        if self.attempt(by, self.roles.get(by, 0) >= Role.WRITER, lambda f: (self.epoch(f, self.named(f)),)):
            self.holders.append(set(self.roles))

    @precondition(lambda self: len(self.folder.links) > 1)
    @rule()
    def replay(self):
        replayed = ControlState.replay(self.folder.links, self.folder.accounts)
        assert (replayed.head, dict(replayed.members)) == (self.folder.state.head, dict(self.folder.state.members))

    def is_admin(self, name):
        return self.roles.get(name) is Role.ADMIN

    def named(self, folder):
        return {name for name in NAMES if WORLD[name].id in folder.state.members}

    def epoch(self, folder, names):
        return folder.epoch_op([WORLD[name].id for name in names])

    def attempt(self, by, allowed, make):
        """Have ``by`` sign ops on what it last saw; return whether they counted, which the model must have expected."""
        folder = self.folder
        newest = folder.state
        folder.state = self.views[by]
        is_stale = folder.state.head != newest.head
        link = sign_link(folder.body(make(folder), WORLD[by]), WORLD[by].device.seed)
        folder.state = newest
        try:
            extended = newest.extend([link], folder.accounts, fresh=True)
        except KinfolderError:
            assert is_stale or not allowed
            return False
        assert allowed
        assert not is_stale
        folder.state = self.views[by] = extended
        folder.links.append(link)
        return True

    @invariant()
    def the_state_is_the_models(self):
        state = self.folder.state
        assert dict(state.members) == {WORLD[name].id: role for name, role in self.roles.items()}
        assert state.seq == len(self.folder.links) - 1
        assert len(state.epochs) == len(self.holders)

    @invariant()
    def only_members_hold_the_newest_key(self):
        sealed = {wrap.account for wrap in self.folder.state.epoch.wraps}
        assert sealed == set(self.folder.state.members)
        for number in range(self.folder.state.epoch_min, len(self.holders) + 1):
            assert self.holders[number - 1] <= self.holders[-1], "somebody who lost access could still be admitted"


ControlLog.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestControlLog = ControlLog.TestCase
