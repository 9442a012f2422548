"""What a shell offers when somebody presses Tab. Imports neither Spark, DuckDB nor delta-rs: a person waits for it."""

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

from pipelines.core.names import LAYERS

if TYPE_CHECKING:
    from conf.settings import Settings

NAME, ASKED = "lakehouse", "_LAKEHOUSE_COMPLETE"  # the script at the project's root; what a shell sets when it asks
SHELLS = ("bash", "zsh", "fish")
PROJECT = Path(__file__).resolve().parents[2]


@add_completion_class
class Bash(BashComplete):
    """bash makes three words of `--domain=varejo`, and ends each completion with a blank, after `LAKEHOUSE_ROOT=` too.
    A name with a tilde is not expanded, so that the command is called by its own."""

    source_template = BashComplete.source_template.replace("_complete $1", "_complete %(prog_name)s").replace(
        "COMPREPLY+=($value)", '[[ $value == *= ]] && compopt -o nospace; COMPREPLY+=("$value")'
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            if words and (word == "=" or words[-1].endswith("=")):
                words[-1] += word
            else:
                words.append(word)
        return words[:-1], words[-1]


class OneWord(ShellComplete):
    """Of a shell to which `--domain=varejo` is one word, all of which is completed."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        option = incomplete[: incomplete.find("=") + 1] if incomplete.startswith("-") else ""
        items = super().get_completions(args, incomplete)
        return [CompletionItem(option + item.value, item.type, item.help) for item in items]


@add_completion_class
class Zsh(OneWord, ZshComplete):
    pass


@add_completion_class
class Fish(OneWord, FishComplete):
    """In click's script a value ends at its first comma."""

    source_template = FishComplete.source_template.replace('split ","', 'split --max 1 ","')


def script(commands: click.Command, shell: str) -> str:
    """What a shell evaluates to know `lakehouse`, from any folder, and to ask for completions."""
    made = get_completion_class(shell)
    assert made is not None
    folder = shlex.quote(str(PROJECT))
    path = f"set --append PATH {folder}" if shell == "fish" else f'PATH="$PATH":{folder}'
    return f"{path}\n{made(commands, {}, NAME, ASKED).source()}"


def answer(commands: click.Command, asked: str) -> int:
    """Prints the completions of the words in the environment, or nothing: what is wrong is said when they are run."""
    with suppress(Exception):
        return shell_complete(commands, {}, NAME, ASKED, asked)
    return 0


def _last_of(names: Iterable[str], incomplete: str) -> list[str]:
    """The names that may end a list which is separated by commas."""
    *given, last = incomplete.split(",")
    return [",".join([*given, name]) for name in names if name.startswith(last) and name not in given]


def _names(layer: str, domains: Iterable[str] = ("*",)) -> list[str]:
    """The tables of a layer, all or of some domains: a file each."""
    files = (file for domain in domains for file in (PROJECT / layer).glob(f"{domain}/*.py"))
    return sorted(file.stem for file in files if file.stem != "__init__" and "." not in file.stem)


def domains(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return _last_of(sorted(file.parent.name for file in (PROJECT / "bronze").glob("*/__init__.py")), incomplete)


def tables(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The tables of all layers, of the domains that the command names."""
    named = ctx.params.get("domain") or ("*",)
    return _last_of(dict.fromkeys(name for layer in LAYERS for name in _names(layer, named)), incomplete)


def gold_tables(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return _last_of(_names("gold", ctx.params.get("domain") or ("*",)), incomplete)


def runs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The runs of each layer, the last first."""
    known = _settings(ctx)
    named = (f"{layer}/{run}" for layer in LAYERS for run in sorted({*_runs(known.layer_path(layer))}, reverse=True))
    return [name for name in named if name.startswith(incomplete)]


def _runs(layer_path: Path) -> Iterator[int]:
    """The numbers of the runs: those between the extremes that the log of `_runs` has of its files."""
    for commit in (layer_path / "_runs/_delta_log").glob("*.json"):
        for line in commit.read_text("utf-8").splitlines():
            if added := json.loads(line).get("add"):
                stats = json.loads(added["stats"])
                yield from range(stats["minValues"]["run"], stats["maxValues"]["run"] + 1)


def database(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The database that the settings name."""
    postgres = _settings(ctx).postgres
    return [postgres.database] if postgres and postgres.database.startswith(incomplete) else []


def settings(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The settings that may stand on a command line."""
    from conf.settings import NAMES, SECRETS

    return [f"{name}=" for name in NAMES if name.startswith(incomplete) and not name.endswith(SECRETS)]


def _settings(ctx: click.Context) -> "Settings":
    from conf.settings import load
    from pipelines.run.call import read_sources

    given: Any = (*ctx.find_root().params.get("settings", ()), *ctx.params.get("settings", ()))
    return load(*read_sources(given), base=Path.cwd())[0]
