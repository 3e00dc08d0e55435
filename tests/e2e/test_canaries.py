"""Servers see neither names nor contents (S13): what was planted on devices stands nowhere that servers can look.

Random tokens of 64 bytes are planted in names, contents, links and labels. Then every byte that the servers store, log and
receive is searched for them, in several encodings and through compression. That the search can fail is tested as well.
"""

from __future__ import annotations

import base64
import os
import random
import socket
import sqlite3
import string
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest
import zstandard
from websockets.sync.client import connect

from peer.commands.service import unit_text
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.ears import Ear, Wire
from tests.e2e.kit import (
    DEBUG,
    Tap,
    add_tapped_node,
    agents,
    ask,
    assert_no_tracebacks,
    free_port,
    logs_of,
    restart,
    run,
    run_command,
    settle,
    until,
)

TOKEN_BYTES: Final = 64
PIECE_BYTES: Final = 24
"""Any of three overlapping pieces gives a token away, so one that is cut in two is found."""
UNPACKED_BYTES_MAX: Final = 4 << 20


# --- The search


def forms(piece: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a piece may look like, each with the encoding's name."""
    yield "raw", piece
    yield "hex", piece.hex().encode()
    yield "hex", piece.hex().upper().encode()
    yield "reversed", piece[::-1]
    for skipped in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            # Characters at both ends depend on what stands beside the piece.
            yield f"{name} {skipped}", encode(bytes(skipped) + piece)[4 if skipped else 0 : -4]
    text = piece.decode("latin-1")
    yield "utf-16-le", text.encode("utf-16-le")
    yield "utf-16-be", text.encode("utf-16-be")
    if text.isascii():
        yield "base32", base64.b32encode(piece)[:-8]
    else:
        yield "utf-8", text.encode()


def pieces(token: bytes) -> tuple[bytes, ...]:
    return tuple(token[start : start + PIECE_BYTES] for start in (0, 20, TOKEN_BYTES - PIECE_BYTES))


def unpacked(data: bytes) -> Iterator[bytes]:
    """Yield the data, and whatever in it something decompresses."""
    yield data
    for magic in (b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b\x08"):
        at = data.find(magic)
        while at >= 0:
            part = data[at : at + UNPACKED_BYTES_MAX]
            try:
                if magic[0] == 0x28:
                    found = zstandard.ZstdDecompressor().decompressobj().decompress(part)
                else:
                    found = zlib.decompressobj(47).decompress(part, UNPACKED_BYTES_MAX)
            except (zstandard.ZstdError, zlib.error):
                found = b""
            if len(found) >= PIECE_BYTES:
                yield found
            at = data.find(magic, at + 1)


def hits(places: Iterable[tuple[str, bytes]], tokens: dict[str, bytes]) -> set[tuple[str, str, str]]:
    """Return (place, what was planted, encoding) for all that is found."""
    needles = {
        needle: (what, form)
        for what, token in tokens.items()
        for piece in pieces(token)
        for form, needle in forms(piece)
    }
    return {
        (place, *where)
        for place, data in places
        for part in unpacked(data)
        for needle, where in needles.items()
        if needle in part
    }


# --- Where to look


def stored(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below, and every value in every database, since a file may hold a value in pieces."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield str(path), os.fsencode(path.name) + b"\n" + data
        if data.startswith(b"SQLite format 3\0"):
            yield f"{path} values", b"\n".join(values(path))


def values(path: Path) -> Iterator[bytes]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)
    finally:
        database.close()


def received(name: str, tap: Tap) -> Iterator[tuple[str, bytes]]:
    """Yield what passed through a tap: as it was, and as a server reads it."""
    for up, data in tap.streams:
        way = f"{name} {'received' if up else 'answered'}"
        yield way, bytes(data)
        yield f"{way}, unmasked", b"".join(websocket_payloads(bytes(data)))
        yield f"{way}, joined", b"".join(http_bodies(bytes(data)))


def websocket_payloads(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of a WebSocket's frames, without their mask (RFC 6455, 5.2)."""
    at = data.find(b"\r\n\r\n") + 4
    while at + 2 <= len(data):
        masked, size = data[at + 1] & 0x80, data[at + 1] & 0x7F
        at += 2
        for marker, width in ((126, 2), (127, 8)):
            if size == marker:
                size, at = int.from_bytes(data[at : at + width], "big"), at + width
                break
        mask, at = (data[at : at + 4], at + 4) if masked else (bytes(4), at)
        body = data[at : at + size]
        at += size
        whole = (mask * (len(body) // 4 + 1))[: len(body)]
        yield (int.from_bytes(body, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(body), "big")


def http_bodies(data: bytes) -> Iterator[bytes]:
    """Yield headers and bodies of HTTP messages, chunked ones joined (RFC 9112, 7.1)."""
    at = 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        head = data[at:end]
        yield head
        at = end + 4
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            while (line := data.find(b"\r\n", at)) >= 0:
                try:
                    size = int(data[at:line].partition(b";")[0], 16)
                except ValueError:
                    return
                yield data[line + 2 : line + 2 + size]
                at = line + 2 + size + 2
                if not size:
                    break
            else:
                return
        elif b"content-length:" in lower:
            size = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
            yield data[at : at + size]
            at += size


# --- The world


class TappedCluster(Cluster):
    """Every server stands behind a tap, and logs all it can."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, nodes=0)
        self.coordinator._extra = DEBUG
        self.front = Tap()
        self.taps: dict[str, Tap] = {"coordinator": self.front}
        self.meters.append(self.front)

    def __enter__(self) -> Self:
        listen = f"127.0.0.1:{free_port()}"
        self.coordinator.args[self.coordinator.args.index("--listen") + 1] = listen
        self.front.stand_before(listen)
        super().__enter__()
        try:
            for number in (1, 2, 3):
                self.taps[f"node{number}"] = add_tapped_node(self)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def url(self) -> str:
        """Through the tap."""
        return f"ws://{self.front.address}"


class World(NamedTuple):
    cluster: TappedCluster
    tokens: dict[str, bytes]
    devices: tuple[Device, Device]

    def name(self, what: str) -> str:
        return self.tokens[what].decode()

    def places(self) -> Iterator[tuple[str, bytes]]:
        """All that servers store, log and receive."""
        root = self.cluster.root
        for directory in (root / "coordinator", *(root / f"node{number}" for number in (1, 2, 3))):
            assert directory.is_dir()
            yield from stored(directory)
        for log in (root / "coordinator.log", *(root / f"node{number}.log" for number in (1, 2, 3))):
            yield str(log), log.read_bytes()
        for name, tap in self.cluster.taps.items():
            yield from received(name, tap)


PLANTED_NAMES: Final = (
    *("file name", "later file name", "directory name", "later directory name", "name of an ignored file"),
    *("folder name", "first device name", "second device name", "link target", "name of a link", "name in a link"),
    *("name of an empty file", "name on the lan", "beside name", "beside snapshot"),
)
PLANTED_BYTES: Final = (
    *("small content", "later content", "large content", "packed content", "content of an ignored file"),
    *("one side of a conflict", "other side of a conflict", "rule", "removed content", "content on the lan"),
    "beside content",
)


def plant(chance: random.Random) -> dict[str, bytes]:
    letters = string.ascii_letters + string.digits
    tokens = {what: "".join(chance.choices(letters, k=TOKEN_BYTES)).encode() for what in (*PLANTED_NAMES, "rule")}
    return tokens | {what: chance.randbytes(TOKEN_BYTES) for what in PLANTED_BYTES if what != "rule"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    chance = random.Random(os.urandom(16))
    with TappedCluster(tmp_path_factory.mktemp("canaries") / "cluster") as cluster:
        tokens = plant(chance)
        a = cluster.first_device(tokens["first device name"].decode())
        a.add(cluster.root / "one", tokens["folder name"].decode())
        b = cluster.link_device(a, tokens["second device name"].decode())
        world = World(cluster, tokens, (a, b))
        work(world, cluster.root / "one", cluster.root / "two", chance)
        yield world
    assert_no_tracebacks(cluster)


def work(world: World, one: Path, two: Path, chance: random.Random) -> None:
    """Do on two devices what leaves traces: files of all kinds, edits, conflicts, removals, restarts of servers."""
    a, b = world.devices
    tokens, name = world.tokens, world.name
    inner = one / name("directory name")
    inner.mkdir()
    (inner / name("file name")).write_bytes(b"small: " + tokens["small content"])
    (one / "large").write_bytes(chance.randbytes(700_000) + tokens["large content"] + chance.randbytes(700_000))
    (one / "packed").write_bytes(
        b"".join(b"line %d of the text\n" % n + tokens["packed content"] for n in range(3_000))
    )
    (one / "removed").write_bytes(tokens["removed content"] * 100)
    (one / name("name of an empty file")).write_bytes(b"")
    (one / name("name of a link")).symlink_to(f"{name('link target')}/{name('name in a link')}")
    (one / ".kinignore").write_text(f"{name('name of an ignored file')}\n/{name('rule')}\n")
    (one / name("name of an ignored file")).write_bytes(tokens["content of an ignored file"])
    a.sync()
    b.get(name("folder name"), two)
    b.sync()
    (one / "both").write_bytes(b"1" * 5_000 + tokens["one side of a conflict"])
    (two / "both").write_bytes(b"2" * 5_000 + tokens["other side of a conflict"])
    for device in (a, b, a):
        device.sync()
    with agents(world.cluster.root, a, b):
        (two / name("directory name") / name("file name")).rename(two / name("later file name"))
        (two / name("directory name")).rename(two / name("later directory name"))
        (two / "large").write_bytes(tokens["later content"] + (two / "large").read_bytes()[1_000:])
        (two / "removed").unlink()
        settle(b, a)
        world.cluster.coordinator.kill()
        world.cluster.nodes[0].kill()
        (one / name("later file name")).write_bytes(tokens["later content"] * 3)
        restart(world.cluster.coordinator)
        restart(world.cluster.nodes[0])
        settle(a, b)
        for method in ("folders", "conflicts", "devices"):
            for device in (a, b):
                ask(device, method)
    kept = {path: data for path, data in tree_of(one) if path != name("name of an ignored file")}
    assert kept == dict(tree_of(two))
    assert len(kept) == 9, sorted(kept)


# --- The tests


def test_nothing_that_servers_store_log_or_receive_holds_what_was_planted(world: World) -> None:
    places = list(world.places())
    sizes = {place: len(data) for place, data in places}
    assert sizes["coordinator received, unmasked"] > 0
    for number in (1, 2, 3):
        in_packs = sum(size for place, size in sizes.items() if f"/node{number}/" in place)
        assert in_packs > 1_400_000 or number == 1, "node 1 was away for a while"
    assert not hits(places, world.tokens)


def test_the_same_search_finds_it_all_on_the_devices(world: World) -> None:
    """What the servers do not have stands on the devices: the search looks for the right bytes."""
    root = world.cluster.root
    found = hits((place for home in ("one", "two") for place in stored(root / home)), world.tokens)
    names = b"\n".join(os.fsencode(path) for path, _ in tree_of(root / "one"))
    links = b"\n".join(data for _, data in tree_of(root / "one") if data.startswith(b"<link>"))
    labels = (place for device in world.devices for place in stored(device.home))
    found |= hits([("names", names), ("links", links), *labels], world.tokens)
    missing = world.tokens.keys() - {what for _, what, _ in found}
    gone = {"file name", "directory name", "removed content", "one side of a conflict"}
    later = {"name on the lan", "content on the lan", "beside name", "beside content", "beside snapshot"}
    assert missing <= gone | later, missing  # these are planted below


def test_nothing_that_is_written_beside_the_folder_holds_what_was_planted(world: World, tmp_path: Path) -> None:
    """A device's logs, its spool, what it says of its state, its service: after snapshot, restore and exclusion as well."""
    a, _ = world.devices
    one, two = (world.cluster.root / name for name in ("one", "two"))
    name, data, snapshot = (world.tokens[what] for what in ("beside name", "beside content", "beside snapshot"))
    path, folder = one / name.decode(), world.name("folder name")
    path.write_bytes(data * 40)
    a.sync()
    with agents(world.cluster.root, *world.devices):
        settle(*world.devices)
        for node in world.cluster.nodes:
            node.kill()
        path.write_bytes(data * 50)
        until(lambda: any((a.home / "spool").glob("*.spool")), "it is spooled")
        ask(a, "snapshot", folder=folder, name=snapshot.decode())
        spooled = [(each.name, each.name.encode() + each.read_bytes()) for each in (a.home / "spool").iterdir()]
        for node in world.cluster.nodes:
            restart(node)
        settle(*world.devices)
        to = tmp_path / "old"
        first = ask(a, "history", path=str(path))["versions"][-1]["id"]
        nothing = {"at_ms": None, "ago_ms": None, "snapshot": None}
        ask(a, "restore", path=str(path), version=first, to=str(to), **nothing)
        assert to.read_bytes() == data * 40
        ask(a, "exclude", path=str(path), remove=False, free=True)
        ask(a, "exclude", path=str(path), remove=True, free=False)
        settle(*world.devices)
        assert (two / path.name).read_bytes() == data * 50
        doctor = run(a, "doctor")
        assert doctor.code in {0, 1, 4}
    unit = unit_text(a.home)
    logs = [(str(log), log.read_bytes()) for log in logs_of(world.cluster)]
    assert spooled
    assert len(logs) > 6
    shown = {what: token for what, token in world.tokens.items() if what not in {"folder name", "first device name"}}
    assert not hits([*spooled, ("doctor", doctor.text.encode()), ("service", unit.encode())], shown)
    assert not hits(logs, shown)
    assert hits([("control", path.name.encode() + path.read_bytes())], world.tokens)


def test_nothing_that_passes_on_a_lan_holds_what_was_planted(world: World) -> None:
    """What is announced by multicast, and every packet between two devices; that it is read at all is tested beside it."""
    a, b = world.devices
    one, two = world.cluster.root / "one", world.cluster.root / "two"
    control = os.urandom(TOKEN_BYTES)
    try:
        wire = Wire()
    except PermissionError:
        pytest.skip("only root can read what passes on the wire")
    with wire, Ear() as ear, agents(world.cluster.root, a, b):
        until(lambda: ask(a)["lan"]["peers"] == ask(b)["lan"]["peers"] == 1, "they find each other")
        name, data = world.name("name on the lan"), world.tokens["content on the lan"]
        (one / name).write_bytes(b"line of text\n" * 3_000 + data * 3)
        settle(a, b)
        assert (two / name).read_bytes() == (one / name).read_bytes()
        ports = [ask(device, "lan", switch=None)["port"] for device in (a, b)]
        assert ask(b, "lan", switch=None)["received_bytes"] > 0
        assert all(ear.announced(port)[1] for port in ports)
        with socket.create_server(("127.0.0.1", 0)) as server:
            clear = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", clear)) as client:
                client.sendall(b"in clear: " + control)
                until(lambda: control in wire.payloads(clear), "what is sent in clear is read")
    seen = wire.payloads(*ports)
    assert len(seen) > len(data)
    assert not hits([("announced", b"\n".join(ear.heard)), ("passed", seen)], world.tokens)
    assert hits([("clear", wire.payloads(clear))], {"control": control})
    assert not hits(world.places(), world.tokens)


def test_a_canary_in_clear_is_found_on_its_way_to_the_coordinator(world: World) -> None:
    """The control: the same tap, the same search, and the masks of WebSocket frames taken off."""
    token = os.urandom(TOKEN_BYTES)
    with connect(world.cluster.url, compression=None, proxy=None) as socket:
        socket.recv()
        socket.send(b"in clear: " + token)
    found = hits(received("coordinator", world.cluster.front), {"control": token})
    assert {(place, form) for place, _, form in found} == {("coordinator received, unmasked", "raw")}


def test_a_canary_in_clear_is_found_on_its_way_to_a_node(world: World) -> None:
    """The control for HTTP: also where a chunk's end cuts the token in two."""
    import http.client

    token = os.urandom(TOKEN_BYTES)
    tap = world.cluster.taps["node2"]
    client = http.client.HTTPConnection(tap.address)
    client.request("POST", "/v1/put", body=iter([b"x" * 10 + token[:30], token[30:] + b"y"]), encode_chunked=True)
    assert client.getresponse().status >= 400
    client.close()
    found = hits(received("node2", tap), {"control": token})
    assert ("node2 received, joined", "control", "raw") in found


def test_a_canary_in_clear_is_found_where_servers_store_and_log(world: World, tmp_path: Path) -> None:
    tokens = {what: os.urandom(TOKEN_BYTES) for what in ("pack", "row", "log", "name")}
    (tmp_path / tokens["name"].hex()).write_bytes(zstandard.compress(b"chunk " + tokens["pack"] * 3))
    database = sqlite3.connect(tmp_path / "database")
    database.execute("CREATE TABLE entry (data BLOB)")
    database.execute("INSERT INTO entry VALUES (?)", (os.urandom(4_000) + tokens["row"] + os.urandom(9_000),))
    database.commit()
    database.close()
    (tmp_path / "server.log").write_text(f"stored {base64.b64encode(b'x' + tokens['log']).decode()}")
    assert {what for _, what, _ in hits(stored(tmp_path), tokens)} == set(tokens)


@pytest.mark.parametrize("form", sorted({name for name, _ in [*forms(b"a" * 24), *forms(b"\xff" * 24)]}))
def test_each_encoding_is_found(form: str) -> None:
    letters = random.Random(5).choices(string.ascii_letters, k=TOKEN_BYTES)
    for token in ("".join(letters).encode(), os.urandom(TOKEN_BYTES)):
        whole = dict(forms(token)).get(form)
        if whole is not None:
            hidden = os.urandom(1_000) + whole + os.urandom(1_000)
            assert hits([("", hidden)], {"token": token})
            assert hits([("", os.urandom(500) + zstandard.compress(hidden))], {"token": token})


def test_servers_tell_nothing_of_folders_on_their_command_lines(world: World) -> None:
    for args in (("nodes",), ("nodes", "--json"), ("copies", "3", "2")):
        kind, *rest = args
        data = str(world.cluster.root / "coordinator")
        module = [world.cluster.coordinator.args[0], "-P", "-m", "coordinator.cli", kind, "--data", data, *rest]
        result = run_command(module)
        assert result.code == 0, result
        assert not hits([("", result.text.encode())], world.tokens)
