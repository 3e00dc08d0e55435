"""A device without an engine, in place of the real one: ``double.py kin ARGS`` and ``double.py agent HOME``.

It keeps its folders in ``double.json`` in the home, takes the home's lock as the real one does, and fails on demand:
what a folder's name says is what happens to it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
import termios
import types
from pathlib import Path

from peer.api.backend import IN_USE, Json, Report
from protocol.errors import NoQuorumError, UserError

WORDS = " ".join(f"word{number}" for number in range(1, 25))
MOMENT = "2026-01-02T03:04:05.678Z"


class Double:
    """Backend and door in one."""

    def __init__(self, home: Path, lock: int) -> None:
        self.home = home
        self.lock = lock
        self.closed = asyncio.Event()
        self.answers: dict[str, asyncio.Future[bool]] = {}
        self.state = json.loads((home / "double.json").read_text())
        self.is_agent = False

    @staticmethod
    async def create(home, *, coordinator, invite, user, device, keys, recovery_file, report) -> Json:
        if (home / "double.json").exists():
            raise UserError(f"{home}: a device is here already", code="exists")
        if keys.ask is None and keys.passphrase_file is None and not keys.no_keyring:
            raise UserError("no keyring here: give --passphrase-file or --no-keyring", exit_code=2, code="keys")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if keys.no_keyring and keys.passphrase_file is None:
            report({"warning": "the key lies open in the home"})
        if recovery_file is not None:
            recovery_file.write_text(WORDS)
        state = {"user": user, "device": device, "coordinator": coordinator, "invite": invite, "folders": []}
        (home / "double.json").write_text(json.dumps(state))
        return {
            "user": user,
            "device": {"id": "aa" * 32, "name": device},
            "words": WORDS if recovery_file is None else None,
        }

    @staticmethod
    async def link(home, *, code, coordinator, device, keys, confirm, report) -> Json:
        if not await confirm("123456"):
            raise UserError("the digits differ: somebody is in between", code="digits")
        return {"user": "anna", "device": {"id": "bb" * 32, "name": device}}

    @staticmethod
    async def open(home: Path, *, keys, online: bool = True, rehearsal: bool = False) -> Double:
        if not (home / "double.json").exists():
            raise UserError(f"{home}: no device here", code="no_device")
        if json.loads((home / "double.json").read_text()).get("sealed") and keys.passphrase_file is None:
            if keys.ask is None:
                raise UserError("nobody can be asked for the passphrase", exit_code=2, code="keys")
            if keys.ask("Passphrase: ") != "secret":
                raise UserError("the passphrase is wrong", code="keys")
        lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UserError(f"{home}: another process uses this device", code=IN_USE) from None
        return Double(home, lock)

    async def run(self, ready) -> None:
        self.is_agent = True
        ready()
        await self.closed.wait()

    async def close(self) -> None:
        self.closed.set()
        (self.home / "double.json").write_text(json.dumps(self.state))
        os.close(self.lock)

    async def call(self, method: str, params: Json, report: Report) -> Json:
        try:
            result: Json = await getattr(self, method)(report, **params)
        except asyncio.CancelledError:
            (self.home / f"{method}.cancelled").touch()
            raise
        return result

    async def link_code(self, report, yes) -> Json:
        report({"code": "7-amber-lion-tree"})
        if not yes:
            answer = self.answers["1"] = asyncio.get_running_loop().create_future()
            report({"ask": "digits", "digits": "123456", "id": "1", "name": "Pho\x1bne"})
            if not await answer:
                raise UserError("the digits differ: somebody is in between", code="digits")
        return {"device": {"id": "bb" * 32, "name": "Phone"}}

    async def confirm(self, report, id, yes) -> Json:
        self.answers[id].set_result(yes)
        return {}

    async def add(self, report, path, name) -> Json:
        name = name or os.path.basename(path)
        if name == "crash":
            raise KeyError("a row")
        if name == "quorum":
            raise NoQuorumError("1 of 2 storage nodes can be reached")
        if name == "slow":
            await asyncio.sleep(0.3)
        self.state["folders"].append({"id": "cc" * 32, "name": name, "path": path})
        return {"id": "cc" * 32, "name": name, "path": path, "note": "the coordinator is told later"}

    async def get(self, report, folder, path) -> Json:
        for at in range(1, 4):
            report({"phase": "download", "folder": folder, "bytes_done": at * 10**6, "bytes_total": 3 * 10**6})
        return await self.add(report, path, folder)

    async def remove(self, report, folder, everywhere) -> Json:
        self.state["folders"] = [each for each in self.state["folders"] if each["name"] != folder]
        return {"name": folder}

    async def approve(self, report, folder) -> Json:
        if folder != "docs":
            raise UserError(f"no change of {folder} waits to be approved", code="nothing_held")
        return {"id": "cc" * 32, "name": folder, "files": 1_200}

    async def undo(self, report, folder) -> Json:
        held = {"held": True, "time": None, "place": f"/docs/.kinfolder/undone/2026 {folder}"}
        passed = {"held": False, "time": "2026-01-02T03:04:05.000Z", "place": ""}
        note = "they come back as soon as they can be fetched" if folder == "docs" else ""
        return {"id": "cc" * 32, "name": folder, "files": 2, "note": note, **(held if folder == "docs" else passed)}

    async def preview(self, report) -> Json:
        lines = [
            {"path": "a", "action": "rename", "direction": "down", "to": "b", "bytes": 0},
            {"path": "c", "action": "send", "direction": "up", "to": None, "bytes": 3_000},
        ]
        folder = {"id": "cc" * 32, "name": "docs", "text": "", "total": 7, "plan": lines}
        rest = {"id": "dd" * 32, "name": "rest", "text": "", "total": 0, "plan": []}
        return {"version": 1, "dry_run": True, "folders": [folder, rest]}

    async def folders(self, report) -> Json:
        rows = [{**each, "role": "admin", "members": 1, "state": "in_sync"} for each in self.state["folders"]]
        rows.append({"id": "dd" * 32, "name": "away", "path": None, "role": "reader", "members": 2, "state": "stopped"})
        return {"version": 1, "folders": rows}

    async def sync(self, report, **params) -> Json:
        names = {each["name"] for each in self.state["folders"]}
        if self.state.get("offline"):
            raise UserError("this device is offline; kin online ends it", code="offline")
        report({"phase": "upload", "folder": "docs", "bytes_done": 1, "bytes_total": 2})
        if "endless" in names:
            (self.home / "syncing").touch()
            await asyncio.sleep(0.2 if params["timeout"] else 3600)
            return {"in_sync": False, "exit": 3, "remains": ["time is over: 1 file of endless to send"]}
        if "held" in names:
            return {"in_sync": False, "exit": 4, "remains": ["held: 12 deletions wait for you", "a\x1b[31m.txt"]}
        if "many" in names:
            return {
                "in_sync": False,
                "exit": 3,
                "remains": [f"file {at}" for at in range(1_000)],
                "remains_total": 1_500,
            }
        return {"in_sync": True, "exit": 0, "remains": []}

    async def wait(self, report, **params) -> Json:
        return await self.sync(report, **params)

    async def offline(self, report) -> Json:
        self.state["offline"] = True
        return {}

    async def online(self, report) -> Json:
        self.state["offline"] = False
        return {}

    async def lan(self, report, switch) -> Json:
        self.state["lan"] = switch or self.state.get("lan", "on")
        found = [{"id": "bb" * 32, "account": "ff" * 32, "name": "Pho\x1bne", "address": "192.168.1.7"}]
        return {
            "version": 1,
            "enabled": self.state["lan"] == "on",
            "running": self.is_agent and self.state["lan"] == "on",
            "peers": len(found),
            "received_bytes": 2_000_000,
            "sent_bytes": 0,
            "port": 4000,
            "text": "",
            "found": found,
            "storage": {"received_bytes": 5, "sent_bytes": 7},
        }

    async def conflicts(self, report) -> Json:
        row = {
            "id": "ee" * 16,
            "folder": "docs",
            "path": "a.txt",
            "copy": "a (conflict, Laptop, 1a2b3c4d).txt",
            "device": "Laptop",
            "user": "anna",
            "time": MOMENT,
            "size": 12,
        }
        return {"version": 1, "conflicts": [row]}

    async def devices(self, report) -> Json:
        row = {
            "id": "aa" * 32,
            "name": self.state["device"],
            "this": True,
            "added": MOMENT,
            "last_seen": None,
            "online": False,
            "revoked": None,
        }
        other = row | {"id": "bb" * 32, "name": "Phone", "this": False, "last_seen": MOMENT}
        return {"version": 1, "devices": [row, other, other | {"name": "Lost", "revoked": MOMENT}]}

    async def status(self, report, **params) -> Json:
        bad = os.fsdecode(b"b\xff\x1b[2J.txt")
        rows = [
            {
                "path": f"{bad}{number}",
                "direction": "up",
                "reason": "name" if number % 2 else "queued",
                "text": "has a bad name" if number % 2 else "waits for its turn",
                "bytes": 5,
                "done": 0,
            }
            for number in range(30)
        ]
        folder = {
            "id": "cc" * 32,
            "name": "docs",
            "path": "/somewhere/docs",
            "role": "reader",
            "state": "held",
            "position": {"applied": 40, "head": 41},
            "files": 12,
            "bytes": 3456,
            "upload": {"files": 30, "bytes": 150},
            "download": {"files": 0, "bytes": 0},
            "conflicts": 1,
            "held": {"kind": "deletions", "files": 12},
            "unsynced_total": 30,
            "unsynced": rows,
        }
        return {
            "version": 1,
            "device": {"id": "aa" * 32, "name": self.state["device"]},
            "user": self.state["user"],
            "agent": "running" if self.is_agent else "stopped",
            "network": "online",
            "lan": {"enabled": True, "peers": 1},
            "storage": {"nodes": 1, "reachable": 1, "replicas": 1, "quorum": 1},
            "in_sync": False,
            "folders": [folder],
            "warnings": ["there is 1 copy of everything"],
        }


def main() -> int:
    mode, *arguments = sys.argv[1:]
    if "KIN_TEST_TERMINAL" in os.environ:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C at this terminal reaches this process
    if mode == "agent":
        from peer.commands.run import run_agent

        return run_agent(Path(arguments[0]), Double)
    module = types.ModuleType("peer.device")
    vars(module)["Device"] = Double
    sys.modules["peer.device"] = module
    sys.argv = ["kin", *arguments]
    from peer.cli import main as kin

    return kin()


if __name__ == "__main__":
    sys.exit(main())
