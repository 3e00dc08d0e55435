"""Codes for linking a device: one word, read back as it was written."""

import pytest

from protocol.errors import UserError
from protocol.link_codes import LinkCode, format_link_code, parse_link_code

PIN = bytes(range(32))


@pytest.mark.parametrize(
    "code",
    [
        LinkCode(0, ("a", "b", "c"), None, None),
        LinkCode(417, ("abandon", "ability", "zoo"), None, None),
        LinkCode(417, ("abandon", "ability", "zoo"), "wss://example.org:8443", PIN),
        LinkCode(417, ("abandon", "ability", "zoo"), "wss://192.0.2.7:443", PIN),
        LinkCode(417, ("abandon", "ability", "zoo"), "wss://[2001:db8::7]:443", PIN),
    ],
    ids=str,
)
def test_a_code_is_read_back(code):
    text = format_link_code(code)
    assert " " not in text
    assert parse_link_code(text) == code
    assert parse_link_code(f"  {text.upper()}\n") == code


def test_the_place_is_no_part_of_what_is_proven():
    """Both devices know the number and the words; only one of them the address in this form."""
    short, long = parse_link_code("7-a-b-c"), parse_link_code(f"7-a-b-c@example.org:1.{PIN.hex()}")
    assert short.password == long.password == b"7-a-b-c"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7-a-b",
        "7-a-b-c-d",
        "a-b-c",
        "-a-b-c",
        "7-a-b-",
        "7 a b c",
        "99999999999-a-b-c",
        "4294967296-a-b-c",
        "7-a-b-c@example.org:1",
        f"7-a-b-c@.{PIN.hex()}",
        f"7-a-b-c@example.org:0.{PIN.hex()}",
        f"7-a-b-c@example.org/x.{PIN.hex()}",
        f"7-a-b-c@example.org:1.{PIN.hex()[1:]}",
        "7-a-b-c@example.org:1.zz",
    ],
)
def test_what_is_no_code_is_said_without_repeating_it(text):
    with pytest.raises(UserError) as caught:
        parse_link_code(text)
    assert not text or text not in str(caught.value)
