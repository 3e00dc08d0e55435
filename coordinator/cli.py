"""The command line ``kin-coordinator``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, KinfolderError, UserError

if TYPE_CHECKING:
    from coordinator.standing import Standing

app = typer.Typer(
    name="kin-coordinator",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[str, typer.Option("--data", metavar="DIR", help="Directory of the database and the keys.")]


@app.callback()
def _commands(ctx: typer.Context) -> None:
    """The coordination server of Kinfolder: it orders changes that it cannot read."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _fail(text: str, exit_code: int, *, code: str = "usage", as_json: bool = False) -> NoReturn:
    if as_json:
        print(json.dumps({"version": 1, "error": {"code": code, "text": text}}))
    else:
        line = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)
        print(f"kin-coordinator: {line}", file=sys.stderr)
    raise typer.Exit(exit_code)


def _not_here(what: str) -> NoReturn:
    _fail(f"{what}: not in this version", EXIT_USAGE)


def _run(work: Callable[[], None], *, as_json: bool = False) -> None:
    """Do a command's work; an error of ours is one line, or one object, and an exit code."""
    try:
        work()
    except UserError as error:
        _fail(str(error), error.exit_code, code=error.code, as_json=as_json)
    except KinfolderError as error:
        _fail(str(error), EXIT_FAILED, code=error.code, as_json=as_json)
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
        _fail(text, EXIT_FAILED, code="error", as_json=as_json)


@app.command()
def serve(
    data: Data,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.")],
    advertise: Annotated[str, typer.Option(metavar="URL", help="The URL that clients dial, if it is another.")] = "",
    replicas: Annotated[int, typer.Option(help="Copies of each chunk; counts at the first start.")] = 3,
    quorum: Annotated[int, typer.Option(help="Copies before a change counts as durable; at the first start.")] = 2,
    database: Annotated[str, typer.Option(metavar="URL", help="Another database than SQLite in DIR.")] = "",
    broker: Annotated[str, typer.Option(metavar="URL", help="A message broker between coordinators.")] = "",
    open_registration: Annotated[bool, typer.Option("--open-registration", help="Let anybody in.")] = False,
) -> None:
    """Run the server until SIGTERM or SIGINT."""
    if database:
        _not_here(f"--database {database.split(':', 1)[0]}")
    if broker:
        _not_here(f"--broker {broker.split(':', 1)[0]}")

    def work() -> None:
        from coordinator.config import make_config
        from coordinator.logs import configure_logs

        configure_logs()
        config = make_config(
            data=data,
            listen=listen,
            advertise=advertise,
            replicas=replicas,
            quorum=quorum,
            open_registration=open_registration,
        )

        async def main() -> None:
            from coordinator.server import serving

            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            async with serving(config) as server:
                print(f"kin-coordinator ready at {server.url}", flush=True)
                await stop.wait()

        _run_loop(main)

    _run(work)


def _run_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())


@app.command()
def invite(
    data: Data,
    uses: Annotated[int, typer.Option(help="How often it may be used.")] = 1,
    purpose: Annotated[str, typer.Option("--for", metavar="user|storage", help="Whom it lets in.")] = "user",
    operator: Annotated[str, typer.Option(help="Who runs the storage nodes; default: each token is its own.")] = "",
    url: Annotated[bool, typer.Option("--url", help="Print a whole invitation, not the token alone.")] = False,
) -> None:
    """Print a new invitation; works before the first start and beside a running server."""

    def work() -> None:
        from coordinator.directory import check_new_or_existing

        check_new_or_existing(data)
        directory = _directory(data)
        if url:
            directory.invitation("")  # so that no token is made if this is going to fail
        token = directory.invite(purpose=purpose, uses=uses, operator=operator)
        print(directory.invitation(token) if url else token)

    _run(work)


@app.command()
def copies(
    data: Data,
    replicas: Annotated[int, typer.Argument(metavar="R", help="Copies of each chunk.")],
    quorum: Annotated[int, typer.Argument(metavar="W", help="Copies before a change counts as durable.")],
) -> None:
    """Set the number of copies; what is stored already is copied up to it."""

    def work() -> None:
        from coordinator.config import check_copies
        from coordinator.directory import check_existing

        check_copies(replicas, quorum)
        check_existing(data)
        _directory(data).set_copies(replicas, quorum)
        print(f"{replicas} copies, {quorum} before a change counts as durable")

    _run(work)


