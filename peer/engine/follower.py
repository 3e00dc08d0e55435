"""Follow one folder's log: pull, check, open, fold. Everything that the coordinator says is checked here.

Rule 1: an item is folded only after its signature, its author's rights and its place in the chain J were checked.
Rule 2: the disk is changed only when the folded position carries a checkpoint that the coordinator signed.
Rule 3: a history that contradicts a signed one freezes the folder; nothing is merged, nothing is lost.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from peer.core.authoring import Draft
from peer.core.entry_sealing import open_entry
from peer.core.fold import fold, order_tail, void
from peer.core.memory_state import OverlayState
from peer.core.tree import Item, ItemId
from peer.engine import forks
from peer.engine.context import Context
from peer.engine.registered import Registered
from peer.net.coordinator_link import RefusedError
from peer.store import folders, held
from peer.store.fold_cache import CachedState
from peer.store.folders import FolderRecord
from peer.store.snapshots import drop_snapshot, note_snapshot
from peer.store.stored import note_contents
from peer.store.trees import LocalTree, SyncedTree, mark_dirty
from protocol import limits
from protocol import messages as m
from protocol.chains import SignedLink, parse_control_link
from protocol.codec import decode
from protocol.entries import AdmittedEntry, ContentValue, Entry, parse_entry
from protocol.errors import (
    AccessDeniedError,
    ForkError,
    HistoryError,
    KinfolderError,
    LimitExceededError,
    ProtocolError,
    RevokedError,
    RollbackError,
    SecurityError,
    UnavailableError,
)
from protocol.history import (
    CHAIN_START,
    Checkpoint,
    ItemKind,
    LogItem,
    SignedCheckpoint,
    VoidRecord,
    verify_checkpoint,
)
from protocol.ids import AccountId, DeviceId, EntryHash
from protocol.membership import ControlState, accounts_of
from protocol.signing import verify

log = structlog.get_logger("follower")
VERIFY_TOGETHER: Final = 32


class Received(msgspec.Struct, frozen=True):
    """One item whose author's rights were judged; its signature and payload are still to be checked."""

    item: LogItem
    entry: Entry | None = None
    author: DeviceId | None = None
    author_key: bytes = b""
    payload_key: bytes = b""
    void: VoidRecord | None = None


class Admitted(msgspec.Struct, frozen=True):
    """One checked item of the log, ready to be folded."""

    item: LogItem
    entry: AdmittedEntry | None = None
    hash: EntryHash | None = None
    """Of an entry, also of one that counts as empty since its payload breaks the format."""
    void: VoidRecord | None = None


