"""Who may do what in a folder now: its control log joined with its members' account chains (security 3.2, 3.5)."""

from __future__ import annotations

from protocol.chains import Role
from protocol.ids import AccountId, EntryHash
from protocol.membership import Accounts, ControlState


class Authority:
    """The newest control state of a folder, with a way to its members' account states."""

    def __init__(self, control: ControlState, accounts: Accounts) -> None:
        self.control = control
        self._accounts = accounts

    def key_of(self, number: int) -> bytes | None:
        """Return the signing key behind a device number, None if the number was never given."""
        enrolment = self.control.enrolment(number)
        if enrolment is None:
            return None
        return self._accounts(enrolment.account).devices[enrolment.device].keys.sign

    def role_of(self, account: AccountId) -> Role | None:
        """Return an account's role, None if it is no member."""
        return self.control.role_of(account)

    def counts(self, number: int, seq: int, hash: EntryHash) -> bool:
        """Tell whether an unordered entry of a device number may still be ordered as far as its author goes."""
        enrolment = self.control.enrolment(number)
        return enrolment is not None and self.control.may_author(self._accounts(enrolment.account), number, seq, hash)
