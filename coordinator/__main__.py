"""``python -m coordinator`` is ``kin-coordinator``."""

from coordinator.cli import main

main()
