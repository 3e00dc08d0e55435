"""What stays out of a folder. The table was checked against git 2.39; where git is installed, chance is, too."""

from __future__ import annotations

import random
import shutil
import subprocess
import time

import pytest

from peer.core.globs import translate
from peer.core.ignores import BUILT_IN, IGNORE_FILE_BYTES_MAX, IGNORE_RULES_MAX, Ignores
from protocol.errors import ProtocolError

CASES = [
    # (sentence, rules, ignored paths, other paths); a slash at the end marks a directory.
    ("a name fits at any depth", "x.log", "x.log d/x.log d/e/x.log", "x.logs y.log"),
    ("a star fits within a name", "*.o", "a.o d/.o", "a.ob a.o.c"),
    ("a slash at the beginning ties to the root", "/top", "top top/", "d/top"),
    ("a slash within ties to the root", "d/f", "d/f", "e/d/f f"),
    ("a slash at the end fits directories only", "build/", "build/ build/x d/build/", "build d/build"),
    ("what lies in an ignored directory is ignored", "d", "d/ d/x/y", "e/x"),
    ("and cannot be taken back", "d/\n!d/keep", "d/keep", "keep"),
    ("the last rule that fits decides", "*.o\n!keep.o\n/d/*.o", "a.o d/keep.o", "keep.o e/keep.o"),
    ("two stars stand for any number of directories", "a/**/b", "a/b a/x/b a/x/y/b", "b x/a/b a/xb"),
    ("two stars at the end stand for all within", "a/**", "a/x a/x/y", "a/ a"),
    ("two stars at the beginning fit at any depth", "**/a/b", "a/b x/a/b", "b a/x/b"),
    ("two stars beside other characters are one", "a**b", "ab axxb d/axb", "a/b"),
    ("a question mark is one character, never a slash", "a?c", "abc d/a.c", "ac a/c abbc"),
    ("a set", "f[ab-d]", "fa fc", "fe f fab"),
    ("a negated set never fits a slash", "a[!b]c", "axc", "abc a/c"),
    ("a set with a bracket and a dash", "[]-]x", "]x -x", "ax"),
    ("a named class", "v[[:digit:]]", "v1", "va v"),
    ("a backslash takes away what a character means", "\\*a\n\\#b\n\\!c", "*a #b !c", "xa b c"),
    ("comments and empty lines say nothing", "# x\n\n   \n#y", "", "x y #y"),
    ("blanks at the end are dropped", "a   \nb\\ ", "a", "b"),
    ("lines may end as on Windows", "a\r\nb\r\n", "a b", "c"),
    ("a byte order mark is no part of the first rule", "\ufeffa", "a", "b"),
    ("a point is a point", "a.c", "a.c", "abc"),
    ("letters differ by case", "Ab", "Ab", "ab AB"),
    ("names that are not UTF-8", "x\udcff*", "x\udcff x\udcffy", "xy"),
    (
        "our own directory in the root is never synced",
        "!.kinfolder\n!/.KinFolder",
        ".kinfolder/ .KINFOLDER/x",
        "d/.kinfolder",
    ),
    (
        "built-in rules",
        "",
        ".~lock.a.odt# ~$a.docx d/.DS_Store Thumbs.db d/desktop.ini .f.swp #a# .nfs01 .Trash-1000/",
        "",
    ),
    (
        "what people keep data in is no built-in rule",
        "",
        "",
        "a.tmp a~ a.bak .git/ .env d/.Trash-1/ desktop.ini.txt a.swp",
    ),
    ("built-in rules can be taken back", "!desktop.ini", "Desktop.ini", "desktop.ini"),
]


