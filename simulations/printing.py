"""How free text becomes a line: names hold whatever a file system lets them hold."""

from __future__ import annotations

import re
from typing import Final

_ODD: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    """Return a text with escapes instead of all that ends a line, moves a cursor, or is no character."""
    return _ODD.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
