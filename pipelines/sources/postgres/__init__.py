"""PostgreSQL: connections, the shared snapshot, how each type is read, the readers."""
