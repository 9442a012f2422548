"""PostgreSQL under one snapshot and files as they arrive; where each domain's data comes from."""
