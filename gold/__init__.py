"""Gold: tables that answer questions. One sub-folder per business domain, one file per table."""
