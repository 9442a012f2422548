"""Gold as one file for people."""