class Follower:
    """One folder's view of the log: the control state, the folded position and the provisional tail.

    Methods that take a connection run in the database's thread.
    """

    def __init__(self, context: Context, record: FolderRecord) -> None:
        self._context = context
        self.record = record
        self.control: ControlState | None = None
        self.head = record.position
        """The highest position that the coordinator named."""
        self.has_caught_up = False
        """Whether the coordinator's head was reached since this began, or since this device began anew."""
        self._stored: CachedState | None = None
        self._overlay: OverlayState | None = None
        self._is_mixed = False
        """Whether the tail holds entries of other devices."""
        self._tail_end = 0
        self._opened: dict[EntryHash, AdmittedEntry] = {}
        """Entries of other devices in the tail."""
        self.registered = Registered(context, self, self._judge_author)
        self._following = asyncio.Lock()
        """Items are taken over in the order of the log, whoever asks: a job that enrols follows beside the loop."""
        context.database.on_rollback(self._read_anew)

    # --- State

    async def load(self) -> None:
        """Read what the database holds and build the provisional tail."""
        links = await self._context.database.run(lambda db: folders.control_links(db, self.record.key))
        if links:
            self.control = ControlState.replay(links, self._context.accounts, folder=self.record.id)
            self._context.control_changed(self.record.key, self.control)
        await self._context.database.run(self.rebuild)

    def _read_anew(self, db: sqlite3.Connection) -> None:
        """Forget what was not committed: a position or a number taken from memory would leave entries out."""
        self._stored = self._overlay = None
        try:
            self.record = folders.folder(db, self.record.key)
        except KeyError:
            pass  # the folder was removed
        except sqlite3.Error as error:
            self.record = msgspec.structs.replace(self.record, frozen=f"its state cannot be read ({error}): restart")

    def rebuild(self, db: sqlite3.Connection) -> None:
        """Fold the tail anew over the ordered state; mark what it changes, or does not change any more, dirty."""
        if self._overlay is not None:
            # Not only where it is mixed: independent entries of this device may be ordered otherwise than it wrote them.
            mark_dirty(db, self.record.key, self._overlay.own_items())
        self._overlay = OverlayState(self._ordered(db))
        tail = self.tail(db)
        own = self.record.number
        foreign = {entry.hash: self._open_foreign(entry) for _, entry in tail if entry.header.device != own}
        self._is_mixed, self._opened = bool(foreign) or folders.foreign_size(db, self.record.key)[0] > 0, foreign
        self._tail_end = self.record.position + len(tail) if self._is_mixed else 0
        for position, entry in tail:
            admitted = foreign.get(entry.hash) or self._open_own(entry)
            mark_dirty(db, self.record.key, fold(self._overlay, [admitted], position=position))

    def tail(self, db: sqlite3.Connection) -> list[tuple[int, Entry]]:
        """Return the entries that are folded after the log, each with its provisional position, in their order.

        Own ones as they were signed; those of others, which lack nothing that they need, in an order that is the same on
        every device that has the same.
        """
        key, position = self.record.key, self.record.position
        own = [entry for entry, _ in folders.tail(db, key)]
        foreign = folders.foreign_tail(db, key)
        if not foreign:
            return [(position + entry.header.seq, entry) for entry in own]
        hashes = {entry.hash for entry in (*own, *foreign)}
        known = {need for entry in own for need in entry.header.needs if need not in hashes}
        others = {need for entry in foreign for need in entry.header.needs} - hashes - known
        known |= {need for need in others if folders.is_ordered(db, key, need)}
        ordered = order_tail(known, [*own, *foreign])
        placed = {entry.hash for entry in ordered}
        ordered += [entry for entry in own if entry.hash not in placed]
        return list(enumerate(ordered, start=position + 1))

    def _ordered(self, db: sqlite3.Connection) -> CachedState:
        """Return the fold of the log alone."""
        if self._stored is None:
            self._stored = CachedState(db, self.record.key)
        return self._stored

    def expect(self, db: sqlite3.Connection, items: Iterable[Item]) -> None:
        """Read together what changing these items, as they were synced, will ask of the fold."""
        members = [member for item in items for member in item.members]
        self._ordered(db).expect(
            list(dict.fromkeys(member.node for member in members)),
            [dot for member in members for dot in member.place],
            [dot for member in members for dot in member.content],
        )

    def expect_items(self, db: sqlite3.Connection, ids: Sequence[ItemId]) -> None:
        """Read these items of the remote tree together."""
        self._ordered(db).expect_items(ids)

    def remote(self, db: sqlite3.Connection) -> OverlayState:
        """Return the fold of the log and of the tail."""
        if self._overlay is None:
            self.rebuild(db)
        assert self._overlay is not None
        return self._overlay

    def add_tail(self, db: sqlite3.Connection, draft: Draft, signed: Sequence[AdmittedEntry]) -> None:
        """Fold an operation of this device that was just recorded.

        Args:
            db: The database.
            draft: Tried on :meth:`remote`, at :meth:`position_of` its first entry.
            signed: Its entries.
        """
        overlay = self.remote(db)
        if self._is_mixed:
            self.rebuild(db)  # where it stands among those of others, its hash decides
            return
        if draft.trial is None:
            for admitted in signed:
                self._add_to_overlay(db, admitted)
            return
        draft.trial.hand_down()
        for admitted in signed:
            # All that the trial could not know of an entry before it was signed.
            at = (admitted.header.device, admitted.header.seq)
            row = overlay.entries.get(at)
            assert row is not None
            time_ms = admitted.payload.time_ms
            overlay.entries.put(
                at, msgspec.structs.replace(row, hash=admitted.hash, author=admitted.author, time_ms=time_ms)
            )
        mark_dirty(db, self.record.key, draft.changed)

    def add_snapshot(self, db: sqlite3.Connection, signed: AdmittedEntry) -> None:
        """Keep the entry of this device that was just recorded and names a state of the folder."""
        self.remote(db)
        if self._is_mixed:
            self.rebuild(db)
        else:
            self._add_to_overlay(db, signed)
        note_snapshot(db, self.record.key, signed, 0, signed.payload.time_ms)

    def position_of(self, seq: int) -> int:
        """Return where an entry that this device is about to sign is tried: behind all that is folded."""
        return max(self._tail_end, self.record.position) + seq

    @property
    def is_mixed(self) -> bool:
        """Whether the tail holds entries of other devices."""
        return self._is_mixed

    def _add_to_overlay(self, db: sqlite3.Connection, admitted: AdmittedEntry) -> None:
        assert self._overlay is not None
        changed = fold(self._overlay, [admitted], position=self.position_of(admitted.header.seq))
        mark_dirty(db, self.record.key, changed)

    def put_record(self, db: sqlite3.Connection, **changes: object) -> None:
        """Change the folder's record, durably with the operation that this is part of."""
        self.record = msgspec.structs.replace(folders.folder(db, self.record.key), **changes)
        folders.put_folder(db, self.record)

    @property
    def is_verified(self) -> bool:
        """Whether the coordinator signed the very state that is folded: only then may it change the disk."""
        signed = self.record.checkpoint
        return self.record.position == 0 or (
            signed is not None
            and signed.checkpoint.position == self.record.position
            and signed.checkpoint.chain == self.record.chain
        )

    # --- Following

    async def follow(self) -> bool:
        """Pull and fold until the coordinator's head is reached; tell whether anything was new.

        Raises:
            UnavailableError: The coordinator cannot be asked.
            SecurityError: What it says does not hold; the folder is frozen.
        """
        async with self._following:
            news = await self._follow()
            return await self.registered.follow() or news

    async def _follow(self) -> bool:
        news = False
        try:
            while True:
                reply = await self._context.link.ask(
                    m.Pull(self.record.id, self.record.position, limits.PULL_ITEMS_MAX), m.Pulled
                )
                if await self._take(reply):
                    news = True
                if self.record.position >= self.head:
                    self.has_caught_up = True
                    return news
        except RefusedError:
            # No contradiction: the folder may be unknown yet, or not ours any more. Where the coordinator once signed for
            # it, it was set back to before the folder was made.
            known = self.record.checkpoint
            if known is None or not self.record.position:
                raise
            await self._give_back(msgspec.structs.replace(known.checkpoint, position=0, chain=CHAIN_START))
            return news
        except RevokedError:
            raise  # no word about the history: this device may not see it any more
        except (ForkError, RollbackError) as error:
            await self._freeze(error)
            raise
        except (SecurityError, ProtocolError, LimitExceededError) as error:
            # Not two signed histories, so no reason to freeze for good: a coordinator that mends its data is followed again.
            raise HistoryError(f"the coordinator shows a history that does not hold: {error}") from error

    async def _take(self, reply: m.Pulled) -> bool:
        items, signed, record = reply.items, reply.checkpoint, self.record
        checkpoint = self._check_signed(signed)
        self._check_generation(checkpoint, record)
        if checkpoint.position < record.position:
            await self._give_back(checkpoint)
            return False
        self.head = checkpoint.position
        if not items and checkpoint.position > record.position:
            raise ProtocolError("the coordinator holds items back")
        chain, position = record.chain, record.position
        chains: dict[int, bytes] = {}
        for item in items:
            position += 1
            if item.position != position:
                raise ProtocolError("the coordinator left a gap in the log")
            chains[position] = chain = forks.chained(chain, item)
        if position > checkpoint.position:
            raise ProtocolError("the coordinator sent items beyond the head that it signed")
        if position < checkpoint.position:
            # What is kept without proof would be kept for good, and what is shown later would never follow on it.
            if reply.reached is None:
                raise SecurityError("the coordinator shows a part of a history and has not signed it")
            signed, checkpoint = reply.reached, self._check_signed(reply.reached)
            if (checkpoint.position, checkpoint.generation) != (position, record.generation):
                raise SecurityError("the coordinator signed another part of the history than it shows")
        known = record.checkpoint
        if chain != checkpoint.chain or (
            known is not None
            and chains.get(known.checkpoint.position, known.checkpoint.chain) != known.checkpoint.chain
        ):
            await forks.judge(self._context.link.ask, record, checkpoint)
        if not items:
            if signed != record.checkpoint:
                await self._context.database.run(lambda db: self.put_record(db, checkpoint=signed))
            return False
        admitted = await self._admit(items)
        newest = signed if known is None or position >= known.checkpoint.position else None
        await self._check_account_heads(admitted)
        await self._context.database.run(lambda db: self._record(db, admitted, chains, newest))
        return True

    def _check_signed(self, signed: SignedCheckpoint) -> Checkpoint:
        """Return a checkpoint that the coordinator signed for this folder.

        Raises:
            SecurityError, ProtocolError: It did not.
        """
        checkpoint = verify_checkpoint(signed, self._context.link.address.log_key)
        if checkpoint.folder != self.record.id:
            raise SecurityError("the coordinator signed another folder's head")
        return checkpoint

    @staticmethod
    def _check_generation(checkpoint: Checkpoint, record: FolderRecord) -> None:
        if checkpoint.generation != record.generation:
            raise RollbackError("the coordinator began another generation of the log without an admin's signature")
        known = record.checkpoint
        if known is not None and max(record.position, checkpoint.position) < known.checkpoint.position:
            # A device that was let in begins with the head that the other one had seen. It waits, and is not frozen: a
            # coordinator restored from a backup is given its newest part back by those who have it.
            raise HistoryError("the coordinator shows an older history than another device of this account has seen")
        if (
            known is not None
            and checkpoint.position == known.checkpoint.position
            and checkpoint.chain != known.checkpoint.chain
        ):
            raise ForkError("the coordinator signed two histories for one position")

    async def _give_back(self, behind: Checkpoint) -> None:
        """The coordinator lost its newest part: hand the items back that it had ordered, if they are its own."""
        known = self.record.checkpoint
        if known is None:
            raise RollbackError("the coordinator shows an older history than it did before")
        at = await self._context.database.run(lambda db: folders.chain_at(db, self.record.key, behind.position))
        if at != behind.chain:
            raise ForkError("the coordinator's older history is another one")
        missing = known.checkpoint.position - behind.position
        log.warning("coordinator is behind", missing=missing)
        found = folders.SetBack(self._context.clock.now_ms(), missing)
        await self._context.database.run(lambda db: folders.put_set_back(db, self.record.id, found))
        # Before it has its log back: from then on nobody can tell that it misses more than that.
        lost = behind.position if self.record.lost_after is None else min(behind.position, self.record.lost_after)
        await self._context.database.run(lambda db: self.put_record(db, lost_after=lost))
        position = behind.position
        while position < known.checkpoint.position:
            items = await self._context.database.run(
                lambda db, after=position: folders.log_items(db, self.record.key, after, 64)  # type: ignore[misc]
            )
            size = 0
            part: list[LogItem] = []
            for item in items:
                size += len(item.data) + 32
                if part and size > limits.PULL_BYTES_MAX:
                    break
                part.append(item)
            if not part:
                raise RollbackError("the coordinator shows an older history than it did before")
            await self._context.link.ask(m.RepushLog(tuple(part), known), m.Ok)
            position = part[-1].position
        raise UnavailableError("the coordinator was given back what it had lost")

    async def _freeze(self, error: KinfolderError) -> None:
        log.error("folder frozen", code=error.code)
        await self._context.database.run(lambda db: self.put_record(db, frozen=str(error)))

    # --- Checking

    async def _admit(self, items: Sequence[LogItem]) -> list[Admitted]:
        admitted: list[Admitted] = []
        received: list[Received] = []
        for item in items:
            if item.kind is ItemKind.CONTROL:
                # What follows is judged by what this link changes.
                admitted += await self._open_all(received)
                received = []
                await self._add_control(item)
                admitted.append(Admitted(item))
            elif item.kind is ItemKind.VOID:
                record: VoidRecord = decode(item.data, VoidRecord, bytes_max=limits.KIB, what="void record")
                if record.folder != self.record.id:
                    raise SecurityError("the log holds another folder's void record")
                received.append(Received(item, void=record))
            else:
                received.append(await self._judge_author(item))
        return admitted + await self._open_all(received)

    async def _open_all(self, received: Sequence[Received]) -> list[Admitted]:
        done: list[Admitted] = []
        for start in range(0, len(received), VERIFY_TOGETHER):
            done += await self._context.processor.run(_open_together, received[start : start + VERIFY_TOGETHER])
        return done

    async def _judge_author(self, item: LogItem) -> Received:
        entry = parse_entry(item.data)
        control = self.control
        if control is None or entry.header.folder != self.record.id:
            raise SecurityError("the log holds an entry of another folder")
        enrolment = control.enrolment(entry.header.device)
        if enrolment is None or not control.may_write(entry.header.device):
            raise AccessDeniedError("the log holds an entry of somebody who may not write")
        if not 1 <= entry.header.epoch <= control.epoch.number:
            raise AccessDeniedError("the log holds an entry under a key that the folder does not have")
        account = self._context.accounts(enrolment.account)
        if enrolment.device not in account.devices:
            account = await self._context.accounts.refresh(enrolment.account)
        if control.knows_revoked(account, enrolment.device) and not control.may_author(
            account, entry.header.device, entry.header.seq, entry.hash
        ):
            raise AccessDeniedError("the log holds an entry of a device that was revoked before")
        author_key = account.devices[enrolment.device].keys.sign
        payload_key = self._context.folder_keys(self.record.key).entry_key(entry.header.epoch)
        return Received(item, entry, enrolment.device, author_key, payload_key)

    async def _add_control(self, item: LogItem) -> None:
        link: SignedLink = decode(
            item.data, SignedLink, bytes_max=limits.CONTROL_LINK_BYTES_MAX + 256, what="control link"
        )
        await self.add_control_link(link)

    async def add_control_link(self, link: SignedLink) -> None:
        """Check a link of the control log and take it over; one that is known already changes nothing.

        Raises:
            SecurityError, ProtocolError: It does not hold.
        """
        body = parse_control_link(link)
        if self.control is not None and body.seq <= self.control.seq:
            return
        for account in sorted(accounts_of(body)):
            try:
                known = self._context.accounts(account).seq_of(body.account_head) is not None or account != body.account
            except KeyError:
                known = False
            if not known:
                await self._context.accounts.refresh(account)
        if self.control is None:
            control = ControlState.replay([link], self._context.accounts, folder=self.record.id)
        else:
            control = self.control.extend([link], self._context.accounts)
        await self._context.database.run(lambda db: folders.put_control_link(db, self.record.key, body.seq, link))
        self.control = control
        self._context.control_changed(self.record.key, control)

    # --- Recording

    def _record(
        self,
        db: sqlite3.Connection,
        admitted: Sequence[Admitted],
        chains: Mapping[int, bytes],
        signed: SignedCheckpoint | None,
    ) -> None:
        key = self.record.key
        assert admitted[0].item.position == self.record.position + 1
        self._check_seen(db, admitted, chains)
        self.remote(db)  # what the tail shows now is looked at again where it will show something else
        state = self._ordered(db)
        changed: set[ItemId] = set()
        gone: list[Entry] = []
        is_set_back = False
        for each in admitted:
            if each.hash is not None:
                entry = parse_entry(each.item.data)
                other = self._put_entry_hash(db, entry, each.item.position, gone)
                if other is not None:
                    log.error("two entries under one number", device=entry.header.device)
                folders.drop_tail(db, key, each.hash)
                folders.drop_foreign(db, key, each.hash)
                if entry.header.device == self.record.number and (
                    entry.header.seq > self.record.own_seq or other is not None
                ):
                    is_set_back = True
            if each.entry is not None:
                state.expect_entry(each.entry)
                changed |= fold(state, [each.entry], position=each.item.position)
                self._remember_contents(db, each.entry)
                note_snapshot(db, key, each.entry, each.item.position, each.item.time_ms)
            if each.void is not None:
                self._void(db, state, each.void, gone)
        changed |= self._forget(db, gone)
        state.write()
        folders.put_log_items(db, key, [each.item for each in admitted], chains)
        mark_dirty(db, key, changed)
        last = admitted[-1].item.position
        if signed is None:
            self.put_record(db, position=last, chain=chains[last])
        else:
            self.put_record(db, position=last, chain=chains[last], checkpoint=signed)
        if is_set_back:
            self.begin_anew(db)
        state.forget()
        self.rebuild(db)

    def begin_anew(self, db: sqlite3.Connection) -> None:
        """Give this device another number before it signs anything more: its old one was used beyond what it knows.

        So it is with a home that was restored or copied, and with a folder that was removed here and brought back. What
        is in the tail can never be ordered any more; it is planned anew from what the disk holds. What the disk lacks or
        holds otherwise than it was synced may be older than what this device once knew: see :meth:`trust_again`.
        """
        log.warning("this device begins a new incarnation")
        self.remote(db)  # as in _record
        tail = [entry for entry, _ in folders.tail(db, self.record.key)]
        for entry in tail:
            folders.forget_tail(db, self.record.key, entry)  # with its number: the log holds another one there, or will
            drop_snapshot(db, self.record.key, entry.hash)
        self._forget(db, tail)
        self.has_caught_up = False
        self.put_record(db, number=0, own_seq=0, own_hash=EntryHash(bytes(32)), mistrusted=True)

    def trust_again(self, db: sqlite3.Connection) -> None:
        """After this device began anew and caught up: forget what it once agreed to where its disk is another.

        Without a base, what is missing here comes back, and what differs stands beside what the folder has: a disk from
        an older or a newer day than the database neither removes nor replaces anything elsewhere. What stands as it was
        synced keeps its base, so that what was removed elsewhere goes.
        """
        key = self.record.key
        local, synced = LocalTree(db, key), SyncedTree(db, key)
        for item in list(synced.all()):
            here = local.item(item.id)
            if here is None or not here.content.same_bytes(item.content):
                synced.drop(item.id)
        held.release_all(db, key)
        self.put_record(db, mistrusted=False)

    def _check_seen(self, db: sqlite3.Connection, admitted: Sequence[Admitted], chains: Mapping[int, bytes]) -> None:
        """Compare the histories that the coordinator signed for the authors with the one that it shows us.

        Only its own signature counts as proof; what an author merely claims stops nobody.

        Raises:
            ForkError: It signed another history for an author than for this device.
        """
        for each in admitted:
            signed = None if each.entry is None else each.entry.payload.seen.checkpoint
            if signed is None or signed.checkpoint.generation != self.record.generation:
                continue
            try:
                seen = verify_checkpoint(signed, self._context.link.address.log_key)
            except (SecurityError, ProtocolError):
                log.warning("an author shows a checkpoint that was never signed", position=each.item.position)
                continue
            if seen.folder != self.record.id:
                continue
            known = chains.get(seen.position) or folders.chain_at(db, self.record.key, seen.position)
            if seen.position >= each.item.position or (known is not None and known != seen.chain):
                raise ForkError("the coordinator signed another history for another device than for this one")

    async def _check_account_heads(self, admitted: Sequence[Admitted]) -> None:
        """Learn of newer account chains from what authors knew; a chain that does not fit is told, and stops nothing."""
        heads = {head for each in admitted if each.entry is not None for head in each.entry.payload.account_heads}
        for account, seq, head in sorted(heads):
            try:
                state = self._context.accounts(AccountId(account))
            except KeyError:
                continue  # an account that this device has nothing to do with
            if state.seq < seq:
                state = await self._context.accounts.refresh(AccountId(account))
            if state.seq_of(head) != seq:
                log.warning("an author knew another chain of an account", account=account.hex()[:12])

    def _remember_contents(self, db: sqlite3.Connection, entry: AdmittedEntry) -> None:
        """Remember what this device itself made durable; what others say of a content is believed once it was opened."""
        if entry.author != self._context.device:
            return
        found = [
            (value.hash, change.node, entry.dot(index))
            for index, (change, value) in enumerate(zip(entry.header.changes, entry.payload.values, strict=True))
            if isinstance(value, ContentValue) and value.spans
        ]
        note_contents(db, self.record.key, found)

    def _void(self, db: sqlite3.Connection, state: CachedState, record: VoidRecord, gone: list[Entry]) -> None:
        """An entry can never be ordered: where it stood in the tail, it goes, into ``gone``."""
        for entry, _ in folders.tail(db, self.record.key):
            if entry.hash == record.entry:
                void(state, self._open_own(entry))
                folders.drop_tail(db, self.record.key, entry.hash)
                drop_snapshot(db, self.record.key, entry.hash)
                gone.append(entry)
                return
        if (foreign := folders.drop_foreign(db, self.record.key, record.entry)) is not None:
            gone.append(foreign)

    def _put_entry_hash(
        self, db: sqlite3.Connection, entry: Entry, position: int, gone: list[Entry]
    ) -> EntryHash | None:
        """Remember where an entry stands; what stood under its number in a tail alone gives way, another's into ``gone``."""
        key, header = self.record.key, entry.header
        other = folders.put_entry_hash(db, key, header.device, header.seq, entry.hash, position)
        if other is None:
            return None
        if (foreign := folders.drop_foreign(db, key, other)) is not None:
            gone.append(foreign)
        known = folders.entry_hash_of(db, key, header.device, header.seq)
        if foreign is not None or (known is not None and known[1] == 0):
            folders.forget_entry(db, key, header.device, header.seq)
            folders.put_entry_hash(db, key, header.device, header.seq, entry.hash, position)
        return other

    def _forget(self, db: sqlite3.Connection, gone: Sequence[Entry]) -> set[ItemId]:
        """Entries that are off the tail can never be ordered: what they brought is no base any more; return what changed.

        What the disk holds of them is found anew, as this device's own: nothing that a user wrote is lost, also where it is
        shown as a conflict copy. Of those of others the fold of the log knew nothing and learns nothing now, or it would
        differ from that of devices that never had them.
        """
        if not gone:
            return set()
        synced, number = SyncedTree(db, self.record.key), self.record.number
        touched = synced.brought_by({(entry.header.device, entry.header.seq) for entry in gone})
        own = {change.node for entry in gone if entry.header.device == number for change in entry.header.changes}
        reset_synced(synced, touched | own)
        return touched | {change.node for entry in gone for change in entry.header.changes}

    def _open_foreign(self, entry: Entry) -> AdmittedEntry:
        known = self._opened.get(entry.hash)
        if known is not None:
            return known
        enrolment = None if self.control is None else self.control.enrolment(entry.header.device)
        assert enrolment is not None
        payload = open_entry(entry, self._context.folder_keys(self.record.key).entry_key(entry.header.epoch))
        return AdmittedEntry(entry.hash, enrolment.device, entry.header, payload)

    def _open_own(self, entry: Entry) -> AdmittedEntry:
        payload = open_entry(entry, self._context.folder_keys(self.record.key).entry_key(entry.header.epoch))
        return AdmittedEntry(entry.hash, self._context.device, entry.header, payload)


def reset_synced(synced: SyncedTree, touched: Collection[ItemId]) -> None:
    """Forget what entries that count no more had recorded as agreed, so that what the user did is found anew.

    What stood behind these items before is not known any more. Without a base nothing is taken as seen: where both sides
    hold different bytes, both are kept.
    """
    for id in sorted(touched):
        synced.drop(id)


def _open_together(received: Sequence[Received]) -> list[Admitted]:
    """Check signatures and open payloads; runs in the pool."""
    done = []
    for each in received:
        entry = each.entry
        if entry is None or each.author is None:
            done.append(Admitted(each.item, void=each.void))
            continue
        verify("entry", entry.header_bytes + entry.payload, entry.signature, each.author_key)
        try:
            payload = open_entry(entry, each.payload_key)
        except KinfolderError:
            # Signed by a member and yet malformed: it counts, on every device alike, as an entry without changes.
            done.append(Admitted(each.item, hash=entry.hash))
            continue
        done.append(Admitted(each.item, AdmittedEntry(entry.hash, each.author, entry.header, payload), entry.hash))
    return done
