"""What bytes from outside can do to a parser or a verifier: nothing but be refused, by one kind of error."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core import linking_messages
from peer.core.segments import Segment
from protocol import chains, entries, grants, history, limits, messages, signing
from protocol.codec import decode, encode
from protocol.errors import BadSignatureError, KinfolderError, LimitExceededError, ProtocolError
from protocol.grants import Signed, open_receipt, open_signed
from protocol.ids import ChunkId

VECTORS = Path(__file__).parent.parent / "vectors"
VECTOR = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in VECTORS.glob("*.json")}
unhex = bytes.fromhex

FORMATS = {
    "frame": (messages.Frame, [unhex(case["frame"]) for case in VECTOR["messages"]["cases"]]),
    "header": (entries.Header, [msgspec.msgpack.decode(unhex(VECTOR["entries"]["entry"]))[0]]),
    "payload": (entries.Payload, [unhex(VECTOR["entries"]["payload"])]),
    "account link": (chains.AccountLink, [unhex(body) for body, _ in VECTOR["chains"]["account"]["links"]]),
    "control link": (chains.ControlLink, [unhex(body) for body, _ in VECTOR["chains"]["folder"]["links"]]),
    "checkpoint": (history.Checkpoint, [unhex(VECTOR["logs_and_grants"]["checkpoint"][0])]),
    "grant": (grants.Grant, [unhex(VECTOR["logs_and_grants"]["grant"][0])]),
    "statement": (grants.Statement, [unhex(VECTOR["logs_and_grants"]["statement"][0])]),
    "receipt": (grants.Receipt, [unhex(VECTOR["logs_and_grants"]["receipt"][0])]),
    "linking": (linking_messages.Outer, [encode(linking_messages.Hello(1, b"s" * 33, b"c" * 32))]),
    "segment": (Segment, [b"\x92\x01\xdc\x00\x33" + b"".join(map(unhex, VECTOR["segments"]["rows"]))]),
}


def refused_or_read(data, kind):
    """Decode; whatever is read encodes to the same bytes, whatever is refused is refused as a breach of protocol."""
    try:
        value = decode(data, kind, bytes_max=1 << 20)
    except (ProtocolError, LimitExceededError):
        return False
    assert encode(value) == data
    return True


@pytest.mark.parametrize("name", FORMATS)
def test_the_samples_are_read(name):
    kind, samples = FORMATS[name]
    assert all(refused_or_read(sample, kind) for sample in samples)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_garbage_is_refused(name, data):
    """S59."""
    refused_or_read(data, FORMATS[name][0])


@pytest.mark.parametrize("name", FORMATS)
def test_every_changed_byte_is_refused_or_read_as_it_stands(name):
    """S59, S62: each length field and tag of a real one, set to each extreme."""
    kind, samples = FORMATS[name]
    for sample in samples:
        step = max(1, len(sample) // 150)
        for index in range(0, len(sample), step):
            for byte in (0x00, 0x7F, 0x80, 0xC0, 0xC1, 0xC6, 0xDB, 0xDD, 0xFF, sample[index] ^ 1):
                refused_or_read(sample[:index] + bytes([byte]) + sample[index + 1 :], kind)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_lengthened_ones_are_refused(name):
    kind, samples = FORMATS[name]
    for sample in samples:
        for cut in range(0, len(sample), max(1, len(sample) // 50)):
            assert not refused_or_read(sample[:cut], kind)
        assert not refused_or_read(sample + b"\0", kind)


BOMBS = {
    "deep arrays": b"\x91" * 200_000,
    "deep long arrays": b"\xdc\x00\x01" * 100_000,
    "deep maps": b"\x81\x00" * 100_000,
    "a huge array": b"\xdd\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "a huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "a huge number": b"\xcf" + b"\xff" * 8,
    "a float": b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "no text": b"\xa2\xff\xfe",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_within_their_own_size(name, bomb):
    """S59, S60: no recursion error, and no memory for what is only announced."""
    kind, samples = FORMATS[name]
    data = BOMBS[bomb]
    tracemalloc.start()
    for one in (data, samples[0][:1] + data, samples[0][:2] + data, samples[0][: len(samples[0]) // 2] + data):
        assert not refused_or_read(one, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def longer_forms(value, at=0):
    """Yield encodings of a MessagePack value that mean the same and are longer by a byte or more."""
    tag = value[at]
    if tag <= 0x7F:
        yield value[:at] + bytes([0xCC, tag]) + value[at + 1 :]
        yield value[:at] + bytes([0xCD, 0, tag]) + value[at + 1 :]
    if tag == 0xC4:
        yield value[:at] + bytes([0xC5, 0]) + value[at + 1 :]
    if 0x90 <= tag <= 0x9F:
        yield value[:at] + bytes([0xDC, 0, tag & 15]) + value[at + 1 :]
    if 0xA0 <= tag <= 0xBF:
        yield value[:at] + bytes([0xD9, tag & 31]) + value[at + 1 :]


def test_each_value_has_one_encoding():
    """S62: a second encoding of a signed thing would be a second hash for the same meaning."""
    kind, samples = FORMATS["control link"]
    body = samples[0]
    for at in (0, 1, 2, 3, 4):
        for longer in longer_forms(body, at):
            assert not refused_or_read(longer, kind)
    grant = FORMATS["grant"][1][0]
    for longer in longer_forms(grant):
        assert not refused_or_read(longer, grants.Grant)


def test_a_map_or_a_field_too_many_is_no_struct():
    """S60: no free keys, so no duplicate ones; and an appended field is another format."""
    grant = msgspec.msgpack.decode(FORMATS["grant"][1][0])
    for other in (
        [*grant, 0],
        grant[:-1],
        dict(enumerate(grant)),
        [grant],
        None,
        1.5,
        "x",
        [None, *grant[1:]],
        [*grant[:6], 1.0, *grant[7:]],
    ):
        assert not refused_or_read(msgspec.msgpack.encode(other), grants.Grant)


def test_limits_hold_at_the_limit_and_one_above():
    data = encode(messages.MailboxSend(7, bytes(limits.MESSAGE_BYTES_MAX - 40)))
    room = limits.MESSAGE_BYTES_MAX - len(
        messages.encode_frame(2, decode(data, messages.MailboxSend, bytes_max=1 << 21))
    )
    largest = messages.encode_frame(2, messages.MailboxSend(7, bytes(limits.MESSAGE_BYTES_MAX - 40 + room)))
    assert len(largest) == limits.MESSAGE_BYTES_MAX
    messages.decode_frame(largest)
    with pytest.raises(LimitExceededError):
        messages.decode_frame(largest + b"\0")


# Signatures (S23, S62).

KINDS = ["account-link", "control-link", "device-keys", "entry", "checkpoint", "grant", "statement", "receipt", "login"]
SEED = bytes(range(32))
PUBLIC = signing.public_key(SEED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_stands_for_one_type_only(kind):
    """S23."""
    signature = signing.sign(kind, b"data", SEED)
    signing.verify(kind, b"data", signature, PUBLIC)
    for other in KINDS:
        if other != kind:
            with pytest.raises(BadSignatureError):
                signing.verify(other, b"data", signature, PUBLIC)
    for data in (b"", b"data ", b"datA"):
        with pytest.raises(BadSignatureError):
            signing.verify(kind, data, signature, PUBLIC)


ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(public):
    """S62: under such a key one signature holds for any message."""
    for signature in (bytes(64), unhex(public) + bytes(32), unhex(SMALL_ORDER[1]) + bytes(32)):
        for data in (b"", b"one", b"two"):
            with pytest.raises(BadSignatureError):
                signing.verify("entry", data, signature, unhex(public))


def test_a_signature_has_one_form():
    """S62: the scalar must be reduced, and the point canonical."""
    signature = signing.sign("entry", b"data", SEED)
    scalar = int.from_bytes(signature[32:], "little")
    for times in (1, 2, 7):
        more = scalar + times * ORDER
        if more < 1 << 256:
            with pytest.raises(BadSignatureError):
                signing.verify("entry", b"data", signature[:32] + more.to_bytes(32, "little"), PUBLIC)
    for point in SMALL_ORDER:
        with pytest.raises(BadSignatureError):
            signing.verify("entry", b"data", unhex(point) + signature[32:], PUBLIC)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_signatures_and_keys_of_another_length_are_refused_as_such(length):
    with pytest.raises(BadSignatureError):
        signing.verify("entry", b"data", bytes(length), PUBLIC)
    with pytest.raises(BadSignatureError):
        signing.verify("entry", b"data", signing.sign("entry", b"data", SEED), bytes(length // 2))


def test_one_library_verifies():
    """S62: two verifiers that disagree are a fork; nobody but signing.py may verify Ed25519."""
    root = Path(__file__).parent.parent.parent
    for package in ("protocol", "coordinator", "peer", "storage_node"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path != root / "protocol" / "signing.py":
                assert "Ed25519PublicKey" not in text, path
                assert "VerifyKey" not in text, path


# Replays between places (S23).


def test_receipts_and_grants_are_bound_to_what_they_name():
    v = VECTOR["logs_and_grants"]
    refs = tuple(grants.ChunkRef(ChunkId(unhex(id)), length) for id, length in v["batch"]["refs"])
    signed = Signed(unhex(v["receipt"][0]), unhex(v["receipt"][1]))
    open_receipt(grants.ReceiptFor(signed, refs))
    for other in (refs[::-1], refs[:-1], (*refs, refs[0]), (msgspec.structs.replace(refs[0], length=1), *refs[1:])):
        with pytest.raises(ProtocolError):
            open_receipt(grants.ReceiptFor(signed, other))
    token_key, device_key = unhex(v["token_key"]), unhex(v["device_key"])
    grant = Signed(unhex(v["grant"][0]), unhex(v["grant"][1]))
    open_signed(grant, grants.Grant, token_key)
    cases: list[tuple[Signed, Any, bytes]] = [
        (grant, grants.Grant, device_key),
        (Signed(grant.body, signed.signature), grants.Grant, token_key),
        (Signed(unhex(v["statement"][0]), grant.signature), grants.Statement, token_key),
        (grant, grants.Statement, token_key),
        (grant, grants.Receipt, token_key),
    ]
    for one, kind, key in cases:
        with pytest.raises(KinfolderError):
            open_signed(one, kind, key)


def test_a_checkpoint_is_bound_to_all_that_it_says():
    v = VECTOR["logs_and_grants"]
    checkpoint: history.Checkpoint = decode(unhex(v["checkpoint"][0]), history.Checkpoint, bytes_max=1000)
    signature, key = unhex(v["checkpoint"][1]), unhex(v["log_key"])
    history.verify_checkpoint(history.SignedCheckpoint(checkpoint, signature), key)
    changes: list[dict[str, Any]] = [
        {"generation": 1},
        {"position": 4},
        {"folder": bytes(32)},
        {"chain": bytes(32)},
        {"control_head": bytes(32)},
        {"time_ms": 0},
    ]
    for change in changes:
        other = msgspec.structs.replace(checkpoint, **change)
        with pytest.raises(BadSignatureError):
            history.verify_checkpoint(history.SignedCheckpoint(other, signature), key)


def test_positions_chain():
    """S22 in small: another order, another kind or another time is another history."""
    start, one, two = history.CHAIN_START, bytes([1]) * 32, bytes([2]) * 32
    kind = history.ItemKind
    made = {
        history.next_chain(history.next_chain(start, kind.ENTRY, a, 1), kind.ENTRY, b, 2)
        for a, b in ((one, two), (two, one))
    }
    made |= {history.next_chain(start, k, one, t) for k in kind for t in (1, 2)}
    assert len(made) == 8
