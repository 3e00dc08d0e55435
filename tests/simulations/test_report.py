"""The report: every action, fault and violation of a history is in its page, which parses and needs nothing else."""

import re
from html import escape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from simulations.commands.run import main
from simulations.commands.tally import Tally
from simulations.history import runs
from simulations.report.assets import STYLE
from simulations.report.diagram import KINDS, sign, told_deed
from simulations.report.messages import CHUNKS, ENTRIES, NEAR, TALK, PictureTrace
from simulations.report.pages import index_page, page
from simulations.report.scale import SECOND_NS, Scale, told

SEED = 4
VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Checks that what is opened is closed, and keeps what a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.tables: list[tuple[bool, int, int]] = []
        """Of each: whether it has a caption, how many heads, and how many of these say of what."""
        self.pressed = 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert not {"src", "srcset"} & found.keys(), f"{tag} asks for something from elsewhere"
        assert tag != "link"
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if tag == "table":
            self.tables.append((False, 0, 0))
        elif tag in {"caption", "th"}:
            named, heads, scoped = self.tables[-1]
            self.tables[-1] = (named or tag == "caption", heads + (tag == "th"), scoped + ("scope" in found))
        self.pressed += "aria-pressed" in found
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def title(self):
        return next(one for one in self.words if one.strip())

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def lived():
    return runs.play(runs.script_of(SEED), trace=PictureTrace(), observes=True)


def test_every_action_and_fault_is_in_the_page(lived):
    shown = Page(page(lived, again="kin-sim run"))
    assert shown.title == f"Seed {SEED}: all held"
    assert len(shown.ids) == len(set(shown.ids))
    assert [one for one in shown.ids if one.startswith("action-")] == [
        f"action-{number}" for number in range(len(lived.course.ledger.actions))
    ]
    faults = lived.record.faults
    assert len(faults) >= 3
    assert [one for one in shown.ids if one.startswith("fault-")] == [
        f"fault-{number}" for number in range(len(faults))
    ]
    assert "Everything held" in shown.text
    assert all(link[1:] in shown.ids for link in shown.links if link.startswith("#"))


def test_a_violation_is_in_the_page_with_what_it_is_about(lived):
    failure = "Violation: invariant 1 (no lost update): <b>bold</b> is gone\n  #1 and\n  #2"
    broken = lived._replace(result=lived.result._replace(failure=failure, invariant=1, involved=(1, 2)))
    text = page(broken, again=f"kin-sim run --seed {SEED}")
    shown = Page(text)
    assert "violation" in shown.ids
    assert "<b>bold</b> is gone" in shown.text
    assert {"#action-1", "#action-2"} <= set(shown.links)
    assert text.count('class="ring"') == 2 + 1  # and the one of the legend
    assert f"kin-sim run --seed {SEED}" in shown.text
    assert shown.title == f"Seed {SEED}: Violation: invariant 1 (no lost update): <b>bold</b> is gone"


def test_the_page_is_the_history_and_not_another(lived):
    again = runs.live(SEED)
    assert again.digest == lived.result.digest


def test_the_page_asks_for_nothing_from_elsewhere(lived):
    assert not re.search(r"https?://|@import|url\((?!#)", page(lived, again=""))


def test_what_is_printed_is_all_of_the_diagram_in_pieces_that_fit_a_sheet(lived):
    text = page(lived, again="")
    [height] = re.findall(r'id="diagram" class="diagram" viewBox="0 0 1240 (\d+)"', text)
    strips = text[text.index('<div class="strips"') :]
    pieces = [
        (int(top), int(top) + int(high)) for top, high in re.findall(r'diagram" viewBox="0 (\d+) 1240 (\d+)"', strips)
    ]
    assert pieces[0][0] == 0
    assert abs(pieces[-1][1] - int(height)) <= 1
    assert all(following[0] < before[1] < following[1] for before, following in pairwise(pieces))
    assert all(bottom - top <= 1240 * 0.65 for top, bottom in pieces), "as wide as high paper is, less its margins"
    assert strips.count('class="heads"') == len(pieces)


