"""Gold of the retail domain: one table per question."""
