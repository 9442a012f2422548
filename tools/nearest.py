"""Prints "; did you mean NAME?" for the nearest of some names, or nothing: `tools/nearest.py TYPED KNOWN...`."""

import difflib
import sys

typed, *known = sys.argv[1:]
nearest = difflib.get_close_matches(typed, known, n=1) or difflib.get_close_matches(typed.upper(), known, n=1)
print("; did you mean " + nearest[0] + "?" if nearest else "")
