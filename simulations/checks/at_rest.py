"""All that must hold when every device has come to rest."""

from __future__ import annotations

from collections import Counter

from simulations.checks import causality, contents, journal, rows, trees, turns
from simulations.checks.watch import Watch
from simulations.history.ledger import Ledger, look
from simulations.world import World


async def check(world: World, ledger: Ledger, watch: Watch) -> None:
    """Check it.

    Raises:
        Violation: Something does not hold.
    """
    shown = [look(device) for device in world.devices]
    trees.check_convergence(world, shown)
    trees.check_validity(world, shown)
    whole = [number for number, device in enumerate(world.devices) if not device.disk.personality.changes_names]
    for number in whole:
        contents.check_loss(ledger, number, shown[number])
        turns.check_turns(ledger, number, shown[number], whole)
    half_told = sum((device.half_told for device in world.devices), Counter[bytes]())
    for number, tree in enumerate(shown):
        contents.check_invention(ledger, number, tree, respells=world.devices[number].disk.personality.stores_nfd)
        contents.check_resurrection(ledger, number, tree)
        contents.check_identity(ledger, number, tree, half_told)
        contents.check_copies(ledger, number, tree)
    rows.check(world, shown)
    journal.check(world, watch.journals)
    causality.check(world, ledger, watch.journals.log, watch.contents)
    watch.check_servers()
