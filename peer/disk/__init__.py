"""The device's disk: observe it, hint at changes, change files with care."""
