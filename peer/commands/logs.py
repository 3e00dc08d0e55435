"""Where a device's processes write what happened: ``kin.log`` in its home, bounded, mode 0600.

A traceback is written only with ``KIN_LOG=debug``; otherwise its one line, since names of files may stand in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from logging.handlers import RotatingFileHandler
from types import ModuleType
from typing import Any, Final

from peer.config import Settings, load_settings, resolve_home
from protocol.errors import KinfolderError, UserError


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Hide a package while another is imported that would load it without need."""
    missing = object()
    known = sys.modules.get(name, missing)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if isinstance(known, ModuleType):
            sys.modules[name] = known


with _without("rich"):  # 5 MiB and 40 ms, for tracebacks on terminals, which no log of ours shows
    import structlog

LOG_BYTES_MAX: Final = 4 * 1024 * 1024
LOGS_OLD_MAX: Final = 2


def start_log(settings: Settings) -> None:
    """Send what this process logs to the home's log, from the level that the settings name.

    A home that is still to be made has no log yet, so nothing is kept.
    """
    handler = _handler(settings)
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _File | logging.NullHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.log.upper()]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(max(level, logging.INFO))
    structlog.configure(
        processors=[_as_record],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _handler(settings: Settings) -> logging.Handler:
    if not settings.home.is_dir():
        return logging.NullHandler()
    handler = _File(
        settings.log_path, maxBytes=LOG_BYTES_MAX, backupCount=LOGS_OLD_MAX, encoding="utf-8", errors="backslashreplace"
    )
    template = "%(asctime)s %(levelname)s %(process)d %(name)s %(message)s"
    handler.setFormatter(_Formatter(template, tracebacks=settings.log == "debug"))
    return handler


def _as_record(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """Make a structured event one line ``what happened name=value``, and leave a failure to the formatter."""
    exc_info = event.pop("exc_info", None)
    text = str(event.pop("event", ""))
    return (" ".join([text, *(f"{name}={value!r}" for name, value in event.items())]),), {"exc_info": exc_info}


def unexpected(home: str | None, what: str, error: Exception) -> UserError:
    """Return the one line about a failure that nobody foresaw, and write it to the home's log, if there is one.

    Args:
        home: What ``--home`` said.
        what: What failed: a command's name, or "the agent".
        error: How.
    """
    text = f"{what} failed: {type(error).__name__}: {error}"
    try:
        settings = load_settings(resolve_home(home))
        if settings.home.is_dir():
            start_log(settings)
            logging.getLogger("peer").error("%s failed", what, exc_info=error)
            text += f" (log: {settings.log_path})"
    except (KinfolderError, OSError):
        pass  # without settings or room there is no log
    return UserError(text, code="internal")


class _File(RotatingFileHandler):
    def _open(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 - what the base class returns, which typeshed names privately
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Drop a line that a full disk did not take; the next one tries the file anew.

        A file whose closing failed as well would otherwise stay closed for as long as the process lives.
        """
        is_closed = self.stream is not None and self.stream.closed
        if not (is_closed or isinstance(sys.exc_info()[1], OSError)):
            super().handleError(record)  # a defect of ours
            return
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, template: str, *, tracebacks: bool) -> None:
        super().__init__(template)
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a traceback where those are wanted."""
        if self._tracebacks or not record.exc_info:
            return super().format(record)
        error = record.exc_info[1]
        text, record.exc_info, record.exc_text = record.exc_info, None, None
        try:
            return f"{super().format(record)}: {type(error).__name__}: {error}"
        finally:
            record.exc_info = text
