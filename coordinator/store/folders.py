"""Folders: heads, members, control links, and reading the log."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, select, update

from coordinator.store.schema import AUTHORS, CONTROL_LINKS, ENTRIES, FOLDERS, LOG, MEMBERS, PENDING
from coordinator.store.statements import KEYS, Prepared, groups, upsert
from protocol.chains import Role, SignedLink
from protocol.codec import decode
from protocol.errors import CorruptStateError
from protocol.history import ItemKind, LogItem
from protocol.ids import AccountId, EntryHash, FolderId, LinkHash, Pseudonym
from protocol.limits import CONTROL_LINK_BYTES_MAX, KIB


class Head(msgspec.Struct):
    """The newest state of a folder's log."""

    folder: FolderId
    pseudonym: Pseudonym
    generation: int
    position: int
    chain: bytes
    time_ms: int
    control_seq: int
    """-1 before the genesis link stands in the log."""
    control_head: LinkHash
    registered: int
    signed_position: int

    @property
    def is_behind(self) -> bool:
        """Whether this coordinator once signed positions that it no longer has."""
        return self.position < self.signed_position


_COLUMNS = tuple(FOLDERS.c[name] for name in Head.__struct_fields__)
_SELECT_HEADS = Prepared(
    select(*_COLUMNS)
    .join(MEMBERS, MEMBERS.c.folder == FOLDERS.c.folder)
    .where(MEMBERS.c.account == bindparam("account"), MEMBERS.c.role > 0, MEMBERS.c.folder > bindparam("after"))
    .order_by(MEMBERS.c.folder)
    .limit(bindparam("most"))
)
_SELECT_HEAD = Prepared(select(*_COLUMNS).where(FOLDERS.c.folder == bindparam("folder")))
_SELECT_ITEMS = Prepared(
    select(LOG.c.position, LOG.c.kind, LOG.c.time_ms, LOG.c.data)
    .where(LOG.c.folder == bindparam("folder"), LOG.c.position > bindparam("after"))
    .order_by(LOG.c.position)
    .limit(bindparam("most"))
)
_SELECT_ROLE = Prepared(
    select(MEMBERS.c.role).where(MEMBERS.c.folder == bindparam("folder"), MEMBERS.c.account == bindparam("account"))
)
_SELECT_REGISTERED = Prepared(
    select(PENDING.c.counter, PENDING.c.data)
    .where(PENDING.c.folder == bindparam("folder"), PENDING.c.counter > bindparam("after"))
    .order_by(PENDING.c.counter)
    .limit(bindparam("most"))
)
_SELECT_NEWEST = Prepared(
    select(AUTHORS.c.seq, AUTHORS.c.hash).where(
        AUTHORS.c.folder == bindparam("folder"), AUTHORS.c.device == bindparam("device")
    )
)
_SELECT_HIGHEST = Prepared(
    select(ENTRIES.c.seq, ENTRIES.c.hash)
    .where(ENTRIES.c.folder == bindparam("folder"), ENTRIES.c.device == bindparam("device"))
    .order_by(ENTRIES.c.seq.desc())
    .limit(1)
)
_SELECT_PENDING = Prepared(
    select(PENDING.c.folder, func.max(PENDING.c.counter)).where(PENDING.c.folder.in_([KEYS])).group_by(PENDING.c.folder)
)
_LINK_BYTES_MAX = CONTROL_LINK_BYTES_MAX + KIB


