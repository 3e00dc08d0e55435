"""The storage nodes as they stand now: what the database says of them, and who is connected."""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.core.placement import Place
from coordinator.store.nodes import StorageNode
from protocol.ids import StorageNodeId
from protocol.messages import NodeAddress

GONE_AFTER_S: Final = 600.0
"""A node that was away for so long is counted as lost: its copies are made anew elsewhere."""


AWAY_AFTER_S: Final = 60.0
"""Where a node leaves, another one that was away for so long is not waited for: a copy more is made."""


class Registry:
    """All known storage nodes, in memory."""

    def __init__(self, started_s: float) -> None:
        self.gone_after_s = GONE_AFTER_S
        self.away_after_s = AWAY_AFTER_S
        self._nodes: dict[StorageNodeId, StorageNode] = {}
        self._sessions: dict[StorageNodeId, int] = {}
        self._started_s = started_s
        self._left_s: dict[StorageNodeId, float] = {}
        self._leaving: frozenset[StorageNodeId] = frozenset()
        self._retired: frozenset[StorageNodeId] = frozenset()
        self.closing: StorageNodeId | None = None
        """A node on which nothing depends and which is just going out of service: its receipts prove nothing any more."""

    def load(self, nodes: list[StorageNode]) -> None:
        """Take what the database says."""
        self._nodes = {node.node: node for node in nodes}

    def put(self, node: StorageNode) -> None:
        """Take one node's new row."""
        self._nodes[node.node] = node

    def get(self, node: StorageNodeId) -> StorageNode | None:
        """Return a node."""
        return self._nodes.get(node)

    def all(self) -> list[StorageNode]:
        """Return all nodes but the retired ones by their numbers."""
        return sorted(
            (node for node in self._nodes.values() if node.node not in self._retired), key=lambda node: node.number
        )

    def retire(self, leaving: frozenset[StorageNodeId], retired: frozenset[StorageNodeId]) -> bool:
        """Take which nodes are going out of service and which are out of it; tell whether that is new."""
        before = (self._leaving, self._retired)
        self._leaving, self._retired = leaving, retired
        return before != (leaving, retired)

    def leaving(self) -> list[StorageNode]:
        """Return the nodes that are going out of service, by their numbers."""
        return [node for node in self.all() if node.node in self._leaving]

    def is_leaving(self, node: StorageNodeId) -> bool:
        """Tell whether a node is going out of service: it gets nothing new, and what it holds is copied."""
        return node in self._leaving

    def is_retired(self, node: StorageNodeId) -> bool:
        """Tell whether a node is out of service."""
        return node in self._retired

    def report(self, node: StorageNodeId, free_bytes: int, stored_bytes: int, now_ms: int) -> None:
        """Take what a node says of itself."""
        known = self._nodes[node]
        self._nodes[node] = msgspec.structs.replace(
            known, free_bytes=free_bytes, stored_bytes=stored_bytes, last_seen_ms=now_ms
        )

    def join(self, node: StorageNodeId, session: int) -> int | None:
        """Note that a node is connected; return the session that this one takes the place of."""
        before = self._sessions.get(node)
        self._sessions[node] = session
        self._left_s.pop(node, None)
        return before

    def leave(self, node: StorageNodeId, session: int, now_s: float) -> bool:
        """Note that a node's session ended; tell whether it is offline thereby."""
        if self._sessions.get(node) != session:
            return False
        del self._sessions[node]
        self._left_s[node] = now_s
        return True

    def session(self, node: StorageNodeId) -> int | None:
        """Return the session of a connected node."""
        return self._sessions.get(node)

    def sessions(self) -> list[int]:
        """Return the sessions of all connected nodes."""
        return sorted(self._sessions.values())

    def is_online(self, node: StorageNodeId) -> bool:
        """Tell whether a node is connected."""
        return node in self._sessions

    def is_gone(self, node: StorageNodeId, now_s: float) -> bool:
        """Tell whether a node was away for so long that its copies do not count."""
        return self._away_s(node, now_s) > self.gone_after_s

    def is_away(self, node: StorageNodeId, now_s: float) -> bool:
        """Tell whether a node was away for so long that a node that leaves does not wait for it."""
        return self._away_s(node, now_s) > self.away_after_s

    def _away_s(self, node: StorageNodeId, now_s: float) -> float:
        return -1.0 if self.is_online(node) else now_s - self._left_s.get(node, self._started_s)

    def counts(self, node: StorageNodeId, now_s: float) -> bool:
        """Tell whether a node's copies are there to stay: it is neither lost nor going."""
        return node not in self._leaving and node not in self._retired and not self.is_gone(node, now_s)

    def place(self, node: StorageNode) -> Place:
        """Return a node as placement sees it."""
        return Place(node.node, node.operator, node.zone, self.is_online(node.node))

    def places(self, now_s: float) -> list[Place]:
        """Return the nodes that placement may count on: they are neither lost nor going."""
        return [self.place(node) for node in self.all() if self.counts(node.node, now_s)]

    def address(self, node: StorageNode) -> NodeAddress:
        """Return a node as clients and other nodes reach it."""
        online = self.is_online(node.node)
        return NodeAddress(node.node, node.sign, node.url, node.certificate, node.zone, node.operator, online)

    def addresses(self) -> tuple[NodeAddress, ...]:
        """Return the addresses of all nodes."""
        return tuple(self.address(node) for node in self.all())
