"""Signed chains for tests: accounts, devices and folders with fixed keys, and every op by name."""

from __future__ import annotations

from blake3 import blake3

from protocol import chains, signing
from protocol.accounts import WRAP_BYTES, AccountState
from protocol.chains import AccountLink, ControlLink, DeviceKeys, Epoch, EpochWrap, FolderGenesis, Role, SignedLink
from protocol.codec import encode
from protocol.ids import AccountId, DeviceId, FolderId, device_id
from protocol.membership import ControlState


def fixed(name: str, length: int = 32) -> bytes:
    """Return bytes that differ for each name."""
    return blake3(name.encode()).digest(length)


class TestDevice:
    """A device with keys made from its name."""

    __test__ = False

    def __init__(self, name: str) -> None:
        self.seed = fixed(name)
        sign = signing.public_key(self.seed)
        self.id: DeviceId = device_id(sign)
        self.keys = DeviceKeys(sign, fixed(name + "/box"), fixed(name + "/certificate", 200), b"sealed")
        self.proof = self.prove()

    def prove(self) -> bytes:
        return signing.sign("device-keys", chains.device_keys_proof_bytes(self.keys), self.seed)


def sign_link(body: AccountLink | ControlLink, seed: bytes) -> SignedLink:
    data = encode(body)
    kind = "account-link" if isinstance(body, AccountLink) else "control-link"
    return SignedLink(data, signing.sign(kind, data, seed))


class TestAccount:
    """An account whose chain grows by the methods; ``state`` is what its replay says."""

    __test__ = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.root_seed = fixed(name + "/root")
        self.device = TestDevice(name + "/1")
        self.devices = {self.device.id: self.device}
        self.links: list[SignedLink] = []
        self.links.append(sign_link(self.genesis_body(), self.root_seed))
        self.state = AccountState(self.links[0])

    @property
    def id(self) -> AccountId:
        return self.state.id

    def genesis_op(self) -> chains.AccountGenesis:
        return chains.AccountGenesis(
            root_sign=signing.public_key(self.root_seed),
            root_box=fixed(self.name + "/root-box"),
            device=self.device.keys,
            device_proof=self.device.proof,
            aek_public=fixed(self.name + "/aek1"),
            aek_wraps=self.wraps([self.device.id]),
        )

    def genesis_body(self) -> AccountLink:
        op = self.genesis_op()
        return AccountLink(1, 1, b"", 0, chains.NO_LINK, 0, op.root_sign, op)

    def wraps(self, recipients) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((r, bytes(WRAP_BYTES)) for r in sorted([chains.ROOT_RECIPIENT, *recipients]))

    def body(self, op, signer: bytes) -> AccountLink:
        return AccountLink(1, 1, self.id, self.state.seq + 1, self.state.head, 0, signer, op)

    def append(self, op, seed: bytes | None = None) -> AccountState:
        seed = self.device.seed if seed is None else seed
        link = sign_link(self.body(op, signing.public_key(seed)), seed)
        self.state = self.state.extend([link])
        self.links.append(link)
        return self.state

    def add_op(self, device: TestDevice) -> chains.AddDevice:
        return chains.AddDevice(device.keys, device.proof, self.state.aek_generation, bytes(WRAP_BYTES))

    def add(self, name: str, seed: bytes | None = None) -> TestDevice:
        device = TestDevice(f"{self.name}/{name}")
        self.append(self.add_op(device), seed)
        self.devices[device.id] = device
        return device

    def revoke_op(self, device: DeviceId, cut=()) -> chains.RevokeDevice:
        left = [d for d in self.state.active_devices if d != device]
        generation = self.state.aek_generation + 1
        return chains.RevokeDevice(
            device, cut, generation, fixed(f"{self.name}/aek{generation}"), self.wraps(left), b"back"
        )

    def revoke(self, device: DeviceId, seed: bytes | None = None, cut=()) -> AccountState:
        return self.append(self.revoke_op(device, cut), seed)


class TestFolder:
    """A folder whose control log grows by the methods."""

    __test__ = False

    def __init__(self, owner: TestAccount, *accounts: TestAccount, name: str = "folder") -> None:
        self.known = {a.id: a for a in (owner, *accounts)}
        self.owner = owner
        self.other = owner.id
        """For a test to name another member."""
        self.genesis = FolderGenesis(
            owner.id, "fastcdc-seeded/1", 256 * 1024, 1024 * 1024, 4 * 1024 * 1024, "padme/1", 1, fixed(name)
        )
        self.links = [sign_link(self.genesis_body(), owner.device.seed)]
        self.state = ControlState(self.links[0], self.accounts)

    def accounts(self, account: AccountId) -> AccountState:
        return self.known[account].state

    @property
    def id(self) -> FolderId:
        return self.state.id

    def genesis_body(self, *, ops=None) -> ControlLink:
        if ops is None:
            ops = (
                self.genesis,
                chains.EnrolDevice(self.owner.device.id, 1, 1),
                self.epoch_op([self.owner.id], number=1),
                chains.SetName(1, b"sealed name"),
            )
        owner = self.owner
        return ControlLink(1, 1, b"", 0, chains.NO_LINK, 0, owner.id, owner.state.head, owner.device.id, ops)

    def epoch_op(self, members=None, *, number: int | None = None, scope: str = "folder") -> Epoch:
        members = self.state.members if members is None else members
        number = len(self.state.epochs) + 1 if number is None else number
        wraps = tuple(EpochWrap(m, self.accounts(m).aek_generation, bytes(WRAP_BYTES)) for m in sorted(members))
        return Epoch(number, fixed(f"commit{number}"), wraps, b"back" if number > 1 else b"", b"cdc", scope)

    def body(self, ops, account: TestAccount, device: TestDevice | None = None) -> ControlLink:
        device = device or account.device
        state = self.state
        return ControlLink(
            1, 1, self.id, state.seq + 1, state.head, 0, account.id, account.state.head, device.id, tuple(ops)
        )

    def append(self, *ops, by: TestAccount | None = None, device: TestDevice | None = None, fresh=True) -> ControlState:
        account = by or self.owner
        device = device or account.device
        link = sign_link(self.body(ops, account, device), device.seed)
        self.state = self.state.extend([link], self.accounts, fresh=fresh)
        self.links.append(link)
        return self.state

    def share(self, account: TestAccount, role: Role, *, by: TestAccount | None = None) -> ControlState:
        self.known[account.id] = account
        return self.append(chains.AddMember(account.id, role), self.epoch_op([*self.state.members, account.id]), by=by)

    def unshare(self, account: TestAccount, *, by: TestAccount | None = None) -> ControlState:
        left = [m for m in self.state.members if m != account.id]
        return self.append(chains.RemoveMember(account.id), self.epoch_op(left), by=by)
