"""Silver of the card domain: the source tables cleaned, typed and checked."""
