"""Transforms bronze, checks every row, sets the bad ones aside, keeps history."""
