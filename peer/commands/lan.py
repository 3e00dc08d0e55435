"""``lan``: whether other devices are looked for on this network, and which were found."""

from __future__ import annotations

from peer.commands.session import Session
from peer.progress import count, size
from protocol.errors import EXIT_USAGE, UserError


def lan(session: Session, *, switch: str | None) -> None:
    """Switch the LAN on or off, or show what was found there."""
    if switch not in (None, "on", "off"):
        raise UserError("kin lan takes on, off or nothing", exit_code=EXIT_USAGE, code="usage")
    result = session.call("lan", switch=switch)
    if session.terminal.as_json:
        session.terminal.print_json(result)
        return
    say = session.terminal.say
    if not result["enabled"]:
        say("Other devices are not looked for on this network; kin lan on does")
        return
    if not result["running"]:
        say("Other devices on this network are looked for while the agent runs and is online")
        return
    say(f"{count(result['peers'], 'device')} found on this network", "bold")
    if result["text"]:
        say(f"  {result['text']}", "attention")
    for each in result["found"]:
        say(f"  {each['name'] or each['id'][:12]} at {each['address']}")
    far = result["storage"]
    say(f"  from devices {size(result['received_bytes'])}, to devices {size(result['sent_bytes'])}")
    say(f"  from storage nodes {size(far['received_bytes'])}, to storage nodes {size(far['sent_bytes'])}")
