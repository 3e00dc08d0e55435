"""Keys at rest: what protects the key file, and what is refused."""

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.config import KeyOptions
from peer.core.keys import AccountKeys, AccountRoot, DeviceSecrets
from peer.store import keyfile, vault
from peer.store.keyfile import KeyStore, Lock, has_keys, read_recovery_file, write_recovery_file
from protocol.codec import decode, encode
from protocol.errors import EXIT_USAGE, CorruptStateError, UserError

SECRETS = DeviceSecrets(bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34)))
ACCOUNT_KEYS = AccountKeys(bytes(32), {1: b"1" * 32, 2: b"2" * 32})


class MemoryVault:
    """A keyring that works."""

    def __init__(self):
        self.keys = {}

    def get(self, name):
        return self.keys.get(name)

    def put(self, name, key):
        self.keys[name] = key

    def delete(self, name):
        self.keys.pop(name, None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def phrase(tmp_path: Path) -> KeyOptions:
    file = tmp_path / "passphrase"
    file.write_text("correct horse\nsecond line\n")
    return KeyOptions(passphrase_file=file)


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory):
    """Bytes of a key file under the passphrase: Argon2id is made to cost, so it is paid once."""
    place = tmp_path_factory.mktemp("sealed")
    (place / "home").mkdir(mode=0o700)
    (place / "passphrase").write_text("correct horse\n")
    create(place / "home", KeyOptions(passphrase_file=place / "passphrase"))
    return (place / "home" / "keys.sealed").read_bytes()


@pytest.fixture
def sealed(home, sealed_once):
    """A home with a key file under the passphrase."""
    (home / "keys.sealed").write_bytes(sealed_once)
    (home / "keys.sealed").chmod(0o600)
    return home


PLAIN = KeyOptions(no_keyring=True)


def no_vault():
    return None


def create(home, options, *, warn=lambda _: None, find_vault=no_vault):
    return KeyStore.create(home, SECRETS, ACCOUNT_KEYS, options, warn=warn, find_vault=find_vault)


def load(home, options=PLAIN, find_vault=no_vault):
    return KeyStore.load(home, options, find_vault=find_vault)


def assert_same(store):
    assert store.secrets.sign_seed == SECRETS.sign_seed
    assert store.secrets.box_secret == SECRETS.box_secret
    assert store.secrets.tls_seed == SECRETS.tls_seed
    assert store.account_keys.secrets == ACCOUNT_KEYS.secrets


def test_a_plain_file_is_private_and_warned_of_once(home):
    warnings: list[str] = []
    create(home, PLAIN, warn=warnings.append)
    assert len(warnings) == 1
    assert os.listdir(home) == ["keys.plain"]
    assert stat.S_IMODE((home / "keys.plain").stat().st_mode) == 0o600
    store = load(home)
    assert store.lock is Lock.NOTHING
    assert_same(store)
    assert has_keys(home)


def test_a_passphrase_seals_the_file(home, phrase):
    create(home, phrase, warn=pytest.fail)
    data = (home / "keys.sealed").read_bytes()
    assert SECRETS.sign_seed not in data
    store = load(home, phrase)
    assert store.lock is Lock.PASSPHRASE
    assert_same(store)


