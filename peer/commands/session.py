"""How a command reaches its device: through the running agent, else by opening the home itself.

Rule 1: a command needs no agent unless it says so, and gives the same answer with and without one.
Rule 2: a home that is briefly in use (a command at work, an agent that starts) is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from peer.api.backend import IN_USE, DeviceDoor, Json
from peer.api.client import Agent
from peer.commands.terminal import Terminal
from peer.config import KeyOptions, Settings, key_options, load_settings, resolve_home
from protocol.errors import EXIT_NO_AGENT, UserError

AGENT_START_S_MAX: Final = 10.0
IN_USE_S_MAX: Final = 10.0
RETRY_S: Final = 0.05
SILENCE_S_MAX: Final = 60.0
"""For methods that answer from what the device knows; those that move bytes may be silent for longer."""
_QUICK: Final = frozenset(
    {"folders", "status", "conflicts", "devices", "doctor", "offline", "online", "snapshots", "lan"}
)


def device_door() -> DeviceDoor:
    """Return what opens homes; importing it costs what the whole device costs."""
    from peer.device import Device

    return Device


class Session:
    """One command on one home."""

    def __init__(self, home: str | None, terminal: Terminal, door: Callable[[], DeviceDoor] = device_door) -> None:
        """Make one; nothing is read before it is needed.

        Args:
            home: What ``--home`` said.
            terminal: Where the command speaks.
            door: Gives what opens homes.
        """
        self._home = home
        self._door = door
        self.terminal = terminal

    @cached_property
    def settings(self) -> Settings:
        """The home's settings."""
        return load_settings(resolve_home(self._home))

    @property
    def door(self) -> DeviceDoor:
        """What opens homes."""
        return self._door()

    def keys(self, *, no_keyring: bool = False, passphrase_file: str | None = None) -> KeyOptions:
        """Return how to open this device's keys."""
        return key_options(self.settings, no_keyring=no_keyring, passphrase_file=passphrase_file)

    def call(self, method: str, **params: Any) -> Json:
        """Have the device do one thing, with or without an agent, and return the result.

        Raises:
            KinfolderError: The device could not.
        """
        deadline_s = time.monotonic() + IN_USE_S_MAX
        while True:
            agent = Agent.dial(self.settings.home)
            if agent is not None:
                return self._ask(agent, method, params)
            try:
                return self._do(method, params)
            except UserError as error:
                if error.code != IN_USE or time.monotonic() > deadline_s:
                    raise
            time.sleep(RETRY_S)

    def call_agent(self, method: str, *, start_s: float = 0.0, **params: Any) -> Json:
        """Have the agent do one thing.

        Args:
            method: What.
            start_s: How long to wait for an agent that starts.
            params: Its parameters.

        Raises:
            UserError: With exit code 5, no agent runs.
        """
        return self._ask(self.dial(start_s), method, params)

    def dial(self, start_s: float = 0.0) -> Agent:
        """Return a connection to the agent, which may take ``start_s`` to start.

        Raises:
            UserError: With exit code 5, no agent runs.
        """
        if not self.settings.home.is_dir():
            raise UserError(_no_device(self.settings), exit_code=EXIT_NO_AGENT, code="no_device")
        deadline_s = time.monotonic() + start_s
        while (agent := Agent.dial(self.settings.home)) is None:
            if time.monotonic() >= deadline_s:
                text = f"no agent runs for {self.settings.home}; start one with kin run"
                raise UserError(text, exit_code=EXIT_NO_AGENT, code="no_agent")
            time.sleep(RETRY_S)
        return agent

    def _ask(self, agent: Agent, method: str, params: Json) -> Json:
        try:
            return agent.call(
                method,
                params,
                report=self.terminal.report,
                confirm=self.terminal.confirm_digits,
                timeout_s=SILENCE_S_MAX if method in _QUICK else None,
            )
        finally:
            agent.close()
            self.terminal.finish()

    def _do(self, method: str, params: Json) -> Json:
        if not self.settings.home.is_dir():
            raise UserError(_no_device(self.settings), code="no_device")
        from peer.commands import direct

        try:
            return direct.call(self.settings, self.door, self.keys(), self.terminal, method, params)
        finally:
            self.terminal.finish()


def _no_device(settings: Settings) -> str:
    return f"{settings.home}: no device here; make one with kin init, or kin link"
