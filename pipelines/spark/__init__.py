"""A Spark session, here or on a cluster, and frames in and out of Parquet."""
