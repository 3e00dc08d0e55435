"""What is wrong with a device, and what to do: from facts to findings.

Rule 1: pure; the facts are gathered by whoever asks.
Rule 2: no finding names a key, nor a file unless that file is what is wrong.
Rule 3: a finding that is not well says what to do.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from protocol import limits
from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_NEEDS_PERSON

ROOM_BYTES_MIN: Final = 64 * limits.MIB
ROOM_PART_MIN: Final = 0.05
NAMED_MAX: Final = 3
EARLIEST_MS: Final = 1_704_067_200_000
"""The first moment of 2024 in UTC: a clock before it was never set."""
NEEDS_PERSON: Final = frozenset({"held", "frozen", "unreadable", "name", "disk_full", "quota", "read_only"})


class Grade(StrEnum):
    """How bad it is."""

    WELL = "ok"
    NOTE = "note"
    """Worth knowing; everything works."""
    PERSON = "person"
    """The rest works; this waits for a person."""
    WRONG = "wrong"


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str
    grade: Grade
    text: str
    advice: str = ""


class FileFacts(NamedTuple):
    """A file or directory of the home."""

    path: str
    mode: int | None
    """Permission bits; None: it is not there."""
    is_own: bool = True
    """Whether it belongs to whoever asks."""


class Room(NamedTuple):
    """A disk."""

    path: str
    free: int
    size: int


class Facts(NamedTuple):
    """All that a diagnosis is made of."""

    versions: str
    home: FileFacts
    database: FileFacts
    database_problem: str
    """Empty: it is whole."""
    keys: FileFacts
    settings_problem: str
    device: Mapping[str, Any] | None
    """What the open device told (``doctor`` of the local API); None: it could not be opened."""
    device_problem: str
    now_ms: int
    watches_max: int | None
    rooms: Sequence[Room]


def diagnose(facts: Facts) -> list[Finding]:
    """Return what was found, in the order in which a person should read it."""
    found = [Finding("version", Grade.WELL, facts.versions), *_home(facts)]
    if facts.device is None:
        found.append(Finding("device", Grade.WRONG, facts.device_problem, "without it, nothing else can be checked"))
        return [*found, *_clock(facts, 0), *_disks(facts)]
    found += _agent(facts.device)
    if facts.device["status"]["taken_out"]:
        return [*found, *_taken_out(facts.device), *_clock(facts, 0), *_disks(facts)]
    found += _coordinator(facts.device)
    found += _clock(facts, int(facts.device["coordinator"]["skew_ms"]))
    found += _storage(facts.device)
    found += _spool(facts.device)
    for folder in facts.device["status"]["folders"]:
        found += _folder(folder)
    return [*found, *_watches(facts), *_disks(facts)]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the exit code of the contract for what was found."""
    grades = {finding.grade for finding in findings}
    if Grade.WRONG in grades:
        return EXIT_FAILED
    return EXIT_NEEDS_PERSON if Grade.PERSON in grades else EXIT_DONE


# --- The home


def _home(facts: Facts) -> Iterator[Finding]:
    if facts.home.mode is None:
        yield Finding("home", Grade.WRONG, f"{facts.home.path} is not there", "make a device: kin init, or kin link")
        return
    yield _private("home", facts.home, 0o700)
    if facts.settings_problem:
        yield Finding("settings", Grade.WRONG, facts.settings_problem, "mend that line, or remove it")
    if facts.database.mode is None:
        yield Finding("database", Grade.WRONG, "there is no database", "make a device: kin init, or kin link")
    elif facts.database_problem:
        yield Finding(
            "database",
            Grade.WRONG,
            f"{facts.database.path}: {facts.database_problem}",
            "keep the folders' files, and link this device anew under another home",
        )
    else:
        yield _private("database", facts.database, 0o600)
    if facts.keys.mode is None:
        yield Finding("keys", Grade.WRONG, "the home has no key file", "link this device anew under another home")
    else:
        yield _private("keys", facts.keys, 0o600)


def _private(check: str, file: FileFacts, mode: int) -> Finding:
    assert file.mode is not None
    if not file.is_own:
        return Finding(check, Grade.WRONG, f"{file.path} belongs to another user", "run kin as the user it belongs to")
    if file.mode & 0o077:
        advice = f"chmod {mode:o} {shlex.quote(file.path)}"
        return Finding(check, Grade.WRONG, f"others can read {file.path} (mode {file.mode:o})", advice)
    return Finding(check, Grade.WELL, "is whole and private" if check == "database" else "is private")


# --- The device


def _agent(device: Mapping[str, Any]) -> Iterator[Finding]:
    if device["status"]["agent"] == "running":
        yield Finding("agent", Grade.WELL, "is running")
    else:
        text = "no agent is running, so nothing is synced by itself"
        yield Finding("agent", Grade.NOTE, text, "kin run, or for good: kin service install")


def _taken_out(device: Mapping[str, Any]) -> Iterator[Finding]:
    """What a device that is not one of the account any more needs to be told: nothing else of it matters."""
    name = device["status"]["device"]["name"]
    text = f"this device ({name}) was taken out of the account: it syncs no more, and its files stay as they are"
    advice = (
        "to bring it back: kin remove each folder (its files stay), then kin link under another --home, and kin get"
    )
    yield Finding("account", Grade.WRONG, text, advice)


