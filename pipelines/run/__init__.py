"""One run: which domains, in which order, from which upstream runs, to one commit point."""
