"""Copies a source's tables, in full or what changed, from PostgreSQL or files."""
