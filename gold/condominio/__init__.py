"""Gold of the condominium domain: who bought how much, and in which condominium."""
