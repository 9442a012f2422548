"""Gold of the condominium domain: who bought how much, and where."""
