"""Sealed entries: signed, bound to their header, and open to nobody else."""

import msgspec
import pytest
import zstandard
from blake3 import blake3

from peer.core import entry_sealing
from peer.core.entry_sealing import PAYLOAD_FLOOR_BYTES, open_entry, seal_entry
from peer.core.sealing import seal
from protocol import limits, signing
from protocol.codec import encode
from protocol.entries import (
    Change,
    Header,
    Payload,
    PlaceValue,
    Register,
    Seen,
    entry_hash,
    pack_entry,
    parse_entry,
)
from protocol.errors import BadSignatureError, LimitExceededError, LocalProtocolError, ProtocolError, SecurityError
from protocol.ids import ROOT, EntryHash, FolderId, LinkHash, NodeId
from tests.peer.core.key_world import Stream

replace = msgspec.structs.replace
KEY = bytes(range(32))
SEED = bytes(range(1, 33))
PUBLIC = signing.public_key(SEED)


def change(number):
    return Change(NodeId(number.to_bytes(16, "big")), Register.PLACE, (), ((1, 1),))


def header(count=1, **fields):
    made = Header(
        version=1,
        folder=FolderId(b"f" * 32),
        epoch=1,
        control_head=LinkHash(b"c" * 32),
        device=1,
        seq=1,
        previous=EntryHash(bytes(32)),
        needs=(),
        expect=(),
        replaces=(),
        batch=None,
        changes=tuple(change(number) for number in range(1, count + 1)),
        pins=(),
        source=None,
        payload_hash=b"",
    )
    return replace(made, **fields)


def payload(*names, **fields):
    values = tuple(PlaceValue(ROOT, name, weak=False) for name in names or (b"a.txt",))
    made = Payload(Seen(0, 0, bytes(32), ()), (), "Laptop", 1_700_000_000_000, "", (), values)
    return replace(made, **fields)


def sealed(head=None, pay=None, *, salt="salt"):
    return seal_entry(head or header(), pay or payload(), KEY, SEED, Stream(salt))


def check_signature(entry):
    signing.verify("entry", entry.header_bytes + entry.payload, entry.signature, PUBLIC)


def test_an_entry_opens_to_what_it_was_made_of():
    entry = parse_entry(sealed())
    check_signature(entry)
    assert open_entry(entry, KEY) == payload()
    assert replace(entry.header, payload_hash=b"") == header()
    assert entry.hash == entry_hash(entry.header_bytes, entry.payload)


def test_names_are_sealed():
    assert b"a.txt" not in sealed()
    assert b"Laptop" not in sealed()


def test_the_length_of_a_name_does_not_show_in_a_small_entry():
    lengths = {len(sealed(pay=payload(b"n" * size))) for size in range(1, 200)}
    assert len(lengths) == 1


def test_each_sealing_differs_and_opens():
    one, other = parse_entry(sealed()), parse_entry(sealed(salt="another"))
    assert one.payload != other.payload
    assert open_entry(one, KEY) == open_entry(other, KEY)


def test_a_large_payload_is_compressed():
    names = [b"a name that repeats itself %d" % number for number in range(limits.ENTRY_CHANGES_MAX)]
    pay = payload(*names)
    data = sealed(header(len(names)), pay)
    entry = parse_entry(data)
    assert len(entry.payload) < len(encode(pay)) / 3
    assert open_entry(entry, KEY) == pay


