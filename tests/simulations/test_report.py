"""The report: every action, fault and violation of a history is in its page, which parses and needs nothing else."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from simulations.commands.run import main
from simulations.commands.tally import Tally
from simulations.history import runs
from simulations.report.messages import PictureTrace
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
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert not {"src", "srcset"} & found.keys(), f"{tag} asks for something from elsewhere"
        assert tag != "link"
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
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
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def lived():
    return runs.play(runs.script_of(SEED), trace=PictureTrace(), observes=True)


def test_every_action_and_fault_is_in_the_page(lived):
    shown = Page(page(lived))
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
    text = page(broken)
    shown = Page(text)
    assert "violation" in shown.ids
    assert "<b>bold</b> is gone" in shown.text
    assert {"#action-1", "#action-2"} <= set(shown.links)
    assert text.count('class="ring"') == 2 + 1  # and the one of the legend
    assert f"kin-sim run --seed {SEED}" in shown.text


def test_the_page_is_the_history_and_not_another(lived):
    again = runs.live(SEED)
    assert again.digest == lived.result.digest


def test_the_page_asks_for_nothing_from_elsewhere(lived):
    assert not re.search(r"https?://|@import|url\((?!#)", page(lived))


def test_what_is_printed_is_all_of_the_diagram_in_pieces_that_fit_a_sheet(lived):
    text = page(lived)
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
    assert "1 failed" in shown.text


def test_the_command_writes_it(tmp_path, capsys):
    assert main(["--seed", str(SEED), "--once", "--report", str(tmp_path / "report")]) == 0
    [made] = (tmp_path / "report").iterdir()
    assert made.name == f"seed-{SEED}.html"
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
