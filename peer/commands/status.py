"""``status``: the device, its folders, and what is not synced yet and why, in words."""

from __future__ import annotations

from collections import Counter
from typing import Final

from peer.api.backend import Json
from peer.commands.folders import STATES
from peer.commands.session import Session
from peer.commands.terminal import Terminal
from peer.progress import count, size

ROWS_SHOWN_MAX: Final = 20
"""Of what is not synced, for each folder; ``--all`` shows all."""
NETWORK: Final = {
    "online": "online",
    "offline": "offline, as you asked (kin online ends it)",
    "unreachable": "the coordinator cannot be reached",
}
REASONS: Final = {
    "changing": "it is being written",
    "queued": "its turn has not come",
    "transferring": "on its way",
    "no_coordinator": "the coordinator cannot be reached",
    "no_quorum": "too few storage nodes can be reached to keep it safe",
    "offline": "this device is offline, as you asked",
    "no_source": "no device or storage node that can be reached has it",
    "unreadable": "this account may not read the file",
    "name": "this system cannot hold a file of this name",
    "disk_full": "the disk is full",
    "locked": "another program holds it open",
    "held": "part of a mass change that waits for you (kin approve, kin undo)",
    "frozen": "the folder is frozen until you look at it",
    "read_only": "you may read this folder and not change it",
    "quota": "the account's space is used up",
    "spool_full": "too much waits to be sent",
    "error": "something failed (the log says what)",
}


def status(session: Session, *, all_rows: bool) -> None:
    """Show how this device and its folders are."""
    result = session.call("status", all=all_rows)
    if session.terminal.as_json:
        session.terminal.print_json(result)
    else:
        show(session.terminal, result, all_rows=all_rows)


def show(terminal: Terminal, state: Json, *, all_rows: bool) -> None:
    """Write the contract's status object for people."""
    terminal.say(f"{state['device']['name']}, a device of {state['user']}", "bold")
    agent = "the agent is running" if state["agent"] == "running" else "no agent is running (kin run starts one)"
    terminal.say(f"  {agent}; {NETWORK.get(state['network'], state['network'])}")
    for line in _storage(state["storage"]):
        terminal.say(f"  {line}")
    if state["lan"]["enabled"] and state["lan"]["peers"]:
        terminal.say(f"  {count(state['lan']['peers'], 'device')} found on this network")
    for hint in state.get("hints", ()):
        terminal.say(f"  {hint}", "attention")
    if not state["folders"]:
        terminal.say("No folders on this device yet; kin add or kin get brings one")
    for folder in state["folders"]:
        _show_folder(terminal, folder, all_rows=all_rows)
    if state["in_sync"] and state["folders"]:
        terminal.say("Everything is in sync", "good")


def _storage(storage: Json) -> list[str]:
    lines = []
    if storage["nodes"]:
        lines.append(
            f"storage: {storage['reachable']} of {count(storage['nodes'], 'node')} reachable, "
            f"{count(storage['replicas'], 'copy', 'copies')} wanted, {storage['quorum']} needed for a change to be safe"
        )
    if storage["nodes"] and storage["replicas"] == 1:
        lines.append("1 copy outside of your devices: a second storage node would outlive a broken disk")
    return lines


def _show_folder(terminal: Terminal, folder: Json, *, all_rows: bool) -> None:
    style = {"in_sync": "good", "working": "bold", "waiting": "attention"}.get(folder["state"], "bad")
    terminal.say(f"{folder['name']}: {STATES.get(folder['state'], folder['state'])}", style)
    parts = [folder["path"], count(folder["files"], "file"), size(folder["bytes"])]
    if folder["role"] not in {"admin", "writer"}:
        parts.append(f"you are {folder['role']}")
    terminal.say("  " + ", ".join(parts))
    for direction, verb in (("upload", "to send"), ("download", "to fetch")):
        left = folder[direction]
        if left["files"] or left["bytes"]:
            terminal.say(f"  {verb}: {count(left['files'], 'file')}, {size(left['bytes'])}")
    position = folder["position"]
    if position["head"] > position["applied"]:
        terminal.say(f"  {count(position['head'] - position['applied'], 'change')} of others to apply")
    if folder["held"]:
        held = folder["held"]
        terminal.say(
            f"  held: {count(held['files'], 'file')}, many {held['kind']} at once; "
            f"kin approve {folder['name']} lets them pass, kin undo {folder['name']} brings the files back",
            "attention",
        )
    if folder["conflicts"]:
        terminal.say(f"  {count(folder['conflicts'], 'conflict')} (kin conflicts)", "attention")
    _show_unsynced(terminal, folder, all_rows=all_rows)


def _show_unsynced(terminal: Terminal, folder: Json, *, all_rows: bool) -> None:
    rows = folder["unsynced"]
    total = folder["unsynced_total"]
    if not total:
        return
    reasons = Counter(row["reason"] for row in rows)
    if total > ROWS_SHOWN_MAX and not all_rows:
        for reason, number in reasons.most_common():
            terminal.say(f"  {count(number, 'file')}: {REASONS.get(reason, reason)}")
        rows = rows[:ROWS_SHOWN_MAX]
    for row in rows:
        arrow = "up  " if row["direction"] == "up" else "down"
        text = row["text"] or REASONS.get(row["reason"], row["reason"])
        done = f" ({size(row['done'])} of {size(row['bytes'])})" if row["done"] else ""
        terminal.say(f"  {arrow} {row['path']}: {text}{done}")
    if total > len(rows):
        terminal.say(f"  and {total - len(rows):,} more (kin status --all)", "dim")
