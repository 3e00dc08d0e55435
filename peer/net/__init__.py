"""The outside parties a device talks to, one in each file."""
