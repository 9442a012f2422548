"""Gold: tables that answer questions. One sub-folder a business domain, one file a table."""
