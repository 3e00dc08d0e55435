"""Invitations and coordinator URLs: one normal form, and no secret in an error."""

import pytest

from protocol.errors import EXIT_USAGE, UserError
from protocol.invitations import (
    Invitation,
    coordinator_url,
    format_invitation,
    is_invitation,
    is_loopback,
    parse_invitation,
)

PIN = bytes(range(32))

URLS = [
    ("ws://127.0.0.1:7000", "ws://127.0.0.1:7000"),
    ("ws://127.0.0.1:7000/", "ws://127.0.0.1:7000"),
    ("ws://localhost:1", "ws://localhost:1"),
    ("ws://[::1]:7000/", "ws://[::1]:7000"),
    ("ws://[0:0:0:0:0:0:0:1]:7000", "ws://[::1]:7000"),
    ("wss://Kin.Example:8443/", "wss://kin.example:8443"),
    ("wss://kin.example", "wss://kin.example:443"),
    ("wss://192.0.2.7:1", "wss://192.0.2.7:1"),
]

NOT_URLS = [
    "",
    "127.0.0.1:7000",
    "http://127.0.0.1:7000",
    "ws://192.0.2.7:7000",
    "ws://example.org:7000",
    "wss://host:0",
    "wss://host:65536",
    "wss://host:7000/path",
    "wss://user:secretword@host:7000",
    "wss://host:7000#secretword",
    "wss://[::zz]:1",
    "wss://[1:2]:1",
    "wss://ho st:1",
    "wss://host:1\n",
]

INVITATIONS = [
    ("kin+ws://127.0.0.1:7000/#abc-_9", Invitation("ws://127.0.0.1:7000", "abc-_9", None)),
    (f"kin+wss://host:7000/#tok.{PIN.hex()}", Invitation("wss://host:7000", "tok", PIN)),
    ("kin+wss://host:7000/#tok", Invitation("wss://host:7000", "tok", None)),
    (f"kin+wss://[2001:db8::1]:7000/#.{PIN.hex()}", Invitation("wss://[2001:db8::1]:7000", "", PIN)),
    ("kin+ws://[::1]:7000/#", Invitation("ws://[::1]:7000", "", None)),
]

NOT_INVITATIONS = [
    "",
    "secretword",
    "kin+ws://127.0.0.1:7000/",
    "kin+ws://127.0.0.1:7000/#secretword.",
    "kin+wss://host:7000/#secretword.abcd",
    f"kin+ws://127.0.0.1:7000/#secretword.{PIN.hex()}",
    f"kin+wss://host:7000/#secretword.{PIN.hex()}00",
    f"wss://host:7000/#secretword.{PIN.hex()}",
    "kin+wss://host:7000/#secretword/with/slash",
    "kin+ws://192.0.2.7:7000/#secretword",
    "kin+wss://host:7000/#" + "secretword" * 20,
]


@pytest.mark.parametrize(("text", "normal"), URLS)
def test_a_url_has_one_normal_form(text, normal):
    assert coordinator_url(text) == normal
    assert coordinator_url(normal) == normal


@pytest.mark.parametrize("text", NOT_URLS)
def test_a_wrong_url_is_one_clear_line_without_its_secrets(text):
    with pytest.raises(UserError) as caught:
        coordinator_url(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert "secretword" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "invitation"), INVITATIONS)
def test_an_invitation_is_read_and_written_alike(text, invitation):
    assert is_invitation(text)
    assert parse_invitation(text) == invitation
    assert format_invitation(invitation) == text
    assert parse_invitation(f" {text}\n") == invitation


@pytest.mark.parametrize("text", NOT_INVITATIONS)
def test_a_wrong_invitation_is_one_clear_line_without_its_token(text):
    with pytest.raises(UserError) as caught:
        parse_invitation(text)
    assert "secretword" not in str(caught.value)


def test_what_cannot_be_read_back_is_not_written():
    with pytest.raises(UserError):
        format_invitation(Invitation("wss://host:7000", "a.b", None))
    with pytest.raises(UserError):
        format_invitation(Invitation("ws://127.0.0.1:1", "a", PIN))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("example.org", False),
    ],
)
def test_loopback_is_known_by_address_or_name(host, expected):
    assert is_loopback(host) is expected
