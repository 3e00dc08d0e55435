"""The generated parts of the documents on formats: tables of messages, structs, limits and purposes, from the code.

Run ``python -m tests.docs.generated`` to write them again; ``test_documents.py`` checks that they are current.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from peer.core import linking_messages
from peer.core.chunk_sealing import Row
from peer.core.segments import Segment
from protocol import chains, entries, grants, history, lan, limits, messages

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ("protocol.md", "storage_format.md", "threat_model.md")
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z_]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def sentence(kind: type) -> str:
    """Return the first paragraph of a class's docstring, on one line, without markup that only a tool understands."""
    text = " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
    return re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def fields(kind: type) -> str:
    """Return the fields of a struct in their order, with their types as they are written."""
    names: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        names.update(getattr(one, "__annotations__", {}))
    rows = [f"{name} {names[name]}" for name in kind.__struct_fields__]  # type: ignore[attr-defined]
    return "`" + "`, `".join(rows).replace("|", "\\|") + "`" if rows else ""


def tag(kind: type) -> str:
    """Return the first element of a tagged struct's array."""
    value = kind.__struct_config__.tag  # type: ignore[attr-defined]
    return "" if value is None else str(value)


def structs(kinds: Iterable[type]) -> str:
    """Return a table of structs."""
    lines = ["| tag | name | elements, in order | says |", "|---|---|---|---|"]
    lines += [f"| {tag(kind)} | {kind.__name__} | {fields(kind)} | {sentence(kind)} |" for kind in kinds]
    return "\n".join(lines) + "\n"


def message_table() -> str:
    """Return the table of all messages."""
    return structs(messages.Message.__args__)


def account_structs() -> str:
    """Return the structs of an account chain."""
    return structs((chains.SignedLink, chains.AccountLink, *chains.AccountOp.__args__, chains.DeviceKeys))


def control_structs() -> str:
    """Return the structs of a control log."""
    return structs((chains.ControlLink, *chains.ControlOp.__args__, chains.EpochWrap))


def entry_structs() -> str:
    """Return the structs of an entry."""
    head = (entries.Header, entries.Batch, entries.Expect, entries.Change)
    sealed = (entries.Payload, entries.Seen, entries.SegmentKey, entries.RowSpan)
    return structs((*head, *sealed, *entries.Value.__args__))


def log_structs() -> str:
    """Return the structs of the log."""
    return structs((history.LogItem, history.VoidRecord, history.Checkpoint, history.SignedCheckpoint))


def grant_structs() -> str:
    """Return the structs between devices and storage nodes."""
    return structs((grants.Grant, grants.Statement, grants.Receipt, grants.ChunkRef, grants.Signed, grants.ReceiptFor))


def content_structs() -> str:
    """Return the structs of rows and segments."""
    return structs((Row, Segment))


def linking_structs() -> str:
    """Return the messages of linking."""
    return structs((*linking_messages.Outer.__args__, *linking_messages.Inner.__args__))


def lan_structs() -> str:
    """Return the messages between devices on a LAN."""
    return structs((lan.LanFrame, *lan.LanMessage.__args__, lan.Wanted, lan.Part))


def enumerations() -> str:
    """Return every enumeration on the wire."""
    kinds = (
        chains.Role,
        entries.Register,
        entries.Kind,
        history.ItemKind,
        history.VoidReason,
        grants.Operation,
        lan.Encoding,
    )
    lines = ["| name | values |", "|---|---|"]
    for kind in kinds:
        values = ", ".join(f"{one.value} {(one.name or '').lower()}" for one in kind)
        lines.append(f"| {kind.__name__} | {values} |")
    return "\n".join(lines) + "\n"


def limit_table() -> str:
    """Return every limit."""
    lines = ["| limit | value |", "|---|---|"]
    for name, value in vars(limits).items():
        if name.isupper() and isinstance(value, int | float) and name not in ("KIB", "MIB", "GIB"):
            lines.append(f"| `{name}` | {value:,} |")
    return "\n".join(lines) + "\n"


def calls(names: tuple[str, ...], packages: Iterable[str]) -> set[str]:
    """Return the constant first arguments with which functions of these names are called."""
    found = set()
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            constants = {
                target.id: node.value.value
                for node in ast.walk(tree)
                if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Constant)
                for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and node.args:
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    first = node.args[0]
                    value = first.value if isinstance(first, ast.Constant) else constants.get(getattr(first, "id", ""))
                    if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
                        value = str(first.values[0].value) + "..."
                    if name in names and isinstance(value, str):
                        found.add(value)
    return found


def purposes() -> str:
    """Return the purposes of all keys, as they stand in the code."""
    derived = calls(("derive_key", "seal_frame", "open_frame"), ("peer/core",))
    sealed = calls(("seal", "open_sealed"), ("peer",))
    text = "Derived: " + ", ".join(f"`{one}`" for one in sorted(derived)) + ".\n\n"
    return text + "Sealed: " + ", ".join(f"`{one}`" for one in sorted(sealed)) + ".\n"


def signature_kinds() -> str:
    """Return the kinds of all signatures, as they stand in the code."""
    names = ("sign", "verify")
    kinds = calls(names, ("protocol", "peer", "coordinator", "storage_node")) | set(grants._KINDS.values())
    return ", ".join(f"`{kind}`" for kind in sorted(kinds)) + ".\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "messages": message_table,
    "account_structs": account_structs,
    "control_structs": control_structs,
    "entry_structs": entry_structs,
    "log_structs": log_structs,
    "grant_structs": grant_structs,
    "content_structs": content_structs,
    "linking_structs": linking_structs,
    "lan_structs": lan_structs,
    "enumerations": enumerations,
    "limits": limit_table,
    "purposes": purposes,
    "signature_kinds": signature_kinds,
}


def renewed(text: str) -> str:
    """Return a document with its generated parts made again."""
    return _BLOCK.sub(lambda found: found[1] + BLOCKS[found["name"]]() + found[3], text)


def main() -> None:
    """Write the generated parts of all documents."""
    for name in DOCUMENTS:
        path = ROOT / "docs" / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
