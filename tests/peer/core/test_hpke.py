"""HPKE: ours against the RFC's vectors, and against the library that the agent uses."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from peer.core.hpke import EphemeralHpke
from peer.core.keys import box_public
from peer.hpke import LibraryHpke
from protocol.errors import ProtocolError, SecurityError
from tests.peer.core.key_world import Stream

SECRET = bytes(range(32))
PUBLIC = box_public(SECRET)
OURS, LIBRARY = EphemeralHpke(Stream("hpke")), LibraryHpke()
DOORS = [pytest.param(OURS, id="ours"), pytest.param(LIBRARY, id="library")]

# RFC 9180, appendix A.1.1: base mode, X25519, HKDF-SHA256, AES-128-GCM.
RFC = {
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "skE": "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
    "pkE": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    "skR": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
    "pkR": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
    "key": "4531685d41d65f03dc48f6b8302c05b0",
    "nonce": "56d890e5accaaf011cff4b7d",
    "pt": "4265617574792069732074727574682c20747275746820626561757479",
    "aad": "436f756e742d30",
    "ct": "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
}
V = {name: bytes.fromhex(value) for name, value in RFC.items()}


def test_the_rfc_s_key_schedule():
    ours = EphemeralHpke(lambda _: V["skE"], aead=1)
    ephemeral = X25519PrivateKey.from_private_bytes(V["skE"])
    assert ephemeral.public_key().public_bytes_raw() == V["pkE"]
    assert box_public(V["skR"]) == V["pkR"]
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(V["pkR"]))
    assert ours._schedule(shared, V["pkE"] + V["pkR"], V["info"]) == (V["key"], V["nonce"])
    assert AESGCM(V["key"]).encrypt(V["nonce"], V["pt"], V["aad"]) == V["ct"]


def test_the_rfc_s_encapsulation():
    ours = EphemeralHpke(lambda _: V["skE"], aead=1)
    sealed = ours.seal(V["pkR"], V["info"], V["pt"])
    assert sealed[:32] == V["pkE"]
    # The vector's message has an aad and ours never has one: the ciphertext proper is the same, the tag is not.
    assert sealed[32:-16] == V["ct"][:-16]
    assert ours.open(V["skR"], V["info"], sealed) == V["pt"]


@pytest.mark.parametrize("sealer", DOORS)
@pytest.mark.parametrize("opener", DOORS)
def test_each_opens_what_the_other_sealed(sealer, opener):
    for size in (0, 32, 1000):
        sealed = sealer.seal(PUBLIC, b"info", bytes(size))
        assert len(sealed) == size + 48
        assert opener.open(SECRET, b"info", sealed) == bytes(size)


def test_repeatable_chance_makes_repeatable_bytes():
    assert EphemeralHpke(Stream("x")).seal(PUBLIC, b"", b"k") == EphemeralHpke(Stream("x")).seal(PUBLIC, b"", b"k")
    assert LIBRARY.seal(PUBLIC, b"", b"k") != LIBRARY.seal(PUBLIC, b"", b"k")


@pytest.mark.parametrize("door", DOORS)
def test_another_key_or_info_does_not_open(door):
    """S05."""
    sealed = door.seal(PUBLIC, b"info", b"key")
    for secret, info in ((bytes(range(1, 33)), b"info"), (SECRET, b""), (SECRET, b"info2")):
        with pytest.raises(SecurityError):
            door.open(secret, info, sealed)


@pytest.mark.parametrize("door", DOORS)
def test_malformed_wraps_give_one_error(door):
    """S04: ten thousand of them, and nothing to tell one from another."""
    sealed = door.seal(PUBLIC, b"info", bytes(32))
    wrong = Stream("wrong")
    tries = [
        b"",
        sealed[:31],
        sealed[:32],
        sealed[:47],
        sealed[:-1],
        sealed + b"\0",
        bytes(80),
        bytes(32) + sealed[32:],
    ]
    tries += [wrong(80) for _ in range(1000)]
    tries += [sealed[:32] + wrong(48) for _ in range(500)]
    for index in range(len(sealed)):
        broken = bytearray(sealed)
        broken[index] ^= 1
        tries.append(bytes(broken))
    seen = set()
    for one in tries:
        with pytest.raises(SecurityError) as caught:
            door.open(SECRET, b"info", one)
        seen.add((type(caught.value), str(caught.value), caught.value.__cause__))
    assert len(seen) == 1


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little")], ids=range(5))
def test_nothing_is_sealed_to_what_is_no_key(door, public):
    """A small-order point would make the same key for everybody."""
    with pytest.raises(ProtocolError):
        door.seal(public, b"", b"key")
