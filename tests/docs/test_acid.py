"""What docs/acid.md says of each operation is shown by a test that exists, and each operation has its row."""

import ast
import re
from pathlib import Path

import pytest

from tests.e2e.test_acid import COMMANDS, OPERATIONS

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs/acid.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_is_named_exists(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not name or name in found


@pytest.mark.parametrize(("heading", "known"), [("Each operation", OPERATIONS), ("Each command", COMMANDS)])
def test_every_operation_has_a_row_and_every_row_an_operation(heading, known):
    part = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)[1:]
    assert sorted(rows) == sorted(known)


def test_no_row_is_without_a_test():
    rows = [
        line
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| operation", "| command"))
    ]
    assert not [row for row in rows if "tests/" not in row and not row.startswith("| moment")]
