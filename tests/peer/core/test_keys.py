"""Keys of devices, roots, accounts and folders; and that none of them shows itself."""

import copy
import pickle
import socket
import ssl
import threading

import pytest

from peer.core.keys import (
    AccountKey,
    AccountKeys,
    AccountRoot,
    DeviceSecrets,
    FolderKeys,
    check_label,
    device_name_key,
    discovery_tag,
    open_device_name,
    open_folder_name,
    seal_device_name,
    seal_folder_name,
)
from protocol import signing
from protocol.chains import device_keys_proof_bytes
from protocol.errors import ProtocolError, SecurityError, UserError
from protocol.ids import NodeId, device_id
from tests.peer.core.key_world import Stream


def device(name="device"):
    return DeviceSecrets.create(Stream(name))


def folder_keys(epoch=1, scope="folder"):
    return FolderKeys(epoch, b"f" * 32, cdc_id=bytes(16), cdc=b"c" * 32, dedup_scope=scope)


def test_a_device_s_keys_come_from_chance_alone():
    assert device().sign_public == device().sign_public
    assert device().sign_public != device("other").sign_public
    one = device()
    assert len({one.sign_seed, one.box_secret, one.tls_seed}) == 3
    assert one.id == device_id(one.sign_public)


def test_a_device_proves_its_keys():
    one = device()
    keys = one.public(b"sealed name")
    signing.verify("device-keys", device_keys_proof_bytes(keys), one.prove(keys), one.sign_public)


def test_the_certificate_is_the_same_for_the_same_key():
    assert device().certificate == device().certificate
    assert device().certificate != device("other").certificate
    assert len(device().certificate) < 500


# The recovery phrase (S80).


def test_a_phrase_brings_the_root_back():
    root = AccountRoot.create(Stream("root"))
    words = root.words()
    assert len(words.split()) == 24
    for text in (words, words.upper(), "  " + words.replace(" ", "\n  ") + "\t"):
        again = AccountRoot.from_words(text)
        assert (again.seed, again.sign_public, again.box_public) == (root.seed, root.sign_public, root.box_public)


def test_the_phrase_is_bip_39():
    assert AccountRoot(bytes(32)).words() == "abandon " * 23 + "art"
    assert AccountRoot(b"\xff" * 32).words() == "zoo " * 23 + "vote"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "24 words"),
        ("abandon " * 23, "24 words"),
        ("abandon " * 25, "24 words"),
        ("abandon " * 24, "hold together"),
        ("abandon " * 11 + "abandonn " + "abandon " * 11 + "art", "word 12"),
        ("art " + "abandon " * 23, "hold together"),
    ],
)
def test_a_mistyped_phrase_is_found_out_offline(words, text):
    """S80: nothing is asked of a server, and nothing of the phrase is repeated."""
    with pytest.raises(UserError, match=text) as caught:
        AccountRoot.from_words(words)
    assert "abandonn" not in str(caught.value)


def test_a_root_is_made_of_32_bytes():
    with pytest.raises(ProtocolError):
        AccountRoot(bytes(31))


# Names.


def test_a_device_s_name_opens_for_its_account():
    keys = AccountKeys(b"r" * 32, {1: b"1" * 32, 2: b"2" * 32})
    one = device()
    for generation in (1, 2):
        name_key = device_name_key(keys.generation(generation))
        sealed = seal_device_name("Anna's Löptop", name_key, generation, b"r" * 32, one.sign_public, Stream("s"))
        assert open_device_name(one.public(sealed), keys) == "Anna's Löptop"
        with pytest.raises(SecurityError):
            open_device_name(device("other").public(sealed), keys)
        with pytest.raises(SecurityError):
            open_device_name(one.public(sealed), AccountKeys(b"q" * 32, keys.secrets))
        with pytest.raises(SecurityError):
            open_device_name(one.public(sealed), AccountKeys(b"r" * 32, {3: b"3" * 32}))
    with pytest.raises(SecurityError):
        open_device_name(one.public(b""), keys)


