"""The last step of set-up: trains the class-data archive of Spark's JVM on the real jobs."""

import json
import sys
import tempfile
from pathlib import Path

from conf.settings import load
from pipelines.spark.class_data_archive import COMPILE_LESS, archive, make, option

DUMP_SECONDS = 120

MOVIMENTOS = 200


def train(file: Path) -> None:
    """Runs the real jobs on a small fake source, in full and incrementally, and looks at the tables as the shell does.
    The JVM writes the archive when it ends."""
    import psycopg2

    from pipelines.commands.shell import create_tables, last_runs
    from pipelines.core import catalogue
    from pipelines.core.console import Report
    from pipelines.run.layers import RunRequest, run_layers
    from pipelines.seed.postgres import seed
    from pipelines.sources.domains import in_postgres
    from pipelines.sources.postgres import embedded
    from pipelines.sources.postgres.connection import dsn
    from pipelines.spark.session import DEFAULTS, session

    folder = Path(tempfile.mkdtemp(prefix="lakehouse-setup-", dir="/var/tmp"))
    java = f"{COMPILE_LESS} {option('ArchiveClassesAtExit', file)} -Xlog:disable"
    given = {"LAKEHOUSE_SEED__MOVIMENTOS": str(MOVIMENTOS), "LAKEHOUSE_ROOT": "lake"}
    given["LAKEHOUSE_SPARK__CONF"] = json.dumps({DEFAULTS: java})
    try:
        with embedded.server(folder) as address, tempfile.TemporaryDirectory() as base, Report() as report:
            settings, _ = load(given, base=Path(base))
            settings = settings.model_copy(update={"postgres": address})
            for domain in in_postgres():
                seed(settings, address, catalogue.tables_of("bronze", domain), False, report)
            with session(settings, DUMP_SECONDS) as spark:
                run_layers(settings, RunRequest(), report, spark)
                with psycopg2.connect(dsn(address)) as connection, connection.cursor() as cursor:
                    cursor.execute("UPDATE associado SET nome = 'Eva' WHERE id = 1")
                run_layers(settings, RunRequest(), report, spark)
                create_tables(settings, last_runs(settings), spark)
                spark.table("gold.movimento_flat").limit(5).show()
    finally:
        embedded.remove(folder)


if __name__ == "__main__":
    if archive() is None:
        sys.exit(0 if make(train) else 1)
