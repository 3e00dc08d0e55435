"""The house rules that no linter knows: what the files say, what a core touches, what the wheel and the launcher do."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "coordinator", "peer", "storage_node", "simulations")
SERVICES = ("coordinator", "peer", "storage_node")
PURE = ("protocol/", *(f"{service}/core/" for service in SERVICES))
MODULE_LINES_MAX = 700

# Built from parts, so that this file does not name them either.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("npm" + "js", "org"),
        ("npm" + "js", "com"),
        ("deb", "debian", "org"),
        ("crates", "io"),
    )
)
MACHINE_PATHS = re.compile(r"(?<![\w.)}])/(?:" + "|".join(("wo" + "rk", "far" + "m", "ro" + "ot")) + r")/")


def our_files() -> list[str]:
    """Return what git tracks or would track, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


FILES = our_files()
MODULES = [name for name in FILES if name.endswith(".py")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield every module or name that a module of the package imports, dotted and absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def package_of(name: str) -> str:
    return ".".join(Path(name).parent.parts)


# What the files say.


def test_no_file_names_this_machine_or_a_package_registry():
    """A checkout must mean the same wherever it lies and wherever its packages come from."""
    found = []
    for name in FILES:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            if MACHINE_PATHS.search(line) or f"{ROOT}/" in line or any(host in line for host in REGISTRY_HOSTS):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert not found


def test_every_module_says_what_it_is_for():
    assert not [name for name in MODULES if not ast.get_docstring(parsed(name))]


def test_no_module_is_longer_than_a_reader_can_hold():
    """Past some 500 lines a module is usually two ideas; this is where it stops being a matter of taste."""
    sizes = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in MODULES}
    assert not {name: size for name, size in sizes.items() if size > MODULE_LINES_MAX}


# What the packages import and touch, beyond what the import contracts can see.


def test_the_import_contracts_are_in_place():
    """Running them is a stage of its own; losing one would be silent."""
    linter = PROJECT["tool"]["importlinter"]
    assert set(linter["root_packages"]) == set(PACKAGES)
    assert {contract["id"] for contract in linter["contracts"]} >= {"layers", "pure", "agent", "blind", "doors"} | {
        f"{service.replace('_', '-')}-core" for service in SERVICES
    }


def test_a_core_imports_its_own_core_and_the_protocol_only():
    """So a new shell need not be added to a list before it is out of bounds."""
    found = []
    for service in SERVICES:
        for name in MODULES:
            if name.startswith(f"{service}/core/"):
                ours = [one for one in imported(parsed(name), package_of(name)) if one.split(".")[0] in PACKAGES]
                found += [
                    f"{name}: {one}" for one in ours if not f"{one}.".startswith((f"{service}.core.", "protocol."))
                ]
    assert not found


def test_a_core_touches_no_clock_disk_or_screen_through_what_needs_no_import():
    doors = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}
    clocks = {"now", "utcnow", "today"}
    found = []
    for name in MODULES:
        if not name.startswith(PURE):
            continue
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.Call):
                match node.func:
                    case ast.Name(id=called) if called in doors:
                        found.append(f"{name}:{node.lineno}: {called}")
                    case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=called) if called in clocks:
                        found.append(f"{name}:{node.lineno}: {called}")
    assert not found


def test_nothing_in_the_agent_imports_the_command_line():
    """The command line brings libraries that the agent must not pay for."""
    found = []
    for name in MODULES:
        if name.startswith("peer/") and not name.startswith(("peer/cli", "peer/__main__")):
            found += [
                f"{name}: {one}" for one in imported(parsed(name), package_of(name)) if one.startswith("peer.cli")
            ]
    assert not found


# What is installed.


def pins(lock: str) -> dict[str, str]:
    """Return name and version of each package in a lock."""
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    return {name.lower(): version for line in lines for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", line)}


def unmet(requirements: list[str], pinned: dict[str, str]) -> list[str]:
    """Return those requirements for this platform that a lock does not meet."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(one)
        for one in wanted
        if (one.marker is None or one.marker.evaluate())
        and not one.specifier.contains(pinned.get(one.name.lower(), "0"))
    ]


def test_the_locks_meet_what_the_project_asks_for():
    project = PROJECT["project"]
    assert not unmet(project["dependencies"], pins("requirements.lock"))
    assert not unmet(project["optional-dependencies"]["dev"], pins("requirements-dev.lock"))


def test_tests_run_on_what_users_run_on():
    """The development lock holds the other one, version for version: set-up counts on it."""
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_the_wheel_holds_each_file_of_the_packages_and_no_test(tmp_path):
    source, built = tmp_path / "source", tmp_path / "built"
    inside = [name for name in FILES if name.split("/")[0] in PACKAGES]
    for name in [*inside, "pyproject.toml", "README.md", "LICENSE", "tests/__init__.py", "tests/test_house.py"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])",
            built,
        ],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(held) == inside


# What the launcher does before it has an environment.


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the launcher reads, without an environment."""
    copy = tmp_path / "check out"
    copy.mkdir()
    for name in ("kin", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def launch(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher from elsewhere, with nothing of a home."""
    environment = {"PATH": os.environ["PATH"], "KIN_PYTHON": python}
    return subprocess.run(
        [checkout / "kin", "status"], cwd="/", env=environment, check=False, capture_output=True, text=True, timeout=60
    )


def test_without_a_fitting_python_the_launcher_says_so_in_one_line(checkout):
    result = launch(checkout, python="false")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "needs Python 3.11 or newer" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_launcher_never_deletes_an_environment_that_it_did_not_make(checkout):
    theirs = checkout / ".venv" / "precious"
    theirs.parent.mkdir()
    theirs.touch()
    result = launch(checkout, python=sys.executable)
    assert result.returncode == 1
    assert "not made by ./kin" in result.stderr
    assert result.stderr.count("\n") == 1
    assert theirs.exists()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PACKAGES)])
def test_no_attribute_is_changed_across_an_await(name):
    """``self.x |= await f()`` reads ``x`` before it waits: whatever others wrote to it meanwhile is lost."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            waits = any(isinstance(inner, ast.Await) for inner in ast.walk(node.value))
            assert not waits, f"line {node.lineno}"
