"""Gold of the card domain: what analysts ask for."""
