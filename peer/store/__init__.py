"""The device's local database."""
