"""Bronze of the condominium domain: what its files have."""
