"""Plan against the database, turn acts into signed entries, and hand these to the coordinator.

Rule 1: record, then send: an entry is in the tail, and ``synced`` follows it, in one commit before anyone hears of it.
Rule 2: an act is recorded only if both trees still hold what it was planned on; else it is planned again.
Rule 3: an entry's contents are durable before it is signed, on storage nodes or in the spool of this device, so nothing
    it says can be missing once the spool is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from peer.core.authoring import Draft, DraftEntry, author
from peer.core.brake import Held, is_held, is_mass
from peer.core.entry_sealing import seal_entry
from peer.core.exclusions import Apart
from peer.core.holding import still_holding, subject
from peer.core.leftovers import displaced, with_above
from peer.core.links import enrol_op, make_control_link
from peer.core.mass_changes import marks_of
from peer.core.operations import (
    Act,
    Create,
    Delete,
    Edit,
    Place,
    Plan,
    Rekey,
    Remove,
    Rename,
    Replace,
    SetAttributes,
    Step,
)
from peer.core.planner import Excluded, is_settled, plan
from peer.core.refusals import Refusals, judge
from peer.core.remembered import RememberedTree
from peer.core.resolving import Overlay, drop_copy, keep_copy, main_of
from peer.core.tree import Content, Item, ItemId, Tree, path_of
from peer.engine.brake import Brake
from peer.engine.context import Context
from peer.engine.downloader import ToFetch
from peer.engine.follower import Follower
from peer.engine.incarnations import is_set_back
from peer.engine.renewal import seal_tail_anew
from peer.engine.sight import Sight
from peer.engine.uploader import Stored, ToSend
from peer.engine.waiting import Waits
from peer.net.coordinator_link import StaleError
from peer.store import folders
from peer.store.trees import LocalTree, SyncedTree, clean, dirty, mark_all_dirty, remembered
from protocol import limits
from protocol import messages as m
from protocol.entries import (
    ENTRY_VERSION,
    AdmittedEntry,
    ContentValue,
    Header,
    Kind,
    Payload,
    RowSpan,
    Seen,
    SegmentKey,
    parse_entry,
)
from protocol.errors import AccessDeniedError, BadSignatureError, ProtocolError, UnavailableError, UserError
from protocol.history import CHAIN_START
from protocol.ids import Dot, EntryHash, NodeId

log = structlog.get_logger("recorder")
PUSH_ENTRIES_MAX: Final = 16
PUSH_BYTES_MAX: Final = 700 * limits.KIB
ENROL_TRIES_MAX: Final = 20
SEEN_OWN_MAX: Final = 64
"""How many of its unordered entries an author lists in a new one. Each names the one before: with all of them in each, what
a device keeps of a long time offline would grow by its square, until an entry is larger than it may be."""


class Planned(msgspec.Struct, frozen=True):
    """A plan, with what its operations need from the database."""

    plan: Plan
    looked_at: tuple[ItemId, ...]
    last: ItemId | None
    """Where to go on, if dirty items are left beyond those that were looked at; None at the end."""
    to_send: Mapping[ItemId, ToSend]
    """Files of acts whose bytes must be sent first."""
    known: Mapping[ItemId, Stored]
    """Files of acts whose bytes the folder holds already."""
    sources: Mapping[ItemId, ToFetch]
    """Files of steps whose bytes must be fetched first."""


class Recorder:
    """One folder's author."""

    def __init__(
        self, context: Context, follower: Follower, ignored: Excluded, apart: Callable[[], Apart], brake: Brake
    ) -> None:
        """Make one.

        Args:
            context: Shared by all folders.
            follower: The folder's view of the log.
            ignored: Which paths a rule leaves out.
            apart: Returns what a person keeps off this device now.
            brake: Knows what waits for a person.
        """
        self._context = context
        self._follower = follower
        self._ignored = ignored
        self._apart = apart
        self._brake = brake
        self._enrolling = asyncio.Lock()
        self._handed_in = (0, 0)
        """Up to which of its entries the coordinator has this device's: its number, and theirs."""

    # --- Planning

    def plan_all_anew(self, db: sqlite3.Connection) -> None:
        """What the old rules held back, in either direction, is looked at under the new ones."""
        key = self._follower.record.key
        mark_all_dirty(db, key)
        Sight(db, key, self._ignored, self._apart(), self._context.entropy).sort_out_all()

    def plan(self, db: sqlite3.Connection, waits: Waits, most: int, *, after: bytes) -> Planned:
        """Plan for up to ``most`` dirty items beyond an id, but for those to leave alone; take settled ones off the set.

        Args:
            db: The database.
            waits: What waits, and why.
            most: How many items.
            after: Beyond this id.
        """
        key = self._follower.record.key
        found = dirty(db, key, most, after=after)
        sight = Sight(db, key, self._ignored, self._apart(), self._context.entropy)
        sight.sort_out(found)
        local, synced = remembered(LocalTree(db, key), found), remembered(SyncedTree(db, key), found)
        self._follower.expect_items(db, found)
        remote = RememberedTree(self._follower.remote(db).tree)
        staying = with_above(waits.kept, local)
        refusals = judge(
            waits.refused.intersection(found),
            [id for id in found if id not in waits.leave],
            waits.leave - staying,
            waits.nameless.intersection(found),
            local=local,
            synced=synced,
            remote=remote,
        )
        wanted = set(refusals.taken.values())
        gone = displaced(staying, local=local, synced=synced, remote=remote, wanted=wanted)
        leave = waits.leave - gone.keys() - refusals.anchored
        ids = [id for id in found if id not in leave]
        held = self._brake.held(db)
        if held is not None:
            self._brake.refresh(db, ids)
        unsettled = [id for id in ids if not is_settled(id, local=local, synced=synced, remote=remote)]
        made = self._plan_free(local, synced, remote, unsettled, leave, sight, held, refusals, gone)
        allowed = Plan(
            tuple(act for act in made.acts if subject(act) not in leave),
            tuple(step for step in made.steps if _step_subject(step) not in leave),
        )
        busy = {subject(act) for act in allowed.acts} | {_step_subject(step) for step in allowed.steps}
        clean(
            db,
            key,
            [
                id
                for id in ids
                if id not in busy
                and (
                    is_settled(id, local=local, synced=synced, remote=remote)
                    or sight.is_left_alone(id, local, synced, remote)
                    or self._brake.waits(db, id)
                )
            ],
        )
        to_send: dict[ItemId, ToSend] = {}
        known: dict[ItemId, Stored] = {}
        for act in allowed.acts:
            self._find_bytes(db, act, local, to_send, known)
        sources: dict[ItemId, ToFetch] = {}
        for step in allowed.steps:
            self._find_source(db, step, local, sources)
        looked_at = tuple(id for id in ids if id not in refusals.anchored)
        return Planned(allowed, looked_at, found[-1] if len(found) == most else None, to_send, known, sources)

    def _plan_free(
        self,
        local: Tree,
        synced: Tree,
        remote: Tree,
        ids: Sequence[ItemId],
        leave: Collection[ItemId],
        sight: Sight,
        held: Held | None,
        refusals: Refusals,
        gone: Mapping[ItemId, Item],
    ) -> Plan:
        """Plan; an id that cannot be changed now, since its item is in a job, holds up no more than itself."""
        stuck: set[ItemId] = set()
        while True:
            rest = [id for id in ids if id not in stuck]
            made = plan(
                local=local,
                synced=synced,
                remote=remote,
                dirty=rest,
                excluded=self._ignored,
                apart=sight.apart,
                mistrusted=lambda item: sight.is_mistrusted(item, synced, remote),
                held=held,
                busy=leave,
                refusals=refusals,
                displaced=gone,
            )
            waiting = {
                id
                for step in made.steps
                if isinstance(step, Rekey) and (step.old in leave or step.new in leave)
                for id in (step.old, step.new)
            }
            if not waiting or not waiting.intersection(rest):
                return made
            stuck |= waiting

    def allowed(self, db: sqlite3.Connection, steps: Sequence[Step]) -> list[Step]:
        """Return the steps that change nothing excluded and bring nothing there: it may be so since they were planned."""
        apart, local = self._apart(), LocalTree(db, self._follower.record.key)
        remote = self._follower.remote(db).tree
        return [
            step
            for step in steps
            if not any(apart.holds(tree, item) for tree, item in _changed_by(step, local=local, remote=remote))
        ]

    def _find_bytes(
        self, db: sqlite3.Connection, act: Act, local: Tree, to_send: dict[ItemId, ToSend], known: dict[ItemId, Stored]
    ) -> None:
        if not isinstance(act, Create | Edit):
            return
        content = act.item.content if isinstance(act, Create) else act.content
        id = subject(act)
        if content.kind is not Kind.FILE:
            return
        if content.size == 0:
            known[id] = Stored(())
            return
        stored = self._known_content(db, content)
        if stored is not None:
            known[id] = stored
            return
        path = path_of(local, id)
        if path is not None:
            to_send[id] = ToSend(id, path, content)

    def _known_content(self, db: sqlite3.Connection, content: Content) -> Stored | None:
        """Return where the folder's log has these very bytes, as this device itself knows, so that a copy sends nothing."""
        row = db.execute(
            "SELECT node, dot FROM known_content WHERE folder = ? AND hash = ?",
            (self._follower.record.key, content.hash),
        ).fetchone()
        if row is None:
            return None
        version = self._follower.remote(db).content(row[0], msgspec.msgpack.decode(row[1], type=Dot))
        if version is None or (version.value.hash, version.value.size) != (content.hash, content.size):
            return None
        return stored_of(version.value, version.segments)

    def _find_source(self, db: sqlite3.Connection, step: Step, local: Tree, sources: dict[ItemId, ToFetch]) -> None:
        if not isinstance(step, Place | Replace) or step.item.content.kind is not Kind.FILE:
            return
        member = step.item.members[0]
        version = self._follower.remote(db).content(member.node, member.content[0])
        if version is None:
            log.error("content is not known", node=member.node.hex())
            return
        old = path_of(local, step.expected.id) if isinstance(step, Replace) else self.same_here(db, step.item, local)
        record, entry = self._follower.record, version.entry
        is_stored = entry.position <= record.position or entry.author == self._context.device
        sources[step.item.id] = ToFetch(step.item, stored_of(version.value, version.segments), old or "", is_stored)

    def same_here(self, db: sqlite3.Connection, item: Item, local: Tree) -> str | None:
        """Return the path of a file on this disk that holds the same bytes, if it is easily found."""
        row = db.execute(
            "SELECT node FROM known_content WHERE folder = ? AND hash = ?",
            (self._follower.record.key, item.content.hash),
        ).fetchone()
        here = None if row is None else local.item(NodeId(row[0]))
        return None if here is None or not here.content.same_bytes(item.content) else path_of(local, here.id)

    # --- Recording

    async def record(self, acts: Sequence[Act], stored: Mapping[ItemId, Stored]) -> int:
        """Sign acts into entries and record them; return how many acts still held.

        Args:
            acts: As planned, together or in parts that do not depend on each other.
            stored: Where the bytes of created and edited files lie.
        """
        return await self._context.database.run(lambda db: self._record(db, acts, stored))

    def _record(self, db: sqlite3.Connection, acts: Sequence[Act], stored: Mapping[ItemId, Stored]) -> int:
        key = self._follower.record.key
        synced, touched = SyncedTree(db, key), list(_touched(acts))
        local, bases = remembered(LocalTree(db, key), touched), remembered(synced, touched)
        apart, held = self._apart(), self._brake.held(db)
        if apart:
            acts = [act for act in acts if not apart.holds(*_acted_on(act, local=local, synced=bases))]
        holding = [act for act in still_holding(acts, local, bases) if held is None or not is_held(act, held)]
        record = self._follower.record
        # A number can be given up between enrolling and recording; then what was planned before has no base to trust.
        if not holding or not record.number or record.mistrusted:
            return 0
        draft = self._author(db, holding, bases, stored)
        synced.drop_all(draft.dropped)
        for item in draft.synced:
            synced.put(item)
        return len(holding)

    def _author(
        self, db: sqlite3.Connection, acts: Sequence[Act], synced: Tree, stored: Mapping[ItemId, Stored]
    ) -> Draft:
        """Sign acts, and put their entries into the tail."""
        contents, segments = _contents(acts, stored)
        known = (synced.item(id) for id in _touched(acts))
        self._follower.expect(db, [item for item in known if item is not None])
        record = self._follower.record
        draft: Draft = author(
            acts,
            synced=synced,
            state=self._follower.remote(db),
            device=record.number,
            seq=record.own_seq + 1,
            contents=contents,
            entropy=self._context.entropy,
            segments=segments,
            label=self._context.label,
            position=self._follower.position_of(record.own_seq + 1),
        )
        self._note_mass(db, acts)
        self._follower.add_tail(db, draft, [self._sign(db, part) for part in draft.entries])
        return draft

    # --- Conflict copies

    async def resolve(self, id: ItemId, *, keep: bool) -> None:
        """Record that a person decided about a conflict copy: its bytes become the file, or it is removed.

        ``synced`` stays what the disk holds, so the disk follows by steps, with all that these look at; a crash at any
        moment leaves both versions, or the decision.

        Raises:
            UserError: It is no conflict copy (any more), or what is on this disk is not recorded yet.
        """
        await self._context.database.run(lambda db: self._resolve(db, id, keep=keep))

    def _resolve(self, db: sqlite3.Connection, id: ItemId, *, keep: bool) -> None:
        key = self._follower.record.key
        local, synced = LocalTree(db, key), SyncedTree(db, key)
        remote = self._follower.remote(db)
        copy = synced.item(id)
        if copy is None or remote.tree.item(id) is None:
            raise UserError("this is no conflict copy any more: see 'kin conflicts'")
        main = main_of(copy, synced, remote.nodes)
        if main is None and all(member.copy is None for member in copy.members):
            raise UserError("this is no conflict copy: see 'kin conflicts'")
        if main is None and keep:
            raise UserError("the file that it is a copy of has gone: give the copy the name that you want")
        chosen = keep_copy(copy, main) if keep and main is not None else drop_copy(copy)
        for item in (copy, *chosen.bases):
            base, here = synced.item(item.id), local.item(item.id)
            if base is None or here is None or not here.content.same_bytes(base.content):
                raise UserError("it was changed on this device just now: try again once 'kin wait' is done")
        stored = {}
        if chosen.source is not None:
            version = remote.content(chosen.source.node, chosen.source.content[0])
            if version is None:
                raise UserError("this is no conflict copy any more: see 'kin conflicts'")
            stored = {base.id: stored_of(version.value, version.segments) for base in chosen.bases}
        if not self._follower.record.number:  # as in _record
            raise UserError("this device begins anew in the folder just now: try again")
        self._author(db, chosen.acts, Overlay(synced, chosen.bases), stored)

    def _note_mass(self, db: sqlite3.Connection, acts: Sequence[Act]) -> None:
        """Offer to undo a mass removal that passes."""
        items = (item for act in acts if isinstance(act, Remove) for item in (act.subtree or (act.base,)))
        files = [item for item in items if not item.is_directory]
        if files and is_mass(len(files), self._brake.files(db, len(files))):
            marks = marks_of(files, SyncedTree(db, self._follower.record.key))
            self._follower.put_record(db, removed=(len(files), self._context.clock.now_ms()), removed_marks=marks)

    async def record_snapshot(self, name: str) -> AdmittedEntry:
        """Sign an entry that names the folder's state as it is on this device, and record it.

        Raises:
            UserError: More waits for the coordinator than one entry can name, or the log is just being followed.
        """

        def operation(db: sqlite3.Connection) -> AdmittedEntry:
            key, seen = self._follower.record.key, self._follower.record.checkpoint
            at = 0 if seen is None else seen.checkpoint.position
            if not self._follower.is_verified or at > self._follower.record.position:
                raise UserError("the folder is just being brought up to date: try again in a moment")
            if self._follower.is_mixed:
                raise UserError(
                    "changes of other devices are here that the coordinator has not ordered yet: make the snapshot once"
                    " it has"
                )
            unordered = folders.tail_hashes(db, key)
            if len(unordered) > limits.ENTRY_NEEDS_MAX:
                raise UserError(
                    f"{len(unordered)} changes wait for the coordinator: make the snapshot once it has them"
                )
            part = DraftEntry(self._follower.record.own_seq + 1, None, (), (), (), ())
            signed = self._sign(db, part, snapshot=name, needs=unordered)
            self._follower.add_snapshot(db, signed)
            return signed

        return await self._context.database.run(operation)

    def _sign(
        self, db: sqlite3.Connection, part: DraftEntry, *, snapshot: str = "", needs: Collection[EntryHash] = ()
    ) -> AdmittedEntry:
        record = self._follower.record
        control = self._follower.control
        assert control is not None
        own, foreign = folders.tail_hashes(db, record.key), folders.foreign_hashes(db, record.key)
        header = Header(
            version=ENTRY_VERSION,
            folder=record.id,
            epoch=control.epoch.number,
            control_head=control.head,
            device=record.number,
            seq=record.own_seq + 1,
            previous=record.own_hash,
            needs=tuple(sorted({*needs, *self._hashes(db, part.needs)})),
            expect=(),
            replaces=(),
            batch=part.batch,
            changes=part.changes,
            pins=tuple(sorted({segment.id for segment in part.segments})),
            source=None,
            payload_hash=b"",
        )
        heads = sorted((state.id, state.seq, state.head) for state in self._context.accounts.known())
        payload = Payload(
            seen=_seen(record, own, foreign),
            account_heads=tuple(heads),
            label=self._context.label,
            time_ms=self._context.clock.now_ms(),
            snapshot=snapshot,
            segments=part.segments,
            values=part.values,
        )
        ring = self._context.folder_keys(record.key)
        data = seal_entry(
            header, payload, ring.entry_key(header.epoch), self._context.secrets.sign_seed, self._context.entropy
        )
        entry = parse_entry(data)
        folders.put_tail(db, record.key, entry, data)
        self._follower.put_record(db, own_seq=header.seq, own_hash=entry.hash)
        return AdmittedEntry(entry.hash, self._context.device, entry.header, payload)

    def _hashes(self, db: sqlite3.Connection, dots: Iterable[Dot]) -> tuple[EntryHash, ...]:
        """Return the entries that wrote these values."""
        found = set()
        for device, seq in {(dot.device, dot.seq) for dot in dots}:
            known = folders.entry_hash_of(db, self._follower.record.key, device, seq)
            if known is not None:
                found.add(known[0])
            elif device != self._follower.record.number:
                log.error("a value's entry is not known", device=device)
        return tuple(sorted(found))

    # --- Sending

    def forget(self) -> None:
        """A session began: what was handed in in the one before may be lost."""
        self._handed_in = (0, 0)

    async def push(self) -> bool:
        """Hand what is new of the tail to the coordinator; tell whether something of it was ordered or became void.

        Raises:
            UnavailableError: It cannot be reached, or is behind what it once signed.
            SecurityError: It refuses an entry of ours.
        """
        record = self._follower.record
        if await self._context.database.run(lambda db: not folders.tail_hashes(db, record.key)):
            return False
        await self.ensure_known()
        await seal_tail_anew(self._context, self._follower)
        after = self._handed_in[1] if self._handed_in[0] == record.number else 0
        tail = await self._context.database.run(lambda db: folders.tail_data(db, record.key, after))
        moved = False
        for part in _parts(tail):
            reply = await self._context.link.ask(
                m.RegisterEntries(record.id, self._follower.record.checkpoint, tuple(data for _, data in part)),
                m.EntryStates,
            )
            for (seq, _), state in zip(part, reply.states, strict=False):
                if state.refused in {"chain", "gap", "epoch"}:
                    self.forget()
                    lost_seq = None if state.refused == "gap" else seq
                    if await is_set_back(self._context, self._follower, lost_seq):
                        return True
                if state.refused == "epoch":
                    await self._follower.follow()
                    raise UnavailableError("the folder's key was renewed just now: what waits is sealed anew")
                if state.refused:
                    _refuse(state.refused)
                moved = moved or state.position > 0
            self._handed_in = (record.number, part[-1][0])
        return moved

    async def ensure_known(self) -> None:
        """Tell the coordinator of a folder that was made without it.

        Raises:
            UnavailableError: It cannot be reached.
        """
        record = self._follower.record
        if record.pseudonym is not None:
            return
        links = await self._context.database.run(lambda db: folders.control_links(db, record.key))
        reply = await self._context.link.ask(m.CreateFolder(links[0]), m.FolderCreated)
        await self._context.database.run(lambda db: self._follower.put_record(db, pseudonym=reply.pseudonym))

    async def enrol(self) -> None:
        """Give this device its number in the folder, before its first entry; nothing where it has one.

        Several jobs may ask at once. A number is taken over once: doing so again would begin its sequence anew under
        entries that were signed meanwhile.

        Raises:
            UnavailableError: The coordinator cannot be reached.
            AccessDeniedError: This account may not write here.
        """
        async with self._enrolling:
            if not self._follower.record.number:
                await self._enrol()

    async def _enrol(self) -> None:
        for _ in range(ENROL_TRIES_MAX):
            control = self._follower.control
            if control is None:
                await self._follower.follow()
                continue
            number = control.number_of(self._context.device)
            if number is not None and not await self._is_used(number):
                await self._context.database.run(
                    lambda db, number=number: self._follower.put_record(  # type: ignore[misc]
                        db, number=number, own_seq=0, own_hash=EntryHash(bytes(32))
                    )
                )
                return
            account = self._context.accounts(self._context.account)
            link = make_control_link(
                control,
                account,
                self._context.secrets,
                [enrol_op(control, self._context.device)],
                now_ms=self._context.clock.now_ms(),
            )
            with contextlib.suppress(StaleError):
                await self._context.link.ask(m.AppendControlLink(self._follower.record.id, link), m.Ok)
            await self._follower.follow()
        raise UnavailableError("the folder's members change too fast to join")

    async def _is_used(self, number: int) -> bool:
        """Whether entries were registered under a number: then this is a new incarnation, with a number of its own."""
        own = await self._context.link.ask(m.GetOwnSeq(self._follower.record.id, number), m.OwnSeq)
        return own.seq > 0


