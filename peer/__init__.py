"""The agent on a device: it holds the keys and keeps the folders."""
