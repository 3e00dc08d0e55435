"""``kin-storage``: the command that runs a storage node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, KinfolderError, UserError

app = typer.Typer(
    name="kin-storage",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands(ctx: typer.Context) -> None:
    """A storage node of Kinfolder: it keeps sealed chunks that it cannot read."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Directory for everything the node keeps; made if missing.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; http on loopback, else https; port 0 picks a free one.")],
    coordinator: Annotated[str | None, typer.Option(help="ws://127.0.0.1:PORT or wss://HOST:PORT.")] = None,
    invite: Annotated[str | None, typer.Option(help="Token or whole invitation; used at the first start.")] = None,
    advertise: Annotated[str | None, typer.Option(help="URL by which others reach this node.")] = None,
    zone: Annotated[str | None, typer.Option(help="What fails together; default: a zone of its own.")] = None,
    limit: Annotated[str | None, typer.Option(help="How much to store at most, such as 500G.")] = None,
    backend: Annotated[str | None, typer.Option(help="Where chunks lie; not in this version.")] = None,
) -> None:
    """Keep chunks until SIGTERM or SIGINT."""
    from storage_node.config import make_settings
    from storage_node.daemon import run

    settings = make_settings(
        data=data,
        listen=listen,
        coordinator=coordinator,
        invite=invite,
        advertise=advertise,
        zone=zone,
        limit=limit,
        backend=backend,
    )
    run(settings)


def main() -> None:
    """Run the command line; every error of ours is one line and an exit code."""
    try:
        result = app(prog_name="kin-storage", standalone_mode=False)
    except TyperException as error:
        print(f"kin-storage: {' '.join(error.format_message().split())}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    except typer.Abort:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except UserError as error:
        print(f"kin-storage: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KinfolderError as error:
        print(f"kin-storage: {error}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
    raise SystemExit(result if isinstance(result, int) else EXIT_DONE)


if __name__ == "__main__":
    main()
