"""Bronze of the card domain: what the source's tables are."""
