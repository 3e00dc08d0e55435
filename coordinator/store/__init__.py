"""The coordinator's database behind one repository interface."""
