"""The reference of all commands, ``docs/commands.md``, written from the command line itself.

``kin manual > docs/commands.md`` makes it; a test checks that it is current.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

_INTRODUCTION: Final = """\
# The commands of kin

Written by `kin manual`; the text stands in `peer/cli.py`.

`kin [--home DIR] COMMAND [ARGS]`. One home holds one device: `--home DIR`, else `KIN_HOME`, else the platform's own
place. Commands ask the agent (`kin run`) if one runs for that home, and otherwise open the home themselves; `wait` and
`stop` need an agent. Nothing is asked where standard input is not a terminal.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed: one line on standard error says what |
| 2 | wrong usage, or not in this version |
| 3 | time is over; one line on standard error says what remains |
| 4 | all else is done, and what remains needs a person |
| 5 | needs an agent, and none runs |
| 130 | Ctrl-C |

With `--json` a command prints exactly one object, on failure `{"version": 1, "error": {"code": ..., "text": ...}}`.

| variable | does |
|---|---|
| `KIN_HOME` | the home, where `--home` is not given |
| `KIN_LOG` | `debug`, `info` or `warning`: what goes to `kin.log` in the home; tracebacks with `debug` only |
| `KIN_PASSPHRASE_FILE` | the first line of this file seals the keys |
| `KIN_LAN_INTERFACES` | addresses, with commas: the only ones for use on the local network |
| `KIN_EVENT_LOOP` | `auto` (uvloop where it is installed), `uvloop` or `asyncio` |
| `NO_COLOR` | no colours at a terminal; elsewhere there are none |

`settings.toml` in the home may hold the same as `log`, `passphrase_file`, `lan_interfaces` (a list), `lan_port`, `spool_bytes` and `event_loop`; a
variable wins over it.

## Completion

`kin --install-completion` teaches the shell that runs it (bash, zsh or fish) to complete commands, options and names of
folders; start a new shell afterwards. `kin --show-completion` prints the script instead, to be put where you keep such
things.
"""


def describe(group: Any, sections: Sequence[str]) -> str:
    """Return the reference as Markdown.

    Args:
        group: The command line's root, as typer built it.
        sections: Titles, in order.
    """
    lines = [_INTRODUCTION]
    for title in sections:
        lines.append(f"## {title}\n")
        for command in group.commands.values():
            if command.rich_help_panel == title and not command.hidden:
                lines.extend(_command(command))
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Any) -> Iterator[str]:
    yield f"### kin {command.name}\n"
    yield " ".join(str(command.help).split()) + "\n"
    rows = [row for row in map(_parameter, command.params) if row is not None]
    if rows:
        yield "| | |\n|---|---|"
        yield from rows
        yield ""
    if command.epilog:
        yield f"```\n{command.epilog}\n```\n"


def _parameter(parameter: Any) -> str | None:
    text = getattr(parameter, "help", None) or ""
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar or parameter.name.upper()}` | {text} |"
    name = ", ".join(parameter.opts)
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    needed = " Needed." if parameter.required else ""
    default = f" Default: `{parameter.default}`." if isinstance(parameter.default, str) else ""
    return f"| `{name}{value}` | {text}{needed}{default} |"
