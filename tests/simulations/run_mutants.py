"""Broken products, one function each, that `kin-sim run` must catch."""

from __future__ import annotations

from typing import Final

from coordinator.core.ordering import Ordering
from coordinator.repair import Repair
from peer.core import (
    act_writer,
    brake,
    chunk_sealing,
    conflicts,
    directories,
    judgement,
    planner,
    registers,
    steps,
)
from peer.device import Device
from peer.disk import groups, naming, recovery, roots, stages, swaps
from peer.engine import journal, past, waiting
from peer.engine.folder import FolderEngine
from peer.engine.follower import Follower
from peer.engine.recorder import Recorder
from protocol import history
from storage_node.chunks.pack_files import PackFiles
from tests.simulations.mutation import Mutant

RUN: Final = (
    Mutant(
        "where both sides changed, the folder's change is taken",
        planner._View.decision,
        "is Side.SAME else Decision.ACT",
        "is Side.SAME else Decision.STEP",
        (1, 6, 16, 22),
    ),
    Mutant(
        "an edit replaces all that this device has received",
        act_writer.ActWriter._edit,
        "base.id, member.node, member.content,",
        "base.id, member.node, getattr(self.state.nodes.get(member.node), 'contents', member.content),",
        (1, 6, 16),
    ),
    Mutant(
        "attributes of equal bytes are left as they are",
        steps.fill_step,
        "source.content.same(target.content)",
        "source.content.same_bytes(target.content)",
        (2, 20, 22),
    ),
    Mutant(
        "no removal takes anything",
        judgement._Court.is_removed,
        "return any(",
        "return False and any(",
        (3, 22),
    ),
    Mutant(
        "every removal counts as beaten",
        registers._note_removal,
        "if node.free:\n        _turn",
        "if True:\n        _turn",
        (3, 22),
    ),
    Mutant(
        "conflict copies have a name of another kind",
        conflicts.conflict_name,
        'f"{stem} (conflict, {label}, {digits}){extension}"',
        'f"{stem} (copy, {label}, {digits}){extension}"',
        (4,),
    ),
    Mutant(
        "an edit replaces nothing",
        act_writer.ActWriter.write_value,
        "named = tuple(sorted(base))",
        "named = ()",
        (3, 5, 22),
    ),
    Mutant(
        "the trash takes a file without a look at it",
        swaps.is_expected,
        "kind = kind_of(found.mode)",
        "return True",
        (6, 1, 3, 4, 16),
    ),
    Mutant(
        "a file is written under its name",
        swaps.Swaps.replace,
        "if self.can_exchange:",
        "fs.truncate(fs.open_file(parent, name, Access.WRITE), 1)\n    if self.can_exchange:",
        (7, 6),
        is_quick=True,
    ),
    Mutant(
        "what is received has no name until it is whole: not so",
        stages.Stage.finish,
        "if self._hash is not None and self._hash != content.hash:",
        "self._fs.truncate(self._handle, self.size // 2)\n        if False:",
        (7,),
    ),
    Mutant("names are compared byte by byte", conflicts.name_key, "if name.isascii():", "if True:", (8, 22)),
    Mutant(
        "received bytes need not be durable",
        groups.flush_stages,
        "if not stages:",
        "if True:",
        (1, 4, 6, 7, 16),
    ),
    Mutant(
        "names need not be durable",
        groups.flush_names,
        "if not directories:",
        "if True:",
        (1, 3, 6, 16, 20),
    ),
    Mutant(
        "a disk that shows names in another Unicode form takes some of them only",
        naming.Spelling.check,
        "if not name.isascii():",
        'if self.respells and "b" in name:\n        raise DiskError("name", _CANNOT_HOLD)\n    if not name.isascii():',
        (2,),
        first=21,
    ),
    Mutant("outcomes leave their intents", journal.drop_intents, "db.executemany(", "0 and db.executemany(", (20,)),
    Mutant(
        "a device takes a new number at every start",
        Recorder.enrol,
        "if not self._follower.record.number:",
        "if True:",
        (10, 0, 20, 21, 22),
    ),
    Mutant(
        "what failed once is not tried again",
        FolderEngine._unblock,
        "return any(",
        "return False and any(",
        (22, 0),
    ),
    Mutant(
        "what is taken away lies beside the folder",
        swaps.Swaps.delete,
        'self.root.hidden("trash")',
        "self.fs.open_root('/home')",
        (27,),
    ),
    Mutant(
        "pauses depend on the machine",
        waiting.longer,
        "now_s + pause",
        "now_s + pause + __import__('time').perf_counter() % 0.1",
        (28,),
    ),
    Mutant(
        "chunks are stored in clear",
        chunk_sealing._seal,
        "return SealedChunk(row, data)",
        "return SealedChunk(row, bytearray(raw))",
        (15,),
        is_quick=True,
    ),
    Mutant(
        "an entry does not wait for what it needs",
        Ordering._try,
        "if ledger.is_waiting(record.hash):",
        "if False:",
        (11, 10, 17, 20, 22),
    ),
    Mutant(
        "the chain of the log leaves out when an item came",
        history.next_chain,
        ' + time_ms.to_bytes(8, "big")',
        "",
        (10,),
        is_quick=True,
    ),
    Mutant(
        "who is shown two histories goes on",
        Follower._freeze,
        "await self._context.database.run(lambda db: self.put_record(db, frozen=str(error)))",
        "pass",
        (12,),
        first=9,
    ),
    Mutant(
        "a device follows a coordinator that was set back",
        Follower._take,
        "await self._give_back(checkpoint)",
        "await self._context.database.run("
        "lambda db: self.put_record(db, position=checkpoint.position, chain=checkpoint.chain, checkpoint=signed))",
        (13, 10, 12),
        first=5,
    ),
    Mutant(
        "a storage node does not sync what it wrote",
        PackFiles.sync,
        "self._disk.sync(self._writable)",
        "pass",
        (16,),
    ),
    Mutant(
        "an entry is ordered before its contents are stored",
        Ordering._await,
        "absent = set(pins) - ledger.durable(pins)",
        "absent = set()",
        (17,),
    ),
    Mutant(
        "copies that were lost are not made again",
        Repair._repair,
        "orders = self._orders(locations)",
        "orders = {}",
        (17,),
    ),
    Mutant(
        "the trash is never emptied",
        recovery.empty_trash,
        "rows = journal.checked(before_ms, limit, skip)",
        "rows = []",
        (19,),
    ),
    Mutant(
        "files that were begun and are not wanted stay",
        stages.clean_stages,
        "or is_wanted(name)",
        "or True",
        (19,),
    ),
    Mutant(
        "an entry that is in the log stays among those to be sent",
        Follower._record,
        "folders.drop_tail(db, key, each.hash)",
        "pass",
        (19, 20, 22),
    ),
    Mutant(
        "no directory is recognised elsewhere",
        directories.Directories._moved_here,
        "return item.id",
        "continue",
        (23,),
        first=25,
    ),
    Mutant(
        "a snapshot is restored as of two entries before it",
        past._fold_items,
        "item.position <= moment.position",
        "item.position < moment.position - 1",
        (24,),
    ),
    Mutant(
        "a root that was opened stays open",
        roots.Root.close,
        "self.fs.close(self.handle)",
        "pass",
        (25,),
        is_quick=True,
    ),
    Mutant(
        "whatever is found missing was removed by somebody",
        brake.waiting_removals,
        "if not files or not (held or is_mass(files, of)):",
        "if True:",
        (26,),
        first=7,
    ),
    Mutant(
        "whatever is found rewritten was written by somebody",
        brake.waiting_rewrites,
        "if is_mass(len(unseen), of)",
        "if False",
        (26,),
        first=7,
    ),
    Mutant(
        "a scan takes what is not newer for unchanged",
        directories.Directories._compare,
        "found[1] != sighting.fingerprint",
        "found[1].mtime_ns < sighting.fingerprint.mtime_ns",
        (22, 1, 2, 20),
    ),
    Mutant(
        "a device says too early that all is in sync",
        Device._left,
        '"in_sync": not remains and code == 0',
        '"in_sync": True',
        (2, 16, 20, 22),
    ),
    Mutant(
        "whatever is written replaces all that this device has received",
        act_writer.ActWriter.write_value,
        "named = tuple(sorted(base))",
        "named = tuple(sorted({*base, *getattr(self.state.nodes.get(node), 'contents', ())}))"
        " if register is Register.CONTENT else tuple(sorted(base))",
        (16, 1, 6),
        first=237,
    ),
)
