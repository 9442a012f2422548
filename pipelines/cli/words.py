"""The words of the command line: commands and their options. `python -m pipelines --help` lists them."""

import sys
from dataclasses import dataclass, fields
from typing import Any

import click

import conf
from pipelines.cli import completion
from pipelines.core.console import unread
from pipelines.core.errors import StorageFault, UsageFault

PROGRAM = "python -m pipelines"  # what help and messages call the command line


@dataclass(frozen=True)
class Request:
    """What a person asks for: commands, settings as NAME=VALUE, options. An option that is empty was not given."""

    targets: frozenset[str] = frozenset()
    settings: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    full: bool = False
    run: str = ""
    once: bool = False
    format: str = ""  # csv or parquet
    confirm: str = ""
    exit_code: bool = False
    replace: str = ""


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names separated by commas or blanks."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _option(name: str, text: str, **more: Any) -> click.Option:
    """An option, for which LAKEHOUSE_CALL__<NAME> in the environment stands, too."""
    return click.Option([f"--{name}"], help=text, envvar=f"{conf.CALL}{name.upper().replace('-', '_')}", **more)


NAMES: dict[str, Any] = {"type": click.types.FuncParamType(_names), "metavar": "NAME,…"}
DOMAIN = _option("domain", "only these domains", shell_complete=completion.domains, **NAMES)
TABLE = _option("table", "only these tables", shell_complete=completion.gold_tables, **NAMES)
WITH_FULL = _option(
    "table", "the tables that --full rebuilds; without it all", shell_complete=completion.tables, **NAMES
)
FULL = _option("full", "rebuild in full instead of applying what changed", is_flag=True)
REPLACE = _option("replace", "takes files again that have other content now; also a pattern", metavar="FILE")
RUN = _option("run", "one of `history`", metavar="LAYER/NUMBER", shell_complete=completion.runs)
ONCE = _option("once", "end when all files are ingested", is_flag=True)
FORMAT = _option("format", "of the files", type=click.Choice(["csv", "parquet"]))
EXIT_CODE = _option("exit-code", "end with 10 when there is work", is_flag=True)
CONFIRM = _option(
    "confirm", "your own database, which gets fake tables", metavar="DATABASE", shell_complete=completion.database
)
SET = click.Option(
    ["--set", "settings"],
    multiple=True,
    metavar="NAME=VALUE",
    help="a setting; no passwords here",
    shell_complete=completion.settings,
)

LAYER = (DOMAIN, WITH_FULL, FULL, REPLACE)

# Each command: what it does, and the options that it takes.
COMMANDS: dict[str, tuple[str, tuple[click.Option, ...]]] = {
    "seed": ("fill the source with fake data", (DOMAIN, CONFIRM)),
    "bronze": ("copy the source's tables", LAYER),
    "silver": ("clean, type and check them", LAYER),
    "gold": ("build movimento_flat and its CSV", LAYER),
    "stream": ("ingest files as they arrive", (DOMAIN, ONCE)),
    "plan": ("what the next run would do with each table, and why", (DOMAIN, WITH_FULL, FULL, EXIT_CODE)),
    "doctor": ("what this machine, its folders and the source lack", ()),
    "export": ("write the CSV of gold's last run again, or others", (DOMAIN, TABLE, FORMAT)),
    "answers": ("print the tables of gold that answer a question", (DOMAIN,)),
    "status": ("the last run of each layer, its age, its warnings", ()),
    "quality": ("every rule of the last silver run", (DOMAIN,)),
    "reconcile": ("prove again that source, layers and CSV agree", (DOMAIN,)),
    "history": ("the runs of each layer, and what changed in each", ()),
    "restore": ("bring an earlier run back", (RUN,)),
    "maintain": ("remove what no kept run needs, combine small files", ()),
    "shell": ("open a PySpark shell with bronze.*, silver.*, gold.*", ()),
    "catalog": ("name the tables in a Hive metastore for other programs", ()),
    "demo": ("fake data through all layers to the CSV", ()),
    "reset": ("delete lake, CSV and embedded data; asks first", ()),
}


def _command(name: str, text: str, options: tuple[click.Option, ...]) -> click.Command:
    def asked(**given: Any) -> Request:
        return Request(frozenset({name}), **{option: value for option, value in given.items() if value})

    return click.Command(name, callback=asked, params=[*options, SET], help=text, short_help=text)


def _together(requests: list[Request], settings: tuple[str, ...]) -> Request:
    """One request of all commands that were named. Raises UsageFault if two were given different options."""
    together: dict[str, Any] = {"targets": frozenset(), "settings": settings}
    for request in requests:
        together["targets"] |= request.targets
        together["settings"] += request.settings
        for option in (field.name for field in fields(Request)[2:]):
            given = getattr(request, option)
            if given and together.setdefault(option, given) != given:
                advice = "say it once, after the last command"
                raise UsageFault(f"--{option} was given twice with different values; {advice}")
    return Request(**together)


@click.pass_context
def _print_script(ctx: click.Context, shell: str) -> None:
    click.echo(completion.script(ctx.find_root().command, shell), nl=False)
    ctx.exit()


COMPLETION = click.Command(
    "completion",
    callback=_print_script,
    params=[click.Argument(["shell"], type=click.Choice(completion.SHELLS))],
    help='for `eval "$(./lakehouse completion bash)"`: makes lakehouse a command that Tab completes',
    short_help="print what makes a shell complete these words",
)


class InOrder(click.Group):
    """A group whose help lists the commands as they are declared."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)


GROUP = InOrder(
    commands={name: _command(name, *declared) for name, declared in COMMANDS.items()} | {"completion": COMPLETION},
    params=[SET],
    help="Copies a source to bronze, cleans it in silver, builds gold and its CSV. Layers run in layer order.",
    chain=True,
    no_args_is_help=False,
    subcommand_metavar="COMMAND...",
    result_callback=_together,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(conf.__version__, message="%(version)s", help="print it")(GROUP)


def parse(words: list[str], program: str = PROGRAM) -> Request | int:
    """What the words ask for, or the exit code when they were answered: help, version. Raises UsageFault."""
    try:
        parsed: Request | int = GROUP.main(words, program, standalone_mode=False)
    except click.ClickException as error:
        text = " ".join(error.format_message().split()).rstrip(".")
        raise UsageFault(f"{text}; `{program} --help` lists what there is") from None
    except OSError as error:
        unread(sys.stdout)
        raise StorageFault(f"the result cannot be written: {error.strerror}") from error
    return parsed
