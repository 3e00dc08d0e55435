"""What changes a folder's disk for another part of the device, such as bringing an older state back."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from peer.engine.downloader import Downloader
from peer.engine.recorder import Recorder
from peer.engine.stepper import Stepper


class Hands(NamedTuple):
    """What another part of the device may change a folder's disk with, as its user would."""

    disk: asyncio.Lock
    """To be held meanwhile."""
    recorder: Recorder
    stepper: Stepper
    downloader: Downloader
