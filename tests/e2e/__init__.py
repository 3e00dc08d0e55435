"""End to end: real processes on this machine, driven by the commands of the contract."""
