"""Delta tables as versions made of files, the runs that recorded them, and DuckDB that proves them."""
