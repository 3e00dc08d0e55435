"""What the local API and the commands ask of an open device, and the table of what may be asked.

Rule 1: the table is closed; a method or a parameter that is not in it never reaches the device.
Rule 2: a result is the JSON object of the contract, ready to be printed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from peer.config import KeyOptions
from protocol.errors import EXIT_USAGE, UserError

Json: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[Json], None]
"""Takes what is worth telling on the way, and never waits. One of

- ``{"phase": "scan|hash|upload|download|apply", "folder", "bytes_done", "bytes_total", "files_done", "files_total"}``
- ``{"code": CODE}``: what the other device is to be given
- ``{"warning": TEXT}``: one line that a person must see
- ``{"ask": "digits", "digits": "123456", "id": ID, "name": the other device}``: answered by the call ``confirm {"id": ID, "yes": bool}``
"""

IN_USE: Final = "in_use"
"""Code of the UserError by which ``open`` says that another process holds the home."""


class Backend(Protocol):
    """One open device."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Be the agent: work until closed or cancelled; ``ready`` is called once, when calls are answered."""

    async def call(self, method: str, params: Json, report: Report) -> Json:
        """Do one thing of :data:`METHODS` and return its result."""

    async def close(self) -> None:
        """Record what must be recorded, and let go of the home."""


class DeviceDoor(Protocol):
    """How a home becomes a device, and an open one."""

    @staticmethod
    async def create(
        home: Path,
        *,
        coordinator: str,
        invite: str,
        user: str,
        device: str,
        keys: KeyOptions,
        recovery_file: Path | None,
        report: Report,
    ) -> Json:
        """Make an account with this device.

        ``coordinator`` may be empty where ``invite`` is a whole invitation, and ``invite`` where registration is open.
        The result is ``{"user", "device": {"id", "name"}, "words": str | None}``.
        """

    @staticmethod
    async def link(
        home: Path,
        *,
        code: str,
        coordinator: str | None,
        device: str,
        keys: KeyOptions,
        confirm: Callable[[str], Awaitable[bool]],
        report: Report,
    ) -> Json:
        """Join the account of the device that shows this code; ``confirm`` compares six digits.

        The result is ``{"user", "device": {"id", "name"}}``.
        """

    @staticmethod
    async def open(home: Path, *, keys: KeyOptions, online: bool = True, rehearsal: bool = False) -> Backend:
        """Take the home's lock and open it; in a rehearsal, whatever the device learns is forgotten when it is closed.

        Raises:
            UserError: There is no device here, or (code ``in_use``) another process holds it.
        """


@dataclass(frozen=True)
class Method:
    """What may be asked of an open device."""

    params: Mapping[str, type | tuple[type, ...]] = field(default_factory=dict)
    """Every one must be there, and be of this type."""
    cancellable: bool = False
    """It ends when whoever asked goes away; else it is finished unseen."""
    online: bool = False
    """Without an agent, it needs the network; else what this device knows is enough."""
    rehearsal: bool = False
    """Without an agent, nothing of what it looks at is kept."""


_SECONDS: Final = (int, float, type(None))
_TEXT: Final = (str, type(None))
_NUMBER: Final = (int, type(None))

METHODS: Final[dict[str, Method]] = {
    "link_code": Method({"yes": bool}, cancellable=True, online=True),
    "confirm": Method({"id": str, "yes": bool}),
    "add": Method({"path": str, "name": (str, type(None))}, online=True),
    "get": Method({"folder": str, "path": str}, online=True),
    "remove": Method({"folder": str, "everywhere": bool}, online=True),
    "exclude": Method({"path": (str, type(None)), "remove": bool, "free": bool}),
    "folders": Method(online=True),
    "status": Method({"all": bool}),
    "sync": Method({"timeout": _SECONDS}, cancellable=True, online=True),
    "preview": Method(cancellable=True, online=True, rehearsal=True),
    "wait": Method({"timeout": _SECONDS}, cancellable=True, online=True),
    "approve": Method({"folder": str}),
    "undo": Method({"folder": str}, cancellable=True, online=True),
    "offline": Method(),
    "online": Method(),
    "lan": Method({"switch": (str, type(None))}),
    "conflicts": Method(),
    "resolve": Method({"copy": str, "path": str, "keep": bool}, online=True),
    "devices": Method(online=True),
    "revoke": Method({"device": str}, online=True),
    "doctor": Method(online=True),
    "history": Method({"path": str}, online=True),
    "restore": Method(
        {"path": str, "version": _TEXT, "at_ms": _NUMBER, "ago_ms": _NUMBER, "snapshot": _TEXT, "to": _TEXT},
        cancellable=True,
        online=True,
    ),
    "snapshot": Method({"folder": str, "name": _TEXT}, online=True),
    "snapshots": Method({"folder": str}),
}
STOP: Final = "stop"
"""The one method that the API answers itself: the agent ends."""


def spoken(method: str) -> str:
    """Return a method as its command is called."""
    return method.replace("_", "-")


def check_call(method: object, params: object) -> tuple[str, Json]:
    """Return a method and its parameters that came from outside, as the table has them.

    Raises:
        UserError: They are not in the table.
    """
    known = Method() if method == STOP else METHODS.get(method) if isinstance(method, str) else None
    if known is None or not isinstance(method, str):
        raise UserError("no such method", exit_code=EXIT_USAGE, code="method")
    if not isinstance(params, dict) or params.keys() != known.params.keys():
        needed = ", ".join(known.params) or "none"
        raise UserError(f"the parameters of {method} are: {needed}", exit_code=EXIT_USAGE, code="params")
    for name, kind in known.params.items():
        value = params[name]
        is_bool = isinstance(value, bool)
        if not isinstance(value, kind) or (is_bool and kind is not bool):
            raise UserError(f"{name} of {method} has a wrong type", exit_code=EXIT_USAGE, code="params")
    return method, params
