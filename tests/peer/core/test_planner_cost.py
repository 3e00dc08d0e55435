"""What one pass costs: as much among many items as among few."""

from __future__ import annotations

from typing import Any

import pytest

from peer.core.planner import plan
from peer.core.tree import Item, MemoryTree
from protocol.ids import ROOT
from tests.peer.core.trees import DIRECTORY, file, node, tree


class Counting:
    """Counts look-ups, and what they return."""

    def __init__(self, inner: MemoryTree) -> None:
        self.inner = inner
        self.count = 0

    def item(self, id):
        self.count += 1
        return self.inner.item(id)

    def child(self, parent, name):
        self.count += 1
        return self.inner.child(parent, name)

    def children(self, parent):
        for item in self.inner.children(parent):
            self.count += 1
            yield item


def big(files: int) -> dict[str, tuple[str, str]]:
    spec = {f"d{i}": (f"d{i}", "/") for i in range(files // 100)}
    spec.update({f"f{i}": (f"d{i // 100}/f{i % 100}", "x") for i in range(files)})
    return spec


@pytest.mark.parametrize("side", ["local", "remote"])
@pytest.mark.parametrize("change", ["edit", "rename", "remove", "create", "rename directory"])
def test_one_change_costs_the_same_among_many(side, change):
    costs = []
    for files in (100, 10_000):
        three = {"local": tree(big(files), dots=None), "synced": tree(big(files)), "remote": tree(big(files))}
        changed = three[side]
        file_item, directory = changed.item(node("f7")), changed.item(node("d0"))
        assert file_item is not None
        assert directory is not None
        dirty = file_item.id
        match change:
            case "edit":
                changed.put(Item(file_item.id, file_item.parent, file_item.name, file("new")))
            case "rename":
                changed.put(Item(file_item.id, ROOT, "new", file_item.content))
            case "remove":
                changed.drop(file_item.id)
            case "create":
                dirty = node("new")
                changed.put(Item(dirty, directory.id, "new", file("new")))
            case "rename directory":
                dirty = directory.id
                changed.put(Item(dirty, ROOT, "new", DIRECTORY))
        counting: dict[str, Any] = {name: Counting(each) for name, each in three.items()}
        made = plan(**counting, dirty={dirty})
        assert len(made.acts) + len(made.steps) == 1
        costs.append(sum(each.count for each in counting.values()))
    assert costs[0] == costs[1] < 40
