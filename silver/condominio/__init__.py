"""Silver of the condominium domain: its files cleaned, typed and checked."""
