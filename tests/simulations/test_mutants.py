"""The checks work: of the broken products, a few that are caught at once always, all of them with ``KIN_TEST_FULL=1``."""

from __future__ import annotations

import os

import pytest

from tests.simulations.mutants import DOCUMENT, MUTANTS, row, rows, table
from tests.simulations.mutation import Found, Tier, caught, mutated

FULL = bool(os.environ.get("KIN_TEST_FULL"))
WAITING = {14: "between accounts", 18: "collection of chunks"}
"""Invariants that cannot be broken yet, since what they are about is not there."""


@pytest.mark.parametrize(
    "mutant", [one for one in MUTANTS if one.is_quick or FULL], ids=lambda one: f"{one.tier.value}: {one.what}"
)
def test_a_broken_product_is_caught(mutant):
    found = caught(mutant)
    print(row(mutant, found))
    assert found.invariant in mutant.invariants, f"{found.text or 'not caught'} ({found.seeds} seeds)"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one.tier.value}: {one.what}")
def test_a_mutant_is_still_one_of_the_product(mutant):
    with mutated(mutant.function, mutant.old, mutant.new):
        pass


def test_there_are_enough_and_one_for_each_invariant():
    assert len({(one.what, one.tier) for one in MUTANTS}) == len(MUTANTS) >= 40
    assert {one.invariants[0] for one in MUTANTS} | WAITING.keys() >= set(range(1, 29))
    assert {one.tier for one in MUTANTS if one.is_quick} == set(Tier)


def test_the_document_tells_of_all_of_them_and_that_they_were_caught():
    written = rows(DOCUMENT.read_text())
    assert list(written) == [f"{one.what} ({one.tier.value})" for one in MUTANTS]
    for mutant, line in zip(MUTANTS, written.values(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert int(cells[3]) in mutant.invariants, line
        assert line == row(mutant, Found(int(cells[3]), int(cells[4].split()[0])))


def test_what_is_caught_by_each_invariant_is_in_the_document():
    lines = rows(DOCUMENT.read_text()).values()
    assert {int(line.split("|")[4]) for line in lines} | WAITING.keys() >= set(range(1, 29))
    assert table(lines).count("\n") == len(MUTANTS) + 2