class Folders:
    """Access to folders and their logs in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self, folder: FolderId) -> Head | None:
        """Return a folder's head, None if there is no such folder."""
        row = _SELECT_HEAD.run(self._connection, {"folder": folder}).fetchone()
        return None if row is None else Head(*row)

    def heads_of(self, account: AccountId, after: bytes, limit: int) -> list[Head]:
        """Return the heads of an account's folders by rising id, after one of them."""
        rows = _SELECT_HEADS.run(self._connection, {"account": account, "after": after, "most": limit})
        return [Head(*row) for row in rows]

    def role(self, folder: FolderId, account: AccountId) -> Role | None:
        """Return an account's role in a folder, None if it is no member."""
        role: int | None = _SELECT_ROLE.value(self._connection, {"folder": folder, "account": account})
        return Role(role) if role else None

    def members(self, folder: FolderId) -> list[AccountId]:
        """Return the accounts that are members now."""
        rows = self._connection.execute(select(MEMBERS.c.account).where(MEMBERS.c.folder == folder, MEMBERS.c.role > 0))
        return [AccountId(account) for (account,) in rows]

    def folders_of(self, account: AccountId) -> list[FolderId]:
        """Return the folders that an account is or was a member of."""
        rows = self._connection.execute(select(MEMBERS.c.folder).where(MEMBERS.c.account == account))
        return [FolderId(folder) for (folder,) in rows]

    def set_members(self, folder: FolderId, roles: dict[AccountId, Role]) -> None:
        """Make these the members; those who were and are not in it stay known as former ones."""
        rows = self._connection.execute(select(MEMBERS.c.account, MEMBERS.c.role).where(MEMBERS.c.folder == folder))
        before = {AccountId(account): role for account, role in rows}
        wanted: dict[AccountId, int] = dict.fromkeys(before, 0) | {one: int(role) for one, role in roles.items()}
        changed = [
            {"folder": folder, "account": account, "role": role}
            for account, role in wanted.items()
            if before.get(account) != role
        ]
        upsert(self._connection, MEMBERS, changed)

    def share_a_folder(self, reader: AccountId, other: AccountId) -> bool:
        """Tell whether ``reader`` is a member of a folder that ``other`` is or was a member of."""
        mine, theirs = MEMBERS.alias(), MEMBERS.alias()
        row = self._connection.execute(
            select(mine.c.folder)
            .join(theirs, and_(theirs.c.folder == mine.c.folder, theirs.c.account == other))
            .where(mine.c.account == reader, mine.c.role > 0)
            .limit(1)
        ).first()
        return row is not None

    def companions(self, account: AccountId) -> list[AccountId]:
        """Return all accounts that are members of a folder that this one is or was a member of, itself included."""
        mine, theirs = MEMBERS.alias(), MEMBERS.alias()
        rows = self._connection.execute(
            select(theirs.c.account)
            .distinct()
            .join(mine, and_(mine.c.folder == theirs.c.folder, mine.c.account == account))
            .where(theirs.c.role > 0)
        )
        return [AccountId(other) for (other,) in rows]

    def control_links(self, folder: FolderId, after_seq: int, limit: int | None = None) -> list[SignedLink]:
        """Return control links after a sequence number, in order."""
        rows = self._connection.execute(
            select(LOG.c.data)
            .join(
                CONTROL_LINKS, and_(CONTROL_LINKS.c.folder == LOG.c.folder, CONTROL_LINKS.c.position == LOG.c.position)
            )
            .where(CONTROL_LINKS.c.folder == folder, CONTROL_LINKS.c.seq > after_seq)
            .order_by(CONTROL_LINKS.c.seq)
            .limit(limit)
        )
        return [decode(data, SignedLink, bytes_max=_LINK_BYTES_MAX) for (data,) in rows]

    def has_control_link(self, folder: FolderId, hash: LinkHash) -> bool:
        """Tell whether a link stands in a folder's control log."""
        row = self._connection.execute(
            select(CONTROL_LINKS.c.seq).where(CONTROL_LINKS.c.folder == folder, CONTROL_LINKS.c.hash == hash)
        ).first()
        return row is not None

    def items(self, folder: FolderId, after: int, items_max: int, bytes_max: int) -> list[LogItem]:
        """Return log items after a position; at least one if there is one, else within both limits."""
        rows = _SELECT_ITEMS.run(self._connection, {"folder": folder, "after": after, "most": items_max})
        items: list[LogItem] = []
        size = 0
        for position, kind, time_ms, data in rows:
            size += len(data) + 24
            if items and size > bytes_max:
                break
            items.append(LogItem(position, ItemKind(kind), time_ms, data))
        rows.close()
        return items

    def chain_at(self, folder: FolderId, position: int) -> bytes:
        """Return J at a position that the log has, above 0."""
        chain: bytes | None = self._connection.execute(
            select(LOG.c.chain).where(LOG.c.folder == folder, LOG.c.position == position)
        ).scalar_one_or_none()
        if chain is None:
            raise CorruptStateError("the log of a folder has a gap")
        return chain

    def head_at(self, head: Head, position: int) -> Head:
        """Return what a folder's head was when its log ended at a position that it has, above 0."""
        control_head: bytes = self._connection.execute(
            select(CONTROL_LINKS.c.hash)
            .where(CONTROL_LINKS.c.folder == head.folder, CONTROL_LINKS.c.position <= position)
            .order_by(CONTROL_LINKS.c.seq.desc())
            .limit(1)
        ).scalar_one()
        chain = self.chain_at(head.folder, position)
        return msgspec.structs.replace(head, position=position, chain=chain, control_head=LinkHash(control_head))

    def pending(
        self, folder: FolderId, after: int, items_max: int, bytes_max: int
    ) -> tuple[list[tuple[int, bytes]], bool]:
        """Return registered, unordered entries after a counter, and whether there are more."""
        wanted = {"folder": folder, "after": after, "most": items_max + 1}
        rows = _SELECT_REGISTERED.run(self._connection, wanted)
        entries: list[tuple[int, bytes]] = []
        size = 0
        for counter, data in rows:
            size += len(data) + 12
            if entries and (size > bytes_max or len(entries) == items_max):
                rows.close()
                return entries, True
            entries.append((counter, data))
        return entries, False

    def newest_pending(self, folders: Iterable[FolderId]) -> dict[FolderId, int]:
        """Return the highest registration counter of an entry that is neither ordered nor void, where there is one."""
        found: dict[FolderId, int] = {}
        for group in groups(folders):
            rows = _SELECT_PENDING.run_for(self._connection, group, {})
            found.update((FolderId(folder), counter) for folder, counter in rows)
        return found

    def newest_of(self, folder: FolderId, device: int) -> tuple[int, EntryHash]:
        """Return (seq, hash) of the newest entry registered under a device number; (0, zeros) if there is none."""
        row = _SELECT_NEWEST.run(self._connection, {"folder": folder, "device": device}).fetchone()
        return (0, EntryHash(bytes(32))) if row is None else (row[0], EntryHash(row[1]))

    def highest_of(self, folder: FolderId, device: int) -> tuple[int, EntryHash]:
        """Return the same, or of a log that was given back what stands beyond that: some between is to come again."""
        row = _SELECT_HIGHEST.run(self._connection, {"folder": folder, "device": device}).fetchone()
        newest = self.newest_of(folder, device)
        return newest if row is None or row[0] <= newest[0] else (row[0], EntryHash(row[1]))

    def pseudonyms(self, folders: Iterable[FolderId]) -> list[Pseudonym]:
        """Return the pseudonyms of folders."""
        found: list[Pseudonym] = []
        for group in groups(folders):
            rows = self._connection.execute(select(FOLDERS.c.pseudonym).where(FOLDERS.c.folder.in_(group)))
            found += [Pseudonym(pseudonym) for (pseudonym,) in rows]
        return found

    def of_pseudonym(self, pseudonym: Pseudonym) -> FolderId | None:
        """Return the folder that storage nodes know by this name."""
        folder: bytes | None = self._connection.execute(
            select(FOLDERS.c.folder).where(FOLDERS.c.pseudonym == pseudonym)
        ).scalar_one_or_none()
        return None if folder is None else FolderId(folder)

    def sign_up_to(self, folder: FolderId, position: int) -> None:
        """Note that this coordinator once signed a position, perhaps one that it no longer has."""
        self._connection.execute(update(FOLDERS).where(FOLDERS.c.folder == folder).values(signed_position=position))

    def count(self) -> int:
        """Return how many folders there are."""
        return self._connection.execute(select(func.count()).select_from(FOLDERS)).scalar_one()
