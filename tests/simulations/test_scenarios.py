"""What histories once found in the product, replayed: each story must come to its end."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from simulations import scenarios
from simulations.preparation import prepared
from simulations.world import World

NAMES = sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_what_went_wrong_once_goes_well(name):
    module = importlib.import_module(f"simulations.scenarios.{name}")
    kinds = getattr(module, "PERSONALITIES", ())
    World(1, prepared(), schedule=module.SCHEDULE, personalities=kinds).run(module.story)
