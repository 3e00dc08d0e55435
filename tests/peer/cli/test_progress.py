"""Progress in words: what is known is shown, and time is an argument."""

from __future__ import annotations

import pytest

from peer.progress import LINE_S, Lines, Meter, Progress, count, duration, line, size


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (3_456, "3.5 KB"),
        (9_949, "9.9 KB"),
        (9_950, "10 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (12_000_000, "12 MB"),
        (3_400_000_000_000, "3.4 TB"),
        (5_000_000_000_000_000, "5,000 TB"),
    ],
)
def test_sizes_read_well(bytes_, text):
    assert size(bytes_) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (3_600, "60 min"), (7_200, "2 h"), (200_000, "2 days")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_counts_read_well():
    assert [count(number, "file") for number in (0, 1, 1_234)] == ["0 files", "1 file", "1,234 files"]
    assert count(2, "copy", "copies") == "2 copies"


def test_a_line_says_what_is_known():
    whole = Progress("upload", "docs", 1_200_000, 3_400_000, 12, 80)
    assert line(whole, 1_000_000) == "sending docs: 1.2 MB of 3.4 MB, 12 of 80 files, 1.0 MB/s, 2 s left"
    assert line(Progress("scan", "docs"), 0) == "looking at docs"
    assert line(Progress("hash", "docs", 5, 0, 1, 0), 0) == "reading docs: 5 B, 1 file"


def test_a_report_from_outside_is_read_without_trust():
    assert Progress.read({"code": "7-a-b-c"}) is None
    strange = {"phase": "upload", "folder": 7, "bytes_done": "many", "bytes_total": -1, "files_done": 1}
    assert Progress.read(strange) == Progress("upload", "7", files_done=1)


def test_the_rate_is_that_of_the_last_seconds_and_begins_anew_with_the_phase():
    meter = Meter()
    assert meter.bytes_per_s == 0
    for second in range(60):
        meter.update(second * 100 if second < 30 else 3_000 + (second - 30) * 500, second)
    assert meter.bytes_per_s == pytest.approx(500)
    meter.update(0, 61)
    assert meter.bytes_per_s == 0


def test_plain_lines_come_every_few_seconds_and_not_for_what_is_quick():
    now = [0.0]
    written: list[str] = []
    lines = Lines(written.append, lambda: now[0])
    for second in range(12):
        now[0] = float(second)
        lines.update(Progress("download", "docs", second * 10**6, 10**8))
    lines.close()
    assert len(written) == 11 // int(LINE_S)
    assert written[0] == "fetching docs: 5.0 MB of 100 MB, 1.0 MB/s, 95 s left"
