"""Bronze: the source's tables, as they are. One sub-folder a business domain, one file a table."""
