"""The benchmark: one source, several ways to the same lake and CSV, timed in turn and checked."""
