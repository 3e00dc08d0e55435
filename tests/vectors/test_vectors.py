"""The byte vectors: what the code makes today, and what a second decoder reads in them."""

import json
from pathlib import Path

import pytest

from peer.core.chunk_sealing import CODEC_ZSTD
from protocol import messages
from protocol.messages import decode_frame, encode_frame
from tests.vectors import generate, second_decoder

HERE = Path(__file__).parent
FILES = {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in generate.FILES}


def made_by(name):
    """Return what the code makes, through JSON, as the file was."""
    return json.loads(json.dumps(generate.FILES[name]()))


@pytest.mark.parametrize("name", FILES)
def test_the_code_makes_these_bytes(name):
    """A difference here means that stored data of the past is no longer made, or read, as it was."""
    expected, made = FILES[name], made_by(name)
    if expected.get("codec", CODEC_ZSTD) != CODEC_ZSTD:
        pytest.skip("another zstd makes other bytes; the second decoder still reads these")
    assert made == expected


@pytest.mark.parametrize("name", FILES)
def test_a_second_decoder_agrees(name):
    getattr(second_decoder, f"check_{name}")(FILES[name])


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("cuts", "messages")])
def test_the_second_decoder_does_look(name):
    """Another byte in any of a few places, and it objects."""
    text = json.dumps(FILES[name])
    places = [
        index
        for index in range(len(text) // 2, len(text), max(1, len(text) // 97))
        if text[index] in "0123456789abcdef"
    ]
    objections = 0
    for index in places:
        other = "1" if text[index] == "0" else "0"
        try:
            getattr(second_decoder, f"check_{name}")(json.loads(text[:index] + other + text[index + 1 :]))
        except Exception:  # noqa: BLE001  # an objection is whatever is raised
            objections += 1
    assert objections > len(places) // 2


def test_every_message_has_a_vector_and_is_read_back():
    """A tag never changes its meaning: a new message adds a case, and no case ever changes."""
    frames = {case["name"]: bytes.fromhex(case["frame"]) for case in FILES["messages"]["cases"]}
    assert set(frames) == {kind.__name__ for kind in messages.Message.__args__}
    for name, data in frames.items():
        frame = decode_frame(data)
        assert type(frame.body).__name__ == name
        assert encode_frame(frame.id, frame.body, reply=frame.reply) == data


def test_the_second_decoder_is_small_and_shares_no_code():
    source = (HERE / "second_decoder.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 300
    for package in ("protocol", "peer", "msgspec", "tests"):
        assert f"import {package}" not in source
        assert f"from {package}" not in source
