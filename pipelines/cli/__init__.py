"""The words that a person types become one call, its exit code and its last line."""
