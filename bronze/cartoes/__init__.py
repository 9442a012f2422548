"""Bronze of the card domain: what the source tables are."""
