"""Unpacked layers in a store: layer files, merged metadata, layer directories."""
