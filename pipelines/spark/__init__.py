"""A Spark session, here or on a cluster, frames in and out of Parquet, and the names of tables."""
