"""The command line ``kin``: what may be typed, its help, and how every command ends.

Rule 1: typer and rich are imported here alone; what a command does stands in :mod:`peer.commands`, imported when it runs.
Rule 2: a command ends with an exit code of the contract and at most one line on standard error, never a traceback.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from peer.commands import later
from peer.commands.session import Session
from peer.commands.terminal import Terminal, drop_output, safe
from peer.progress import Progress, Show
from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, KinfolderError, UserError

Function = TypeVar("Function", bound=Callable[..., Any])

DEVICE: Final = "A device"
FOLDERS: Final = "Folders"
WORK: Final = "Working"
PAST: Final = "The past"
SERVER: Final = "A server"
LATER: Final = "Not in this version"
SECTIONS: Final = (DEVICE, FOLDERS, WORK, PAST, SERVER, LATER)


class Command(TyperCommand):
    """A command whose examples stand in its help as they are written."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Write the examples."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")


class Commands(TyperGroup):
    """All commands, in their sections."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - see format_epilog
        """Write one list of commands for each section."""
        for title in SECTIONS:
            found = [each for each in self.commands.values() if getattr(each, "rich_help_panel", None) == title]
            with formatter.section(title):
                formatter.write_dl([(each.name, each.get_short_help_str(90)) for each in found if not each.hidden])


app: Final = typer.Typer(
    name="kin",
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def command(name: str, section: str, *examples: str) -> Callable[[Function], Function]:
    """Make a function the command ``name``; its docstring is the help."""
    return app.command(name, cls=Command, rich_help_panel=section, epilog="\n".join(examples))


def _names_of_folders(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a folder, where an agent runs that knows them."""
    from peer.api.client import Agent
    from peer.config import resolve_home

    try:
        agent = Agent.dial(resolve_home(ctx.find_root().params.get("home")))
        if agent is None:
            return []
        result = agent.call("folders", {}, report=lambda _: None, confirm=lambda _, __: False, timeout_s=1)
        return [str(each["name"]) for each in result["folders"] if str(each["name"]).startswith(incomplete)]
    except (KinfolderError, KeyError, TypeError):
        return []


class Action(StrEnum):
    """What is done with the service."""

    INSTALL = "install"
    REMOVE = "remove"


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not compare the six digits. Give it on both devices.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="S", min=0, help="Give up after S seconds, with exit code 3.")
]
Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="A name, an id, or a path in it.", autocompletion=_names_of_folders)
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="URL",
        help="ws:// on this machine, wss:// elsewhere. An invitation and most codes hold it.",
    ),
]
DeviceName = Annotated[str, typer.Option("--device", metavar="NAME", help="What to call this device.")]
NoKeyring = Annotated[
    bool,
    typer.Option(
        "--no-keyring",
        help="Leave the system's keyring alone; without a passphrase the key lies open in a file of mode 0600.",
    ),
]
PassphraseFile = Annotated[
    str | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Seal the keys with the first line of FILE (or of KIN_PASSPHRASE_FILE).",
    ),
]