def _time(ms: int) -> str | None:
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def _node_row(standing: Standing, *, is_served: bool) -> dict[str, object]:
    node, retirement = standing.node, standing.retirement
    is_over = retirement is not None and retirement.is_over
    left = None
    if retirement is not None and not is_over and retirement.counted_ms:
        left = {
            "chunks": retirement.chunks_left,
            "bytes": retirement.bytes_left,
            "chunks_alone": retirement.chunks_alone,
        }
    return {
        "id": node.node.hex(),
        "url": node.url,
        "operator": node.operator,
        "zone": node.zone,
        "online": node.online and is_served and not is_over,
        "last_seen": _time(node.last_seen_ms),
        "free_bytes": node.free_bytes,
        "stored_bytes": node.stored_bytes,
        "state": standing.state,
        "left": left,
        "retired": _time(retirement.ended_ms) if retirement is not None else None,
    }


def _node_state(standing: Standing, row: dict[str, object]) -> str:
    from coordinator.standing import what_is_left

    if standing.state == "retired":
        return f"retired {row['retired']}"
    state = "online" if row["online"] else f"offline since {row['last_seen'] or 'ever'}"
    return state if standing.retirement is None else f"{state}, retiring: {what_is_left(standing.retirement)}"


@app.command()
def nodes(data: Data, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the storage nodes."""

    def work() -> None:
        from coordinator.directory import check_existing

        check_existing(data)
        directory = _directory(data)
        is_served = directory.is_served()
        known = directory.nodes()
        rows = [_node_row(one, is_served=is_served) for one in known]
        copies = directory.copies()
        if as_json:
            replicas, quorum = copies or (None, None)
            print(json.dumps({"version": 1, "replicas": replicas, "quorum": quorum, "nodes": rows}))
            return
        for one, row in zip(known, rows, strict=True):
            print(
                f"{str(row['id'])[:16]}  {_node_state(one, row)}  {row['url']}"
                f"  operator {row['operator']}  zone {row['zone']}"
            )
        if not rows:
            print("no storage nodes yet: kin-coordinator invite --for storage")

    _run(work)


@app.command()
def retire(
    data: Data,
    node: Annotated[str, typer.Argument(metavar="NODE", help="The beginning of its id, or its URL.")],
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="Wait no longer; it goes on all the same.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take a storage node out of service: what it holds is copied to the others, and then it can be switched off.

    The running server does the work. The command shows how far it is; it may be interrupted and given again.
    """

    def work() -> None:
        from coordinator.directory import check_existing
        from coordinator.retire_command import retire_node

        check_existing(data)

        def show(line: str) -> None:
            if not as_json:
                print(line, file=sys.stderr, flush=True)

        done = retire_node(_directory(data), node, timeout_s=timeout, show=show)
        if as_json:
            retired = _time(done.retirement.ended_ms) if done.retirement is not None else None
            print(json.dumps({"version": 1, "node": done.node.node.hex(), "state": done.state, "retired": retired}))
            return
        print(f"{done.name} is retired: nothing depends on it, and it can be switched off")

    try:
        _run(work, as_json=as_json)
    except KeyboardInterrupt:
        text = "interrupted; the coordinator goes on with what it was told: give the command again to see how far it is"
        _fail(text, EXIT_INTERRUPTED, code="interrupted", as_json=as_json)


def _directory(data: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  # imported late, so that --help is quick
    from coordinator.directory import DataDirectory
    from coordinator.doors import SystemClock, system_entropy

    return DataDirectory(data, SystemClock(), system_entropy)


def main() -> None:
    """Run the command line."""
    try:
        result = app(prog_name="kin-coordinator", standalone_mode=False)
    except TyperException as error:
        print(f"kin-coordinator: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(result if isinstance(result, int) else EXIT_DONE)


if __name__ == "__main__":
    main()
