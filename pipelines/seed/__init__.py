"""Fake rows into a source, made from the contracts."""