def test_a_folder_s_name_opens_in_its_epoch_and_folder():
    """S05, S10."""
    sealed = seal_folder_name("Documents", folder_keys(), b"x" * 32, Stream("s"))
    assert open_folder_name(sealed, folder_keys(), b"x" * 32) == "Documents"
    for keys, context in ((folder_keys(2), b"x" * 32), (folder_keys(), b"y" * 32)):
        with pytest.raises(SecurityError):
            open_folder_name(sealed, keys, context)


@pytest.mark.parametrize("name", ["", "n" * 256, "ä" * 128, "\udc80"])
def test_names_have_bounds(name):
    with pytest.raises(UserError):
        check_label(name)
    check_label("n" * 255)


# Account and folder keys.


def test_generations_follow_each_other():
    keys = AccountKeys(b"r" * 32, {1: b"1" * 32})
    later = keys.and_next(b"2" * 32)
    assert (keys.newest.generation, later.newest.generation) == (1, 2)
    assert later.generation(1).secret == b"1" * 32
    with pytest.raises(SecurityError):
        later.generation(3)


def test_a_folder_s_keys_are_all_different():
    keys = folder_keys()
    assert len({keys.fek, keys.entry, keys.chunk, keys.disc, keys.pin, keys.cdc, keys.commit}) == 7


def test_the_scope_of_deduplication_decides_the_chunk_key():
    """S36."""
    files = [NodeId(bytes([number]) * 16) for number in range(3)]
    assert len({folder_keys(scope="folder").chunk_key(file) for file in files}) == 1
    assert len({folder_keys(scope="file").chunk_key(file) for file in files}) == 3


def test_announcements_of_two_days_or_ports_share_nothing():
    """S67."""
    tags = {discovery_tag(folder_keys().disc, day, port) for day in (1, 2) for port in (1, 2)}
    assert len(tags) == 4
    assert {len(tag) for tag in tags} == {8}


@pytest.mark.parametrize(
    "secret",
    [
        device(),
        AccountRoot(bytes(32)),
        AccountKey(1, bytes(32)),
        AccountKeys(bytes(32), {1: bytes(32)}),
        folder_keys(),
    ],
    ids=lambda secret: type(secret).__name__,
)
def test_no_key_shows_itself_or_is_copied(secret):
    """S75."""
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "not shown" in text
        assert "00" not in text
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            act(secret)
    assert not hasattr(secret, "__dict__")


# TLS on the LAN (security 3.12).


def context(side, own, tmp_path, *, allowed):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    path = tmp_path / f"{own.id.hex()[:8]}-{side}.pem"
    path.write_bytes(own.tls_key_pem() + ssl.DER_cert_to_PEM_cert(own.certificate).encode())
    made.load_cert_chain(path)
    for one in allowed:
        made.load_verify_locations(cadata=one.certificate)
    return made


def handshake(tmp_path, *, server, client, server_allows, client_allows):
    """Return the certificates that server and client saw, or the error of either."""
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)
    results = {}

    def serve():
        try:
            with context("server", server, tmp_path, allowed=server_allows).wrap_socket(left, server_side=True) as one:
                one.sendall(b"hello")
                results["server"] = one.getpeercert(binary_form=True)
        except (OSError, ssl.SSLError) as error:
            results["server"] = error

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context("client", client, tmp_path, allowed=client_allows).wrap_socket(right) as one:
            one.recv(5)
            results["client"] = one.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError) as error:
        results["client"] = error
    thread.join()
    left.close()
    right.close()
    return results["server"], results["client"]


def test_two_devices_that_pin_each_other_meet_over_strict_tls(tmp_path):
    here, there = device("here"), device("there")
    others = [device(f"other {number}") for number in range(20)]
    seen = handshake(tmp_path, server=here, client=there, server_allows=[*others, there], client_allows=[*others, here])
    assert seen == (there.certificate, here.certificate)


@pytest.mark.parametrize("who", ["server", "client"])
def test_a_device_that_is_not_pinned_is_refused(tmp_path, who):
    """S65."""
    here, there, other = device("here"), device("there"), device("other")
    allows = {"server": [there], "client": [here], who: [other]}
    seen = handshake(
        tmp_path, server=here, client=there, server_allows=allows["server"], client_allows=allows["client"]
    )
    assert isinstance(seen[("server", "client").index(who)], ssl.SSLError)