@app.callback()
def start(
    ctx: typer.Context,
    home: Annotated[
        str | None,
        typer.Option("--home", metavar="DIR", help="One device's state; else KIN_HOME, else the platform's own place."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Keep folders the same on all of your devices, encrypted end to end.

    Exit codes: 0 done, 1 failed, 2 wrong usage or not in this version, 3 time is over, 4 what remains needs a person,
    5 needs an agent and none runs, 130 Ctrl-C.
    """
    ctx.obj = Session(home, Terminal(as_json="--json" in sys.argv, bars=_bars))
    if version:
        typer.echo(f"kin {_version()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _session(ctx: typer.Context, as_json: bool = False) -> Session:
    session = ctx.obj
    assert isinstance(session, Session)
    session.terminal.as_json = as_json
    return session


# --- A device


@command(
    "init",
    DEVICE,
    "kin init --invite kin+wss://home.example:47470/#TOKEN --user anna --device Laptop",
    "kin init --coordinator ws://127.0.0.1:47470 --invite TOKEN --user anna --device Laptop --recovery-file words.txt",
)
def init(
    ctx: typer.Context,
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Your name, as others see it.")],
    device: DeviceName,
    coordinator: Coordinator = None,
    invite: Annotated[
        str | None, typer.Option("--invite", metavar="TOKEN", help="A token, or a whole invitation.")
    ] = None,
    recovery_file: Annotated[
        str | None,
        typer.Option("--recovery-file", metavar="FILE", help="Where the 24 words go; else they are shown once."),
    ] = None,
    no_keyring: NoKeyring = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make an account, with this device as its first."""
    from peer.commands import accounts

    accounts.init(
        _session(ctx),
        coordinator=coordinator,
        invite=invite,
        user=user,
        device=device,
        recovery_file=recovery_file,
        no_keyring=no_keyring,
        passphrase_file=passphrase_file,
    )


@command("link-code", DEVICE, "kin link-code")
def link_code(ctx: typer.Context, yes: Yes = False) -> None:
    """Print a one-time code for a further device, and wait until it is used."""
    from peer.commands import accounts

    accounts.link_code(_session(ctx), yes=yes)


@command("link", DEVICE, "kin link 7-amber-lion-tree --coordinator wss://home.example:47470 --device Phone")
def link(
    ctx: typer.Context,
    code: Annotated[str, typer.Argument(metavar="CODE", help="What kin link-code shows on another device.")],
    device: DeviceName,
    coordinator: Coordinator = None,
    yes: Yes = False,
    no_keyring: NoKeyring = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make this a further device of an account."""
    from peer.commands import accounts

    accounts.link(
        _session(ctx),
        code=code,
        coordinator=coordinator,
        device=device,
        yes=yes,
        no_keyring=no_keyring,
        passphrase_file=passphrase_file,
    )


@command("devices", DEVICE, "kin devices", "kin devices --json")
def devices(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the devices of the account."""
    from peer.commands import accounts

    accounts.devices(_session(ctx, json))


@command("revoke", DEVICE, "kin revoke Phone", "kin revoke 3f1c9a52")
def revoke(
    ctx: typer.Context,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Its name, or the beginning of its id.")],
) -> None:
    """Take a lost or stolen device out of the account."""
    from peer.commands import accounts

    accounts.revoke(_session(ctx), device=device)


# --- Folders


@command("add", FOLDERS, "kin add ~/Documents", "kin add /srv/photos --name Photos")
def add(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A directory; made if it is missing.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Else the directory's own.")] = None,
) -> None:
    """Make a directory a folder of the account."""
    from peer.commands import folders as work

    work.add(_session(ctx), path=path, name=name)


@command("get", FOLDERS, "kin get Photos ~/Pictures/Photos")
def get(
    ctx: typer.Context,
    folder: Folder,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Where it goes.")],
) -> None:
    """Bring a folder of the account to this device."""
    from peer.commands import folders as work

    work.get(_session(ctx), folder=folder, path=path)


@command("remove", FOLDERS, "kin remove Photos")
def remove(
    ctx: typer.Context,
    folder: Folder,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="On every device and for every member; for admins.")
    ] = False,
) -> None:
    """Forget a folder on this device; its files stay."""
    from peer.commands import folders as work

    work.remove(_session(ctx), folder=folder, everywhere=everywhere)


@command("folders", FOLDERS, "kin folders")
def folders(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the folders of the account, here and elsewhere."""
    from peer.commands import folders as work

    work.folders(_session(ctx, json))


@command(
    "exclude",
    FOLDERS,
    "kin exclude",
    "kin exclude ~/Documents/Videos --free",
    "kin exclude ~/Documents/Videos --remove",
)
def exclude(
    ctx: typer.Context,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="In a folder, existing or not; none lists what is excluded.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Bring it back.")] = False,
    free: Annotated[
        bool,
        typer.Option(
            "--free", help="Take it off this disk, once the folder holds all of it; else say what is missing."
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Keep a path off this device; it stays everywhere else, and what lies here stays as it is."""
    from peer.commands import folders as work

    work.exclude(_session(ctx, json), path=path, remove=remove, free=free)


@command("conflicts", FOLDERS, "kin conflicts", "kin conflicts --keep 'plan (conflict, Laptop, 1a2b3c4d).txt'")
def conflicts(
    ctx: typer.Context,
    json: AsJson = False,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="COPY", help="This copy becomes the file. COPY is its path or id.")
    ] = None,
    drop: Annotated[str | None, typer.Option("--drop", metavar="COPY", help="Remove this copy.")] = None,
) -> None:
    """Show files that were changed on two devices at once, or decide about one."""
    from peer.commands import folders as work

    work.conflicts(_session(ctx, json), keep=keep, drop=drop)


@command("approve", FOLDERS, "kin approve Photos")
def approve(ctx: typer.Context, folder: Folder) -> None:
    """Let a mass change that waits pass: many files that were found missing or rewritten."""
    from peer.commands import folders as work

    work.approve(_session(ctx), folder=folder)


@command("undo", FOLDERS, "kin undo Photos")
def undo(ctx: typer.Context, folder: Folder) -> None:
    """Drop a mass change that waits and bring the files back; else revert the folder's newest mass change."""
    from peer.commands import folders as work

    work.undo(_session(ctx), folder=folder)


# --- Working


@command("run", WORK, "kin run")
def run(ctx: typer.Context) -> None:
    """Be the agent: keep the folders in sync until SIGTERM, Ctrl-C or kin stop."""
    from peer.commands.run import become_agent

    become_agent(_session(ctx).settings.home)


@command("stop", WORK, "kin stop")
def stop(ctx: typer.Context) -> None:
    """End the agent."""
    from peer.commands import syncing

    syncing.stop(_session(ctx))


@command("sync", WORK, "kin sync", "kin sync --timeout 60", "kin sync --dry-run")
def sync(
    ctx: typer.Context,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    json: AsJson = False,
) -> int:
    """Bring all folders up to date once, with or without an agent."""
    from peer.commands import syncing

    if dry_run:
        return syncing.preview(_session(ctx, json))
    return syncing.sync(_session(ctx, json), timeout_s=timeout)


@command("wait", WORK, "kin wait --timeout 300")
def wait(ctx: typer.Context, timeout: Timeout = None, json: AsJson = False) -> int:
    """Wait until the agent has brought all folders up to date."""
    from peer.commands import syncing

    return syncing.wait(_session(ctx, json), timeout_s=timeout)


@command("status", WORK, "kin status", "kin status --json --all")
def status(
    ctx: typer.Context,
    json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="All that is not synced, however much.")] = False,
) -> None:
    """Show folders, progress, peers, and what is not yet synced and why."""
    from peer.commands import status as work

    work.status(_session(ctx, json), all_rows=every)


