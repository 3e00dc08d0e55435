"""What the documents on formats say is what the code does."""

import re

import pytest

from protocol import chunks, limits
from tests.docs.generated import BLOCKS, DOCUMENTS, ROOT, renewed

TEXTS = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_generated_parts_are_current(name):
    """If not: python -m tests.docs.generated."""
    assert TEXTS[name] == renewed(TEXTS[name])


def test_every_generated_part_stands_in_a_document():
    named = {found for text in TEXTS.values() for found in re.findall(r"<!-- generated: ([a-z_]+) -->", text)}
    assert named == set(BLOCKS)


def test_the_numbers_of_the_texts_are_the_code_s():
    """Where a sentence names a size, it is this one."""
    storage = TEXTS["storage_format.md"]
    assert f"{chunks.OVERHEAD_BYTES} bytes more" in storage
    assert f"at the latest after {limits.SEGMENT_ROWS_MAX}" in storage
    assert f"at least {limits.CHUNK_PADDED_BYTES_MIN:,} bytes" in storage


def test_links_between_documents_lead_somewhere():
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / "docs" / target).exists(), f"{name}: {target}"
