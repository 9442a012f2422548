"""The ways that are compared, each a program of its own that knows nothing of ours."""
