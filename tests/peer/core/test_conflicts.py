"""How conflict copies are called: kept extension, fitting names, nothing unsafe, the same everywhere."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.conflicts import bytes_of, conflict_name, conflict_names, name_key, split_extension, text_of
from protocol.entries import check_name
from protocol.ids import NodeId


@pytest.mark.parametrize(
    ("name", "stem", "extension"),
    [
        ("a.tar.gz", "a", ".tar.gz"),
        ("a.TAR.GZ", "a", ".TAR.GZ"),
        ("report.docx", "report", ".docx"),
        ("clip.mp4", "clip", ".mp4"),
        ("x.7z", "x", ".7z"),
        ("no extension", "no extension", ""),
        (".bashrc", ".bashrc", ""),
        (".config.json", ".config", ".json"),
        (".tar.gz", ".tar", ".gz"),
        ("...", "...", ""),
        ("Dr. Smith", "Dr. Smith", ""),
        ("version 1.2", "version 1.2", ""),
        ("ends with a dot.", "ends with a dot.", ""),
        ("a.b c", "a.b c", ""),
        ("a.extensionistoolong", "a.extensionistoolong", ""),
        ("\udcff.txt", "\udcff", ".txt"),
    ],
)
def test_what_counts_as_an_extension(name, stem, extension):
    """What programs go by, and no part of a sentence or a number; the dots that hide a name are not its extension."""
    assert split_extension(name) == (stem, extension)


def test_the_contract_s_example():
    """A conflict copy of ``a.tar.gz`` by the device Laptop."""
    assert conflict_name(b"a.tar.gz", "Laptop", "1a2b3c4d") == b"a (conflict, Laptop, 1a2b3c4d).tar.gz"


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Ann's Mac", "Ann's Mac"),
        ("a/b\\c:d", "a_b_c_d"),
        ("tab\there\u202e", "tab_here_"),
        ("", "device"),
        ("  ", "device"),
        ("\u7535\u8111", "\u7535\u8111"),
    ],
)
def test_labels_are_safe_in_names(label, shown):
    """Whatever a device is called, its label separates no directories and turns no text around."""
    assert text_of(conflict_name(b"f", label, "12345678")) == f"f (conflict, {shown}, 12345678)"


def test_the_label_gives_way_before_the_stem():
    """A long label is cut first, down to some length; then the stem is."""
    assert conflict_name(b"s" * 100 + b".txt", "L" * 255, "1" * 8).startswith(b"s" * 100 + b" (conflict, LLLL")
    long = conflict_name(b"s" * 250 + b".txt", "L" * 255, "1" * 8)
    assert len(long) == 255
    assert b" (conflict, " + b"L" * 24 + b", 11111111).txt" in long


texts = st.one_of(
    st.text(min_size=1, max_size=300),
    st.text(st.sampled_from("a.\u00e9\u7535\U0001f600 "), min_size=1, max_size=255),
    st.binary(min_size=1, max_size=255).map(text_of),
)


@given(texts, st.text(max_size=300), st.binary(min_size=16, max_size=16))
def test_every_name_can_be_a_file(name, label, id):
    """Suffixed names are names, fit their limit, keep the extension, and differ among themselves."""
    raw = bytes_of(name.replace("/", "_").replace("\0", "_").encode("utf-8", "replace").decode()) or b"x"
    raw = raw[:255]
    found = list(islice(conflict_names(raw, label, NodeId(id)), 4))
    extension = split_extension(text_of(raw))[1]
    for each in found:
        check_name(each)
        assert text_of(each).endswith(f"){extension}")
    assert len({name_key(each) for each in found}) == 4


@given(st.text(max_size=40))
def test_a_key_is_a_fixed_point(text):
    """The key of a key is itself, and a name that is no UTF-8 is its own."""
    raw = text.encode("utf-8", "replace")
    assert name_key(name_key(raw)) == name_key(raw)
    assert name_key(raw + b"\xff") == raw + b"\xff"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("caf\u00e9", "cafe\u0301", True),
        ("\uac00", "\u1100\u1161", True),
        ("q\u0323\u0307", "q\u0307\u0323", True),
        ("\u212b", "\u00c5", True),
        ("\ufb01", "fi", False),
        ("A", "a", False),
        ("e\u0301\U0001f600e\u0301", "\u00e9\U0001f600\u00e9", True),
        ("\U00011131\U00011127", "\U0001112e", False),
    ],
)
def test_which_names_are_one(one, other, equal):
    """Canonical equivalence by Unicode 3.2; not case, not compatibility, and nothing that was composed later."""
    assert (name_key(one.encode()) == name_key(other.encode())) is equal
