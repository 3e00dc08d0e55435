"""Devices that see each other on a LAN: announcement, pinned TLS, and chunks straight from the plain files."""
