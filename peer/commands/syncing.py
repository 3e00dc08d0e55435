"""Bringing devices to one state: ``sync``, ``wait``, ``stop``, ``offline``, ``online``."""

from __future__ import annotations

import math
from typing import Final

from peer.api.backend import STOP, Json
from peer.commands.session import AGENT_START_S_MAX, Session
from peer.progress import size
from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, UserError

STOP_S_MAX = 60.0
LINES_SHOWN_MAX: Final = 10
"""Of what is not in sync after ``sync`` or ``wait``; ``status --all`` shows all."""


def sync(session: Session, *, timeout_s: float | None) -> int:
    """Do one pass over all folders, or ask the agent for one."""
    _check_timeout(timeout_s)
    return _show_outcome(session, session.call("sync", timeout=timeout_s))


_WORDS: Final = {
    ("send", "up"): "send",
    ("conflict", "up"): "send, in conflict",
    ("make", "up"): "make elsewhere",
    ("make", "down"): "make here",
    ("fetch", "down"): "fetch",
    ("remove", "up"): "remove elsewhere",
    ("remove", "down"): "remove here",
    ("rename", "up"): "rename elsewhere",
    ("rename", "down"): "rename here",
    ("attributes", "up"): "set attributes elsewhere",
    ("attributes", "down"): "set attributes here",
    ("hold", "up"): "hold until it is approved",
}


def preview(session: Session) -> int:
    """Show what a pass would do."""
    result = session.call("preview")
    if session.terminal.as_json:
        session.terminal.print_json(result)
        return EXIT_DONE
    for folder in result["folders"]:
        lines = folder["plan"]
        session.terminal.say(
            f"{folder['name']}: {folder['text'] or ('' if lines else 'nothing to do')}".rstrip(), "bold"
        )
        for line in lines:
            what = _WORDS.get((line["action"], line["direction"]), line["action"])
            to = f" -> {line['to']}" if line["to"] else ""
            amount = f" ({size(line['bytes'])})" if line["bytes"] else ""
            session.terminal.say(f"  {what}: {line['path']}{to}{amount}")
        if folder["total"] > len(lines):
            session.terminal.say(f"  and {folder['total'] - len(lines):,} more", "dim")
    return EXIT_DONE


def wait(session: Session, *, timeout_s: float | None) -> int:
    """Wait until the agent has brought all folders to one state with the coordinator's."""
    _check_timeout(timeout_s)
    return _show_outcome(session, session.call_agent("wait", start_s=AGENT_START_S_MAX, timeout=timeout_s))


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not math.isfinite(timeout_s):
        raise UserError("--timeout takes a number of seconds; without it there is no limit", exit_code=EXIT_USAGE)


def _show_outcome(session: Session, result: Json) -> int:
    exit_code = int(result.get("exit", EXIT_DONE if result["in_sync"] else EXIT_FAILED))
    if session.terminal.as_json:
        session.terminal.print_json({"version": 1, **result})
        return exit_code
    remains = [str(line) for line in result.get("remains", ())]
    if result["in_sync"]:
        session.terminal.say("In sync", "good")
    else:
        session.terminal.warn(f"not in sync: {remains[0] if remains else 'kin status says why'}")
        for line in remains[1:LINES_SHOWN_MAX]:
            session.terminal.note(f"  {line}")
        more = int(result.get("remains_total", len(remains))) - LINES_SHOWN_MAX
        if more > 0:
            session.terminal.note(f"  and {more:,} more (kin status --all)")
    return exit_code


def stop(session: Session) -> None:
    """End the agent, and return once its process has gone."""
    agent = session.dial()
    try:
        agent.call(STOP, {}, report=session.terminal.report, confirm=lambda _, __: False, timeout_s=STOP_S_MAX)
        agent.wait_until_gone(STOP_S_MAX)
    finally:
        agent.close()
    session.terminal.say("The agent has stopped")


def offline(session: Session) -> None:
    """Stop all use of the network until ``online``."""
    session.call("offline")
    session.terminal.say("This device uses no network until: kin online")


def online(session: Session) -> None:
    """Use the network again."""
    session.call("online")
    session.terminal.say("This device uses the network")
