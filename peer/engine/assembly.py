"""Put one folder's engine together from its parts."""

from __future__ import annotations

import os

from peer.disk.roots import RootGuard
from peer.engine.context import Context
from peer.engine.downloader import Downloader
from peer.engine.exclusions import Exclusions
from peer.engine.folder import FolderEngine
from peer.engine.follower import Follower
from peer.engine.freeing import Freer
from peer.engine.holdings import Holdings
from peer.engine.journal import StoredJournal
from peer.engine.nearby import Nearby
from peer.engine.observer import Observer
from peer.engine.previewer import Previewer
from peer.engine.recorder import Recorder
from peer.engine.reverter import Reverter
from peer.engine.room import Room
from peer.engine.safety import Safety
from peer.engine.spool import Spool
from peer.engine.stepper import Stepper
from peer.engine.uploader import Uploader
from peer.store.folders import FolderRecord


async def assemble(context: Context, record: FolderRecord) -> FolderEngine:
    """Return the engine of a folder, its state loaded, nothing started."""
    follower = Follower(context, record)
    await follower.load()
    guard = RootGuard(context.files, os.fsdecode(record.path), record.id, context.device.hex())
    journal = StoredJournal(context.database, record.key)
    observer = Observer(context, record.key, guard, journal)
    exclusions = Exclusions(context, follower, observer, guard)
    await exclusions.load()
    recorder = Recorder(context, follower, observer.is_ignored, lambda: observer.apart, observer.brake)
    stepper = Stepper(context, record.key, guard, follower.remote)
    spool = Spool(context, lambda: follower.record)
    nearby = Nearby(Holdings(context, record.key, guard, spool), lambda: context.lan, record.id)
    downloader = Downloader(context, lambda: follower.record, guard, nearby)
    reverter, previewer = Reverter(context, follower), Previewer(context, follower, recorder)
    return FolderEngine(
        context,
        follower,
        observer,
        recorder,
        stepper,
        exclusions,
        Freer(context, follower, observer, stepper, exclusions),
        Uploader(context, lambda: follower.record, guard, spool),
        downloader,
        Safety(context, observer, stepper, downloader, reverter, previewer),
        nearby.holdings,
        Room(context.processor, guard),
    )
