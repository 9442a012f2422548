"""Bronze: the source's tables, as they are. One sub-folder per business domain, one file per table."""
