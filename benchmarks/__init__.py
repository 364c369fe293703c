"""Measurements and the demonstration; see README.md."""