def _coordinator(device: Mapping[str, Any]) -> Iterator[Finding]:
    told = device["coordinator"]
    url = device["status"]["coordinator"]
    if device["status"]["network"] == "offline":
        yield Finding("coordinator", Grade.NOTE, "network use is stopped, as you asked", "kin online resumes it")
    elif told["state"] == "up":
        yield Finding("coordinator", Grade.WELL, f"{url} answers, and is the one that this device knows")
    elif told["state"] == "security":
        advice = "do not go on before its operator has told you why; another may stand in between"
        yield Finding("coordinator", Grade.WRONG, f"{url}: {told['text']}", advice)
    else:
        advice = "check that it runs and that this network leads to it; work goes on by itself then"
        yield Finding("coordinator", Grade.WRONG, f"{url}: {told['text']}", advice)


def _clock(facts: Facts, skew_ms: int) -> Iterator[Finding]:
    if facts.now_ms < EARLIEST_MS:
        yield Finding("clock", Grade.WRONG, "this device's clock was never set", "set it, or switch on NTP")
    elif abs(skew_ms) > limits.CLOCK_SKEW_S_MAX * 1000:
        side = "ahead of" if skew_ms > 0 else "behind"
        text = f"this device's clock is {abs(skew_ms) / 1000:,.0f} s {side} the coordinator's"
        yield Finding("clock", Grade.WRONG, text, "set the wrong one of the two, or switch on NTP")
    else:
        yield Finding("clock", Grade.WELL, "agrees with the coordinator's" if facts.device is not None else "is set")


def _storage(device: Mapping[str, Any]) -> Iterator[Finding]:
    storage = device["status"]["storage"]
    if not storage["replicas"] or device["status"]["network"] == "offline":
        return  # nobody could be asked
    text = f"{storage['reachable']} of {storage['nodes']} nodes reachable, {storage['replicas']} copies wanted"
    if storage["reachable"] < storage["quorum"]:
        advice = f"start the nodes: a change is safe only on {storage['quorum']}"
        yield Finding("storage", Grade.WRONG, text, advice)
    elif storage["reachable"] < storage["replicas"]:
        yield Finding("storage", Grade.NOTE, text, "until more nodes are there, there are fewer copies than wanted")
    elif storage["replicas"] == 1:
        yield Finding("storage", Grade.NOTE, "there is 1 copy of everything", "another storage node would make it safe")
    else:
        yield Finding("storage", Grade.WELL, text)


def _spool(device: Mapping[str, Any]) -> Iterator[Finding]:
    """What waits on this disk for storage; silence if all of it is whole."""
    for name, number in sorted(device["spool_damaged"].items()):
        if number:
            text = f"{number} of the chunks of {name} that wait for storage are damaged on this disk, and were not sent"
            advice = "check the disk; then kin remove and kin get the folder: its files stay, and are sent again"
            yield Finding("spool", Grade.WRONG, text, advice)


# --- Folders


def _folder(folder: Mapping[str, Any]) -> Iterator[Finding]:
    check, state, text = f"folder {folder['name']}", folder["state"], folder["text"]
    if state == "missing":
        yield Finding(
            check, Grade.PERSON, text, "mount its disk, or forget it here: kin remove; nothing is removed meanwhile"
        )
        return
    if state == "frozen":
        yield Finding(check, Grade.PERSON, text, "ask the operator of the coordinator; nothing is lost meanwhile")
        return
    if state == "held":
        yield Finding(check, Grade.PERSON, text, "kin approve lets the change pass, kin undo takes it back")
        return
    if state == "stopped":
        yield Finding(check, Grade.WRONG, text, "start the agent again, and report what kin.log says")
        return
    rows = [row for row in folder["unsynced"] if row["reason"] in NEEDS_PERSON | {"error"}]
    for reason, number in sorted(Counter(row["reason"] for row in rows).items()):
        some = [row for row in rows if row["reason"] == reason]
        named = ", ".join(str(row["path"]) for row in some[:NAMED_MAX]) + (", ..." if number > NAMED_MAX else "")
        grade = Grade.WRONG if reason == "error" else Grade.PERSON
        yield Finding(
            check,
            grade,
            f"{named}: {some[0]['text']}",
            f"kin status shows all {number}" if number > 1 else "see kin status",
        )
    if rows:
        return
    if folder["conflicts"]:
        text = f"{folder['conflicts']} conflict copies wait for a decision"
        yield Finding(check, Grade.NOTE, text, "kin conflicts shows them; --keep and --drop decide")
    elif state == "in_sync":
        yield Finding(check, Grade.WELL, "is in sync")
    else:
        yield Finding(check, Grade.NOTE, text or "is being worked on", "kin status says what is left")


# --- The machine


def _watches(facts: Facts) -> Iterator[Finding]:
    if facts.watches_max is None or facts.device is None:
        return
    directories = int(facts.device["directories"])
    if directories > facts.watches_max or facts.device["degraded"]:
        text = f"the system lets a user watch {facts.watches_max:,} directories, and the folders have {directories:,}"
        advice = f"changes are found by looking, twice a minute; better: sysctl fs.inotify.max_user_watches={max(2 * directories, 524_288)}"
        yield Finding("watching", Grade.NOTE, text, advice)
    else:
        yield Finding("watching", Grade.WELL, f"{directories:,} directories, {facts.watches_max:,} allowed")


def _disks(facts: Facts) -> Iterator[Finding]:
    tight = False
    for room in facts.rooms:
        free = f"{room.path}: {room.free // limits.MIB:,} MiB free"
        if room.free < ROOM_BYTES_MIN:
            yield Finding("disk", Grade.PERSON, free, "free some space: files that arrive wait for it")
        elif room.size and room.free < room.size * ROOM_PART_MIN:
            yield Finding(
                "disk", Grade.NOTE, free, "free some space soon, or exclude what is not needed here: kin exclude --free"
            )
        else:
            continue
        tight = True
    if not tight:
        yield Finding("disk", Grade.WELL, "there is room")