def _seen(record: folders.FolderRecord, own: tuple[EntryHash, ...], foreign: tuple[EntryHash, ...]) -> Seen:
    """Return the newest history that the coordinator signed for this device, and what it has beyond that."""
    signed = record.checkpoint
    unordered = (*own[-SEEN_OWN_MAX:], *foreign)
    if signed is None:
        return Seen(record.generation, 0, CHAIN_START, unordered)
    known = signed.checkpoint
    return Seen(known.generation, known.position, known.chain, unordered, signed)


def _step_subject(step: Step) -> ItemId:
    for name in ("item", "expected", "base"):
        item = getattr(step, name, None)
        if isinstance(item, Item):
            return item.id
    return step.old  # type: ignore[union-attr]  # what is left is a Rekey


def _changed_by(step: Step, *, local: Tree, remote: Tree) -> Iterator[tuple[Tree, Item]]:
    """Yield what a step changes on the disk and what it brings there, each with the tree that tells where it is."""
    if isinstance(step, Replace | SetAttributes | Rename | Delete):
        yield local, step.expected
    if isinstance(step, Place | Replace | Rename):
        yield remote, step.item


def _acted_on(act: Act, *, local: Tree, synced: Tree) -> tuple[Tree, Item]:
    """Return what an act is about, with the tree that tells where it is."""
    if isinstance(act, Create):
        return local, act.item
    return synced, act.base


