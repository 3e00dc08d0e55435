r"""The bytes of the local API: one JSON object a line, in both directions.

::

    request   {"version":1,"method":METHOD,"params":{...}}      the first line; one request for each connection
    answer    {"answer":{"id":ID,"yes":BOOL}}                   later lines: to an ask
    reply     {"progress":{...}} or {"ask":{...}}, any number; then {"result":{...}} or {"error":{"code","text","exit"}}

Names of files may hold bytes that are not UTF-8; they travel as ``\udcXX`` escapes, as ``os.fsdecode`` gives them.
"""

from __future__ import annotations

import json
from typing import Any, Final

from protocol.errors import EXIT_FAILED, EXIT_USAGE, KinfolderError, LimitExceededError, UserError

VERSION: Final = 1
SOCKET_NAME: Final = "agent.sock"
REQUEST_BYTES_MAX: Final = 128 * 1024
"""Room for two paths with every byte escaped."""
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Room for the state of some 300,000 files."""
REQUEST_S_MAX: Final = 10.0
"""Time for the first line, from the moment of connecting."""
CONNECTIONS_MAX: Final = 64
ANSWERS_MAX: Final = 16
"""Lines that one connection may send after its request."""


def encode(message: dict[str, Any], limit: int = REPLY_BYTES_MAX) -> bytes:
    """Return one line, ASCII only.

    Raises:
        LimitExceededError: It would be longer than ``limit`` bytes.
    """
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > limit:
        raise LimitExceededError("the answer's length in bytes", limit)
    return line


def decode(line: bytes) -> dict[str, Any]:
    """Return the object of one line.

    Raises:
        UserError: It is not one JSON object.
    """
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError("not a line of JSON", exit_code=EXIT_USAGE, code="request") from error
    if not isinstance(message, dict):
        raise UserError("not a JSON object", exit_code=EXIT_USAGE, code="request")
    return message


def decode_request(line: bytes) -> tuple[object, object]:
    """Return the method and the parameters that a client's first line names, not yet looked up in the table.

    Raises:
        UserError: It is not a request of this version.
    """
    message = decode(line)
    if message.keys() != {"version", "method", "params"}:
        raise UserError("a request has version, method and params", exit_code=EXIT_USAGE, code="request")
    if message["version"] != VERSION or isinstance(message["version"], bool):
        raise UserError(
            f"this agent speaks version {VERSION}; restart it with the kin that you use",
            exit_code=EXIT_USAGE,
            code="version",
        )
    return message["method"], message["params"]


def encode_error(error: KinfolderError) -> bytes:
    """Return the line that carries an error of ours."""
    exit_code = error.exit_code if isinstance(error, UserError) else EXIT_FAILED
    return encode({"error": {"code": error.code, "text": str(error), "exit": exit_code}})


def raise_error(message: object) -> None:
    """Raise the error that came as ``{"code", "text", "exit"}``, as the one that was sent.

    Raises:
        UserError: Always.
    """
    fields = message if isinstance(message, dict) else {}
    exit_code = fields.get("exit")
    raise UserError(
        str(fields.get("text", "the agent failed")),
        exit_code=exit_code if isinstance(exit_code, int) else EXIT_FAILED,
        code=str(fields.get("code", "error")),
    )
