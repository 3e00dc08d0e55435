"""Histories find what is broken: a few mutants of the product always, all of them with ``KIN_TEST_FULL=1``."""

from __future__ import annotations

import os

import pytest

from tests.simulations.run_mutants import MUTANTS, caught

FULL = bool(os.environ.get("KIN_TEST_FULL"))


@pytest.mark.parametrize("mutant", [one for one in MUTANTS if one.is_quick or FULL], ids=lambda one: one.what)
def test_a_broken_product_is_caught(mutant):
    invariant, seeds, text = caught(mutant)
    print(f"| {mutant.what} | {mutant.function.__qualname__} | {invariant} | {seeds} |")
    assert invariant in mutant.invariants, f"{text or 'not caught'} ({seeds} seeds)"


def test_there_is_a_mutant_for_each_of_the_first_invariants():
    assert {number for one in MUTANTS for number in one.invariants} >= {
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        16,
        20,
        21,
        22,
        27,
        28,
    }
    assert len({one.what for one in MUTANTS}) == len(MUTANTS)
