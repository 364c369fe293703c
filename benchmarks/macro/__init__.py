"""Whole pulls, beside other tools."""
