"""Which device a person means who takes one out of the account."""

from __future__ import annotations

import pytest

from peer.revoking import Named, choose
from protocol.errors import UserError
from protocol.ids import DeviceId

THIS = DeviceId(b"\x11" * 32)
PHONE = Named(DeviceId(b"\xaa\xbb\xcc\xdd" + bytes(28)), "Phone", True)
OTHER = Named(DeviceId(b"\xaa\xbb\xcc\xee" + bytes(28)), "Phone", True)
GONE = Named(DeviceId(b"\x22" * 32), "Phone", False)
LAPTOP = Named(THIS, "Laptop", True)


@pytest.mark.parametrize("name", ["Phone", "aabbccdd", "AABBCCDD00", PHONE.id.hex()])
def test_a_device_is_named_by_its_name_or_the_beginning_of_its_id(name: str) -> None:
    assert choose(name, [LAPTOP, PHONE, GONE], THIS) is PHONE


def test_a_device_that_is_out_already_is_found_where_no_other_has_its_name() -> None:
    assert choose("Phone", [LAPTOP, GONE], THIS) is GONE


def test_a_device_whose_name_looks_like_an_id_is_found() -> None:
    odd = Named(DeviceId(b"\x33" * 32), "12345678", True)
    assert choose("12345678", [LAPTOP, odd], THIS) is odd


@pytest.mark.parametrize(
    ("name", "devices", "words"),
    [
        ("Phone", [LAPTOP, PHONE, OTHER], "aabbccdd0000, aabbccee0000"),
        ("aabbcc", [LAPTOP, PHONE], "no device aabbcc; it has: Laptop, Phone"),
        ("Tablet", [LAPTOP, PHONE, GONE], "no device Tablet; it has: Laptop, Phone"),
        ("", [LAPTOP, PHONE], "no device ; it has"),
        ("Laptop", [LAPTOP, PHONE], "cannot take itself out"),
        ("Laptop", [LAPTOP, GONE], "only device"),
    ],
)
def test_what_is_not_one_other_device_is_refused(name: str, devices: list[Named], words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose(name, devices, THIS)
