"""Where the log goes and how much of it: to standard error, by ``KIN_LOG=debug|info|warning``."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def configure_logs() -> None:
    """Send the log to standard error; it holds no names, tokens or keys."""
    level = {"debug": logging.DEBUG, "info": logging.INFO}.get(os.environ.get("KIN_LOG", "").lower(), logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak of handshakes that went wrong, which any scanner can cause: those are no news.
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
