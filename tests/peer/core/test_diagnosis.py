"""From facts to findings: one table, each row one thing that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from peer.core.diagnosis import Facts, FileFacts, Grade, Room, diagnose, exit_code

GIB = 1 << 30


def folder(**changes: Any) -> dict[str, Any]:
    return {"name": "work", "state": "in_sync", "text": "", "conflicts": 0, "unsynced": [], "path": "/work", **changes}


def row(path: str, reason: str) -> dict[str, Any]:
    return {"path": path, "reason": reason, "text": f"is {reason}"}


def device(**changes: Any) -> dict[str, Any]:
    status = {
        "device": {"id": "00", "name": "Phone"},
        "taken_out": False,
        "agent": "running",
        "network": "online",
        "coordinator": "wss://x",
        "storage": {"nodes": 3, "reachable": 3, "replicas": 3, "quorum": 2},
        "folders": [folder()],
    }
    told = {"coordinator": {"state": "up", "text": "", "skew_ms": 5}, "directories": 10, "degraded": False}
    told["spool_damaged"] = {"work": 0}
    for name, value in changes.items():
        (told if name in told else status)[name] = value
    return {**told, "status": status}


def facts(**changes: Any) -> Facts:
    well = Facts(
        versions="kin 1",
        home=FileFacts("/home/x", 0o700),
        database=FileFacts("/home/x/state.db", 0o600),
        database_problem="",
        keys=FileFacts("/home/x/keys.sealed", 0o600),
        settings_problem="",
        device=device(),
        device_problem="",
        now_ms=1_800_000_000_000,
        watches_max=1_000,
        rooms=[Room("/", 500 * GIB, 1_000 * GIB)],
    )
    return well._replace(**changes)


def test_all_well():
    found = diagnose(facts())
    assert {each.grade for each in found} == {Grade.WELL}
    assert exit_code(found) == 0


def test_a_device_that_was_taken_out_is_told_so_and_nothing_of_a_man_in_the_middle():
    refused = {"state": "revoked", "text": "taken out", "skew_ms": 0}
    told = device(taken_out=True, network="unreachable", coordinator=refused, folders=[folder(state="stopped")])
    found = {each.check: each for each in diagnose(facts(device=told))}
    assert found["account"].grade is Grade.WRONG
    assert "taken out of the account" in found["account"].text
    assert "kin link" in found["account"].advice
    assert not found.keys() & {"coordinator", "storage", "folder work"}
    assert not any("between" in each.advice for each in found.values())


def test_storage_is_not_judged_while_network_use_is_stopped():
    told = device(network="offline", storage={"nodes": 3, "reachable": 0, "replicas": 3, "quorum": 2})
    assert {each.grade for each in diagnose(facts(device=told))} == {Grade.WELL, Grade.NOTE}


def test_what_waits_for_storage_and_is_damaged_is_told():
    found = [
        each for each in diagnose(facts(device=device(spool_damaged={"a": 0, "work": 2}))) if each.check == "spool"
    ]
    assert [(each.grade, "2 of the chunks of work" in each.text) for each in found] == [(Grade.WRONG, True)]


W, P, N = Grade.WRONG, Grade.PERSON, Grade.NOTE


@pytest.mark.parametrize(
    ("what", "grade", "words", "changes"),
    [
        ("home", W, "is not there", {"home": FileFacts("/home/x", None)}),
        ("home", W, "chmod 700 '/home/a b'", {"home": FileFacts("/home/a b", 0o755)}),
        ("home", W, "another user", {"home": FileFacts("/home/x", 0o700, is_own=False)}),
        ("database", W, "there is no database", {"database": FileFacts("/x", None)}),
        ("database", W, "is damaged", {"database_problem": "is damaged"}),
        ("database", W, "chmod 600", {"database": FileFacts("/x", 0o644)}),
        ("keys", W, "chmod 600", {"keys": FileFacts("/home/x/keys.plain", 0o640)}),
        ("keys", W, "no key file", {"keys": FileFacts("/home/x/keys.plain", None)}),
        ("settings", W, "no setting is called 'x'", {"settings_problem": "no setting is called 'x'"}),
        ("device", W, "the passphrase is wrong", {"device": None, "device_problem": "the passphrase is wrong"}),
        ("agent", N, "kin service install", {"device": device(agent="stopped")}),
        ("coordinator", N, "kin online", {"device": device(network="offline")}),
        ("coordinator", W, "cannot be reached", {"device": device(coordinator={"state": "unavailable", "text": "cannot be reached", "skew_ms": 0})}),
        ("coordinator", W, "another may stand in between", {"device": device(coordinator={"state": "security", "text": "another certificate", "skew_ms": 0})}),
        ("clock", W, "600 s ahead of", {"device": device(coordinator={"state": "up", "text": "", "skew_ms": 600_000})}),
        ("clock", W, "600 s behind", {"device": device(coordinator={"state": "up", "text": "", "skew_ms": -600_000})}),
        ("clock", W, "never set", {"now_ms": 5}),
        ("storage", W, "1 of 3 nodes", {"device": device(storage={"nodes": 3, "reachable": 1, "replicas": 3, "quorum": 2})}),
        ("storage", N, "2 of 3 nodes", {"device": device(storage={"nodes": 3, "reachable": 2, "replicas": 3, "quorum": 2})}),
        ("storage", N, "1 copy", {"device": device(storage={"nodes": 1, "reachable": 1, "replicas": 1, "quorum": 1})}),
        ("folder work", P, "mount its disk", {"device": device(folders=[folder(state="missing", text="/work is not there")])}),
        ("folder work", P, "operator", {"device": device(folders=[folder(state="frozen", text="fork")])}),
        ("folder work", P, "kin approve", {"device": device(folders=[folder(state="held", text="many")])}),
        ("folder work", W, "report", {"device": device(folders=[folder(state="stopped", text="defect")])}),
        ("folder work", P, "a: is name", {"device": device(folders=[folder(state="waiting", unsynced=[row("a", "name"), row("b", "queued")])])}),
        ("folder work", P, "1, 2, 3, ...: is unreadable", {"device": device(folders=[folder(state="waiting", unsynced=[row(str(n), "unreadable") for n in range(1, 6)])])}),
        ("folder work", W, "a: is error", {"device": device(folders=[folder(state="waiting", unsynced=[row("a", "error")])])}),
        ("folder work", N, "--keep and --drop", {"device": device(folders=[folder(conflicts=2)])}),
        ("folder work", N, "being worked on", {"device": device(folders=[folder(state="working")])}),
        ("watching", N, "max_user_watches=524288", {"watches_max": 5}),
        ("watching", N, "twice a minute", {"device": device(degraded=True)}),
        ("disk", P, "/ d: 10 MiB free", {"rooms": [Room("/ d", 10 << 20, GIB)]}),
        ("disk", N, "kin exclude --free", {"rooms": [Room("/", 10 * GIB, 1_000 * GIB)]}),
    ],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_told_with_what_to_do(what, grade, words, changes):
    found = diagnose(facts(**changes))
    (bad,) = [each for each in found if each.grade is not Grade.WELL]
    assert (bad.check, bad.grade) == (what, grade)
    assert words in f"{bad.text}: {bad.advice}"
    assert bad.advice
    assert exit_code(found) == {W: 1, P: 4, N: 0}[grade]