@command("offline", WORK, "kin offline")
def offline(ctx: typer.Context) -> None:
    """Use no network, until kin online."""
    from peer.commands import syncing

    syncing.offline(_session(ctx))


@command("online", WORK, "kin online")
def online(ctx: typer.Context) -> None:
    """Use the network again."""
    from peer.commands import syncing

    syncing.online(_session(ctx))


@command("lan", WORK, "kin lan", "kin lan off", "kin lan --json")
def lan(
    ctx: typer.Context,
    switch: Annotated[
        str | None, typer.Argument(metavar="[SWITCH]", help="on or off; else what was found is shown.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Find devices on this network and exchange files with them directly."""
    from peer.commands import lan as work

    work.lan(_session(ctx, json), switch=switch)


@command("doctor", WORK, "kin doctor", "kin doctor --json")
def doctor(ctx: typer.Context, json: AsJson = False) -> int:
    """Check this device, and say what is wrong and what to do.

    Ends with 0 if all is well, 1 if something is wrong, 4 if something waits for a person.
    """
    from peer.commands.doctor import doctor as work

    home = ctx.find_root().params.get("home")
    return work(_session(ctx, json), home=home, version=_version())


@command("service", WORK, "kin service install", "kin service remove")
def service(
    ctx: typer.Context,
    action: Annotated[
        Action, typer.Argument(metavar="install|remove", help="Have it started when you log in, or no more.")
    ],
) -> None:
    """Have systemd start the agent when you log in, and again if it fails."""
    from peer.commands import service as work

    (work.install if action is Action.INSTALL else work.remove)(_session(ctx))


# --- The past

Path = Annotated[str, typer.Argument(metavar="PATH", help="In a folder; it need not exist any more.")]


@command("history", PAST, "kin history ~/Documents/letter.odt", "kin history ~/Documents --json")
def history(ctx: typer.Context, path: Path, json: AsJson = False) -> None:
    """Show the versions of a file, a directory or a whole folder."""
    from peer.commands import past

    past.history(_session(ctx, json), path=path)


@command(
    "restore",
    PAST,
    "kin restore ~/Documents/letter.odt --version 1532",
    "kin restore ~/Documents --at '2026-05-01 12:00'",
    "kin restore ~/Documents/old --at 3d --to ~/old-as-it-was",
)
def restore(
    ctx: typer.Context,
    path: Path,
    version: Annotated[str | None, typer.Option("--version", metavar="ID", help="As kin history shows it.")] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="RFC 3339, YYYY-MM-DD[ HH:MM] here, or 2h, 3d ago."),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="NAME", help="As kin snapshot list shows it.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="PATH", help="Another place, where nothing stands.")] = None,
) -> int:
    """Bring back a version of a file, a directory or a whole folder; what is there is recorded first."""
    from peer.commands import past

    return past.restore(_session(ctx), path=path, version=version, at=at, snapshot=snapshot, to=to)


@command("snapshot", PAST, "kin snapshot create Documents before-the-move", "kin snapshot list Documents")
def snapshot(
    ctx: typer.Context,
    action: Annotated[str, typer.Argument(metavar="create|list")],
    folder: Folder,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Else the date and time.")] = None,
    json: AsJson = False,
) -> None:
    """Give the state of a folder a name, or show the names that were given."""
    from peer.commands import past

    past.snapshot(_session(ctx, json), action=action, folder=folder, name=name)


# --- A server


@command("host", SERVER, "kin host", "kin host --data /srv/kinfolder --listen 192.168.1.5:47470")
def host(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Where everything is kept; else the platform's own place."),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Where the coordinator listens; the storage node takes the next port."
        ),
    ] = "0.0.0.0:47470",
) -> None:
    """Be a home server: a coordinator and a storage node, until SIGTERM or Ctrl-C. Prints an invitation."""
    from peer.host import become_host

    become_host(data, listen)


