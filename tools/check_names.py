"""Names that say what a thing is, and few parameters: fails on words that are no names, and on long parameter lists."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FOLDERS = ("conf", "bronze", "silver", "gold", "pipelines", "bench", "dags", "tools", "tests")
NO_NAMES = frozenset({"one", "some", "done", "found", "said", "told"})
ENGINE = ("conf", "pipelines")
MANY, TOO_MANY = 6, 8
SHARE = 0.025  # of the functions may have many parameters

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    problems = []
    lists: list[tuple[int, str]] = []
    for folder in FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            place, tree = path.relative_to(PROJECT), ast.parse(path.read_text("utf-8"))
            problems += [f"{place}:{line}: {name} is no name; say what it is" for line, name in no_names(tree)]
            if folder in ENGINE:
                lists += [(count, f"{place}:{line} {name}") for count, line, name in parameter_lists(tree)]
    long = sorted((count, place) for count, place in lists if count >= MANY)
    problems += [f"{place} takes {count} parameters" for count, place in long if count >= TOO_MANY]
    if len(long) > SHARE * len(lists):
        problems.append(f"{len(long)} of {len(lists)} functions take {MANY} parameters or more, {SHARE:.1%} may:")
        problems += [f"  {place} {count}" for count, place in reversed(long)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def no_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a word that is no name is given to something, and the word."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                given = name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                given = name
            case ast.alias(asname=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                given = name
            case ast.ExceptHandler(name=str(name)) | ast.MatchMapping(rest=str(name)):
                given = name
            case _:
                continue
        if given.strip("_").lower() in NO_NAMES:
            yield node.lineno, given


def parameter_lists(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """Each function: how many parameters it takes, `self` among them, its line, its name."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            given = node.args
            count = len([*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg])
            yield count - [given.vararg, given.kwarg].count(None), node.lineno, node.name


if __name__ == "__main__":
    sys.exit(main())