def test_several_histories_have_an_index(lived):
    failed = lived.result._replace(failure="Violation: invariant 2", invariant=2)
    tally = Tally()
    for result in (lived.result, failed):
        tally.add(result)
    shown = Page(index_page(tally, {SEED: "seed.html"}, tally.totals(1.0)))
    assert shown.links == ["seed.html", "seed.html"]
    assert "invariant 2" in shown.text
    assert shown.title == "2 histories: 1 failed"
    assert f"{len(lived.result.situations)} of 157 reached at all, 0 in 10 or more" in shown.text
    assert "1 failed" in shown.text


def test_what_is_drawn_says_its_words_once_and_can_be_chosen(lived):
    text = page(lived, again="")
    assert "data-tip" not in text
    shown = Page(text)
    assert text.count("<title>") == 1 + text.count("data-s=")
    assert shown.pressed == len(lived.course.ledger.actions)
    for deed in lived.record.deeds:
        assert text.count(f"<title>{escape(told_deed(deed))}</title>") >= 1


def test_actions_and_messages_differ_in_shape(lived):
    assert len({sign(kind, 0, 0) for kind in KINDS} - {sign("other", 0, 0)}) == len(KINDS) - 2, (
        "a ring is a disc, but for its inside"
    )
    fills = re.findall(r"\.deed\.(\w+) \.sign\{fill:var\(--(\w+)\)", STYLE)
    assert [kind for kind, fill in fills if fill == "paper"] == ["remove", "other"]
    looks = [
        look
        for kind in (ENTRIES, CHUNKS, NEAR, TALK)
        for look in re.findall(rf"\.message\.{kind}\{{([^}}]*)\}}", STYLE)
    ]
    shapes = {re.sub(r"stroke:var\(--\w+\);?", "", look) for look in looks}
    assert len(shapes) == len(looks) == 4


def test_tables_name_what_they_hold(lived):
    tally = Tally()
    tally.add(lived.result)
    for text in (page(lived, again=""), index_page(tally, {}, tally.totals(1.0))):
        shown = Page(text)
        assert shown.tables
        assert all(named and heads == scoped for named, heads, scoped in shown.tables)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_shown_can_be_seen(theme):
    at = STYLE.index("@media(prefers-color-scheme:dark)")
    style = STYLE[:at] if theme == "light" else STYLE[at : STYLE.index("*{box-sizing")]
    colours = {
        name: "".join(2 * digit for digit in value) if len(value) == 3 else value
        for name, value in re.findall(r"--(\w+):#([0-9a-f]{6}|[0-9a-f]{3})\b", style)
    }
    grounds = [colours["paper"], colours["panel"]]
    texts = ("ink", "soft", "good", "bad", "fault", "focus")
    lines = (
        "write",
        "move",
        "remove",
        "other",
        "spread",
        "entries",
        "chunks",
        "near",
        "talk",
        "life",
        "down",
        "conflict",
    )
    for names, least in ((texts, 4.5), (lines, 3.0)):
        for name in names:
            assert min(contrast(colours[name], ground) for ground in grounds) >= least, name


def test_the_command_writes_it(tmp_path, capsys):
    assert main(["--seed", str(SEED), "--once", "--report", str(tmp_path / "report")]) == 0
    [made] = (tmp_path / "report").iterdir()
    assert made.name == f"seed-{SEED}.html"
    assert f"kin-sim run --seed {SEED}" in made.read_text() or "Everything held" in made.read_text()
    assert str(made) in capsys.readouterr().out


def test_time_is_in_order_and_idle_time_takes_little_room():
    day_ns = 86_400 * SECOND_NS
    scale = Scale([0, SECOND_NS, day_ns], [])
    places = [scale.place(time_ns) for time_ns in (0, SECOND_NS // 2, SECOND_NS, day_ns // 2, day_ns)]
    assert places == sorted(places)
    assert places[4] - places[2] < 4 * (places[2] - places[0])
    assert [gap_ns for _, gap_ns in scale.idle()] == [day_ns - SECOND_NS]


def test_actions_of_one_instant_stand_below_each_other():
    scale = Scale([5, 5, 6], [])
    assert scale.row(5) < scale.row(5) < scale.row(6)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (1, "0.000 s"),
        (61 * SECOND_NS, "1 min 1.0 s"),
        (3_600 * SECOND_NS, "1:00:00.0"),
        (90_000 * SECOND_NS, "1 d 1:00:00.0"),
    ],
)
def test_times_are_told(time_ns, text):
    assert told(time_ns) == text
