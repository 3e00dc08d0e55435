"""Whole worlds on virtual time, from one seed."""
