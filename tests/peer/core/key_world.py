"""Real accounts, devices and folders for tests, from repeatable entropy."""

from __future__ import annotations

from blake3 import blake3

from peer.core import links
from peer.core.hpke import EphemeralHpke
from peer.core.keys import AccountRoot, DeviceSecrets, device_name_key, seal_device_name
from protocol.chains import Role
from protocol.membership import AccountState, ControlState

NOW_MS = 1_700_000_000_000


class Stream:
    """Entropy that repeats: the bytes of BLAKE3 of a name."""

    def __init__(self, name: str) -> None:
        self._hasher = blake3(name.encode())
        self._offset = 0

    def __call__(self, count: int, /) -> bytes:
        drawn = self._hasher.digest(count, seek=self._offset)
        self._offset += count
        return drawn


class RealAccount:
    """An account with real keys, whose chain grows by the methods."""

    def __init__(self, name: str) -> None:
        self.entropy = Stream(name)
        self.hpke = EphemeralHpke(self.entropy)
        self.root = AccountRoot.create(self.entropy)
        self.device = DeviceSecrets.create(self.entropy)
        link, self.keys = links.make_account(
            self.root, self.device, f"{name}'s laptop", hpke=self.hpke, entropy=self.entropy, now_ms=NOW_MS
        )
        self.links = [link]
        self.state = AccountState(link)

    def add(self, name: str) -> DeviceSecrets:
        device = DeviceSecrets.create(self.entropy)
        key = self.keys.newest
        sealed = seal_device_name(
            name, device_name_key(key), key.generation, self.root.sign_public, device.sign_public, self.entropy
        )
        public = device.public(sealed)
        proof = device.prove(public)
        self.append(
            links.make_add_device(
                self.state, self.keys, public, proof, device.id, signer=self.device, hpke=self.hpke, now_ms=NOW_MS
            )
        )
        return device

    def revoke(self, device: DeviceSecrets) -> None:
        link, self.keys = links.make_revoke_device(
            self.state,
            self.keys,
            device.id,
            [],
            signer=self.device,
            hpke=self.hpke,
            entropy=self.entropy,
            now_ms=NOW_MS,
        )
        self.append(link)

    def append(self, link) -> None:
        self.state = self.state.extend([link])
        self.links.append(link)


class RealFolder:
    """A folder with real keys, whose log grows by the methods."""

    def __init__(self, owner: RealAccount, name: str = "Documents", **options) -> None:
        self.owner = owner
        self.known = {owner.state.id: owner}
        link, self.keys = links.make_folder(
            owner.state, owner.device, name, hpke=owner.hpke, entropy=owner.entropy, now_ms=NOW_MS, **options
        )
        self.links = [link]
        self.state = ControlState(link, self.accounts)

    def accounts(self, account) -> AccountState:
        return self.known[account].state

    def append(self, *ops, by: RealAccount | None = None) -> None:
        by = by or self.owner
        link = links.make_control_link(self.state, by.state, by.device, ops, now_ms=NOW_MS)
        self.state = self.state.extend([link], self.accounts, fresh=True)
        self.links.append(link)

    def _doors(self):
        return {"hpke": self.owner.hpke, "entropy": self.owner.entropy}

    def share(self, account: RealAccount, role: Role = Role.WRITER) -> None:
        self.known[account.state.id] = account
        ops, self.keys = links.share_ops(self.state, self.keys, account.state, role, self.accounts, **self._doors())
        self.append(*ops)

    def unshare(self, account: RealAccount) -> None:
        ops, self.keys = links.unshare_ops(self.state, self.keys, account.state.id, self.accounts, **self._doors())
        self.append(*ops)

    def rotate(self, *, lost: bool = False) -> None:
        ops, self.keys = links.rotate_ops(self.state, self.keys, self.accounts, lost=lost, **self._doors())
        self.append(*ops)
