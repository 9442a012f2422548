"""Silver of the retail domain: its files cleaned, typed and checked."""
