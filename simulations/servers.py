"""The machines of those who run servers: the coordinator and the storage nodes, real but for their doors.

Rule 1: what a server keeps outside its database and its disk (keys, an identity) is durable at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from coordinator.keys import ServerKeys, new_keys
from coordinator.server import Server
from coordinator.service import Coordinator
from simulations.databases import SimCoordinatorDatabase, SimIndexFile
from simulations.delays import AT_ONCE_SHARE
from simulations.disk_door import SimFiles
from simulations.disk_images import Image, put_back, take_image
from simulations.doors import SimClock, SimProcessor
from simulations.hosts import Host
from simulations.machines import Machine, Surroundings
from simulations.network import NO_TLS, SimAcceptor, SimDialer
from simulations.nodes import SimListener, SimNodes
from simulations.user_files import UserFiles
from storage_node.config import Settings, make_settings
from storage_node.identity import Identity
from storage_node.service import Doors, StorageNode

COORDINATOR: Final = "coordinator"
URL: Final = "ws://127.0.0.1:1"
DATA: Final = "/data"
LOOK_S: Final = 60.0
"""Between looks for changes of other commands: nobody changes a simulated coordinator's database behind its back."""
TOKEN: Final = "letanodein"  # noqa: S105 - of simulated nodes alone
_PRIVATE: Final = 0o600


class CoordinatorImage(NamedTuple):
    """All that a coordinator keeps."""

    keys: ServerKeys
    database: bytes


class CoordinatorMachine(Machine):
    """The coordinator's machine.

    Args:
        around: The world.
        image: What it keeps; None: it is new.
    """

    def __init__(self, around: Surroundings, image: CoordinatorImage | None) -> None:
        super().__init__(around, COORDINATOR)
        self._keys = new_keys(self.entropy) if image is None else image.keys
        self._kept = None if image is None else image.database
        self._database: SimCoordinatorDatabase | None = None
        self.service: Coordinator
        self.files = SimFiles(self.make_disk(), life=self.host)

    async def _start(self) -> None:
        self._database = SimCoordinatorDatabase(self.loop, self.host, self._kept)
        self.service = Coordinator(
            database=self._database,
            keys=self._keys,
            clock=SimClock(self.loop, self.host),
            entropy=self.entropy,
            open_registration=True,
            look_s=LOOK_S,
        )
        self._server = Server(self.service, SimAcceptor(self.network, self.host, URL), certificates=[NO_TLS])
        await self.service.start()
        await self._server.start()

    async def _stop(self) -> None:
        await self._server.stop()
        await self.service.stop()

    def _forget(self) -> None:
        self._kept = self.kept_database
        self._database = None

    def _lose_power(self) -> None:
        """Lose nothing: a commit is durable."""

    @property
    def kept_database(self) -> bytes:
        """What its database holds, as of the last commit."""
        database = self._kept if self._database is None else self._database.image()
        assert database is not None
        return database

    def backup(self) -> CoordinatorImage:
        """Return what it would keep if it crashed now."""
        return CoordinatorImage(self._keys, self.kept_database)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what its database holds."""
        assert self._database is not None
        return self._database.rows(query)

    def restore(self, image: CoordinatorImage) -> None:
        """Go back to a backup; it must not run."""
        assert not self.is_running
        self.loop.note("restore", self.name)
        self._keys, self._kept = image


class _KeptIdentity:
    """Where a node keeps who it is: a :class:`storage_node.identity.IdentityStore`."""

    def __init__(self, machine: NodeMachine, host: Host) -> None:
        self._machine = machine
        self._host = host

    def load(self) -> Identity | None:
        """Return it."""
        return self._machine.identity

    def save(self, identity: Identity, /) -> None:
        """Keep it."""
        self._host.effect()
        self._machine.identity = identity


class NodeImage(NamedTuple):
    """All that a storage node keeps."""

    identity: Identity
    packs: Image
    chunk_index: bytes


class NodeMachine(Machine):
    """A storage node's machine.

    Args:
        around: The world.
        number: Of the node, from 0.
        image: What it keeps; None: it is new, and is let in by :data:`TOKEN`.
    """

    def __init__(self, around: Surroundings, number: int, image: NodeImage | None) -> None:
        super().__init__(around, f"node-{number}")
        self.url = f"http://127.0.0.1:{number + 1}"
        self.disk = self.make_disk()
        self.files = SimFiles(self.disk, life=self.host)
        self.identity: Identity | None = None
        self.may_lack = False
        """Whether it may lack something that it gave a receipt for, since its disk was lost, failed or rots."""
        self._index = SimIndexFile()
        self.service: StorageNode
        if image is None:
            UserFiles(self.disk).make_directories(DATA)
            self.disk.sync_all()
        else:
            self.restore(image)

    async def _start(self) -> None:
        loop, host = self.loop, self.host
        self.files = SimFiles(self.disk, new_file=_PRIVATE, life=host)
        doors = Doors(
            clock=SimClock(loop, host),
            entropy=self.entropy,
            processor=SimProcessor(loop, host, waits=False, at_once=AT_ONCE_SHARE),
            disk=self.files,
            open_database=self._index.open,
            identity=_KeptIdentity(self, host),
            dialer=SimDialer(self.network, host),
            nodes=SimNodes(self.network, host),
            listener=SimListener(self.network, host, self.url),
        )
        self.service = StorageNode(_settings(), doors)
        await self.service.start()

    async def _stop(self) -> None:
        await self.service.stop()

    def _forget(self) -> None:
        self._index = SimIndexFile(self._index.after_kill())

    def _lose_power(self) -> None:
        self._index = SimIndexFile(self._index.after_power_cut(self._power))

    def image(self) -> NodeImage:
        """Return all that it keeps; it must not run."""
        assert not self.is_running
        assert self.identity is not None
        return NodeImage(self.identity, take_image(self.disk), self._index.after_kill())

    def restore(self, image: NodeImage) -> None:
        """Go back to an image; it must not run."""
        assert not self.is_running
        self.identity = image.identity
        put_back(self.disk, image.packs)
        self._index = SimIndexFile(image.chunk_index)

    def forget_index(self) -> None:
        """Lose the index of its packs, which it then makes anew; it must not run."""
        assert not self.is_running
        self._index = SimIndexFile()

    def wipe(self) -> None:
        """Lose all chunks, as with a new disk: the node is who it was, and has nothing; it must not run."""
        assert not self.is_running
        self.loop.note("wipe", self.name)
        self.may_lack = True
        UserFiles(self.disk, uid=0).remove_tree(f"{DATA}/packs")
        self.disk.sync_all()
        self._index = SimIndexFile()


def _settings() -> Settings:
    return make_settings(
        data=Path(DATA),
        listen="127.0.0.1:0",
        coordinator=URL,
        invite=TOKEN,
        advertise=None,
        zone=None,
        limit=None,
        backend=None,
    )