@pytest.mark.parametrize(
    "fields",
    [
        {"folder": FolderId(b"g" * 32)},
        {"epoch": 2},
        {"control_head": LinkHash(b"d" * 32)},
        {"device": 2, "changes": (Change(change(1).node, Register.PLACE, (), ((2, 1),)),)},
        {"previous": EntryHash(b"p" * 32)},
        {"needs": (EntryHash(b"n" * 32),)},
        {"changes": (change(2),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_payload_opens_under_its_own_header_only(fields):
    """S10, S23: names cannot be moved to another node, folder, epoch or place in the history."""
    entry = parse_entry(sealed())
    head = replace(entry.header, **fields)
    moved = encode(head)
    other = parse_entry(pack_entry(moved, entry.payload, signing.sign("entry", moved + entry.payload, SEED)))
    check_signature(other)
    with pytest.raises(SecurityError):
        open_entry(other, KEY)


def test_another_key_does_not_open():
    with pytest.raises(SecurityError):
        open_entry(parse_entry(sealed()), bytes(32))


def test_no_flipped_bit_passes():
    """S08, S11: parsing, the signature or the seal refuses each."""
    data = sealed()
    for index in range(0, len(data), 3):
        broken = bytearray(data)
        broken[index] ^= 1 << index % 8
        with pytest.raises((ProtocolError, LimitExceededError, SecurityError)):
            entry = parse_entry(bytes(broken))
            check_signature(entry)


def test_a_signature_of_another_key_or_kind_does_not_hold():
    entry = parse_entry(sealed())
    for signature in (
        signing.sign("entry", entry.header_bytes + entry.payload, bytes(32)),
        signing.sign("receipt", entry.header_bytes + entry.payload, SEED),
        signing.sign("entry", entry.payload + entry.header_bytes, SEED),
    ):
        with pytest.raises(BadSignatureError):
            check_signature(replace(entry, signature=signature))


# What we would never send.


@pytest.mark.parametrize(
    ("head", "pay"),
    [
        (header(2), payload(b"one")),
        (header(version=2), payload()),
        (header(seq=0), payload()),
        (header(), payload(b"a/b")),
        (header(), payload(b"..")),
        (header(), payload(b".kinfolder")),
        (header(), payload(b".KinFolder")),
        (header(needs=(EntryHash(b"n" * 31),)), payload()),
    ],
    ids=range(8),
)
def test_what_nobody_would_accept_is_not_sealed(head, pay):
    with pytest.raises(LocalProtocolError):
        sealed(head, pay)


def test_parts_above_their_limit_are_not_sealed():
    names = [b"n%d" % number for number in range(limits.ENTRY_CHANGES_MAX + 1)]
    with pytest.raises(LimitExceededError):
        sealed(header(len(names)), payload(*names))
    sealed(header(len(names) - 1), payload(*names[:-1]))
    with pytest.raises(LimitExceededError):
        sealed(pay=payload(b"n" * 256))
    sealed(pay=payload(b"n" * 255))
    with pytest.raises(LimitExceededError):
        sealed(pay=payload(label="n" * 256))


def unseen(count):
    """Return hashes that no compressor shortens."""
    return tuple(EntryHash(blake3(number.to_bytes(8, "big")).digest()) for number in range(count))


def test_a_payload_above_its_limit_is_not_sealed():
    small = payload(seen=Seen(0, 0, bytes(32), unseen(14_000)))
    entry = parse_entry(sealed(pay=small))
    assert open_entry(entry, KEY) == small
    with pytest.raises(LimitExceededError):
        sealed(pay=payload(seen=Seen(0, 0, bytes(32), unseen(17_000))))


def test_a_plaintext_above_its_limit_is_not_sealed(monkeypatch):
    monkeypatch.setattr(limits, "ENTRY_PLAIN_BYTES_MAX", len(encode(payload())))
    sealed()
    with pytest.raises(LimitExceededError):
        sealed(pay=payload(b"a.text"))


# What an evil member may seal.


def forged(plain):
    """Return the entry of a member that seals what it likes, with everything else right."""
    aad = entry_sealing._aad(header())
    body = seal("entry", KEY, aad, plain, Stream("s"), floor=PAYLOAD_FLOOR_BYTES)
    head = encode(replace(header(), payload_hash=blake3(body).digest()))
    return parse_entry(pack_entry(head, body, signing.sign("entry", head + body, SEED)))


def packed(text):
    return b"\x01" + zstandard.ZstdCompressor(level=3).compress(text)


def test_both_encodings_of_a_payload_open():
    text = encode(payload())
    assert open_entry(forged(b"\x00" + text), KEY) == open_entry(forged(packed(text)), KEY) == payload()


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x00",
        b"\x02" + encode(payload()),
        b"\x00" + encode(payload())[:-1],
        b"\x00" + encode(payload()) + b"\x00",
        b"\x00" + encode(payload(b"a/b")),
        b"\x00" + encode(payload(b"a", b"b")),
        b"\x01",
        b"\x01" + encode(payload()),
        packed(encode(payload())) + b"\x00",
        packed(b""),
        packed(b"\x90" * 100_000),
        b"\x00" + b"\x91" * 100_000,
    ],
    ids=range(13),
)
def test_a_malformed_payload_is_a_protocol_error(plain):
    """S46, S59, S60: whatever a member seals, nothing else comes out of the opener."""
    with pytest.raises(ProtocolError):
        open_entry(forged(plain), KEY)


def test_a_bomb_in_a_payload_is_refused_from_its_header():
    """S57."""
    for size in (limits.ENTRY_PLAIN_BYTES_MAX + 1, 256 << 20):
        with pytest.raises(LimitExceededError):
            open_entry(forged(packed(bytes(size))), KEY)
