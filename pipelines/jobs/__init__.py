"""One file a layer for spark-submit, which runs it in the session that it is given."""
