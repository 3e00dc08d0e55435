"""What ARCHITECTURE.md names is there, and what is there it names; links between all documents lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("protocol", "coordinator", "peer", "storage_node", "simulations")
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SPANS = re.findall(r"`([^`\n]+)`", TEXT)
NO_PATHS = {"core/", "packs/", "storage/"}
"""The core of any service, and directories of data: they end with a stroke as paths do, and stand nowhere."""
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md")]
)


def inside(package: str) -> list[str]:
    """Return the modules and folders of a package, but for what every package has."""
    names = []
    for path in sorted((ROOT / package).iterdir()):
        if path.is_dir() and any(path.rglob("*.py")):
            names.append(f"{package}/{path.name}/")
        elif path.suffix == ".py" and not path.name.startswith("__"):
            names.append(f"{package}/{path.name}")
    return names


def test_every_path_that_is_named_exists():
    paths = {span.split("::")[0] for span in SPANS if re.fullmatch(r"[\w./-]+/[\w./-]*(::\w+)?", span)} - NO_PATHS
    assert len(paths) > 100
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def test_every_test_that_is_named_exists():
    named = [span.split("::") for span in SPANS if "::" in span]
    assert named
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in found, f"{path}: {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_named(package):
    assert not [name for name in inside(package) if name not in SPANS], "give it a place in ARCHITECTURE.md"


def test_every_module_of_the_device_s_core_is_named():
    assert not [name for name in inside("peer/core") if name not in SPANS], "give it a place in ARCHITECTURE.md"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            assert ((ROOT / document).parent / target).exists(), target


def test_every_decision_is_in_the_index():
    index = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    pages = [path.name for path in (ROOT / "docs/decisions").glob("*.md") if path.name != "README.md"]
    assert not [page for page in pages if f"({page})" not in index], "name it in docs/decisions/README.md"
