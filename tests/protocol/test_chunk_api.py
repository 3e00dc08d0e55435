"""Bodies of the chunk interface: whatever the pieces they come in, and whatever is wrong with them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.chunk_api import (
    ABSENT,
    LIST_BYTES_MAX,
    STATUS,
    ChunkFrom,
    GetReader,
    HaveReply,
    PutReader,
    PutReply,
    check_receipt,
    decode_failure,
    decode_have_reply,
    decode_ids,
    decode_proof,
    decode_put_reply,
    decode_wanted,
    encode_failure,
    encode_found,
    encode_ids,
    encode_proof,
    encode_refs,
    encode_wanted,
    ids_root,
)
from protocol.codec import encode
from protocol.errors import KinfolderError, LimitExceededError, ProtocolError, SecurityError, UnavailableError
from protocol.grants import ChunkRef, Operation, Receipt, ReceiptFor, Signed, Statement, batch_root, sign_body
from protocol.ids import ChunkId, DeviceId, Pseudonym, storage_node_id
from protocol.signing import public_key

SEED = bytes(range(32))
NODE = storage_node_id(public_key(SEED))
ID = ChunkId(b"i" * 32)


def ref(i, length):
    return ChunkRef(ChunkId(i.to_bytes(32, "big")), length)


def statement(refs, **changes):
    values = {
        "grant": b"g" * 16,
        "operation": Operation.PUT,
        "nodes": (),
        "root": batch_root(refs),
        "count": len(refs),
        "bytes": sum(c.length for c in refs),
        "time_ms": 0,
    }
    return Statement(**values | changes)


def pieces_of(data, cuts):
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


lengths = st.lists(st.integers(0, 300), min_size=1, max_size=20)
cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(lengths, cuts)
def test_a_put_is_cut_alike_whatever_its_pieces(lengths, cuts):
    refs = [ref(i, length) for i, length in enumerate(lengths)]
    bodies = [bytes([i % 256]) * length for i, length in enumerate(lengths)]
    reader = PutReader(statement(refs))
    found: list[object] = []
    for piece in pieces_of(encode_refs(refs) + b"".join(bodies), cuts):
        found += reader.feed(piece)
    assert reader.finish() == tuple(refs)
    assert found == list(zip(refs, bodies, strict=True))


@given(st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=20), cuts)
def test_a_get_is_cut_alike_whatever_its_pieces(bodies, cuts):
    wanted = [ChunkFrom(ref(i, 0).id, i) for i in range(len(bodies))]
    reader = GetReader(wanted)
    found: list[object] = []
    for piece in pieces_of(reply_of(wanted, bodies), cuts):
        found += reader.feed(piece)
    reader.finish()
    assert reader.break_off() is None
    rests = [None if body is None else body[one.offset :] for one, body in zip(wanted, bodies, strict=True)]
    assert found == list(zip(wanted, rests, strict=True))


def reply_of(wanted, bodies):
    pairs = zip(wanted, bodies, strict=True)
    return b"".join(bytes(part) for one, body in pairs for part in encode_found(body, one.offset))


@given(st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=20), cuts, st.integers(0))
def test_what_came_of_a_chunk_before_the_break_is_not_lost(bodies, cuts, end):
    """Whatever the pieces: what was yielded and what is left make up all that came."""
    wanted = [ChunkFrom(ref(i, 0).id, i) for i in range(len(bodies))]
    data = reply_of(wanted, bodies)
    data = data[: end % (len(data) + 1)]
    reader = GetReader(wanted)
    found: list[tuple[ChunkFrom, bytes | None]] = []
    for piece in pieces_of(data, cuts):
        found += reader.feed(piece)
    again = reply_of(wanted[: len(found)], bodies[: len(found)])
    assert data.startswith(again)
    left = data[len(again) :]
    if len(left) < 4:
        assert reader.break_off() is None
    else:
        assert reader.break_off() == (wanted[len(found)], left[4:])


@given(st.binary(max_size=2000), cuts)
def test_garbage_is_a_protocol_error_in_either_reader(data, cuts):
    for reader in (PutReader(statement([ref(1, 5)])), GetReader([ChunkFrom(ID, 0)])):
        with pytest.raises((ProtocolError, LimitExceededError)):
            for piece in pieces_of(data, cuts):
                list(reader.feed(piece))
            reader.finish()
            # A get's reply may be well formed by chance: then it must end like one.
            assert isinstance(reader, GetReader)
            raise ProtocolError


GOOD = [ref(1, 5), ref(2, 7)]
WRONG_BATCHES = {
    "another number": (GOOD, {"count": 3}),
    "another sum": (GOOD, {"bytes": 13}),
    "another root": (GOOD, {"root": bytes(32)}),
    "another order": (GOOD[::-1], {"root": batch_root(GOOD)}),
    "a short id": ([ChunkRef(ChunkId(b"x"), 12)], {}),
    "a long chunk": ([ref(1, limits.SEALED_CHUNK_BYTES_MAX + 1)], {}),
    "too many chunks": ([ref(i, 1) for i in range(limits.BATCH_CHUNKS_MAX + 1)], {}),
}


@pytest.mark.parametrize(("refs", "changes"), WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_a_list_that_is_not_the_statements_is_refused_before_any_chunk(refs, changes):
    reader = PutReader(statement(refs, **changes))
    with pytest.raises(ProtocolError):
        list(reader.feed(encode_refs(refs)))


@pytest.mark.parametrize("length", [-1, 1 << 63])
def test_a_length_that_cannot_be_is_refused_before_it_is_hashed(length):
    reader = PutReader(statement(GOOD))
    with pytest.raises(ProtocolError):
        list(reader.feed(encode_refs([ref(1, length)])))


def test_the_largest_batch_passes_and_one_more_byte_of_list_does_not():
    refs = [ref(i, limits.BATCH_BYTES_MAX // limits.BATCH_CHUNKS_MAX) for i in range(limits.BATCH_CHUNKS_MAX)]
    reader = PutReader(statement(refs))
    list(reader.feed(encode_refs(refs)))
    assert reader.chunks == tuple(refs)
    assert reader.missing_bytes == refs[0].length
    list(PutReader(statement(refs)).feed(LIST_BYTES_MAX.to_bytes(4, "big")))
    with pytest.raises(LimitExceededError):
        list(PutReader(statement(refs)).feed((LIST_BYTES_MAX + 1).to_bytes(4, "big")))


def test_a_body_must_end_where_its_list_says():
    body = encode_refs(GOOD) + bytes(12)
    reader = PutReader(statement(GOOD))
    list(reader.feed(body[:-1]))
    with pytest.raises(ProtocolError):
        reader.finish()
    with pytest.raises(ProtocolError):
        list(PutReader(statement(GOOD)).feed(body + b"\0"))


def test_a_get_refuses_a_length_above_the_limit_before_the_bytes_come():
    for offset in (0, 5, limits.SEALED_CHUNK_BYTES_MAX):
        one = ChunkFrom(ID, offset)
        most = limits.SEALED_CHUNK_BYTES_MAX - offset
        reader = GetReader([one])
        with pytest.raises(ProtocolError):
            list(reader.feed((most + 1).to_bytes(4, "big") + b"x"))
        assert reader.break_off() is None
        reader = GetReader([one])
        assert list(reader.feed(most.to_bytes(4, "big"))) == ([] if most else [(one, b"")])
        assert list(GetReader([one]).feed(ABSENT.to_bytes(4, "big"))) == [(one, None)]


def test_ids_must_be_those_of_the_statement():
    ids = (ID, ChunkId(b"j" * 32))
    asked = statement([], root=ids_root(ids), count=2)
    assert decode_ids(encode_ids(ids), asked) == ids
    for wrong in (
        encode_ids(ids[:1]),
        encode_ids(ids[::-1]),
        encode_ids((ChunkId(b"i"), ChunkId(b"j"))),
        b"",
        b"\xc1",
        b"[" * 200_000,
    ):
        with pytest.raises((ProtocolError, LimitExceededError)):
            decode_ids(wrong, asked)


def test_what_a_get_wants_must_be_the_statements_ids_at_offsets_that_a_chunk_may_have():
    wanted = (ChunkFrom(ID, 0), ChunkFrom(ChunkId(b"j" * 32), limits.SEALED_CHUNK_BYTES_MAX))
    asked = statement([], root=ids_root([one.id for one in wanted]), count=2)
    assert decode_wanted(encode_wanted(wanted), asked) == wanted
    for wrong in (
        encode_wanted(wanted[:1]),
        encode_wanted(wanted[::-1]),
        encode_wanted((ChunkFrom(ID, -1), wanted[1])),
        encode_wanted((wanted[0], ChunkFrom(wanted[1].id, limits.SEALED_CHUNK_BYTES_MAX + 1))),
        encode_wanted((ChunkFrom(ChunkId(b"i"), 0), wanted[1])),
        encode_ids([one.id for one in wanted]),
        encode([[ID, 0, 0], [wanted[1].id, 0]]),
        encode([[ID], [wanted[1].id, 0]]),
        b"",
        b"[" * 200_000,
    ):
        with pytest.raises((ProtocolError, LimitExceededError)):
            decode_wanted(wrong, asked)
    most = [ChunkFrom(ref(i, 0).id, limits.SEALED_CHUNK_BYTES_MAX) for i in range(limits.BATCH_CHUNKS_MAX)]
    asked = statement([], root=ids_root([one.id for one in most]), count=len(most))
    assert decode_wanted(encode_wanted(most), asked) == tuple(most)


def test_a_proof_travels_as_a_header():
    signed = Signed(bytes(range(256)), b"s" * 64)
    text = encode_proof(signed)
    assert text.isascii()
    assert not set(text) & set("+/= \n")
    assert decode_proof(text) == signed
    for wrong in (None, "", "=", "a", text + "=", text + "A", text[:-2], " " + text, "é", "A" * 100_000, text + "\n"):
        with pytest.raises(ProtocolError):
            decode_proof(wrong)


def receipt(refs, seed=SEED):
    body = Receipt(public_key(seed), Pseudonym(b"p" * 16), DeviceId(b"d" * 32), batch_root(refs), len(refs), 1, 0)
    return ReceiptFor(sign_body(body, seed), tuple(refs))


def test_replies_are_read_back():
    put = PutReply((receipt(GOOD),), ((NODE, "full"),))
    assert decode_put_reply(encode(put)) == put
    for have in (HaveReply(None), HaveReply(receipt(GOOD))):
        assert decode_have_reply(encode(have)) == have


def test_a_receipt_counts_only_for_its_node_and_its_batch():
    """S45."""
    asked = statement(GOOD)
    check_receipt(receipt(GOOD), node=NODE, statement=asked)
    forged = receipt(GOOD)
    forged = ReceiptFor(Signed(forged.receipt.body, bytes(64)), forged.chunks)
    other = receipt(GOOD[:1])
    for wrong in (
        receipt(GOOD, bytes(32)),
        forged,
        other,
        ReceiptFor(other.receipt, tuple(GOOD)),
        ReceiptFor(receipt(GOOD).receipt, (ref(1, -5), ref(2, 7))),
    ):
        with pytest.raises((SecurityError, ProtocolError)):
            check_receipt(wrong, node=NODE, statement=asked)


@pytest.mark.parametrize("code", STATUS)
def test_every_refusal_has_a_status_and_an_error_and_says_nothing_else(code):
    assert encode_failure(code) == encode_failure(code)
    error = decode_failure(encode_failure(code))
    assert isinstance(error, KinfolderError)
    if code not in ("error", "limit", "not_found"):
        assert error.code == code


@given(st.binary(max_size=100))
def test_an_unreadable_refusal_is_a_node_that_cannot_serve(data):
    assert isinstance(decode_failure(data), UnavailableError)
