"""What a file of cases says: cases, their grids of parameters, sizes, times and devices. Pure.

Rule 1: a case that says what this grammar does not know is skipped with the reason, never passed.
Rule 2: nothing here knows how a case is run.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * KIB
CHUNK: Final = 4 * MIB
"""The product's largest chunk."""
ACTORS: Final = frozenset({"OWNER", "COORD", "STORE", "NET"})
_NAME: Final = re.compile(r"\$([A-Za-z0-9_]+)")
_RANGE: Final = re.compile(r"([A-Za-z]+)(\d+)\.\.([A-Za-z]+)(\d+)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(KB|MB|chunk)?")
_UNITS: Final = {"": 1, "KB": KIB, "MB": MIB, "chunk": CHUNK}
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "y": 365.25 * 86400}
_KEYS: Final = frozenset(
    {
        "id", "source", "title", "tags", "upstream_outcome", "policy_note",
        "needs", "devices", "setup", "steps", "expectation", "params",
    }
)  # fmt: skip
_ALIKE: Final = frozenset({"versioning", "workers"})
"""Parameters all values of which are the same run here: the first is run only."""
_SET_BY_STEPS: Final = frozenset({"chain_root", "every_step"})


class Skipped(Exception):
    """The case cannot be run or judged here; the text is its reason."""


class BadCasesError(ValueError):
    """A file holds no cases; the text names it and says why."""


class Case(NamedTuple):
    """One scenario with one value for each of its parameters."""

    id: str
    title: str
    values: Mapping[str, Any]
    """The parameters of this run, for its label."""
    needs: tuple[str, ...]
    devices: tuple[str, ...]
    setup: tuple[Mapping[str, Any], ...]
    steps: tuple[Mapping[str, Any], ...]
    expectation: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The id, and the parameters in brackets."""
        shown = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.id} [{shown}]" if shown else self.id

    @property
    def first(self) -> str:
        """The device on which the setup runs."""
        return "A" if "A" in self.devices else self.devices[0]

    def named(self, text: str) -> list[str]:
        """Return the devices that a step names, without ``*``: ``A``, ``A,B``, ``D1..D10``; OWNER is a device here."""
        found = [name for part in text.split(",") for name in _span(part.strip())]
        return [self.first if name == "OWNER" and name not in self.devices else name for name in found]


def load(path: Path) -> list[Mapping[str, Any]]:
    """Return the cases of a file, as they stand there.

    Raises:
        BadCasesError: It cannot be read, or holds no list of cases.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadCasesError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BadCasesError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, list):
        raise BadCasesError(f"{path}: not a list of cases")
    for number, case in enumerate(found, 1):
        if wrong := _wrong(case):
            raise BadCasesError(f"{path}: case {number} of {len(found)}: {wrong}")
    return found


def _wrong(case: Any) -> str:
    """Return what makes something no case, in words; "" for nothing."""
    if not isinstance(case, dict):
        return "not an object"
    if not isinstance(case.get("id"), str):
        return "it has no id"
    for key, (is_right, words) in _SHAPES.items():
        if key not in case and key not in _NEEDED:
            continue
        if key not in case or not is_right(case[key]):
            return f"{case['id']} needs {words} as its {key}"
    try:
        for _ in expand(case):
            pass
    except Skipped:
        return ""  # that is told when it is run
    except Exception as error:  # noqa: BLE001 - whatever else it says that no case says
        return f"{case['id']} says what cannot be read: {type(error).__name__}: {error}"
    return ""


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _are_steps(value: Any, *keys: str) -> bool:
    return _is_list(value, dict) and all(isinstance(each.get(key), str) for each in value for key in keys)


def _is_grid(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_list(each, object) and each for each in value.values()):
        return False
    return _is_list(value.get("variants", []), dict)


_NEEDED: Final = frozenset({"devices", "setup", "steps", "expectation"})
_SHAPES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "devices": (lambda value: _is_list(value, str) and bool(value), "a list of names"),
    "setup": (lambda value: _are_steps(value, "op"), "a list of objects with op"),
    "steps": (lambda value: _are_steps(value, "op", "device"), "a list of objects with op and device"),
    "expectation": (lambda value: isinstance(value, dict), "an object"),
    "needs": (lambda value: _is_list(value, str), "a list of words"),
    "title": (lambda value: isinstance(value, str), "a text"),
    "params": (_is_grid, "an object of lists, none of them empty"),
}
"""By key: what may stand there, in words."""


