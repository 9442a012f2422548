"""Delimited files: their lines, their values, the landing folder."""
