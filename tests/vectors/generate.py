"""Write the byte vectors: one JSON file for each family of formats, from repeatable chance.

Run ``python -m tests.vectors.generate`` after a format was changed on purpose, and read the difference: what is stored
must stay readable, so an existing vector may only change together with a version. ``test_vectors.py`` compares these
files with what the code makes today, and has a second decoder, which shares no code with it, read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from peer.core import links
from peer.core.chunk_sealing import CODEC_ZSTD, seal_chunk
from peer.core.chunking import FastCdcChunker, FixedChunker, cut_buffer
from peer.core.entry_sealing import seal_entry
from peer.core.hpke import EphemeralHpke
from peer.core.keys import AccountRoot, DeviceSecrets, FolderKeys, discovery_tag
from peer.core.membership import open_epochs
from peer.core.sealing import derive_key, seal
from peer.core.segments import seal_segment
from protocol import grants, history, messages, signing
from protocol.chains import Role
from protocol.chunks import padded_frame_bytes, padme
from protocol.entries import (
    Batch,
    Change,
    ContentValue,
    Header,
    Kind,
    Payload,
    PlaceValue,
    Register,
    RemovalValue,
    RowSpan,
    Seen,
    parse_entry,
)
from protocol.ids import (
    ROOT,
    ChunkId,
    DeviceId,
    Dot,
    EntryHash,
    FolderId,
    LinkHash,
    NodeId,
    Pseudonym,
    copy_id,
    device_id,
    storage_node_id,
)
from tests.peer.core.key_world import NOW_MS, RealAccount, RealFolder, Stream

HERE = Path(__file__).parent


def fixed(name: str, length: int = 32) -> bytes:
    """Return bytes that differ for each name."""
    return blake3(f"kinfolder vectors: {name}".encode()).digest(length)


def noise(length: int) -> bytes:
    """Return the content that several vectors cut or seal: BLAKE3 of nothing, as long as needed."""
    return blake3(b"").digest(length)


def ids_and_keys() -> dict[str, Any]:
    root = AccountRoot(fixed("root"))
    node, dot = NodeId(fixed("node", 16)), Dot(513, 70_000, 999)
    return {
        "derive_key": [
            {"purpose": purpose, "material": material.hex(), "key": derive_key(purpose, material, length).hex()}
            for purpose, material, length in (
                ("chunk", fixed("a"), 64),
                ("segment", fixed("a"), 64),
                ("epoch-entry", fixed("b"), 32),
                ("epoch-commit", b"", 32),
            )
        ],
        "device_id": [{"sign": fixed(n).hex(), "id": device_id(fixed(n)).hex()} for n in ("one", "two")],
        "storage_node_id": [{"sign": fixed("one").hex(), "id": storage_node_id(fixed("one")).hex()}],
        "copy_id": [{"node": node.hex(), "dot": list(dot), "id": copy_id(node, dot).hex()}],
        "root": [
            {
                "seed": root.seed.hex(),
                "words": root.words(),
                "sign_public": root.sign_public.hex(),
                "box_public": root.box_public.hex(),
            }
        ],
        "discovery_tag": [
            {
                "key": fixed("disc").hex(),
                "day": 20_000,
                "port": 47_470,
                "tag": discovery_tag(fixed("disc"), 20_000, 47_470).hex(),
            }
        ],
        "padme": [
            [n, padme(n), padded_frame_bytes(n)]
            for n in (0, 1, 2, 9, 100, 255, 257, 4095, 4097, 65_537, 1_048_585, 4_194_313)
        ],
        "signature": [
            {
                "kind": "entry",
                "data": b"data".hex(),
                "public": signing.public_key(fixed("seed")).hex(),
                "signature": signing.sign("entry", b"data", fixed("seed")).hex(),
            }
        ],
    }


def seals() -> dict[str, Any]:
    cases = []
    for number, (size, floor) in enumerate(((0, 256), (5, 256), (252, 256), (253, 256), (1000, 256), (5, 512))):
        text = noise(size)
        sealed = seal("vector", fixed("key"), b"aad", text, Stream(f"seal {number}"), floor=floor)
        cases.append({"floor": floor, "text": text.hex(), "sealed": sealed.hex()})
    return {"purpose": "vector", "key": fixed("key").hex(), "aad": b"aad".hex(), "cases": cases}


def chunks() -> dict[str, Any]:
    text = b"".join(b"line %d of a text\n" % number for number in range(400))
    base = noise(6_000)
    full = seal_chunk(base, fixed("chunk"))
    made = [
        ("one byte", b"x", seal_chunk(b"x", fixed("chunk"))),
        ("noise", base, full),
        ("text", text, seal_chunk(text, fixed("chunk"))),
        ("patch", base + b"!", seal_chunk(base + b"!", fixed("chunk"), base=(full.row, base))),
    ]
    return {
        "chunk_key": fixed("chunk").hex(),
        "codec": CODEC_ZSTD,
        "cases": [
            {
                "name": name,
                "raw": raw.hex(),
                "base": base.hex() if sealed.row.base else "",
                "row": msgspec.msgpack.encode(sealed.row).hex(),
                "sealed": sealed.data.hex(),
            }
            for name, raw, sealed in made
        ],
    }


def segments() -> dict[str, Any]:
    row = seal_chunk(b"x", fixed("chunk")).row
    rows = [msgspec.structs.replace(row, id=ChunkId(fixed(f"row {number}"))) for number in range(50)]
    rows.append(msgspec.structs.replace(row, id=ChunkId(fixed("patch")), codec=10_507, level=1, base=row))
    made = seal_segment(rows, fixed("chunk"))
    return {
        "key": {"id": made.key.id.hex(), "opener": made.key.opener.hex(), "rows": made.key.rows},
        "rows": [msgspec.msgpack.encode(one).hex() for one in rows],
        "sealed": made.data.hex(),
    }


def entries() -> dict[str, Any]:
    node, segment = NodeId(fixed("node", 16)), seal_segment([seal_chunk(b"hello", fixed("chunk")).row], fixed("chunk"))
    header = Header(
        version=1,
        folder=FolderId(fixed("folder")),
        epoch=2,
        control_head=LinkHash(fixed("head")),
        device=3,
        seq=41,
        previous=EntryHash(fixed("previous")),
        needs=(EntryHash(fixed("need")),),
        expect=(),
        replaces=(),
        batch=Batch(fixed("batch", 16), 0, 2),
        changes=(
            Change(node, Register.PLACE, (), ((3, 41),)),
            Change(node, Register.CONTENT, (Dot(1, 7, 0),), ((1, 7), (3, 41))),
            Change(NodeId(fixed("gone", 16)), Register.PLACE, (Dot(2, 1, 0),), ((2, 1), (3, 41))),
        ),
        pins=(segment.key.id,),
        source=None,
        payload_hash=b"",
    )
    content = ContentValue(
        kind=Kind.FILE,
        body=None,
        hash=blake3(b"hello").digest(),
        size=5,
        mtime_ns=1_700_000_000_123_456_789,
        executable=True,
        target=b"",
        chunker="fixed-1MiB/1",
        spans=(RowSpan(0, 0, 1),),
    )
    payload = Payload(
        seen=Seen(0, 12, fixed("chain"), (EntryHash(fixed("unordered")),)),
        account_heads=((fixed("account"), 4, LinkHash(fixed("account head"))),),
        label="Anna's Löptop",
        time_ms=NOW_MS,
        snapshot="",
        segments=(segment.key,),
        values=(
            PlaceValue(ROOT, "Grüße.txt".encode(), weak=False),
            content,
            RemovalValue((Dot(2, 2, 0),), ROOT, b"old.txt", fixed("removal", 16)),
        ),
    )
    data = seal_entry(header, payload, fixed("entry key"), fixed("seed"), Stream("entry"))
    return {
        "codec": CODEC_ZSTD,
        "entry_key": fixed("entry key").hex(),
        "sign_public": signing.public_key(fixed("seed")).hex(),
        "hash": parse_entry(data).hash.hex(),
        "payload": msgspec.msgpack.encode(payload).hex(),
        "entry": data.hex(),
    }


def chains() -> dict[str, Any]:
    anna, ben = RealAccount("anna"), RealAccount("ben")
    phone = anna.add("Phone")
    anna.revoke(phone)
    folder = RealFolder(anna, "Documents")
    folder.share(ben, Role.WRITER)
    folder.append(links.enrol_op(folder.state, ben.device.id), by=ben)
    folder.rotate()
    keys: dict[int, FolderKeys] = open_epochs(folder.state, ben.state.id, ben.keys, ben.hpke)
    return {
        "account": {
            "id": anna.state.id.hex(),
            "root_box_secret": anna.root.box_secret.hex(),
            "device": anna.device.id.hex(),
            "device_box_secret": anna.device.box_secret.hex(),
            "active": sorted(id.hex() for id in anna.state.active_devices),
            "aek": [secret.hex() for _, secret in sorted(anna.keys.secrets.items())],
            "device_name": "anna's laptop",
            "links": [[link.body.hex(), link.signature.hex()] for link in anna.links],
        },
        "folder": {
            "id": folder.state.id.hex(),
            "member": ben.state.id.hex(),
            "member_aek": ben.keys.newest.secret.hex(),
            "member_sign": ben.device.sign_public.hex(),
            "owner_sign": anna.device.sign_public.hex(),
            "name": "Documents",
            "epochs": [
                {
                    "fek": one.fek.hex(),
                    "entry": one.entry.hex(),
                    "chunk": one.chunk.hex(),
                    "cdc_id": one.cdc_id.hex(),
                    "cdc": one.cdc.hex(),
                }
                for one in keys.values()
            ],
            "links": [[link.body.hex(), link.signature.hex()] for link in folder.links],
        },
    }


def logs_and_grants() -> dict[str, Any]:
    chain, steps = history.CHAIN_START, []
    for number, kind in enumerate((history.ItemKind.CONTROL, history.ItemKind.ENTRY, history.ItemKind.VOID)):
        item = fixed(f"item {number}")
        chain = history.next_chain(chain, kind, item, NOW_MS + number)
        steps.append({"kind": int(kind), "item": item.hex(), "time_ms": NOW_MS + number, "chain": chain.hex()})
    folder, head = FolderId(fixed("folder")), LinkHash(fixed("head"))
    checkpoint = history.sign_checkpoint(history.Checkpoint(0, folder, 3, chain, head, NOW_MS), fixed("log key"))
    refs = tuple(grants.ChunkRef(ChunkId(fixed(f"chunk {n}")), 4146 + n) for n in range(3))
    root, pseudonym = grants.batch_root(refs), Pseudonym(fixed("pseudonym", 16))
    node, device = signing.public_key(fixed("node key")), signing.public_key(fixed("device key"))
    grant = grants.sign_body(
        grants.Grant(
            fixed("grant", 16), pseudonym, device, grants.Operation(3), 1 << 20, 256, NOW_MS, NOW_MS + 600_000
        ),
        fixed("token key"),
    )
    statement = grants.sign_body(
        grants.Statement(
            fixed("grant", 16),
            grants.Operation.PUT,
            (storage_node_id(node),),
            root,
            3,
            sum(r.length for r in refs),
            NOW_MS,
        ),
        fixed("device key"),
    )
    receipt = grants.sign_body(
        grants.Receipt(node, pseudonym, DeviceId(device_id(device)), root, 3, NOW_MS, 0), fixed("node key")
    )
    return {
        "chain": steps,
        "log_key": signing.public_key(fixed("log key")).hex(),
        "checkpoint": [msgspec.msgpack.encode(checkpoint.checkpoint).hex(), checkpoint.signature.hex()],
        "batch": {"refs": [[ref.id.hex(), ref.length] for ref in refs], "root": root.hex()},
        "token_key": signing.public_key(fixed("token key")).hex(),
        "device_key": device.hex(),
        "node_key": node.hex(),
        "grant": [grant.body.hex(), grant.signature.hex()],
        "statement": [statement.body.hex(), statement.signature.hex()],
        "receipt": [receipt.body.hex(), receipt.signature.hex()],
    }


def cuts() -> dict[str, Any]:
    cdc = fixed("cdc")
    sizes = {"default": {}, "small": {"bytes_min": 4096, "bytes_mean": 16_384, "bytes_max": 65_536}}
    cases = []
    for (name, options), length in zip(sizes.items(), (8 << 20, 1 << 19), strict=True):
        chunker = FastCdcChunker(cdc, fixed("cdc id", 16), **options)
        lengths = [len(chunk) for chunk in cut_buffer(noise(length), chunker)]
        bounds = list(options.values()) or [1 << 18, 1 << 20, 1 << 22]
        cases.append({"name": name, "bounds": bounds, "label": chunker.label, "length": length, "cuts": lengths})
    fixed_cuts = [len(chunk) for chunk in cut_buffer(noise((5 << 19) + 7), FixedChunker())]
    return {
        "cdc_key": cdc.hex(),
        "content": "the first bytes of BLAKE3 of nothing",
        "seeded": cases,
        "fixed": {"length": (5 << 19) + 7, "cuts": fixed_cuts},
    }


def every_message() -> dict[str, Any]:
    kinds = messages.Message.__args__
    cases = []
    for number, kind in enumerate(kinds):
        body = sample(msgspec.inspect.type_info(kind))
        cases.append(
            {"name": kind.__name__, "frame": messages.encode_frame(2 * number, body, reply=number % 2 == 1).hex()}
        )
    return {"cases": cases}


def sample(info: msgspec.inspect.Type, name: str = "") -> Any:
    """Return a value of a type, the same each time; every optional field has one."""
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return cls(*(sample(field.type, field.name) for field in fields))
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType():
            return 1000 + len(name)
        case msgspec.inspect.StrType():
            return f"{name} ä"
        case msgspec.inspect.BytesType():
            return fixed(name, 16)
        case msgspec.inspect.EnumType(cls=cls):
            return next(iter(cls))
        case msgspec.inspect.VarTupleType(item_type=item):
            return (sample(item, name),)
        case msgspec.inspect.TupleType(item_types=items):
            return tuple(sample(item, name) for item in items)
        case msgspec.inspect.UnionType(types=types):
            return sample(next(one for one in types if not isinstance(one, msgspec.inspect.NoneType)), name)
        case msgspec.inspect.NamedTupleType(cls=cls, fields=fields):
            return cls(*(sample(field.type, field.name) for field in fields))
        case _:
            raise NotImplementedError(info)


def hpke() -> dict[str, Any]:
    device = DeviceSecrets.create(Stream("hpke"))
    sealed = EphemeralHpke(Stream("ephemeral")).seal(device.box_public, b"info", fixed("key"))
    return {
        "secret": device.box_secret.hex(),
        "info": b"info".hex(),
        "text": fixed("key").hex(),
        "sealed": sealed.hex(),
    }


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "ids_and_keys": ids_and_keys,
    "seals": seals,
    "hpke": hpke,
    "chunks": chunks,
    "segments": segments,
    "entries": entries,
    "chains": chains,
    "logs_and_grants": logs_and_grants,
    "cuts": cuts,
    "messages": every_message,
}


def main() -> None:
    """Write all files."""
    for name, make in FILES.items():
        (HERE / f"{name}.json").write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
