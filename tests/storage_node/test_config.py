"""Options become settings, or one clear line."""

from pathlib import Path
from typing import Any

import pytest

from protocol.errors import EXIT_USAGE, UserError
from storage_node.config import make_settings, parse_size

GIVEN: dict[str, Any] = {
    "data": Path("data"),
    "listen": "127.0.0.1:0",
    "coordinator": "ws://127.0.0.1:1/",
    "invite": "token",
    "advertise": None,
    "zone": None,
    "limit": None,
    "backend": None,
}
PIN = bytes(range(32))

WRONG = [
    ({"backend": "s3://bucket"}, "not in this version"),
    ({"listen": "nowhere"}, "HOST:PORT"),
    ({"listen": "127.0.0.1:65536"}, "HOST:PORT"),
    ({"listen": "127.0.0.1"}, "HOST:PORT"),
    ({"listen": "0.0.0.0:0"}, "--advertise"),
    ({"listen": "[::]:0"}, "--advertise"),
    ({"coordinator": "http://x"}, "coordinator URL"),
    ({"coordinator": "ws://192.0.2.1:1"}, "wss://"),
    ({"invite": "kin+wss://nonsense"}, "no invitation"),
    ({"limit": "plenty"}, "size"),
    ({"limit": "1K"}, "--limit"),
    ({"limit": "-1G"}, "size"),
    ({"advertise": "here"}, "--advertise"),
    ({"advertise": "https://user@host"}, "--advertise"),
    ({"advertise": "http://192.0.2.1:80"}, "--advertise"),
    ({"zone": "a b"}, "--zone"),
    ({"zone": "z" * 65}, "--zone"),
]


@pytest.mark.parametrize(("changes", "text"), WRONG)
def test_what_cannot_be_is_wrong_usage(changes, text):
    with pytest.raises(UserError, match=text) as caught:
        make_settings(**GIVEN | changes)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_token_goes_with_a_url_and_an_invitation_stands_alone():
    settings = make_settings(**GIVEN)
    assert (settings.coordinator_url, settings.token, settings.fingerprint) == ("ws://127.0.0.1:1", "token", None)
    invitation = f"kin+wss://host:7/#word.{PIN.hex()}"
    settings = make_settings(**GIVEN | {"coordinator": None, "invite": invitation})
    assert (settings.coordinator_url, settings.token, settings.fingerprint) == ("wss://host:7", "word", PIN)
    settings = make_settings(**GIVEN | {"coordinator": "wss://other:8", "invite": invitation})
    assert (settings.coordinator_url, settings.fingerprint) == ("wss://other:8", PIN)


@pytest.mark.parametrize(
    ("listen", "host", "is_tls"),
    [
        ("127.0.0.1:1", "127.0.0.1", False),
        ("localhost:1", "127.0.0.1", False),
        ("[::1]:1", "::1", False),
        ("192.0.2.1:1", "192.0.2.1", True),
    ],
)
def test_loopback_is_plain_and_everything_else_is_tls(listen, host, is_tls):
    settings = make_settings(**GIVEN | {"listen": listen})
    assert (settings.host, settings.port, settings.is_tls) == (host, 1, is_tls)


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("1K", 1024), ("500G", 500 << 30), ("2TiB", 2 << 40), ("3mb", 3 << 20), (" 1P ", 1 << 50)],
)
def test_sizes_are_powers_of_1024(text, size):
    assert parse_size(text) == size