def _touched(acts: Iterable[Act]) -> Iterator[ItemId]:
    """Yield the items that acts are about."""
    for act in acts:
        if isinstance(act, Remove) and act.subtree:
            yield from (item.id for item in act.subtree)
        else:
            yield subject(act)


def stored_of(value: ContentValue, segments: Sequence[SegmentKey]) -> Stored:
    """Return where a content's rows lie."""
    return Stored(tuple((segments[span.segment], span.start, span.count) for span in value.spans))


def _contents(
    acts: Sequence[Act], stored: Mapping[ItemId, Stored]
) -> tuple[dict[ItemId, ContentValue], list[SegmentKey]]:
    """Return the content values of created and edited files, their spans counting one table of segments."""
    table: list[SegmentKey] = []
    places: dict[SegmentKey, int] = {}
    values: dict[ItemId, ContentValue] = {}
    for act in acts:
        if not isinstance(act, Create | Edit):
            continue
        content = act.item.content if isinstance(act, Create) else act.content
        spans = []
        for segment, start, count in stored.get(subject(act), Stored(())).spans:
            if segment not in places:
                places[segment] = len(table)
                table.append(segment)
            spans.append(RowSpan(places[segment], start, count))
        values[subject(act)] = ContentValue(
            kind=content.kind,
            body=None,
            hash=content.hash,
            size=content.size,
            mtime_ns=content.mtime_ns,
            executable=content.executable,
            target=content.target,
            chunker="",
            spans=tuple(spans),
        )
    return values, table


def _parts(tail: Sequence[tuple[int, bytes]]) -> Iterable[list[tuple[int, bytes]]]:
    part: list[tuple[int, bytes]] = []
    size = 0
    for seq, data in tail:
        if part and (len(part) == PUSH_ENTRIES_MAX or size + len(data) > PUSH_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append((seq, data))
        size += len(data)
    if part:
        yield part


def _refuse(code: str) -> None:
    if code == "full":
        raise UnavailableError("the coordinator takes no more entries of this device until some of them are ordered")
    text = f"the coordinator refuses an entry of this device ({code})"
    if code in ("access_denied", "revoked", "role"):
        raise AccessDeniedError(text)
    if code == "bad_signature":
        raise BadSignatureError(text)
    raise ProtocolError(text)
