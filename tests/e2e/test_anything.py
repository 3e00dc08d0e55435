"""Any words after a command, and any parameters of a method: each ends by the contract, and nothing is lost.

``KIN_BAD_SEED`` chooses others; with ``KIN_TEST_FULL=1`` there are many more of them.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from peer.api.backend import METHODS
from peer.api.client import Agent
from protocol.errors import KinfolderError
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import agents, ask, assert_no_tracebacks, by_servers_alone, settle

VECTORS = 600 if "KIN_TEST_FULL" in os.environ else 36
CALLS = 3_000 if "KIN_TEST_FULL" in os.environ else 400
SEED = int(os.environ.get("KIN_BAD_SEED", "1"))
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "7",
        "~ffffffffffff",
        "~0",
        "9" * 30,
        "\u20ac",
        "\udcff\udc80",
        "a" * 5_000,
        "/",
        "..",
    ),
    *(
        "work",
        "WORK",
        "ffffffff",
        "2h",
        "-2h",
        "9999999d",
        "0001-01-01",
        "2026-13-45 25:61",
        "NaN",
        "1e309",
        "line\nline",
    ),
    *("\x1b[2J", "[bold]", "%s%n", "on", "off", "list", "create", "--at", "--to", "--version", "--snapshot", "--json"),
    *(
        "--free",
        "--remove",
        "--keep",
        "--drop",
        "--help",
        "--timeout",
        "/etc/passwd",
        "/nowhere/at/all",
        "a/../b",
        "x" * 256,
    ),
)
NEW_COMMANDS = (
    *(
        "lan",
        "history",
        "restore",
        "snapshot",
        "approve",
        "undo",
        "exclude",
        "conflicts",
        "doctor",
        "service",
        "revoke",
    ),
    "retire",
)
NEW_METHODS = (
    *(
        "lan",
        "history",
        "restore",
        "snapshot",
        "snapshots",
        "approve",
        "undo",
        "exclude",
        "conflicts",
        "resolve",
        "doctor",
    ),
    *("revoke", "preview"),
)
INTERNAL = re.compile(r"(failed|unexpected)[^\n]*: (?!User)\w+(Error|Exception)\b|; the log says why")


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("anything") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("laptop")
        made = World(cluster, a, cluster.link_device(a, "desktop"), cluster.root / "one", cluster.root / "two")
        made.a.add(made.one, "work")
        (made.one / "first").write_text("first")
        made.a.sync()
        made.b.get("work", made.two)
        with agents(cluster.root, made.a, made.b):
            yield made
    assert_no_tracebacks(cluster)


def test_any_words_after_a_command_end_by_contract(world: World) -> None:
    """A code of the contract, at most one line on standard error, and with --json one object."""
    chance, launcher = random.Random(SEED), world.cluster.launcher
    assert launcher is not None
    files = (str(world.one), str(world.one / "first"), str(world.one / "nothing"), str(world.one / ".kinfolder"))
    for number in range(VECTORS):
        name = NEW_COMMANDS[number % len(NEW_COMMANDS)]
        words = [chance.choice((*WORDS, *files)) for _ in range(chance.randrange(5))]
        if name == "retire":
            args = [name, "--data", str(world.cluster.root / "coordinator"), *words]
            result = launcher.run([*args, "--timeout", "1"], 60, "coordinator.cli")
        else:
            result = launcher.run(["--home", str(world.a.home), name, *words], 60)
        told = (name, words, result)
        assert result.code in {0, 1, 2, 3, 4}, told
        assert "Traceback" not in result.out + result.err, told
        assert not INTERNAL.search(result.out + result.err), told
        assert len(result.err.strip().splitlines()) <= 1, told
        assert result.code == 0 or result.out.strip() or result.err.strip(), told
        if result.code in {1, 2} and result.out.startswith("{"):
            assert json.loads(result.out)["version"] == 1, told
    leave(world)


def test_any_parameters_of_a_method_are_answered_by_contract(world: World) -> None:
    """In types that the table knows and in others: each call ends, with a result or one line."""
    chance = random.Random(SEED)
    values: tuple[object, ...] = (
        *WORDS,
        "\0",
        str(world.one),
        str(world.one / "first"),
        "/" * 3_000,
        None,
        True,
        False,
        [],
        {},
        [[]],
    )
    numbers = (0, -1, 10**15, -(10**15), 2**63, 2**200, 0.5, -1e308)
    for number in range(CALLS):
        method = NEW_METHODS[number % len(NEW_METHODS)]
        params = {name: a_value(chance, kind, values, numbers) for name, kind in METHODS[method].params.items()}
        text = refusal(world.a, method, params)
        told = (method, params, text)
        assert text is None or text.replace("line\nline", ""), told  # a terminal shows what is no letter as its code
        assert "\n" not in (text or "").replace("line\nline", ""), told
        assert text is None or not INTERNAL.search(text), told
    leave(world)


def refusal(device: Device, method: str, params: dict[str, object]) -> str | None:
    """Call a method and return what it says if it fails."""
    agent = Agent.dial(device.home)
    assert agent is not None
    try:
        agent.call(method, params, report=lambda _: None, confirm=lambda _, __: False, timeout_s=60)
    except KinfolderError as error:
        return str(error)
    finally:
        agent.close()
    return None


def a_value(chance: random.Random, kind: object, values: Sequence[object], numbers: Sequence[object]) -> object:
    """Return a value for a parameter, mostly of its type."""
    fitting = [value for value in (*values, *numbers) if isinstance(value, kind)]  # type: ignore[arg-type]
    return chance.choice(fitting if chance.random() < 0.9 else [*values, *numbers])


def leave(world: World) -> None:
    """All is there and goes on; what was excluded by chance comes back."""
    for row in ask(world.a, "exclude", path=None, remove=False, free=False)["exclusions"]:
        ask(world.a, "exclude", path=str(world.one / row["path"]), remove=True, free=False)
    by_servers_alone(world.a, world.b)
    assert [row["revoked"] for row in ask(world.a, "devices")["devices"]] == [None, None]
    (world.one / f"after {random.random()}").write_text("goes on")
    settle(world.a, world.b)
    assert dict(tree_of(world.one)) == dict(tree_of(world.two))
    assert (world.one / "first").exists()
