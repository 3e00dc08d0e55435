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
OUT: Final = "taken out of the account"


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
    network = OUT if state.get("taken_out") else NETWORK.get(state["network"], state["network"])
    terminal.say(f"  {agent}; {network}")
    storage = state["storage"]
    if storage["nodes"] and state["network"] != "offline" and not state.get("taken_out"):
        terminal.say(
            f"  storage: {storage['reachable']} of {count(storage['nodes'], 'node')} reachable, "
            f"{count(storage['replicas'], 'copy', 'copies')} wanted, {storage['quorum']} needed for a change to be safe"
        )
    if state["lan"]["enabled"] and state["lan"]["peers"]:
        terminal.say(f"  {count(state['lan']['peers'], 'device')} found on this network")
    for warning in state.get("warnings", ()):
        terminal.say(f"  {warning}", "attention")
    if not state["folders"]:
        terminal.say("No folders on this device yet; kin add or kin get brings one")
    for folder in state["folders"]:
        _show_folder(terminal, folder, all_rows=all_rows)
    if state["in_sync"] and state["folders"]:
        is_known = state["agent"] == "running"
        terminal.say("Everything is in sync" if is_known else "Everything was in sync when last looked at", "good")


def _show_folder(terminal: Terminal, folder: Json, *, all_rows: bool) -> None:
    style = {"in_sync": "good", "working": "bold", "waiting": "attention"}.get(folder["state"], "bad")
    terminal.say(f"{folder['name']}: {STATES.get(folder['state'], folder['state'])}", style)
    parts = [folder["path"], count(folder["files"], "file"), size(folder["bytes"])]
    if folder["role"] not in {"admin", "writer"}:
        parts.append(f"you are {folder['role']}")
    terminal.say("  " + ", ".join(parts))
    if text := folder.get("text"):
        terminal.say(f"  {text}", "attention")
    for direction, verb in (("upload", "to send"), ("download", "to fetch")):
        left = folder[direction]
        if left["files"] or left["bytes"]:
            terminal.say(f"  {verb}: {count(left['files'], 'file')}, {size(left['bytes'])}")
    position = folder["position"]
    if position["head"] > position["applied"]:
        terminal.say(f"  {count(position['head'] - position['applied'], 'change')} of others to apply")
    if folder["held"] and not folder.get("text"):
        held = folder["held"]
        terminal.say(
            f"  held: {count(held['files'], 'file')}, many {held['kind']} at once; "
            f"kin approve {folder['name']} lets them pass, kin undo {folder['name']} brings the files back",
            "attention",
        )
    if excluded := folder.get("excluded"):
        terminal.say(f"  {count(len(excluded), 'path')} kept off this device (kin exclude)")
    if folder["conflicts"]:
        terminal.say(f"  {count(folder['conflicts'], 'conflict')} (kin conflicts)", "attention")
    _show_unsynced(terminal, folder, all_rows=all_rows)


def _show_unsynced(terminal: Terminal, folder: Json, *, all_rows: bool) -> None:
    rows = folder["unsynced"]
    total = folder["unsynced_total"]
    if not total:
        return
    if total > ROWS_SHOWN_MAX and not all_rows:
        for text, number in Counter(row["text"] or row["reason"] for row in rows).most_common():
            terminal.say(f"  {count(number, 'item')}: {text}")
        rows = rows[:ROWS_SHOWN_MAX]
    for row in rows:
        arrow = "up  " if row["direction"] == "up" else "down"
        done = f" ({size(row['done'])} of {size(row['bytes'])})" if row["done"] else ""
        terminal.say(f"  {arrow} {row['path']}: {row['text'] or row['reason']}{done}")
    if total > len(rows):
        terminal.say(f"  and {total - len(rows):,} more (kin status --all)", "dim")
