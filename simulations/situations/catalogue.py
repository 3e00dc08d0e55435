"""All situations by number, what each is, how it is recognised, and why those that no history reaches are not reached.

Source: the catalogue of conflicts and edge cases that other systems' users reported and their tests hold.

Rule 1: a situation that is recognised has no reason why it is not reached, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from simulations.printing import one_line
from simulations.situations import breakage, habits, pairs
from simulations.situations.pairs import Judge
from simulations.situations.record import Record

SECTIONS: Final = {
    "content": range(1, 25),
    "rename and move": range(25, 57),
    "directories and types": range(57, 77),
    "names and limits": range(77, 91),
    "editors and locks": range(91, 101),
    "crash and disk": range(101, 114),
    "identity, restore, time": range(114, 124),
    "access, keys, quota": range(124, 135),
    "storage and coordinator": range(135, 146),
    "topology and chains": range(146, 158),
}
WORDS: Final[Mapping[int, str]] = {
    1: "A edits f, B edits f",
    2: "A, B write identical bytes, other mtimes",
    3: "no f yet: A creates f, B creates f",
    4: "no f yet: A, B create identical f",
    5: "A edits f, B deletes it",
    6: "A edits f, then deletes it; B edits f",
    7: "A deletes f and creates it anew; B edits f",
    8: "A and B delete f; C is away",
    9: "A deletes f; B only touches its time or mode",
    10: "A edits f three times quickly; B is downloading the first",
    11: "B edits f when A's edit is on its way to its disk",
    12: "an editor replaces f between our check and our replacing it",
    13: "file modified while being chunked/uploaded",
    14: "no f yet: user creates f on B while f downloads",
    15: "content changed, size and mtime kept",
    16: "older file copied over (mtime goes back)",
    17: "mtime 1970, 2099 or below a second",
    18: "append with mtime restored",
    19: "A edits f and takes that back; B edits f",
    20: "A's editor leaves f empty; B edits f",
    21: "sizes 0, 1, chunk-1, chunk, chunk+1, many chunks",
    22: "A and B upload the same big file in parallel",
    23: "both create/overwrite, then keep syncing",
    24: "B has f open in a program that saves later from memory; A edits f",
    25: "A moves f to g; B edits f",
    26: "f: A f to g; B f to h",
    27: "f: A f to g; B deletes f",
    28: "f: A f to g; B creates g",
    29: "f and g: A moves f to x; B moves g to x",
    30: "A swaps f and g",
    31: "A swaps f and g; B edits f",
    32: "log,log.1: rotation chain on A",
    33: "f,g: A moves f over g; B edits g to b",
    34: "D/..: A D to E; B deletes D",
    35: "D/f: A D to E; B edits D/f",
    36: "D: A D to E; B adds D/n",
    37: "D: A D to E; B D to F",
    38: "D/f: A D to E; B D/f to D/g",
    39: "D/f: A D to E; B deletes D/f",
    40: "A,B dirs: A into B on one, B into A on other",
    41: "A,B,C: 3-cycle on three devices",
    42: "A to B/x on one, B to A/y/z on the other",
    43: "A/B: one device inverts to B/A",
    44: "A/f: mkdir B; mv A/f B; rm A",
    45: "D/f: A moves D/f out then deletes D; B edits D/f",
    46: "X,Y: A moves X into Y; B deletes Y",
    47: "A renames D to E and makes a new D",
    48: "f: A f to g, new f=n; B edits f to b",
    49: "f: A renames before first upload finished",
    50: "f: A f to g to f while B is offline",
    51: "f,r: f deleted, r created with same inode",
    52: "f,h same bytes: A deletes f, creates k with same bytes",
    53: "f: A copies f to g (cp -p) then deletes f; B edits f",
    54: "S1,S2 folders: move across synced folders / ACL domains",
    55: "many: both sides restructure so no single first op is possible",
    56: "D (10,000 entries): rename during a scan of D",
    57: "D/f: A deletes D; B adds D/n",
    58: "D/f, D/g: A deletes D; B edits D/f",
    59: "D + ignored file: remote deletes D",
    60: "D + unscanned file on B: remote deletes D",
    61: "D: A deletes and re-creates D; B adds inside old D",
    62: "an empty directory comes or goes",
    63: "f: A replaces f by dir; B edits f",
    64: "D/f: A replaces D by file; B adds D/n",
    65: "A creates file X, B creates dir X",
    66: "A, B create dir X with different children",
    67: "f: A replaces f by symlink; B edits f",
    68: "D: B's D is a symlink to outside; remote writes/deletes D/x",
    69: "link: both retarget",
    70: "link: dangling, absolute, .. escape, loop",
    71: "f,g hard links: edit one",
    72: "a sparse file",
    73: "FIFO, socket or device in the folder",
    74: "the root is missing",
    75: "more than half of all files vanish",
    76: "a .git-like directory: both edit in it",
    77: "A renames f to F; B folds case",
    78: "f and F on Linux; B folds case",
    79: "f and F: A deletes F; B folds case",
    80: "é in NFC on A, in NFD on B: both write",
    81: "NFC and NFD of one name side by side",
    82: "a:b, con, x., \\\\ as names",
    83: "names that are not UTF-8, with a newline, a control character or an emoji",
    84: "names too long for a mark of a copy",
    85: "a user's file named like a conflict copy of ours",
    86: "a space or a dot at the end of a name",
    87: "two conflicts of f in one second",
    88: "a million entries, a thousand levels",
    89: "names that are ignored without a rule (.~lock, ~$x, .DS_Store, Thumbs.db)",
    90: "an ignore rule for what is synced",
    91: "Vim save: f to f~, a new f, rm f~",
    92: "Office save: ~tmp, doc to bak, tmp to doc, rm bak",
    93: "an Office save while B edits the document",
    94: "tmp renamed over f (gedit, LibreOffice)",
    95: "SQLite db + -wal + -shm changing on A (and B)",
    96: "f locked by another process while remote change arrives",
    97: "8 saves within the debounce window",
    98: "watcher overflow / limit / network FS without events",
    99: "log appended for ever",
    100: "many files older than what is there come at once",
    101: "crash at every step of upload (hash, chunk put, manifest, journal append, local commit)",
    102: "crash at every step of apply (tmp, fsync, rename, dir fsync, db commit)",
    103: "crash between moving loser aside and placing winner",
    104: "power cut: rename durable, data not",
    105: "power cut or backup rolls the database back behind the files",
    106: "the database is ahead of the files",
    107: "disk full during download / during copy creation / at DB commit",
    108: "the disk refuses: EACCES, EIO, read-only",
    109: "local DB deleted or corrupted",
    110: "bit rot: bytes differ, stat same, no user write",
    111: "clock step, suspend, DST during run",
    112: "upgrade/downgrade half way",
    113: "crash while applying selective-sync change",
    114: "device restored: old files + old DB",
    115: "DB restored, files missing",
    116: "files restored, DB newer",
    117: "folder ids mixed after restore",
    118: "device cloned, same id twice",
    119: "tombstone reaped, node id/counter re-created",
    120: "clock +-10 years on B",
    121: "C offline for 18 months, with edits",
    122: "the folder is let go and taken up again",
    123: "two clients on one folder (NFS, dual boot)",
    124: "B downgraded to read-only while offline with edits",
    125: "B removed with pending edits",
    126: "revoke races with upload",
    127: "revoked B still on LAN with A who has not heard",
    128: "new content after revoke",
    129: "re-grant",
    130: "read-only member deletes/renames/creates",
    131: "nested or double grant of one folder",
    132: "quota exceeded mid-file",
    133: "key rotation during multi-chunk upload",
    134: "name of shared folder already used privately",
    135: "chunk corrupted / truncated / swapped with another valid chunk",
    136: "node acks PUT and loses it",
    137: "all replicas of a chunk lost",
    138: "GC vs dedup upload",
    139: "two GCs / GC crash / re-upload during mark",
    140: "coordinator restored from backup",
    141: "equivocation: A and B get different journals",
    142: "entries dropped, reordered, replayed, forged",
    143: "coordinator withholds updates from A only",
    144: "a LAN peer sends wrong bytes, vectors, counters or paths",
    145: "manifest bomb (1e9 chunks, deep names)",
    146: "LAN only: A,B exchange edits; C edits via coordinator; join",
    147: "B relays A's edit a1 to coordinator; A later sends a1,a2",
    148: "{A,B} vs {C,D} split, both resolve conflicts; merge",
    149: "A and B both create the copy for the same conflict",
    150: "A,B,C edit concurrently",
    151: "both edit the copy itself",
    152: "A deletes copy while B renames copy over f",
    153: "new conflicts on same f, repeated",
    154: "messages repeated, connections cut mid-transfer",
    155: "asymmetric partition (send only)",
    156: "server-side undelete years later",
    157: "path selective sync, excluded name created locally",
}
NOT_REACHED: Final[Mapping[int, str]] = {
    54: "a history has one folder",
    56: "ten thousand entries do not fit into a history's time; the cases play it",
    88: "a million entries do not fit into a history's time; the first tier and the benchmark play sizes",
    95: "needs the capture of an open database as a group, which a later version brings",
    109: "a device that has lost its database is set up anew, by hand: the cases and tests with real processes play it",
    110: "bytes that rot under a device's user are found by an audit that histories do not wait for",
    112: "there is one version",
    117: "a history has one folder",
    118: "a history has no second machine with one device's keys; tests with real processes play it",
    119: "needs the collection of what is deleted, which a later version brings",
    122: "histories do not set a folder up; tests with real processes play it",
    123: "a home directory is locked by the operating system, which a simulated world does not have",
    124: "needs other accounts",
    125: "histories take no device out; tests with real processes play it",
    126: "histories take no device out; tests with real processes play it",
    127: "histories take no device out; tests with real processes play it",
    128: "histories take no device out; tests with real processes play it",
    129: "needs other accounts",
    130: "needs other accounts",
    131: "needs other accounts",
    132: "needs quotas",
    133: "histories take no device out; tests with real processes play it",
    134: "needs other accounts",
    137: "nothing is taken from which nobody could recover",
    138: "needs collection",
    139: "needs collection",
    141: "a coordinator that lies to one device in a history says nothing signed that it does not say to others; tests play it",
    145: "a device that lies in a history signs nothing; tests play it",
    156: "needs the collection of what is deleted: until then all can be restored by its users alone",
}
JUDGES: Final[Mapping[int, Judge]] = dict(
    sorted(
        {
            **{number: pairs.judge_pair(*pair) for number, pair in pairs.PAIRS.items()},
            **pairs.SERIES,
            **habits.JUDGES,
            **breakage.JUDGES,
        }.items()
    )
)
SEEDS_MIN: Final = 10
"""In so many histories a situation must be met to count as covered."""


def reached(record: Record) -> dict[int, str]:
    """Return by number which situations a history came through, with what shows it."""
    found = {}
    for number, judge in JUDGES.items():
        evidence = next(judge(record), None)
        if evidence is not None:
            found[number] = one_line(", ".join(map(str, evidence)))
    return found


def covered(counts: Mapping[int, int], least: int = SEEDS_MIN) -> list[int]:
    """Return the situations that at least so many histories came through.

    Args:
        counts: By number, how many histories did.
        least: How many must.
    """
    return [number for number in WORDS if counts.get(number, 0) >= least]


def coverage_lines(counts: Mapping[int, int], seeds: int, least: int = SEEDS_MIN) -> Iterable[str]:
    """Yield coverage for people: what is covered, what was met too seldom, and what is not, with the reason."""
    full = covered(counts, least)
    yield f"situations: {len(full)} of {len(WORDS)} reached in {least} or more of {seeds} histories"
    for number, words in WORDS.items():
        count = counts.get(number, 0)
        if number in NOT_REACHED:
            yield f"     -  {number:3} {words}: {NOT_REACHED[number]}"
        else:
            mark = " " if count >= least else "!"
            yield f"{mark}{count:5}  {number:3} {words}"