def test_a_wrong_or_missing_passphrase_is_one_clear_error(sealed, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("incorrect horse\n")
    with pytest.raises(UserError, match="wrong"):
        load(sealed, KeyOptions(passphrase_file=wrong))
    with pytest.raises(UserError) as caught:
        load(sealed, KeyOptions())
    assert caught.value.exit_code == EXIT_USAGE


def test_a_person_is_asked_twice_for_a_new_passphrase(home):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "typed"

    create(home, KeyOptions(ask=ask))
    assert len(asked) == 2
    assert_same(load(home, KeyOptions(ask=ask)))
    assert len(asked) == 3


def test_two_different_passphrases_make_no_file(home):
    answers = iter(["one", "two"])
    with pytest.raises(UserError):
        create(home, KeyOptions(ask=lambda _: next(answers)))
    assert not has_keys(home)


def test_a_keyring_holds_the_master_key_only(home):
    ring = MemoryVault()
    create(home, KeyOptions(), find_vault=lambda: ring)
    assert len(ring.keys) == 1
    assert SECRETS.sign_seed not in (home / "keys.sealed").read_bytes()
    store = load(home, KeyOptions(), find_vault=lambda: ring)
    assert store.lock is Lock.KEYRING
    assert_same(store)
    store.discard()
    assert not ring.keys
    assert not has_keys(home)


def test_a_locked_or_foreign_keyring_opens_nothing(home):
    ring = MemoryVault()
    create(home, KeyOptions(), find_vault=lambda: ring)
    with pytest.raises(UserError):
        load(home, KeyOptions(), find_vault=no_vault)
    other = MemoryVault()
    with pytest.raises(UserError):
        load(home, KeyOptions(), find_vault=lambda: other)
    name = next(iter(ring.keys))
    other.put(name, bytes(32))
    with pytest.raises(CorruptStateError):
        load(home, KeyOptions(), find_vault=lambda: other)


def test_no_lock_at_all_is_wrong_usage(home):
    """S74: without a keyring, a passphrase or --no-keyring nothing is written."""
    with pytest.raises(UserError) as caught:
        create(home, KeyOptions())
    assert caught.value.exit_code == EXIT_USAGE
    assert not has_keys(home)


@pytest.mark.parametrize("who", ["home", "file"])
def test_looser_modes_are_refused(home, who):
    """S73."""
    create(home, PLAIN)
    (home if who == "home" else home / "keys.plain").chmod(0o750 if who == "home" else 0o640)
    with pytest.raises(UserError, match="open to other users"):
        load(home)


def test_a_link_or_a_second_file_in_place_of_the_keys_is_refused(home, phrase):
    create(home, PLAIN)
    (home / "keys.plain").rename(home / "elsewhere")
    (home / "keys.plain").symlink_to("elsewhere")
    with pytest.raises(UserError):
        load(home)
    (home / "keys.plain").unlink()
    (home / "elsewhere").rename(home / "keys.plain")
    (home / "keys.sealed").write_bytes(b"")
    with pytest.raises(UserError, match="both"):
        load(home)


def test_keys_are_never_overwritten_by_new_ones(home):
    create(home, PLAIN)
    with pytest.raises(UserError, match="already"):
        create(home, PLAIN)


def test_saving_replaces_the_account_keys_and_leaves_no_other_file(sealed, phrase):
    store = load(sealed, phrase)
    (sealed / ".keys.new").write_bytes(b"left by a crash")
    store.save(ACCOUNT_KEYS.and_next(b"3" * 32))
    assert os.listdir(sealed) == ["keys.sealed"]
    assert sorted(load(sealed, phrase).account_keys.secrets) == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": keyfile.ARGON2_MEMORY_KIB - 1},
        {"iterations": keyfile.ARGON2_ITERATIONS - 1},
        {"lanes": keyfile.ARGON2_LANES - 1},
        {"memory_kib": 1024 * 1024 + 1},
        {"salt": b"short"},
        {"version": 0},
        {"version": 2},
    ],
    ids=str,
)
def test_cheaper_costs_and_other_versions_are_refused(sealed, phrase, change):
    """S06: the file cannot talk its reader into less than Kinfolder ever wrote."""
    rewrite(sealed / "keys.sealed", change)
    with pytest.raises(CorruptStateError):
        load(sealed, phrase)


@pytest.mark.parametrize("change", [{"iterations": 4}, {"salt": b"s" * 16}, {"lock": Lock.NOTHING}], ids=str)
def test_the_header_is_bound_to_the_keys(sealed, phrase, change):
    """S17: other parameters are another key; one guess per ciphertext."""
    rewrite(sealed / "keys.sealed", change)
    with pytest.raises((UserError, CorruptStateError)):
        load(sealed, phrase)


def rewrite(path, change):
    file: Any = decode(path.read_bytes(), keyfile._KeyFile, bytes_max=1 << 20)
    path.write_bytes(encode(msgspec.structs.replace(file, **change)))


