"""Accept or refuse: may this device do this here and now, and has its grant enough left?

Rule 1: pure; wall clock and monotonic time are arguments.
Rule 2: one refusal for every reason, so that an answer tells nothing about grants, devices or folders.
Rule 3: a grant's maxima count for each operation by itself, over all requests until the grant is over.
Rule 4: whoever cannot hear revocations trusts young grants only.
"""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from protocol import limits
from protocol.errors import AccessDeniedError, UnavailableError
from protocol.grants import Grant, Operation, Signed, Statement, check_request, grant_device
from protocol.ids import ID_BYTES, DeviceId, Pseudonym, StorageNodeId

UNHEARD_S: Final = 30.0
"""So long after its link to the coordinator broke, a node still honours every grant."""
UNHEARD_GRANT_MS: Final = 60_000
"""Later, those that are younger than this."""
GRANTS_LIVE_MAX: Final = 100_000
REMEMBERED_MS: Final = (limits.GRANT_S_MAX + 2 * limits.CLOCK_SKEW_S_MAX) * 1000
"""How long a revocation is kept: no grant from before it lives longer, whatever the clocks."""
_PSEUDONYM_BYTES: Final = 16
_GRANT_ID_BYTES: Final = 16


class Admitted(NamedTuple):
    """A request that may go on; its bytes and ids are already counted against the grant."""

    grant: Grant
    statement: Statement

    @property
    def pseudonym(self) -> Pseudonym:
        """The folder, as far as this node knows it."""
        return self.grant.pseudonym

    @property
    def device(self) -> DeviceId:
        """Who asks."""
        return grant_device(self.grant)


class _Spent:
    """What was used of one grant, for each operation."""

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(Operation, 0)
        self.chunks = dict.fromkeys(Operation, 0)


class Custody:
    """Decides about requests.

    Args:
        node: This node.
    """

    def __init__(self, node: StorageNodeId) -> None:
        self._node = node
        self.token_key: bytes | None = None
        """The coordinator's key that signs grants; None until the first login."""
        self.is_leaving = False
        """Whether this node is going out of service: it takes nothing new."""
        self.is_retired = False
        """Whether it is out of service: it does nothing any more."""
        self._silent_since_s: float | None = None
        self._revoked: dict[tuple[DeviceId, Pseudonym], int] = {}
        self._spent: dict[bytes, _Spent] = {}
        self._ends: list[tuple[int, bytes]] = []

    def hear(self) -> None:
        """The link to the coordinator stands: revocations arrive."""
        self._silent_since_s = None

    def miss(self, now_s: float) -> None:
        """The link is broken, or does not stand yet."""
        if self._silent_since_s is None:
            self._silent_since_s = now_s

    def revoke(self, pairs: tuple[tuple[DeviceId, Pseudonym], ...], now_ms: int) -> None:
        """Refuse these devices for these folders as long as an older grant of theirs could live."""
        self._forget(now_ms)
        for pair in pairs:
            self._revoked[pair] = now_ms + REMEMBERED_MS

    def admit(self, grant: Signed, statement: Signed, operation: Operation, *, now_ms: int, now_s: float) -> Admitted:
        """Return the request, counted, if it may go on.

        Raises:
            UnavailableError: The coordinator's key is not known yet, this node goes out of service, or too many grants are
                alive.
            AccessDeniedError: Refused.
            ProtocolError: Grant or statement is malformed.
            BadSignatureError: One of them is not signed by whom it must be.
        """
        if self.token_key is None:
            raise UnavailableError("the coordinator is not known yet")
        if self.is_retired or (self.is_leaving and operation == Operation.PUT):
            raise UnavailableError("this storage node goes out of service")
        given, asked = check_request(grant, statement, coordinator=self.token_key, node=self._node, now_ms=now_ms)
        if len(given.id) != _GRANT_ID_BYTES or len(given.pseudonym) != _PSEUDONYM_BYTES or len(asked.root) != ID_BYTES:
            raise AccessDeniedError("the grant cannot be")
        if asked.operation != operation:
            raise AccessDeniedError("the statement is for another operation")
        if given.expires_ms - given.not_before_ms > (limits.GRANT_S_MAX + limits.CLOCK_SKEW_S_MAX) * 1000:
            raise AccessDeniedError("the grant lives too long")
        if self._is_deaf(now_s) and now_ms - given.not_before_ms > UNHEARD_GRANT_MS:
            raise AccessDeniedError("the grant is too old to be trusted without the coordinator")
        admitted = Admitted(given, asked)
        if now_ms <= self._revoked.get((admitted.device, admitted.pseudonym), -1):
            raise AccessDeniedError("the device was revoked")
        self._forget(now_ms)
        self.charge(admitted, asked.bytes, asked.count)
        return admitted

    def charge(self, admitted: Admitted, bytes_: int, chunks: int) -> None:
        """Count more against a grant: what a get sends is known only when it is looked up.

        Raises:
            AccessDeniedError: It has not enough left; nothing was counted.
        """
        given, operation = admitted.grant, admitted.statement.operation
        spent = self._spent.get(given.id)
        if spent is None:
            if len(self._spent) >= GRANTS_LIVE_MAX:
                raise UnavailableError("too many grants are alive")
            spent = self._spent[given.id] = _Spent()
            heapq.heappush(self._ends, (given.expires_ms + limits.CLOCK_SKEW_S_MAX * 1000, given.id))
        if spent.bytes[operation] + bytes_ > given.bytes_max or spent.chunks[operation] + chunks > given.chunks_max:
            raise AccessDeniedError("the grant is used up")
        spent.bytes[operation] += bytes_
        spent.chunks[operation] += chunks

    def give_back(self, admitted: Admitted, bytes_: int, chunks: int) -> None:
        """Count less: of a put that failed, what was not stored."""
        spent = self._spent.get(admitted.grant.id)
        if spent is not None:
            operation = admitted.statement.operation
            spent.bytes[operation] -= bytes_
            spent.chunks[operation] -= chunks

    def _is_deaf(self, now_s: float) -> bool:
        return self._silent_since_s is not None and now_s - self._silent_since_s > UNHEARD_S

    def _forget(self, now_ms: int) -> None:
        while self._ends and self._ends[0][0] < now_ms:
            self._spent.pop(heapq.heappop(self._ends)[1], None)
        if len(self._revoked) > limits.KIB:
            self._revoked = {pair: end for pair, end in self._revoked.items() if end >= now_ms}
