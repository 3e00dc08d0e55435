"""One folder's records within one transaction: what ordering reads and changes, loaded lazily and written at the end.

Rule 1: one ledger to a folder and transaction; nothing is kept until :meth:`FolderLedger.flush`.
Rule 2: a batch of entries costs a handful of statements, not a handful each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from blake3 import blake3
from sqlalchemy import Connection, bindparam, delete, func, select, update

from coordinator.core.admission import FIRST
from coordinator.core.ordering import Record
from coordinator.store.folders import Folders, Head
from coordinator.store.schema import (
    AUTHORS,
    CONTROL_LINKS,
    ENTRIES,
    FOLDERS,
    LOG,
    PENDING,
    REGISTERS,
    SEGMENTS,
)
from coordinator.store.statements import KEYS, Prepared, groups, insert, upsert
from coordinator.store.waits import Waits
from protocol.chains import SignedLink
from protocol.codec import decode, encode
from protocol.entries import Entry, Header, Register, parse_entry
from protocol.errors import CorruptStateError
from protocol.history import ItemKind, VoidReason, VoidRecord, next_chain
from protocol.ids import ChunkId, EntryHash, LinkHash, NodeId
from protocol.limits import KIB
from protocol.versions import Vector

_VECTOR_BYTES_MAX = 2 * KIB
_RECORD = (
    ENTRIES.c.hash,
    ENTRIES.c.device,
    ENTRIES.c.seq,
    ENTRIES.c.counter,
    ENTRIES.c.position,
    ENTRIES.c.void,
    ENTRIES.c.replaced_by,
)
# Statements that every registration runs are built once: building one costs more than running it.
_SELECT_RECORDS = Prepared(select(*_RECORD).where(ENTRIES.c.folder == bindparam("folder"), ENTRIES.c.hash.in_([KEYS])))
_SELECT_NEWEST = Prepared(
    select(AUTHORS.c.device, AUTHORS.c.seq, AUTHORS.c.hash).where(
        AUTHORS.c.folder == bindparam("folder"), AUTHORS.c.device.in_([KEYS])
    )
)
_SELECT_AHEAD = Prepared(
    select(ENTRIES.c.seq, ENTRIES.c.hash, ENTRIES.c.position).where(
        ENTRIES.c.folder == bindparam("folder"),
        ENTRIES.c.device == bindparam("device"),
        ENTRIES.c.seq > bindparam("seq"),
    )
)
_SELECT_VECTORS = Prepared(
    select(REGISTERS.c.node, REGISTERS.c.register, REGISTERS.c.vector).where(
        REGISTERS.c.folder == bindparam("folder"), REGISTERS.c.node.in_([KEYS])
    )
)
_SELECT_DATA = Prepared(
    select(PENDING.c.data).where(PENDING.c.folder == bindparam("folder"), PENDING.c.counter == bindparam("counter"))
)
_COUNT_PENDING = Prepared(
    select(PENDING.c.device, func.count()).where(PENDING.c.folder == bindparam("folder")).group_by(PENDING.c.device)
)
_SELECT_DURABLE = Prepared(
    select(SEGMENTS.c.segment).where(
        SEGMENTS.c.folder == bindparam("folder"),
        SEGMENTS.c.segment.in_([KEYS]),
        SEGMENTS.c.durable == 1,
    )
)
_HEAD_FIELDS = tuple(name for name in Head.__struct_fields__ if name != "folder")
_UPDATE_HEAD = Prepared(
    update(FOLDERS)
    .where(FOLDERS.c.folder == bindparam("key_folder"))
    .values({name: bindparam(f"new_{name}") for name in _HEAD_FIELDS})
)
_UPDATE_RECORD = Prepared(
    update(ENTRIES)
    .where(
        ENTRIES.c.folder == bindparam("key_folder"),
        ENTRIES.c.device == bindparam("key_device"),
        ENTRIES.c.seq == bindparam("key_seq"),
    )
    .values(position=bindparam("new_position"), void=bindparam("new_void"), replaced_by=bindparam("new_replaced_by"))
)
_SELECT_BRANCH = Prepared(
    select(ENTRIES.c.hash, ENTRIES.c.counter, ENTRIES.c.seq).where(
        ENTRIES.c.folder == bindparam("key_folder"),
        ENTRIES.c.device == bindparam("key_device"),
        ENTRIES.c.seq >= bindparam("key_seq"),
        ENTRIES.c.position == 0,
    )
)
_MOVE_BRANCH = Prepared(
    update(ENTRIES)
    .where(
        ENTRIES.c.folder == bindparam("key_folder"),
        ENTRIES.c.device == bindparam("key_device"),
        ENTRIES.c.seq == bindparam("key_seq"),
    )
    .values(device=0, seq=bindparam("new_seq"))
)
_MOVE_PENDING = Prepared(
    update(PENDING)
    .where(PENDING.c.folder == bindparam("key_folder"), PENDING.c.counter == bindparam("key_counter"))
    .values(device=0)
)
_DELETE_RECORD = Prepared(
    delete(ENTRIES).where(
        ENTRIES.c.folder == bindparam("key_folder"),
        ENTRIES.c.device == bindparam("key_device"),
        ENTRIES.c.seq == bindparam("key_seq"),
    )
)
_DELETE_PENDING = Prepared(
    delete(PENDING).where(PENDING.c.folder == bindparam("key_folder"), PENDING.c.counter == bindparam("key_counter"))
)


def _record(row: Any) -> Record:
    hash, device, seq, counter, position, void, replaced_by = row
    reason = None if void is None else VoidReason(void)
    return Record(EntryHash(hash), device, seq, counter, position, reason, replaced_by)


class FolderLedger(Waits):
    """The records of one folder; see :class:`coordinator.core.ordering.Ledger`."""

    def __init__(self, connection: Connection, head: Head, now_ms: int) -> None:
        self.head = head
        self.now_ms = now_ms
        super().__init__(connection, head.folder)
        self._position_before = head.position
        self._records: dict[EntryHash, Record | None] = {}
        self._new: dict[EntryHash, bytes] = {}
        """Data of the entries registered here."""
        self._parsed: dict[EntryHash, Entry] = {}
        self._changed: dict[EntryHash, Record] = {}
        """Records from before that were ordered or made void here."""
        self._newest: dict[int, tuple[int, EntryHash]] = {}
        self._newest_changed: set[int] = set()
        self._ahead: dict[int, dict[int, tuple[EntryHash, int]]] = {}
        """By device: ordered entries beyond its newest as it was before, with their positions; of a log that was given back."""
        self._pending: Counter[int] | None = None
        """How many registered, unordered entries each device number has."""
        self._vectors: dict[tuple[NodeId, int], Vector] = {}
        self._vectors_changed: set[tuple[NodeId, int]] = set()
        self._placeholders: list[Record] = []
        """Void records whose entries came here after them."""
        self._log: list[dict[str, Any]] = []
        self._control: list[dict[str, Any]] = []

    # --- Reading

    def prefetch(self, entries: Iterable[Entry]) -> None:
        """Load in few statements what registering these entries will ask for."""
        hashes: set[EntryHash] = set()
        nodes: set[NodeId] = set()
        devices: set[int] = set()
        for entry in entries:
            header = entry.header
            hashes.update((entry.hash, *header.needs, *header.replaces))
            devices.add(header.device)
            for change in header.changes:
                nodes.add(change.node)
                devices.update(device for device, _ in change.vector)
        self._load_records(hashes)
        self._load_newest(devices)
        self._load_vectors(nodes)

    def _load_records(self, hashes: Collection[EntryHash]) -> None:
        for group in groups(hashes):
            rows = _SELECT_RECORDS.run_for(self._connection, group, {"folder": self._folder})
            found = {EntryHash(row[0]): _record(row) for row in rows}
            for hash in group:
                self._records.setdefault(hash, found.get(hash))

    def _load_newest(self, devices: Collection[int]) -> None:
        for group in groups(devices):
            rows = _SELECT_NEWEST.run_for(self._connection, group, {"folder": self._folder})
            found = {device: (seq, EntryHash(hash)) for device, seq, hash in rows}
            for device in group:
                self._newest.setdefault(device, found.get(device, (0, EntryHash(bytes(32)))))

    def _load_vectors(self, nodes: Collection[NodeId]) -> None:
        for group in groups(nodes):
            rows = _SELECT_VECTORS.run_for(self._connection, group, {"folder": self._folder})
            for node, register, vector in rows:
                value: Vector = decode(vector, Vector, bytes_max=_VECTOR_BYTES_MAX)
                self._vectors.setdefault((NodeId(node), register), value)
            for node in group:
                for one in Register:
                    self._vectors.setdefault((node, int(one)), ())

    def find(self, hash: EntryHash) -> Record | None:
        """Return what is known of an entry."""
        if hash not in self._records:
            self._load_records((hash,))
        return self._records[hash]

    def newest_of(self, device: int) -> tuple[int, EntryHash]:
        """Return (seq, hash) of the newest entry registered under a device number."""
        if device not in self._newest:
            self._load_newest((device,))
        return self._newest[device]

    def advance(self, device: int) -> bool:
        """Count entries of a log that was given back as a device's newest, where they follow; tell whether any did."""
        seq, _ = before = self.newest_of(device)
        rows = self._connection.execute(
            select(ENTRIES.c.seq, ENTRIES.c.hash)
            .where(ENTRIES.c.folder == self._folder, ENTRIES.c.device == device, ENTRIES.c.seq > seq)
            .order_by(ENTRIES.c.seq)
        )
        found = {seq: EntryHash(hash) for seq, hash in rows}
        found |= {
            record.seq: hash
            for hash in self._new
            if (record := self._records[hash]) is not None and record.device == device
        }
        while seq + 1 in found:
            seq += 1
            self._newest[device] = (seq, found[seq])
            self._newest_changed.add(device)
        return self._newest[device] != before

    def is_branch(self, entry: Entry) -> bool:
        """Tell whether a log that was given back has another entry in the place of this one, or of the one before the next."""
        device, seq = entry.header.device, entry.header.seq
        if device not in self._ahead:
            rows = _SELECT_AHEAD.run(
                self._connection, {"folder": self._folder, "device": device, "seq": self.newest_of(device)[0]}
            )
            self._ahead[device] = {row[0]: (EntryHash(row[1]), row[2]) for row in rows}
        ahead = self._ahead[device]
        if ahead.get(seq, (entry.hash, 0))[0] != entry.hash:
            return True
        after = ahead.get(seq + 1)
        return after is not None and self._ordered(after[1]).header.previous != entry.hash

    def _ordered(self, position: int) -> Entry:
        data: bytes | None = self._connection.execute(
            select(LOG.c.data).where(LOG.c.folder == self._folder, LOG.c.position == position)
        ).scalar_one_or_none()
        if data is None:
            raise CorruptStateError("an ordered entry is missing")
        return parse_entry(data)

    def is_control_link(self, hash: LinkHash) -> bool:
        """Tell whether a link stands in the control log."""
        return Folders(self._connection).has_control_link(self._folder, hash)

    def pending(self, hash: EntryHash) -> Entry:
        """Return an entry that is registered and neither ordered nor void."""
        entry = self._parsed.get(hash)
        if entry is None:
            entry = self._parsed[hash] = parse_entry(self._data(hash))
        return entry

    def _data(self, hash: EntryHash) -> bytes:
        data = self._new.get(hash)
        if data is not None:
            return data
        record = self.find(hash)
        assert record is not None
        row: bytes | None = _SELECT_DATA.value(self._connection, {"folder": self._folder, "counter": record.counter})
        if row is None:
            raise CorruptStateError("a registered entry is missing")
        return row

    def pending_records(self) -> list[Record]:
        """Return all entries that are neither ordered nor void, by registration counter."""
        rows = self._connection.execute(
            select(PENDING.c.hash).where(PENDING.c.folder == self._folder).order_by(PENDING.c.counter)
        )
        hashes = [EntryHash(hash) for (hash,) in rows]
        hashes += self._new
        self._load_records([hash for hash in hashes if hash not in self._records])
        found = (self._records[hash] for hash in hashes)
        return [record for record in found if record is not None and record.is_pending]

    def pending_count(self, device: int | None = None) -> int:
        """Return how many entries, of one device number or of all, are neither ordered nor void."""
        if self._pending is None:
            rows = _COUNT_PENDING.run(self._connection, {"folder": self._folder})
            self._pending = Counter({row[0]: row[1] for row in rows})
            self._pending.update(
                record.device for hash in self._new if (record := self._records[hash]) is not None and record.is_pending
            )
        return self._pending.total() if device is None else self._pending[device]

    def newest_pending(self) -> int:
        """Return the highest registration counter of an entry that is neither ordered nor void, 0 if there is none."""
        return Folders(self._connection).newest_pending((self._folder,)).get(self._folder, 0)

    def vector(self, node: NodeId, register: Register) -> Vector:
        """Return the summed-up history of a register; empty if nothing was written to it."""
        key = (node, int(register))
        if key not in self._vectors:
            self._load_vectors((node,))
        return self._vectors[key]

    def durable(self, segments: Collection[ChunkId]) -> set[ChunkId]:
        """Return those segments that have reached a write quorum as a whole."""
        found: set[ChunkId] = set()
        for group in groups(segments):
            rows = _SELECT_DURABLE.run_for(self._connection, group, {"folder": self._folder})
            found.update(ChunkId(segment) for (segment,) in rows)
        return found

    # --- Changing

    def register(self, entry: Entry, data: bytes) -> Record:
        """Add an entry as its device's newest, with the next registration counter."""
        record = self._add(entry, data)
        self._newest[record.device] = (record.seq, entry.hash)
        self._newest_changed.add(record.device)
        if self._pending is not None and record.is_pending:
            self._pending[record.device] += 1
        return record

    def _add(self, entry: Entry, data: bytes) -> Record:
        header = entry.header
        before = self.find(entry.hash)
        self.head.registered += 1
        record = Record(entry.hash, header.device, header.seq, self.head.registered)
        if before is not None:
            assert not before.is_registered
            self._placeholders.append(before)
            record.position, record.void, record.replaced_by = before.position, before.void, before.replaced_by
        self._records[entry.hash] = record
        self._new[entry.hash] = data
        self._parsed[entry.hash] = entry
        return record

    def restore_entry(self, entry: Entry, data: bytes, time_ms: int) -> None:
        """Put an entry of a log that is given back at its position; its device's newest may not reach it yet."""
        record = self.find(entry.hash)
        if record is None or not record.is_registered:
            seq, newest = self.newest_of(entry.header.device)
            if seq >= entry.header.seq or (seq == entry.header.seq - 1 and newest != entry.header.previous):
                self._set_branch_aside(entry.header)
            record = self._add(entry, data)
        self._parsed[entry.hash] = entry
        record.position = self.append(ItemKind.ENTRY, entry.hash, data, time_ms)
        record.void = None
        record.replaced_by = None
        self._resolved(record)
        self.drop_waits(entry.hash)
        self.advance(record.device)

    def _set_branch_aside(self, header: Header) -> None:
        """Make room for an entry of a log that is given back: what its device registered in its place meanwhile, and after.

        That device was put back, and knew no more than this coordinator. Nobody has such a number, so that it becomes void.
        """
        key = {"key_folder": self._folder, "key_device": header.device, "key_seq": header.seq - 1}
        rows = [row for row in _SELECT_BRANCH.run(self._connection, key) if row[0] != header.previous]
        if not rows:
            return
        _MOVE_PENDING.run_each(self._connection, [{"key_folder": self._folder, "key_counter": row[1]} for row in rows])
        _MOVE_BRANCH.run_each(self._connection, [{**key, "key_seq": row[2], "new_seq": -row[1]} for row in rows])
        for row in rows:
            self._records.pop(EntryHash(row[0]), None)
        self._pending = None
        self._newest[header.device] = FIRST
        self._newest_changed.add(header.device)
        self.advance(header.device)

    def restore_void(self, void: VoidRecord, data: bytes, time_ms: int) -> None:
        """Put a void record of a log that is given back at its position, even if its entry was never here."""
        position = self.append(ItemKind.VOID, blake3(data).digest(), data, time_ms)
        record = self.find(void.entry)
        if record is None:
            record = Record(void.entry, 0, position, 0)
            self._records[void.entry] = record
            self._new[void.entry] = b""
        record.position, record.void, record.replaced_by = position, void.reason, void.replaced_by
        self._resolved(record)
        self.drop_waits(void.entry)

    def order(self, record: Record) -> None:
        """Give a pending entry the next position."""
        data = self._data(record.hash)
        self._count_off(record)
        record.position = self.append(ItemKind.ENTRY, record.hash, data)
        self._resolved(record)

    def make_void(self, record: Record, reason: VoidReason, replaced_by: EntryHash | None) -> None:
        """Give a pending entry's void record the next position; whatever the entry waited for is forgotten."""
        data = encode(VoidRecord(self._folder, record.hash, reason, replaced_by))
        self._count_off(record)
        record.position = self.append(ItemKind.VOID, blake3(data).digest(), data)
        record.void = reason
        record.replaced_by = replaced_by
        self._resolved(record)
        self.drop_waits(record.hash)

    def _count_off(self, record: Record) -> None:
        if self._pending is not None and record.is_pending:
            self._pending[record.device] -= 1

    def _resolved(self, record: Record) -> None:
        if record.hash not in self._new:
            self._changed[record.hash] = record

    def append(self, kind: ItemKind, hash: bytes, data: bytes, time_ms: int | None = None) -> int:
        """Put an item at the next position of the log and return the position.

        Times never go back within a log; ``time_ms`` is given only for items that had their position before.
        """
        head = self.head
        head.time_ms = max(self.now_ms, head.time_ms) if time_ms is None else time_ms
        head.position += 1
        head.chain = next_chain(head.chain, kind, hash, head.time_ms)
        self._log.append(
            {
                "folder": self._folder,
                "position": head.position,
                "kind": int(kind),
                "hash": hash,
                "time_ms": head.time_ms,
                "chain": head.chain,
                "data": data,
            }
        )
        return head.position

    def append_control(self, link: SignedLink, time_ms: int | None = None) -> int:
        """Put a checked control link at the next position of the log and make it the control log's head."""
        head = self.head
        position = self.append(ItemKind.CONTROL, link.hash, encode(link), time_ms)
        head.control_seq += 1
        head.control_head = link.hash
        self._control.append({"folder": self._folder, "seq": head.control_seq, "hash": link.hash, "position": position})
        return position

    def set_vector(self, node: NodeId, register: Register, vector: Vector) -> None:
        """Set the summed-up history of a register."""
        self._vectors[node, int(register)] = vector
        self._vectors_changed.add((node, int(register)))

    def set_durable(self, segments: Collection[ChunkId]) -> None:
        """Note that segments have reached a write quorum as a whole."""
        for group in groups(segments):
            self._connection.execute(
                update(SEGMENTS)
                .where(SEGMENTS.c.folder == self._folder, SEGMENTS.c.segment.in_(group))
                .values(durable=1)
            )

    # --- Keeping

    @property
    def has_moved(self) -> bool:
        """Whether the log has grown."""
        return self.head.position != self._position_before

    @property
    def has_changed(self) -> bool:
        """Whether there is anything that others want to hear of."""
        return self.has_moved or bool(self._new)

    def flush(self) -> None:
        """Write everything that changed; the ledger is spent then."""
        folder, connection = self._folder, self._connection
        records = [record for hash in self._new if (record := self._records[hash]) is not None]
        for record in self._placeholders:
            _DELETE_RECORD.run(connection, {"key_folder": folder, "key_device": 0, "key_seq": record.seq})
        insert(connection, ENTRIES, [self._row(record) for record in records])
        if self._changed:
            keys = [
                {
                    "key_folder": folder,
                    "key_device": record.device,
                    "key_seq": record.seq,
                    "new_position": record.position,
                    "new_void": record.void,
                    "new_replaced_by": record.replaced_by,
                }
                for record in self._changed.values()
            ]
            _UPDATE_RECORD.run_each(connection, keys)
            gone = [{"key_folder": folder, "key_counter": record.counter} for record in self._changed.values()]
            _DELETE_PENDING.run_each(connection, gone)
        insert(
            connection,
            PENDING,
            [
                {
                    "folder": folder,
                    "counter": record.counter,
                    "device": record.device,
                    "hash": record.hash,
                    "data": self._new[record.hash],
                }
                for record in records
                if record.is_pending
            ],
        )
        authors = [(device, *self._newest[device]) for device in self._newest_changed]
        upsert(
            connection,
            AUTHORS,
            [{"folder": folder, "device": device, "seq": seq, "hash": hash} for device, seq, hash in authors],
        )
        upsert(
            connection,
            REGISTERS,
            [
                {"folder": folder, "node": key[0], "register": key[1], "vector": encode(self._vectors[key])}
                for key in self._vectors_changed
            ],
        )
        insert(connection, LOG, self._log)
        insert(connection, CONTROL_LINKS, self._control)
        self._flush_head()

    def _row(self, record: Record) -> dict[str, Any]:
        return {
            "folder": self._folder,
            "device": record.device,
            "seq": record.seq,
            "hash": record.hash,
            "counter": record.counter,
            "position": record.position,
            "void": record.void,
            "replaced_by": record.replaced_by,
        }

    def _flush_head(self) -> None:
        head = self.head
        if not self.has_changed:
            return
        head.signed_position = max(head.signed_position, head.position)
        values = {f"new_{name}": getattr(head, name) for name in _HEAD_FIELDS}
        _UPDATE_HEAD.run(self._connection, {"key_folder": head.folder, **values})
