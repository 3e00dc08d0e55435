"""Scenarios from a file: what they say, who does it with real processes on a disk, and who judges what came of it."""
