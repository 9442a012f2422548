"""Our way, as the command line goes it. Called with layers; with `csv` on a lake that is full; or with `bronze_alone`,
for a lake beside it.

Prints the seconds of its steps, start-up aside: of silver and gold, the time in which a Spark session started.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from gold.cartoes import movimento_flat
from pipelines.cli.main import main as command_line
from pipelines.core.console import Report
from pipelines.export.publish import export
from pipelines.lake import run_log
from pipelines.run.call import read_settings
from pipelines.spark import session as spark_session

NAMES = {"bronze": "bronze", "silver": "silver", "gold": "gold_csv"}  # gold writes the CSV, too
Span = tuple[datetime, datetime]


def main(words: list[str]) -> int:
    if words == ["csv"]:
        return csv()
    if words == ["bronze_alone"]:
        return bronze_alone()
    starts = watched()
    code = command_line(words)
    settings = read_settings([])
    print(json.dumps({"start": sum((end - begin).total_seconds() for begin, end in starts)}))
    for layer in words:
        run = run_log.last_run(settings.layer_path(layer), "cartoes")
        assert code or run is not None
        if run:
            aside = 0.0 if layer == "bronze" else sum(common(start, (run.started, run.finished)) for start in starts)
            print(json.dumps({NAMES[layer]: (run.finished - run.started).total_seconds() - aside}))
    return code


def csv() -> int:
    with Report() as report:
        settings, began = read_settings([]), time.monotonic()
        export(settings, (movimento_flat.TABLE,), report)
        print(json.dumps({"csv": time.monotonic() - began}))
    return 0


def bronze_alone() -> int:
    """`make bronze`: no session starts beside it."""
    os.environ["LAKEHOUSE_ROOT"] = f"{os.environ['LAKEHOUSE_ROOT']}/alone"
    code = command_line(["bronze"])
    run = run_log.last_run(read_settings([]).bronze_path, "cartoes")
    print(json.dumps({"bronze_alone": (run.finished - run.started).total_seconds()} if run else {}))
    return code


def watched() -> list[Span]:
    """Fills a list with the span of each start of a session from now on."""
    starts: list[Span] = []
    session = spark_session.session

    @contextmanager
    def timed(*given: Any, **named: Any) -> Iterator[object]:
        began = datetime.now(UTC)
        with session(*given, **named) as started:
            starts.append((began, datetime.now(UTC)))
            yield started

    spark_session.session = timed  # type: ignore[assignment]
    return starts


def common(first: Span, second: Span) -> float:
    """Seconds that two spans share."""
    return max(0.0, (min(first[1], second[1]) - max(first[0], second[0])).total_seconds())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
