"""Silver: cleaned, typed and checked. One sub-folder a business domain, one file a table."""
