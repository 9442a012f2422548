"""The command line: `python -m pipelines <target>...`, one word for each make target. `make help` lists them."""

import argparse
import io
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from dotenv.parser import parse_stream

from conf.settings import KNOWN, Settings, SettingsError, load, read_secrets
from pipelines.connection import forget_libpqs
from pipelines.errors import Fault, UsageFault

TARGETS = {
    "seed": "create the source's tables and fill them with fake data",
    "bronze": "copy the source's tables",
    "silver": "clean, type and check them",
    "gold": "build movimento_flat and its CSV",
    "stream": "watch a landing folder, DOMAIN=condominio; ONCE=1 ends when all is taken",
    "plan": "what the next run would do with each table, and why",
    "export": "write the CSV of gold's last run again; DOMAIN=, TABLES=, FORMAT=parquet for others",
    "answers": "print the tables of gold that answer a question",
    "status": "the last run of each layer, its age and its warnings",
    "quality": "every rule of the last silver run, against the run before",
    "reconcile": "prove again that source, bronze, silver, gold and CSV agree",
    "history": "the runs of each layer, and what changed in each",
    "restore": "make an old run the present one, as in RUN=gold/12",
    "maintain": "remove what no kept run needs, make small files one",
    "shell": "open a PySpark shell with bronze.*, silver.*, gold.*",
    "demo": "fake data through all layers to the CSV, on the embedded PostgreSQL",
    "reset": "delete lake, CSV and embedded data; asks first",
}


def main(words: list[str]) -> int:
    """Runs the targets; the exit code is the one that the README lists."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding must not end a run
    arguments = parse(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _terminated)
    debug = False
    try:
        settings = read_settings(arguments.set)
        debug = settings.log == "debug"
        if not debug:
            logging.disable()  # what libraries say of an interrupted question
        from pipelines.targets import run_targets

        run_targets(settings, set(arguments.targets))
        return 0
    except SettingsError as error:
        return _fail("settings", str(error), UsageFault.code)
    except Fault as fault:
        if debug:
            traceback.print_exc()
        return _fail(fault.kind, str(fault), fault.code)
    except KeyboardInterrupt:
        return _fail("stopped", "the last complete run is untouched", 128 + signal.SIGINT)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail("unexpected", f"{type(error).__name__}; LAKEHOUSE_LOG=debug shows where", 1)


def parse(words: list[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:9} {does}" for name, does in TARGETS.items())
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        epilog=f"targets:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--set NAME=VALUE] target ...",
    )
    parser.add_argument(
        "targets", nargs="+", choices=TARGETS, metavar="target", help="what to do; layers run in layer order"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting, before environment and .env; no passwords here",
    )
    return parser.parse_args(words)


def read_settings(given: list[str]) -> Settings:
    """Settings from the command line, the environment, .env and /run/secrets; warns of names that are none."""
    problems = [f"--set {pair.split('=')[0]}: write NAME=VALUE" for pair in given if "=" not in pair]
    line = dict(pair.split("=", 1) for pair in given if "=" in pair)
    problems += [
        f"--set {name}: anybody can read a command line; use the environment or .env"
        for name in line
        if "PASSWORD" in name or name == "DATABASE_URL"
    ]
    problems += [f"--set {name}: there is no such setting" for name in line if name not in KNOWN]
    if problems:
        raise SettingsError(problems)
    here = Path.cwd()
    try:
        file = read_env(here / ".env")
        secrets = read_secrets(Path("/run/secrets"))
    except (OSError, UnicodeDecodeError) as error:
        named = error.filename if isinstance(error, OSError) else ".env or a file in /run/secrets"
        raise SettingsError([f"{named} cannot be read as UTF-8 text; mend its rights or its encoding"]) from error
    settings, warnings = load(line, os.environ, file, secrets, base=here)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    forget_libpqs()
    return settings


def read_env(path: Path) -> dict[str, str]:
    """The names and values of a .env file, nothing interpolated. Raises SettingsError naming each line that is none."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        found = list(parse_stream(file))
    wrong = [str(one.original.line) for one in found if one.error]
    if wrong:
        raise SettingsError([f"{path.name}: line {', '.join(wrong)} cannot be read; write NAME=value"])
    return {one.key: one.value for one in found if one.key and one.value}


def _fail(kind: str, text: str, code: int) -> int:
    print(f"{kind}: {' '.join(text.split())}", file=sys.stderr)
    return code


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
