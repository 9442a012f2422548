"""Stands in the way of pandas in child processes: only the tests' own client of Spark asks for it, set-up of the product
does not bring it, and pyarrow would import it with the first array, which takes as long as the rest of a short call."""

raise ImportError("the product does not bring pandas")
