"""The only place that touches the world: settings in, PostgreSQL, Delta Lake, Spark, CSV out."""
