"""SEAL: what opens, what does not, and that nothing tells the two failures apart."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core import sealing
from peer.core.sealing import (
    NONCE,
    SEAL_FLOOR_BYTES,
    SEAL_OVERHEAD_BYTES,
    derive_key,
    open_sealed,
    seal,
)
from protocol.chunks import padme
from protocol.errors import SecurityError
from tests.peer.core.key_world import Stream

KEY = bytes(range(32))


@settings(max_examples=60, deadline=None)
@given(text=st.binary(max_size=3000), aad=st.binary(max_size=100), floor=st.sampled_from([64, 256, 512]))
def test_what_was_sealed_opens(text, aad, floor):
    sealed = seal("test", KEY, aad, text, Stream("salt"), floor=floor)
    assert open_sealed("test", KEY, aad, sealed, floor=floor) == text
    assert len(sealed) - SEAL_OVERHEAD_BYTES == max(padme(len(text) + 4), floor)


def test_the_length_of_a_short_text_does_not_show():
    lengths = {len(seal("test", KEY, b"", b"x" * size, Stream("s"))) for size in range(SEAL_FLOOR_BYTES - 4 + 1)}
    assert lengths == {SEAL_OVERHEAD_BYTES + SEAL_FLOOR_BYTES}


def test_each_sealing_is_another_key():
    """S14: the nonce is a constant, so the key must never be."""
    entropy = Stream("s")
    assert len({seal("test", KEY, b"", b"same", entropy)[34:66] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("purpose", "key", "aad", "floor"),
    [
        ("other", KEY, b"aad", 256),
        ("test", bytes(32), b"aad", 256),
        ("test", KEY, b"", 256),
        ("test", KEY, b"aad2", 256),
        ("test", KEY, b"aad", 64),
        ("test", KEY, b"aad", 512),
        ("tes", KEY, b"t\x00aad", 256),
    ],
)
def test_another_purpose_key_context_or_size_does_not_open(purpose, key, aad, floor):
    """S05, S23."""
    sealed = seal("test", KEY, b"aad", b"text", Stream("s"))
    with pytest.raises(SecurityError):
        open_sealed(purpose, key, aad, sealed, floor=floor)


def test_no_flipped_bit_opens():
    """S08."""
    sealed = seal("test", KEY, b"aad", b"text", Stream("s"))
    for index in range(len(sealed)):
        for bit in range(8):
            broken = bytearray(sealed)
            broken[index] ^= 1 << bit
            with pytest.raises(SecurityError):
                open_sealed("test", KEY, b"aad", bytes(broken))


def test_every_failure_is_the_same():
    """S04: a server that feeds ten thousand wraps learns nothing from the reactions."""
    sealed = seal("test", KEY, b"", b"text", Stream("s"))
    wrong = Stream("wrong")
    tries = [
        b"",
        b"\x01",
        sealed[:-1],
        sealed + b"\0",
        bytes(len(sealed)),
        b"\x02" + sealed[1:],
        sealed[:1] + b"\x02" + sealed[2:],
    ]
    tries += [wrong(size) for size in (1, 81, 82, 338, 1000) for _ in range(200)]
    tries += [sealed[:cut] + wrong(len(sealed) - cut) for cut in (1, 2, 34, 66, 100) for _ in range(200)]
    seen = set()
    for one in tries:
        with pytest.raises(SecurityError) as caught:
            open_sealed("test", KEY, b"", one)
        seen.add((type(caught.value), str(caught.value), caught.value.__cause__))
    assert len(seen) == 1


def forge(text, *, commitment=None):
    """Seal raw padded bytes as :func:`seal` would, to see what the opener checks of them."""
    salt = bytes(32)
    okm = derive_key("test", KEY + salt, 64)
    return bytes((1, 1)) + salt + (commitment or okm[32:]) + AESGCM(okm[:32]).encrypt(NONCE, text, b"test\x00")


@pytest.mark.parametrize(
    "text",
    [
        (4).to_bytes(4, "big") + b"text" + bytes(247) + b"\x01",
        (4).to_bytes(4, "big") + b"text" + bytes(249),
        (4).to_bytes(4, "big") + b"text" + bytes(264),
        (253).to_bytes(4, "big") + bytes(252),
        ((1 << 32) - 1).to_bytes(4, "big") + bytes(252),
        (301).to_bytes(4, "big") + bytes(301),
    ],
    ids=["dirty padding", "not padded enough", "padded too much", "length beyond", "length far beyond", "no padding"],
)
def test_padding_has_one_form(text):
    """S62: one plaintext, one sealed length."""
    with pytest.raises(SecurityError):
        open_sealed("test", KEY, b"", forge(text))
    assert open_sealed("test", KEY, b"", forge((4).to_bytes(4, "big") + b"text" + bytes(248))) == b"text"


def test_a_ciphertext_for_two_keys_is_refused_before_it_is_decrypted(monkeypatch):
    """S16, S17: the commitment fits one key; the cipher is not even asked for the others."""
    sealed = forge((4).to_bytes(4, "big") + b"text" + bytes(248), commitment=bytes(32))

    class Refuses:
        def __init__(self, key):
            pytest.fail("the commitment was not checked first")

    monkeypatch.setattr(sealing, "AESGCM", Refuses)
    with pytest.raises(SecurityError):
        open_sealed("test", KEY, b"", sealed)


def test_keys_derive_by_purpose_and_material():
    made = {derive_key(purpose, material) for purpose in ("a", "b") for material in (b"", b"a", KEY)}
    assert len(made) == 6
    assert derive_key("a", KEY, 64)[:32] == derive_key("a", KEY)
