"""Which actions and files belong together: the story of one file, through all its names, copies and devices."""

from __future__ import annotations

from collections.abc import Iterable

from simulations.checks.names import wanted
from simulations.history.ledger import EMPTY
from simulations.situations.record import Deed, Record, Stroke


class Stories:
    """All stories of one history.

    Args:
        record: Of the history.
    """

    def __init__(self, record: Record) -> None:
        self._above: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self.names: dict[int, dict[str, None]] = {}
        """By number, all paths of a story, in the order in which they came."""
        self._by_content: dict[bytes, str] = {}
        for deed in record.deeds:
            for path, to, contents in _touched(deed):
                self._join(_plain(path), _plain(to))
                for content in contents:
                    if content not in (EMPTY, b""):
                        self._join(_plain(to), self._by_content.setdefault(content, _plain(to)))
        for stroke in record.strokes:
            if stroke.content in self._by_content:
                self._join(_plain(stroke.path), self._by_content[stroke.content])
        for deed in record.deeds:
            for path, to, _ in _touched(deed):
                self._name(path)
                self._name(to)
        for stroke in record.strokes:
            self._name(stroke.path)

    def of_deed(self, deed: Deed) -> list[int]:
        """Return the stories that an action is part of."""
        return self._all(path for path, _, _ in _touched(deed))

    def of_stroke(self, stroke: Stroke) -> list[int]:
        """Return the story that a change by a process is part of."""
        return self._all([stroke.path])

    def _all(self, paths: Iterable[str]) -> list[int]:
        return sorted({self._name(path) for path in paths})

    def _name(self, path: str) -> int:
        root = self._find(_plain(path))
        number = self._numbers.setdefault(root, len(self._numbers))
        self.names.setdefault(number, {})[path] = None
        return number

    def _find(self, path: str) -> str:
        while (above := self._above.get(path, path)) != path:
            path = above
        return path

    def _join(self, one: str, other: str) -> None:
        self._above[self._find(one)] = self._find(other)


def _plain(path: str) -> str:
    return "/".join(wanted(part) for part in path.split("/"))


def _touched(deed: Deed) -> list[tuple[str, str, list[bytes]]]:
    """Return what an action was about: where it stood, where it stands, and its contents."""
    if deed.operations:
        return [
            (op.path, op.to, [seen.content for seen in (op.old, op.new) if seen is not None and seen.size])
            for op in deed.operations
        ]
    changed = [path for path in deed.after if deed.after[path].content != _content(deed, path)]
    changed += [path for path in deed.before if path not in deed.after]
    return [(path, path, [deed.after[path].content] if path in deed.after else []) for path in changed]


def _content(deed: Deed, path: str) -> bytes | None:
    seen = deed.before.get(path)
    return None if seen is None else seen.content