@pytest.mark.parametrize(("rules", "ignored", "others"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_rules(rules, ignored, others):
    ignores = Ignores(rules.encode(errors="surrogateescape"))
    assert ignores.problems == ()
    for path in ignored.split():
        assert ignores.is_ignored(path.rstrip("/"), path.endswith("/")), path
    for path in others.split():
        assert not ignores.is_ignored(path.rstrip("/"), path.endswith("/")), path


def test_each_built_in_rule_has_a_reason_and_is_well_formed():
    assert all(reason for _, reason in BUILT_IN)
    assert len({pattern for pattern, _ in BUILT_IN}) == len(BUILT_IN)
    assert Ignores().problems == ()


def test_what_was_kept_beside_its_name_is_ignored_as_under_its_name():
    ignores = Ignores(b"/D/secret\nbuild/\n*.log\n")
    kept = "D (kept, 0123abcd)"
    assert ignores.is_ignored(f"{kept}/secret", False)
    assert ignores.is_ignored("build (kept, 0123abcd)", True)
    assert ignores.is_ignored("build (kept, 0123abcd)/x", False)
    assert ignores.is_ignored("x (kept, 0123abcd) (kept, 01234567).log", False)
    assert not ignores.is_ignored(kept, True)
    assert not ignores.is_ignored(f"{kept}/other", False)
    assert not ignores.is_ignored("build (kept, 0123abcd)", False)
    assert not ignores.is_ignored("D (kept, by me)/secret", False)


def test_malformed_lines_are_reported_and_have_no_effect():
    ignores = Ignores(b"a\nfoo[\n\\\n!\nb//c\n[z-a]\n[[:what:]]\nz")
    assert [problem.line for problem in ignores.problems] == [2, 3, 4, 5, 6, 7]
    assert ignores.is_ignored("a", False)
    assert ignores.is_ignored("z", False)
    assert not ignores.is_ignored("foo[", False)


def test_a_pattern_that_fits_nothing_is_an_error():
    for glob in ("a[", "a\\", "[b-a]", "a//b"):
        with pytest.raises(ProtocolError):
            translate(glob)


@pytest.mark.parametrize("over", [0, 1])
def test_a_file_is_read_up_to_its_limit(over):
    line = b"x" * 99 + b"\n"
    data = line * (IGNORE_FILE_BYTES_MAX // 100)
    data += b"last" + b"y" * (IGNORE_FILE_BYTES_MAX - len(data) - 5 + over) + b"\n"
    ignores = Ignores(b"#" + data[1:])
    last = data.rsplit(b"\n", 2)[1].decode()
    assert ignores.is_ignored(last, False) is not bool(over)
    assert [problem.line for problem in ignores.problems] == [0] * over


@pytest.mark.parametrize("over", [0, 1])
def test_rules_are_counted(over):
    count = IGNORE_RULES_MAX + over
    ignores = Ignores("\n".join(f"r{i}" for i in range(count)).encode())
    assert ignores.is_ignored(f"r{IGNORE_RULES_MAX - 1}", False)
    assert not ignores.is_ignored(f"r{IGNORE_RULES_MAX}", False)
    assert [problem.line for problem in ignores.problems] == [count] * over


SLOW = [
    "*a*a*a*a*a*a*a*a*a*a*b",
    "a" * 10 + "*" * 50 + "b",
    "**/a/**/a/**/a/**/a/**/b",
    "[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*1",
    "**/" * 100 + "b",
    "a*/" * 60 + "b",
    "**/a*a/**/*a/**/?*?/**/b",
]


@pytest.mark.parametrize("pattern", SLOW)
def test_no_pattern_is_slow(pattern):
    ignores = Ignores(pattern.encode())
    begin = time.perf_counter()
    for path in ("a" * 255, "/".join("a" * 128), "/".join(["a" * 30] * 128)):
        assert not ignores.is_ignored(path, False)
    assert time.perf_counter() - begin < 0.5


def test_what_is_remembered_is_bounded_and_right():
    ignores = Ignores(b"d7/")
    for i in range(12_000):
        assert ignores.is_ignored(f"d{i}/x", False) is (i == 7)
    assert ignores.is_ignored("d7/x", False)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
def test_git_agrees(tmp_path):
    chance = random.Random(5)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    paths: dict[str, bool] = {}

    def grow(directory: str, depth: int) -> None:
        for name in ("a", "b", "ab", ".a", "a.b", "c-", "c]", "a b"):
            path = directory + name
            if depth < 2 and chance.random() < 0.4:
                (tmp_path / path).mkdir()
                paths[path] = True
                grow(f"{path}/", depth + 1)
            elif chance.random() < 0.7:
                (tmp_path / path).touch()
                paths[path] = False

    grow("", 0)
    tokens = [
        "a",
        "b",
        "*",
        "?",
        "/",
        "/",
        "[ab]",
        "[!a]",
        ".",
        "ab",
        "**/",
        "/**",
        "[a-c]",
        "[]-]",
        " ",
        "[[:alpha:]]",
    ]
    for _ in range(60):
        lines = []
        for _ in range(chance.randrange(1, 4)):
            line = "".join(chance.choice(tokens) for _ in range(chance.randrange(1, 6)))
            if all(
                part == "**" or "**" not in part for part in line.split("/")
            ):  # git reads a** otherwise than it says
                lines.append("!" * (chance.random() < 0.25) + line)
        (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
        asked = subprocess.run(
            ["git", "-C", tmp_path, "check-ignore", "--no-index", "--stdin", "-z"],
            input="\0".join(paths).encode() + b"\0",
            capture_output=True,
            check=False,
        )
        ignores = Ignores("\n".join(lines).encode())
        expected = set(asked.stdout.decode().split("\0")) - {""}
        assert {path for path, is_directory in paths.items() if ignores.is_ignored(path, is_directory)} == expected, (
            lines
        )
