"""Builds the tables that people ask for and proves each against its input."""
