"""A real coordinator on loopback, on a data directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from coordinator.config import make_config
from coordinator.directory import DataDirectory
from coordinator.doors import SystemClock, system_entropy
from coordinator.server import Server, serving
from tests.coordinator.client import close_all


class World:
    """A data directory, the server on it, and tokens that let many in."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory = DataDirectory(path, SystemClock(), system_entropy)
        self.user_token = self.directory.invite(uses=1000)
        self.node_token = self.directory.invite(purpose="storage", uses=1000)

    def operator_token(self, operator: str) -> str:
        return self.directory.invite(purpose="storage", operator=operator)

    @contextlib.asynccontextmanager
    async def running(self, *, replicas=3, quorum=2, clock=None, **settings) -> AsyncIterator[Server]:
        config = make_config(data=self.path, listen="127.0.0.1:0", replicas=replicas, quorum=quorum, **settings)
        async with asyncio.timeout(60), serving(config, clock=clock) as server:
            yield server


@pytest.fixture
def world(tmp_path) -> World:
    return World(str(tmp_path / "data"))


def run(main) -> None:
    """Run an asynchronous test."""

    async def closing() -> None:
        try:
            await main()
        finally:
            await close_all()

    asyncio.run(closing())
