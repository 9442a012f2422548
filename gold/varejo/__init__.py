"""Gold of the retail domain: one table a question."""
