"""A second reader of Kinfolder's formats, written from the documents, sharing no code with the product.

It parses MessagePack itself and uses libraries for the primitives only. Each ``check_`` function reads one file of
vectors and raises AssertionError where it understands a byte otherwise than the product does.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

unhex = bytes.fromhex


# --- MessagePack, the part of it that is used: nil, booleans, integers, binary, strings, arrays; shortest forms only


def unpack(data: bytes) -> Any:
    value, end = _unpack(data, 0)
    assert end == len(data), "something follows"
    return value


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    tag = data[at]
    at += 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 256, at
    if 0x90 <= tag <= 0x9F:
        return _array(data, at, tag & 15)
    if 0xA0 <= tag <= 0xBF:
        return data[at : at + (tag & 31)].decode(), at + (tag & 31)
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at
    for first, kind, signed in ((0xCC, "int", False), (0xD0, "int", True), (0xC4, "bin", False)):
        if first <= tag < first + (3 if kind == "bin" else 4):
            size = 1 << (tag - first)
            number = int.from_bytes(data[at : at + size], "big", signed=signed)
            at += size
            if kind == "bin":
                assert size == 1 or number >= 1 << (4 * size), "not the shortest form"
                return data[at : at + number], at + number
            assert number >= (1 << (4 * size) if size > 1 else 128) or number < 0, "not the shortest form"
            return number, at
    size = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}[tag]
    count = int.from_bytes(data[at : at + size], "big")
    if tag >= 0xDC:
        return _array(data, at + size, count)
    return data[at + size : at + size + count].decode(), at + size + count


def _array(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):
        item, at = _unpack(data, at)
        items.append(item)
    return items, at


# --- Primitives


def derive(purpose: str, material: bytes, length: int = 32) -> bytes:
    return blake3(material, derive_key_context=f"kinfolder 2026-11 v1 {purpose}").digest(length)


def b3(data: bytes) -> bytes:
    return blake3(data).digest()


def labelled(label: str, data: bytes) -> bytes:
    return b3(f"kinfolder/{label}/v1\0".encode() + data)


def verify(kind: str, data: bytes, signature: bytes, public: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, f"kinfolder/{kind}/v1\0".encode() + b3(data))


def padme(length: int) -> int:
    if length < 2:
        return length
    e = length.bit_length() - 1
    low = e - e.bit_length()
    return -(-length >> low) << low


def public_of(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def unseal(purpose: str, key: bytes, aad: bytes, sealed: bytes, floor: int = 256) -> bytes:
    assert sealed[:2] == b"\1\1"
    okm = derive(purpose, key + sealed[2:34], 64)
    assert okm[32:] == sealed[34:66], "commitment"
    text = AESGCM(okm[:32]).decrypt(bytes(12), sealed[66:], purpose.encode() + b"\0" + aad)
    used = 4 + int.from_bytes(text[:4], "big")
    assert len(text) == max(padme(used), floor)
    assert not any(text[used:])
    return text[4:used]


def unwrap(secret: bytes, info: bytes, sealed: bytes) -> bytes:
    """HPKE base mode, X25519, HKDF-SHA256, AES-256-GCM."""

    def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.new(salt, b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()

    def expand(suite: bytes, prk: bytes, label: bytes, context: bytes, size: int) -> bytes:
        message = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context + b"\1"
        return hmac.new(prk, message, hashlib.sha256).digest()[:size]

    dh = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
    kem = b"KEM\0\x20"
    shared = expand(kem, extract(kem, b"", b"eae_prk", dh), b"shared_secret", sealed[:32] + public_of(secret), 32)
    suite = b"HPKE\0\x20\0\1\0\2"
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    prk = extract(suite, shared, b"secret", b"")
    key, nonce = expand(suite, prk, b"key", context, 32), expand(suite, prk, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed[32:], b"")


def open_frame(label: str, sealed: bytes, id: bytes, opener: bytes, key: bytes | None) -> tuple[int, int, bytes]:
    assert b3(sealed) == id
    assert sealed[:2] == b"\1\1"
    okm = derive(label, opener, 64)
    assert okm[32:] == sealed[2:34], "commitment"
    frame = AESGCM(okm[:32]).decrypt(bytes(12), sealed[34:], label.encode())
    assert key is None or blake3(frame, key=key).digest() == opener
    raw_length, body_length = int.from_bytes(frame[1:5], "big"), int.from_bytes(frame[5:9], "big")
    assert len(frame) == max(4096, padme(9 + body_length))
    assert not any(frame[9 + body_length :])
    return frame[0], raw_length, frame[9 : 9 + body_length]


def open_chunk(sealed: bytes, row: list[Any], key: bytes | None, base: bytes) -> bytes:
    id, opener, length, raw_length, raw_hash, codec, _level, base_row = row
    assert len(sealed) == length
    kind, said, body = open_frame("chunk", sealed, id, opener, key)
    assert said == raw_length
    assert (kind == 0, kind == 2) == (codec == 0, base_row is not None)
    if kind:
        prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if kind == 2 else None
        body = zstandard.ZstdDecompressor(dict_data=prefix).decompress(body)
    assert (len(body), b3(body)) == (raw_length, raw_hash)
    return body


# --- The files


def check_ids_and_keys(v: dict[str, Any]) -> None:
    for one in v["derive_key"]:
        assert derive(one["purpose"], unhex(one["material"]), len(one["key"]) // 2).hex() == one["key"]
    for label, cases in (("device-id", v["device_id"]), ("storage-node-id", v["storage_node_id"])):
        for one in cases:
            assert labelled(label, unhex(one["sign"])).hex() == one["id"]
    for one in v["copy_id"]:
        device, seq, index = one["dot"]
        key = unhex(one["node"]) + device.to_bytes(2, "big") + seq.to_bytes(8, "big") + index.to_bytes(4, "big")
        assert labelled("copy-id", key)[:16].hex() == one["id"]
    for one in v["root"]:
        assert public_of(derive("root-box", unhex(one["seed"]))).hex() == one["box_public"]
        assert len(one["words"].split()) == 24
    for one in v["discovery_tag"]:
        data = one["day"].to_bytes(4, "big") + one["port"].to_bytes(2, "big")
        assert blake3(data, key=unhex(one["key"])).digest(8).hex() == one["tag"]
    for length, padded, frame in v["padme"]:
        assert (padme(length), max(4096, padme(length))) == (padded, frame)
    for one in v["signature"]:
        verify(one["kind"], unhex(one["data"]), unhex(one["signature"]), unhex(one["public"]))


def check_seals(v: dict[str, Any]) -> None:
    for one in v["cases"]:
        text = unseal(v["purpose"], unhex(v["key"]), unhex(v["aad"]), unhex(one["sealed"]), one["floor"])
        assert text.hex() == one["text"]


def check_hpke(v: dict[str, Any]) -> None:
    assert unwrap(unhex(v["secret"]), unhex(v["info"]), unhex(v["sealed"])).hex() == v["text"]


def check_chunks(v: dict[str, Any]) -> None:
    for one in v["cases"]:
        raw = open_chunk(unhex(one["sealed"]), unpack(unhex(one["row"])), unhex(v["chunk_key"]), unhex(one["base"]))
        assert raw.hex() == one["raw"]


def check_segments(v: dict[str, Any]) -> None:
    key = v["key"]
    kind, length, body = open_frame("segment", unhex(v["sealed"]), unhex(key["id"]), unhex(key["opener"]), None)
    assert (kind, length) == (0, len(body))
    version, rows = unpack(body)
    assert version == 1
    assert rows == [unpack(unhex(row)) for row in v["rows"]]
    assert len(rows) == key["rows"]


def check_entries(v: dict[str, Any]) -> None:
    header, sealed, signature = unpack(unhex(v["entry"]))
    verify("entry", header + sealed, signature, unhex(v["sign_public"]))
    assert b3(header + sealed).hex() == v["hash"]
    fields = unpack(header)
    assert (len(fields), fields[14]) == (15, b3(sealed))
    aad = header[: -len(b"\xc4\x20" + fields[14])] + b"\xc4\x00"
    plain = unseal("entry", unhex(v["entry_key"]), aad, sealed, floor=512)
    assert plain[0] in (0, 1)
    payload = zstandard.ZstdDecompressor().decompress(plain[1:]) if plain[0] else plain[1:]
    assert payload.hex() == v["payload"]
    values = unpack(payload)[6]
    assert [value[0] for value in values] == [1, 2, 3]
    assert len(values) == len(fields[11])


def walk(links: list[list[str]], id: str) -> list[tuple[bytes, bytes, list[Any]]]:
    """Return (bytes, signature, fields) of the links of a chain, each after the one before."""
    made, previous = [], bytes(32)
    for seq, (raw, signature) in enumerate(links):
        body = unpack(unhex(raw))
        assert body[:2] + body[3:5] == [1, 1, seq, previous]
        assert body[2] == (b"" if seq == 0 else unhex(id))
        previous = b3(unhex(raw))
        assert seq or previous.hex() == id
        made.append((unhex(raw), unhex(signature), body))
    return made


def check_chains(v: dict[str, Any]) -> None:
    check_account(v["account"])
    check_folder(v["folder"])


def check_account(v: dict[str, Any]) -> None:
    own, box, active, aek = unhex(v["device"]), unhex(v["device_box_secret"]), set(), []
    links = walk(v["links"], v["id"])
    genesis = links[0][2][7]
    root = genesis[1]
    for raw, signature, body in links:
        signer, op = body[6:]
        verify("account-link", raw, signature, signer)
        assert signer == root or labelled("device-id", signer) in active
        if op[0] in (1, 2):
            device, proof = (op[3], op[4]) if op[0] == 1 else (op[1], op[2])
            verify("device-keys", b"\x94" + b"".join(_bin(field) for field in device), proof, device[0])
            active.add(labelled("device-id", device[0]))
        if op[0] == 1:
            wraps = dict(op[6])
            aek.append(unwrap(box, _aek_info(root, 1, own), wraps[own]))
            assert public_of(aek[0]) == op[5]
            assert aek[0] == unwrap(unhex(v["root_box_secret"]), _aek_info(root, 1, bytes(32)), wraps[bytes(32)])
        if op[0] == 3:
            active.remove(op[1])
            aek.append(unwrap(box, _aek_info(root, op[3], own), dict(op[5])[own]))
            assert unseal("aek-back", aek[-1], root + op[3].to_bytes(4, "big"), op[6]) == aek[-2]
    assert [one.hex() for one in aek] == v["aek"]
    assert sorted(id.hex() for id in active) == v["active"]
    sign, _, _, name = genesis[3]
    assert unseal("device-name", derive("device-name-key", aek[0]), root + sign, name[4:]).decode() == v["device_name"]


def check_folder(v: dict[str, Any]) -> None:
    links = walk(v["links"], v["id"])
    for raw, signature, body in links:
        verify(
            "control-link", raw, signature, unhex(v["member_sign" if body[6].hex() == v["member"] else "owner_sign"])
        )
    ops = [op for _, _, body in links for op in body[9]]
    start = links[0][0].index(b"\x99\x01")  # the genesis op: an array of nine, its tag first
    context = labelled("folder-context", links[0][0][start : _unpack(links[0][0], start)[1]])
    epochs = [op for op in ops if op[0] == 6]
    number, wrap = epochs[-1][1], next(wrap for wrap in epochs[-1][3] if wrap[0].hex() == v["member"])
    numbers = number.to_bytes(4, "big") + wrap[1].to_bytes(4, "big")
    fek = unwrap(unhex(v["member_aek"]), b"kinfolder/epoch-wrap/v1\0" + context + numbers + wrap[0], wrap[2])
    for epoch, known in zip(epochs[::-1], v["epochs"][::-1], strict=True):
        assert (fek.hex(), derive("epoch-commit", fek)) == (known["fek"], epoch[2])
        assert (derive("epoch-entry", fek).hex(), derive("epoch-chunk", fek).hex()) == (known["entry"], known["chunk"])
        aad = context + epoch[1].to_bytes(4, "big")
        assert unseal("epoch-cdc", fek, aad, epoch[5]).hex() == known["cdc_id"] + known["cdc"]
        if epoch[1] > 1:
            fek = unseal("epoch-back", fek, aad, epoch[4])
    named = next(op for op in ops if op[0] == 7)
    assert unseal("folder-name", fek, context + named[1].to_bytes(4, "big"), named[2]).decode() == v["name"]


def _bin(data: bytes) -> bytes:
    return (b"\xc4" + bytes([len(data)]) if len(data) < 256 else b"\xc5" + len(data).to_bytes(2, "big")) + data


def _aek_info(root: bytes, generation: int, recipient: bytes) -> bytes:
    return b"kinfolder/aek-wrap/v1\0" + root + generation.to_bytes(4, "big") + recipient


def check_logs_and_grants(v: dict[str, Any]) -> None:
    chain = bytes(32)
    for step in v["chain"]:
        chain = b3(chain + bytes([step["kind"]]) + unhex(step["item"]) + step["time_ms"].to_bytes(8, "big"))
        assert chain.hex() == step["chain"]
    body, signature = (unhex(part) for part in v["checkpoint"])
    verify("checkpoint", body, signature, unhex(v["log_key"]))
    assert unpack(body)[3] == chain
    root = labelled("batch", b"".join(unhex(id) + length.to_bytes(4, "big") for id, length in v["batch"]["refs"]))
    assert root.hex() == v["batch"]["root"]
    for kind, key in (("grant", "token_key"), ("statement", "device_key"), ("receipt", "node_key")):
        body, signature = (unhex(part) for part in v[kind])
        verify(kind, body, signature, unhex(v[key]))
        assert kind == "grant" or root in unpack(body)


def check_cuts(v: dict[str, Any]) -> None:
    from pyfastcdc.py import FastCDC  # the pure Python one; the product uses the compiled one

    seed = 1 + int.from_bytes(derive("cdc", unhex(v["cdc_key"]))[:6], "big")
    for case in v["seeded"]:
        low, mean, high = case["bounds"]
        cutter = FastCDC(mean, min_size=low, max_size=high, seed=seed)
        assert [one.length for one in cutter.cut_buf(blake3(b"").digest(case["length"]))] == case["cuts"]
        assert case["label"].startswith("fastcdc-seeded/1#")
    length = v["fixed"]["length"]
    assert v["fixed"]["cuts"] == [min(1 << 20, length - at) for at in range(0, length, 1 << 20)]


def check_messages(v: dict[str, Any]) -> None:
    tags = {}
    for number, case in enumerate(v["cases"]):
        id, reply, body = unpack(unhex(case["frame"]))
        assert (id, reply) == (2 * number, number % 2 == 1)
        tags[body[0]] = case["name"]
    assert len(tags) == len(v["cases"])
