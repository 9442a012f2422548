"""Bronze: what the source said. One sub-folder a business domain, one file a table."""
