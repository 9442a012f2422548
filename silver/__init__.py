"""Silver: cleaned, typed and checked. One sub-folder per business domain, one file per table."""