# --- Not in this version


def _announce(name: str, usage: str, text: str) -> None:
    app.command(
        name,
        cls=Command,
        help=text,
        rich_help_panel=LATER,
        epilog=f"kin {name} {usage}".rstrip(),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(later.refuse)


for _later in later.COMMANDS:
    _announce(*_later)


@app.command("manual", hidden=True)
def manual() -> None:
    """Print docs/commands.md."""
    from peer.commands.manual import describe

    typer.echo(describe(typer.main.get_command(app), SECTIONS), nl=False)


# --- How every command ends


def main() -> int:
    """Run the command that the process's arguments name, and return its exit code."""
    arguments = sys.argv[1:]
    terminal = Terminal(as_json="--json" in arguments)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = app(arguments, prog_name="kin", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_DONE
    except KinfolderError as error:
        return terminal.fail(error)
    except TyperException as error:
        return terminal.fail(UserError(_one_line(error), exit_code=EXIT_USAGE, code="usage"))
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_FAILED  # whoever read our output has gone
    except Exception as error:  # noqa: BLE001 - the last door: one line for a person, the rest for the log
        from peer.commands.logs import unexpected

        home = arguments[arguments.index("--home") + 1] if "--home" in arguments[:-1] else None
        named = next((each for each in arguments if each in _names()), "kin")
        return terminal.fail(unexpected(home, named, error))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient Ctrl-C finds nothing left to interrupt
        drop_output()


def _names() -> list[str]:
    return [each.name for each in app.registered_commands if each.name]


def _one_line(error: TyperException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    asked = context.command_path if context is not None else "kin"
    text = text.replace("Value error, ", "").rstrip(".")
    return f"{text}{'' if text.endswith('?') else '.'} See: {asked} --help"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kinfolder")
    except PackageNotFoundError:
        return "from a checkout"


def _bars() -> Show:
    """Return progress bars on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    bars = RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[tuple[str, str], Any] = {}

    class Bars:
        def update(self, progress: Progress) -> None:
            key = (progress.phase, progress.folder)
            if key not in tasks:
                tasks[key] = bars.add_task(safe(progress.title), total=None, files="")
            bars.update(
                tasks[key],
                completed=progress.bytes_done,
                total=progress.bytes_total or None,
                files=f"{progress.files_done:,}/{progress.files_total:,} files" if progress.files_total else "",
            )

        def close(self) -> None:
            bars.stop()

    bars.start()
    return Bars()


if __name__ == "__main__":
    sys.exit(main())
