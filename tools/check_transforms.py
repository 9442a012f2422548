"""Checks that transforms stay pure: no session, no RDD, no JVM, no I/O. Prints each place; exit code 1 if any."""

import ast
import sys
from pathlib import Path

FORBIDDEN = {
    "write",
    "writeTo",
    "writeStream",
    "sparkSession",
    "rdd",
    "_jvm",
    "_jdf",
    "collect",
    "toPandas",
    "toLocalIterator",
    "count",
    "show",
    "cache",
    "persist",
    "checkpoint",
}
# `count` is also a column function: F.count(...) is fine.
FUNCTIONS = {"F"}


def places(path: Path) -> list[str]:
    """`file:line: name` for each forbidden attribute of a layer's module."""
    uses = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in FORBIDDEN
            and not (isinstance(node.value, ast.Name) and node.value.id in FUNCTIONS)
        ):
            uses.append(f"{path}:{node.lineno}: a transform must not use .{node.attr}")
    return uses


if __name__ == "__main__":
    project = Path(__file__).resolve().parents[1]
    paths = [
        path.relative_to(project)
        for layer in ("bronze", "silver", "gold")
        for path in sorted((project / layer).rglob("*.py"))
    ]
    problems = [place for path in paths for place in places(path)]
    print("\n".join(problems) or f"{len(paths)} files: transforms are pure")
    sys.exit(bool(problems))
