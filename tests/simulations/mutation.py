"""Break one function of the product for a while, to see whether a check notices."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mutated(function: Callable[..., Any], old: str, new: str) -> Iterator[None]:
    """Let a function run with ``new`` where its source says ``old``, whoever has imported it under whatever name."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) >= 1, f"{function.__qualname__} does not say {old!r} any more"
    made: dict[str, Any] = {}
    body = source[source.index("def ") :]
    exec(compile(body.replace(old, new), f"<mutant of {function.__qualname__}>", "exec"), function.__globals__, made)
    before = function.__code__
    function.__code__ = made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before
