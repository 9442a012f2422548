"""Proves again that source, bronze, silver, gold and CSV agree."""