def expand(raw: Mapping[str, Any]) -> Iterator[Case]:
    """Yield a case once for each combination of its parameters.

    Raises:
        Skipped: It says what nobody here knows.
    """
    if unknown := sorted(set(raw) - _KEYS):
        raise Skipped(f"unknown key {unknown[0]}")
    devices = tuple(name for each in raw["devices"] for name in _span(each))
    for values in _grid(raw.get("params") or {}):
        body = {key: _filled(raw[key], values) for key in ("setup", "steps", "expectation")}
        yield _in_its_world(
            Case(
                id=raw["id"],
                title=raw.get("title", ""),
                values=values,
                needs=tuple(raw.get("needs", ())),
                devices=devices,
                setup=tuple(body["setup"]),
                steps=tuple(body["steps"]),
                expectation=body["expectation"],
            ),
            json.dumps([raw["setup"], raw["steps"], raw["expectation"]]),
        )


def _span(text: str) -> list[str]:
    match = _RANGE.fullmatch(text)
    if match is None:
        return [text]
    if match[1] != match[3]:
        raise Skipped(f"unknown range of devices {text}")
    return [f"{match[1]}{number}" for number in range(int(match[2]), int(match[4]) + 1)]


def _grid(params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = params.get("variants", [{}])
    lists = {key: values[:1] if key in _ALIKE else values for key, values in params.items() if key != "variants"}
    for row in rows:
        for chosen in itertools.product(*lists.values()):
            yield {**row, **dict(zip(lists, chosen, strict=True))}


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Put the parameters in; a string that is only ``$name`` becomes the value with its type."""
    if isinstance(value, str):
        whole = _NAME.fullmatch(value)
        if whole is not None and whole[1] in values:
            return values[whole[1]]
        return _NAME.sub(lambda found: str(values[found[1]]) if found[1] in values else _left(found), value)
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return {_filled(key, values): _filled(each, values) for key, each in value.items()}
    return value


def _left(found: re.Match[str]) -> str:
    if found[1] not in _SET_BY_STEPS:
        raise Skipped(f"unknown parameter ${found[1]}")
    return found[0]


# --- Parameters that describe the world


def _in_its_world(case: Case, text: str) -> Case:
    """Have a case meet the parameters that no ``$`` names.

    Raises:
        Skipped: A value that this cannot make.
    """
    for key, value in case.values.items():
        if f"${key}" in text:
            continue
        make = _WORLDS.get(key)
        if make is None:
            raise Skipped(f"unknown parameter {key}")
        case = make(case, value)
    return case


def _file_system(case: Case, value: Any, device: str) -> Case:
    if value in {"sensitive", "preserving"}:
        return case
    need = {"insensitive": "case_insensitive_fs", "normalising_to_NFD": "fs:nfd"}.get(value)
    if need is None:
        raise Skipped(f"unknown file system {value}")
    return case._replace(needs=(*case.needs, f"{need}:{device}"))


def _kind(case: Case, value: Any) -> Case:
    """Have the names that differ by case differ by normal form instead, also for the file system that takes them for one."""
    if value == "case":
        return case
    if value != "unicode":
        raise Skipped(f"unknown value kind={value}")
    spellings: dict[str, list[str]] = {}
    for name in _names(case):
        known = spellings.setdefault(name.casefold(), [])
        if name not in known:
            known.append(name)
    new: dict[str, str] = {}
    for folded, names in spellings.items():
        if len(names) > 2:
            raise Skipped("kind=unicode: more than two names differ by case")
        if len(names) == 2:
            one, other = names
            new[one] = unicodedata.normalize("NFC", f"\u00e9{folded}")
            new[other] = unicodedata.normalize("NFD", f"\u00e9{folded}")
    return case._replace(
        needs=tuple(need.replace("case_insensitive_fs", "fs:folds_forms") for need in case.needs),
        setup=_respelt(case.setup, new),
        steps=_respelt(case.steps, new),
        expectation=_respelt(case.expectation, new),
    )


def _names(case: Case) -> Iterator[str]:
    for step in (*case.setup, *case.steps):
        for key in ("path", "src", "dst", "dir", "for_path"):
            yield from str(step.get(key, "")).split("/")


def _respelt(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return "/".join(new.get(part, part) for part in value.split("/"))
    if isinstance(value, list | tuple):
        return type(value)(_respelt(each, new) for each in value)
    if isinstance(value, dict):
        return {_respelt(key, new): _respelt(each, new) for key, each in value.items()}
    return value


def _child(case: Case, value: Any) -> Case:
    """Have B exclude the file that it wrote right after writing it; then that lives on B only."""
    if value == "unscanned":
        return case
    if value != "ignored":
        raise Skipped(f"unknown value child={value}")
    at = next(number for number, each in enumerate(case.steps) if each["device"] == "B" and each["op"] == "write")
    written = case.steps[at]
    exclude = {"phase": written["phase"], "device": "B", "op": "set_ignore_dir", "path": written["path"]}
    token = written["token"]
    expectation = dict(case.expectation)
    if token in expectation.get("survive", ()):
        expectation["survive"] = [each for each in expectation["survive"] if each != token]
    expectation["local_preserved"] = {"B": [*expectation.get("local_preserved", {}).get("B", ()), token]}
    others = [name for name in case.devices if name != "B"]
    expectation["invisible"] = {**expectation.get("invisible", {}), **{name: [token] for name in others}}
    return case._replace(steps=(*case.steps[: at + 1], exclude, *case.steps[at + 1 :]), expectation=expectation)


def _when(case: Case, value: Any) -> Case:
    """Have the agent of the first device that a step names run, or its network use be stopped, when the steps begin."""
    op = {"running": "start_agent", "paused": "offline"}.get(value)
    if op is None:
        raise Skipped(f"unknown value when={value}")
    begin = {"phase": 0, "device": case.steps[0]["device"], "op": op}
    return case._replace(steps=(begin, *case.steps))


def _subdir(case: Case, value: Any) -> Case:
    """Have a directory stand before every path of the case."""

    def below(path: str) -> str:
        return value if path == "." else path if path.startswith("/") else f"{value}/{path}"

    def moved(step: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            key: below(each) if key in {"path", "src", "dst", "dir", "src_dir", "dst_dir", "for_path"} else each
            for key, each in step.items()
        }

    def judged(expectation: Mapping[str, Any]) -> dict[str, Any]:
        return {key: _MOVED[key](each, below, judged) if key in _MOVED else each for key, each in expectation.items()}

    setup = ({"op": "mkdir", "path": value}, *map(moved, case.setup))
    return case._replace(setup=setup, steps=tuple(map(moved, case.steps)), expectation=judged(case.expectation))


def _in_mapping(value: Any, below: Any, _: Any) -> Any:
    return {below(path): each for path, each in value.items()}


def _in_list(value: Any, below: Any, _: Any) -> Any:
    return [below(path) for path in value]


def _in_devices(value: Any, below: Any, judged: Any) -> Any:
    return {
        name: judged(each) if isinstance(each, dict) else [below(path) for path in each] for name, each in value.items()
    }


_MOVED: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("exists", "tree_subset", "content_in", "location_of"), _in_mapping),
    "tree": lambda value, below, judged: {below("."): "<dir>", **_in_mapping(value, below, judged)},
    "case_sensitive_devices_exact": lambda value, below, judged: {
        below("."): "<dir>", **_in_mapping(value, below, judged)
    },
    **dict.fromkeys(("absent", "empty_dirs"), _in_list),
    **dict.fromkeys(("on", "on_ci", "absent_on"), _in_devices),
    **dict.fromkeys(
        (
            "sqlite_ok", "last_append_present", "no_append_lost_without_conflict",
            "published_versions_are_prefixes_or_full",
        ),
        lambda value, below, _: below(value),
    ),
    "many": lambda value, below, _: {**value, "dir": below(value["dir"])},
    "mtime": lambda value, below, _: {**value, "path": below(value["path"])},
    "conflicts": lambda value, below, _: {
        key: {below(path): count for path, count in each.items()} if key == "of" else each
        for key, each in value.items()
    },
    "one_of": lambda value, _, judged: [judged(each) for each in value],
    "errors": lambda value, below, _: [
        {**each, "path": below(each["path"])} if "path" in each else each for each in value
    ],
}  # fmt: skip
"""Where a key of an expectation names paths."""


def _creates(case: Case, value: Any) -> Case:
    if value == "file":
        return case
    steps = [dict(step) for step in case.steps]
    step = next(each for each in steps if each["device"] == "B" and each["op"] == "write")
    expectation = dict(case.expectation)
    if value == "empty_dir":
        token = step.pop("token")
        expectation["survive"] = [each for each in expectation.get("survive", ()) if each != token]
        step["op"] = "mkdir"
    elif value == "dir_with_file":
        step["path"] += "/inner"
    else:
        raise Skipped(f"unknown value B_creates={value}")
    return case._replace(steps=tuple(steps), expectation=expectation)


def _side(case: Case, value: Any) -> Case:
    device = {"local": "A", "remote": "B"}[value]
    moved = ({**step, "device": device} if step["op"] in {"append", "append_series"} else step for step in case.steps)
    return case._replace(steps=tuple(moved))


def _size_kb(case: Case, value: Any) -> Case:
    def sized(step: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"size": value * KIB, **step} if step["op"] in {"write", "write_many"} else step

    return case._replace(setup=tuple(map(sized, case.setup)), steps=tuple(map(sized, case.steps)))


def _linked(case: Case, value: Any) -> Case:
    if value == "dir":
        return case
    steps = [
        {**step, "op": "symlink", "target": "nowhere"} if step["op"] == "mkdir" and step["device"] == "A" else step
        for step in case.steps
    ]
    told = json.loads(json.dumps(case.expectation).replace('"<dir>"', '"<link:nowhere>"'))
    return case._replace(steps=tuple(steps), expectation=told)


def _only(*allowed: Any) -> Any:
    def check(case: Case, value: Any) -> Case:
        if value not in allowed:
            raise Skipped(f"unknown value {value}")
        return case

    return check


_WORLDS: Final[Mapping[str, Any]] = {
    "B_creates": _creates,
    "child": _child,
    "delivery": _only("all permutations"),
    "fs": lambda case, value: _file_system(case, value, "*"),
    "fs_B": lambda case, value: _file_system(case, value, "B"),
    "kind": _kind,
    "remote": _linked,
    "side": _side,
    "size_KB": _size_kb,
    "subdir": _subdir,
    "versioning": lambda case, _: case,
    "when": _when,
    "who": _only("receiver", "sender"),
    "workers": lambda case, _: case,
}


# --- Values


def size_of(value: Any) -> int:
    """Return a size in bytes: a number, or sums of numbers with KB, MB and chunk.

    Raises:
        Skipped: It is another form.
    """
    if isinstance(value, int):
        return value
    total = 0.0
    for part in str(value).split("+"):
        match = _SIZE.fullmatch(part.strip())
        if match is None:
            raise Skipped(f"unknown size {value}")
        total += float(match[1]) * _UNITS[match[2] or ""]
    return int(total)


def offset_s(value: str) -> float:
    """Return an offset of time in seconds: sign, number, unit.

    Raises:
        Skipped: It is another form.
    """
    match = re.fullmatch(r"([+-]\d+(?:\.\d+)?)([smhdy])", value)
    if match is None:
        raise Skipped(f"unknown time {value}")
    return float(match[1]) * _SECONDS[match[2]]


def in_nfc(name: str) -> str:
    """Return a name in the normal form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def orders(case: Case) -> list[tuple[str, ...]]:
    """Return the orders in which ``*`` visits the devices, one for each run."""
    if "delivery" in case.values:
        return list(itertools.permutations(case.devices))
    if len(case.devices) < 2:
        return [case.devices]
    one, two, *rest = case.devices
    return [case.devices, (two, one, *rest)]