def test_damage_is_noticed(home):
    create(home, PLAIN)
    path = home / "keys.plain"
    data = path.read_bytes()
    for broken in (b"", data[:-1], data + b"\0", b"\xc1" * 50):
        path.write_bytes(broken)
        with pytest.raises(CorruptStateError):
            load(home)


def test_nothing_secret_is_shown_or_pickled(home):
    """S75."""
    store = create(home, PLAIN)
    file: Any = decode((home / "keys.plain").read_bytes(), keyfile._KeyFile, bytes_max=1 << 20)
    for one in (store, file, decode(file.body, keyfile._Stored, bytes_max=1 << 20)):
        assert "not shown" in repr(one)
        assert not list(getattr(one, "__rich_repr__", list)())
    with pytest.raises(TypeError):
        pickle.dumps(store)


# The keyring's allow-list.


def backend(module, name, **members):
    return type(name, (), {"__module__": module, "__qualname__": name, **members})()


@pytest.mark.parametrize(
    ("module", "name", "fine"),
    [
        ("keyring.backends.SecretService", "Keyring", True),
        ("keyring.backends.macOS", "Keyring", True),
        ("keyring.backends.kwallet", "DBusKeyring", True),
        ("keyring.backends.fail", "Keyring", False),
        ("keyring.backends.null", "Keyring", False),
        ("keyrings.alt.file", "PlaintextKeyring", False),
        ("keyrings.alt.file", "EncryptedKeyring", False),
        ("somebody.elses", "Keyring", False),
    ],
)
def test_backends_are_allowed_by_name(module, name, fine):
    """S74."""
    assert (vault.allowed(backend(module, name)) is not None) is fine


def test_a_chain_counts_by_its_first_allowed_backend():
    good = backend("keyring.backends.SecretService", "Keyring")
    bad = backend("keyrings.alt.file", "PlaintextKeyring")
    chain = backend("keyring.backends.chainer", "ChainerBackend", backends=[bad, good])
    assert vault.allowed(chain) is good
    assert vault.allowed(backend("keyring.backends.chainer", "ChainerBackend", backends=[bad])) is None


def test_a_keyring_that_forgets_is_noticed():
    kept: dict[tuple[str, str], str] = {}
    good = vault.KeyringVault(
        backend(
            "x",
            "Y",
            set_password=lambda _, service, name, text: kept.__setitem__((service, name), text),
            get_password=lambda _, service, name: kept.get((service, name)),
            delete_password=lambda _, service, name: kept.pop((service, name)),
        )
    )
    good.put("a", b"k" * 32)
    assert good.get("a") == b"k" * 32
    good.delete("a")
    good.delete("a")
    assert good.get("a") is None
    forgetful = vault.KeyringVault(backend("x", "Y", set_password=lambda *_: None, get_password=lambda *_: None))
    with pytest.raises(UserError):
        forgetful.put("a", b"k" * 32)


# The recovery file.


def test_a_recovery_file_brings_the_root_back(tmp_path):
    root = AccountRoot(bytes(range(32)))
    path = tmp_path / "words.txt"
    write_recovery_file(path, root.words(), "wss://example.org:443", b"f" * 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_recovery_file(path)
    assert (found.root.seed, found.url, found.fingerprint) == (root.seed, "wss://example.org:443", b"f" * 32)
    with pytest.raises(UserError, match="already"):
        write_recovery_file(path, root.words(), "wss://example.org:443", b"")


def test_a_recovery_file_typed_in_again_may_be_untidy(tmp_path):
    root = AccountRoot(bytes(range(32)))
    path = tmp_path / "words.txt"
    path.write_text(f"  words:   {root.words().upper().replace(' ', '   ')}\r\ncoordinator: ws://127.0.0.1:1\n")
    found = read_recovery_file(path)
    assert (found.root.seed, found.fingerprint, found.account) == (root.seed, b"", None)


@pytest.mark.parametrize("text", ["", "words: abandon abandon", "coordinator: x", "words: " + "abandon " * 24, "\xff"])
def test_what_is_no_recovery_file_is_said_so(tmp_path, text):
    path = tmp_path / "words.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError):
        read_recovery_file(path)
