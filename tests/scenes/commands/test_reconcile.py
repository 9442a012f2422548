"""`make reconcile`: each change of a cell or a row, wherever it is made, is found and named."""

import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from conf.settings import Postgres
from gold.cartoes import movimento_flat
from pipelines.commands.reconcile import with_lake
from pipelines.commands.reconcile.comparison import Comparison
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.commands.reconcile.with_lake import csv_against_gold
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault, SourceFault, StorageFault
from pipelines.core.names import LAYERS, QUARANTINE
from pipelines.lake import delta as lake_delta
from pipelines.lake import run_log
from pipelines.lake.checksums import differences, evidence
from pipelines.lake.engine import engine, relation
from tests.support.lake import Lake
from tests.support.prepared import Prepared
from tests.support.source import KEYED, execute, fresh_database

ZOO = (
    "ALTER TABLE movimento DROP CONSTRAINT movimento_pkey, ALTER id DROP NOT NULL",
    "ALTER TABLE movimento DROP CONSTRAINT movimento_id_cartao_fkey",
    """ALTER TABLE associado ADD "Último Login" timestamptz, ADD taxa real, ADD peso double precision, ADD nascido date,
    ADD foto bytea, ADD fino numeric(5,5), ADD ativo boolean, ADD tags text[], ADD "d'oro ""x"" y" text""",
    r"""UPDATE associado SET "Último Login" = '2018-11-04 02:30:00.123456+00', taxa = '-0', peso = 'NaN', nascido = '1582-10-10',
    foto = '\x00ff', fino = 0.00001 * id, ativo = id % 2 = 0, tags = '{a,"b c"}', "d'oro ""x"" y" = 'x|y'""",
    "UPDATE associado SET nascido = 'infinity', taxa = 'NaN', peso = -1e300, idade = NULL WHERE id = 3",
    "CREATE TYPE tipo_conta AS ENUM ('corrente', 'x')",
    "ALTER TABLE conta ALTER tipo TYPE tipo_conta USING tipo::tipo_conta",
    "UPDATE cartao SET num_cartao = 4111111111110000 + id",
    "INSERT INTO movimento SELECT 300 + i, 7, 'orphan', '2024-01-01', 999 FROM generate_series(1, 3) i",
    "INSERT INTO movimento SELECT * FROM movimento WHERE id = 5",
    "INSERT INTO movimento VALUES (NULL, 7, 'no key', '2024-01-01', 1)",
    "UPDATE movimento SET vlr_transacao = id + 0.25, des_transacao = 'com \"aspas\", ' || id",
)


@pytest.fixture(scope="module")
def whole(server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake after one run on rows of many types, some of them bad."""
    with fresh_database(server) as address:
        lakehouse = Lake(tmp_path_factory.mktemp("whole"), address, any_spark)
        execute(address, *KEYED, *ZOO)
        lakehouse.run()
        yield lakehouse


@pytest.fixture
def copy(whole: Lake, tmp_path: Path) -> Lake:
    """The same lake, to be damaged."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return Lake(tmp_path / "copy", whole.address, whole.spark)


@pytest.fixture
def with_source(whole: Lake, server: Postgres, tmp_path: Path) -> Iterator[Lake]:
    """The same lake with a source of its own, to be changed."""
    with Prepared(whole, server).copied(tmp_path / "copy") as lakehouse:
        yield lakehouse


@pytest.fixture
def as_made(whole: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares Spark: what it makes of the upstream tables is what the undamaged lake has, as the first test proves."""

    def expected(comparison: Comparison, _: object, __: object, entry: Entry) -> Iterator[tuple[str, list[str]]]:
        run = whole.last(comparison.layer)
        for name in (table.name for table in run.tables if table.name.removesuffix(QUARANTINE) == entry.table.name):
            path = whole.settings().layer_path(comparison.layer) / "cartoes" / name
            yield name, lake_delta.file_paths(path, run.table(name).version)

    monkeypatch.setattr(with_lake, "_expected", expected)
    monkeypatch.setattr(with_lake, "write_parquet", lambda files, _: files)


def reconciled(lakehouse: Lake, capsys: pytest.CaptureFixture[str], **given: str) -> str:
    """What reconcile prints; whether it ends with a fault is the caller's to know."""
    capsys.readouterr()
    with Report() as report:
        reconcile(lakehouse.settings(**given), ("cartoes",), report, lakehouse.spark)
    return capsys.readouterr().out


def faults(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(QualityFault, match="listed above; `make bronze silver gold` rebuilds the lake"):
        reconciled(lakehouse, capsys)
    out = capsys.readouterr().out
    return [line.removeprefix("difference: ") for line in out.splitlines() if line.startswith("difference: ")]


def test_a_lake_that_nobody_touched_agrees_with_its_runs_and_its_source_whatever_the_settings_say_now(
    whole: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    out = reconciled(whole, capsys, CARD_NUMBERS="plain")
    assert "difference" not in out and out.count("agrees") == 4 * 2 + 8 * 2 + 2 + 2 + 1 + len(["everything agrees"])
    assert not list(whole.folder.rglob(".reconcile.*"))


@pytest.mark.jvm
@pytest.mark.long
def test_values_of_every_type_read_the_same_with_spark_duckdb_and_delta_rs(whole: Lake, spark: SparkSession) -> None:
    compared = set[str]()
    for layer in LAYERS:
        for table_run in whole.last(layer).tables:
            types = {column.type for column in table_run.columns}
            path = whole.settings().layer_path(layer) / "cartoes" / table_run.name
            delta = DeltaTable(path, version=table_run.version)
            files = lake_delta.file_paths(path, table_run.version)
            if types <= compared or not files:
                continue
            compared |= types
            sides = [
                spark.read.format("delta").option("versionAsOf", table_run.version).load(str(path)).toArrow(),
                pa.table(delta.to_pyarrow_dataset().scanner(use_threads=False).to_table()),
                duckdb.sql(f"SELECT * FROM read_parquet({files})").to_arrow_table(),
            ]
            texts = [sorted(repr(row).replace("Etc/UTC", "UTC") for row in side.to_pylist()) for side in sides]
            assert texts[0] == texts[1] == texts[2], table_run.name
    assert len(compared) > 11


def file_of(lakehouse: Lake, table: str) -> Path:
    layer, name = table.split(".")
    path = lakehouse.settings().layer_path(layer) / "cartoes" / name
    (file,) = lake_delta.file_paths(path, DeltaTable(path).version())
    return Path(file)


def flip(column: str, value: object, row: int = 4) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        cells = table[column].to_pylist()
        cells[row] = value
        index = table.schema.get_field_index(column)
        return table.set_column(index, table.field(index), pa.array(cells, table.field(index).type))

    return change


def drop(table: pa.Table, row: int = 4) -> pa.Table:
    return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def duplicate(table: pa.Table, row: int = 4) -> pa.Table:
    return pa.concat_tables([table, table.slice(row, 1)])


def swap(column: str, row: int = 4) -> Callable[[pa.Table], pa.Table]:
    """Two rows exchange a value: the sum stays."""

    def change(table: pa.Table) -> pa.Table:
        cells = table[column].to_pylist()
        return flip(column, cells[row + 2], row)(flip(column, cells[row], row + 2)(table))

    return change


CELLS = {
    "bronze.cartao": (flip("nom_impresso", None), "1 row changed in nom_impresso, key 5"),
    "bronze.associado": (flip("taxa", 0.0), "other values in taxa"),
    "bronze.conta": (flip("_rescued", '{"x": "y"}'), "other values in _rescued"),
    "silver.movimento": (flip("vlr_transacao", Decimal("5.26")), "1 row changed in vlr_transacao, key 5"),
    "silver.associado": (flip("nome", "Eva"), "1 row changed in nome, key 6"),
    "silver.movimento__quarantine": (flip("_reasons", ["x"], 1), "1 row changed in _reasons, key"),
    "gold.movimento_flat": (flip("nome_impresso_cartao", "EVA"), "1 row changed in nome_impresso_cartao, key"),
}
DROPPED = {
    "bronze.movimento": (drop, "has 204 rows, run 1 left 205"),
    "silver.movimento": (drop, "1 row missing, key 5"),
    "silver.movimento__quarantine": (lambda table: table.slice(1), "1 row missing, key"),
    "gold.movimento_flat": (partial(drop, row=9), "1 row missing, key"),
}
TWICE = {
    "bronze.movimento": (duplicate, "has 206 rows, run 1 left 205"),
    "bronze.conta": (duplicate, "1 row too many, key 5"),
    "silver.movimento": (duplicate, "1 row too many, key 5"),
    "gold.movimento_flat": (partial(duplicate, row=9), "1 row too many, key"),
}
SWAPPED = {
    "bronze.cartao": (swap("num_cartao"), "2 rows changed in num_cartao, keys 5 to 7"),
    "silver.movimento": (swap("vlr_transacao"), "2 rows changed in vlr_transacao, keys 5 to 7"),
    "gold.movimento_flat": (swap("vlr_transacao_movimento", 9), "rows changed in vlr_transacao_movimento, keys"),
}


@pytest.mark.usefixtures("as_made")
@pytest.mark.parametrize("changes", [CELLS, DROPPED, TWICE, SWAPPED], ids=["cells", "dropped", "twice", "swapped"])
def test_every_changed_table_of_a_lake_is_found_and_named(
    copy: Lake, capsys: pytest.CaptureFixture[str], changes: dict[str, tuple[Callable[[pa.Table], pa.Table], str]]
) -> None:
    for table, (change, _) in changes.items():
        file = file_of(copy, table)
        pq.write_table(change(pq.ParquetFile(file).read()), file, compression="zstd")
    texts = faults(copy, capsys)
    for table, (_, message) in changes.items():
        assert any(text.startswith(f"{table} ") and message in text for text in texts), (table, texts)
        assert any(text.startswith(f"{table} ") and "run 1 left" in text for text in texts), (table, texts)
    unlike_their_run = {text.split()[0] for text in texts if "run 1 left" in text}
    assert unlike_their_run == set(changes)


def test_a_changed_row_is_found_against_the_source_and_in_what_the_next_layer_was_made_from(
    copy: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(copy, "bronze.movimento")
    table = pq.ParquetFile(file).read()
    key = table["id"][10].as_py()
    pq.write_table(flip("vlr_transacao", Decimal("0.01"), 10)(table), file)
    file = file_of(copy, "silver.associado")
    pq.write_table(flip("nome", "Eva")(pq.ParquetFile(file).read()), file)
    changed = f"1 row changed in vlr_transacao, key {key}"
    assert faults(copy, capsys) == [
        "bronze.movimento is not what run 1 left: other values in vlr_transacao",
        "silver.associado is not what run 1 left: other values in nome",
        "silver.associado is not what bronze gives: 1 row changed in nome, key 6",
        f"silver.movimento is not what bronze gives: {changed}",
        "gold.movimento_flat is not what silver gives: 10 rows changed in nome_associado, keys 5 to 185",
        f"bronze.movimento is not what the source had: {changed}",
    ]


def change_by_hand(path: Path, row: str) -> None:
    """Another amount, in a commit of another program."""
    files = DeltaTable(path).file_uris()
    amount = f"CASE WHEN {row} THEN 0.01 ELSE vlr_transacao END::decimal(10,2) AS vlr_transacao"
    rows = duckdb.sql(f"SELECT * REPLACE ({amount}) FROM read_parquet({files})").to_arrow_table()
    write_deltalake(path, rows, mode="overwrite")


@pytest.mark.usefixtures("as_made")
def test_a_table_that_somebody_committed_to_is_found(copy: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy.settings().silver_path / "cartoes/movimento"
    change_by_hand(path, "id_movimento = 9")
    assert faults(copy, capsys) == [
        "silver.movimento is not what run 1 left: other values in vlr_transacao "
        "(a commit that no run recorded, version 1, changed it)",
        "silver.movimento is not what bronze gives: 1 row changed in vlr_transacao, key 9",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines[:5] + [lines[5].replace(".25", ".26")] + lines[6:],
            "1 row changed in vlr_transacao_movimento, key 5",
        ),
        (lambda lines: lines[:5] + lines[6:], "1 row missing, key 5"),
        (lambda lines: lines[:6] + lines[5:], "1 too many, record 6"),
        (lambda lines: lines[:5] + [lines[5].replace('"com', '""com')] + lines[6:], "cannot be read"),
        (lambda lines: [lines[0]] + lines[2:4] + [lines[1]] + lines[4:], "3 rows changed in"),
        (lambda lines: [], "200 rows missing, keys 1 to 200"),
    ],
    ids=["a cell", "a record gone", "a record twice", "a quote", "another order", "nothing left"],
)
def test_a_changed_csv_is_found_and_named(copy: Lake, change: Callable[[list[str]], list[str]], message: str) -> None:
    settings = copy.settings()
    run = run_log.last_run(settings.gold_path, "cartoes")
    assert run is not None and csv_against_gold(settings, movimento_flat.TABLE, run) == []
    path = copy.folder / "export/movimento_flat.csv"
    path.write_text("".join(change(path.read_text("utf-8").splitlines(keepends=True))), "utf-8")
    if message == "cannot be read":
        with pytest.raises(StorageFault, match="export .*movimento_flat.csv: InvalidInputException"):
            csv_against_gold(settings, movimento_flat.TABLE, run)
    else:
        (text,) = csv_against_gold(settings, movimento_flat.TABLE, run)
        assert message in text, text


@pytest.mark.usefixtures("as_made")
def test_a_csv_or_a_file_that_is_gone_or_damaged_is_found(copy: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.folder / "export/movimento_flat.csv").unlink()
    assert faults(copy, capsys) == ["export.movimento_flat.csv is gone"]
    file = file_of(copy, "gold.movimento_flat")
    file.write_bytes(file.read_bytes()[:-200])
    texts = faults(copy, capsys)
    assert [text[:33] for text in texts] == [
        "gold.movimento_flat cannot be rea",
        "export.movimento_flat.csv is gone",
        "gold.movimento_flat cannot be com",
    ]
    file.unlink()
    assert any(f"{file} is gone" in text for text in faults(copy, capsys))


@pytest.mark.usefixtures("as_made")
def test_a_source_that_changed_after_the_run_is_distinguished_from_a_corrupt_lake(
    with_source: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(
        with_source.address,
        "UPDATE movimento SET vlr_transacao = 1 WHERE id IN (1, 2)",
        "DELETE FROM movimento WHERE id = 3",
        "INSERT INTO movimento VALUES (900, 1, 'new', '2024-01-01', 1)",
        "ALTER TABLE conta ADD agencia int",
    )
    out = reconciled(with_source, capsys)
    assert "source.movimento: 3 rows written since run 1, 1 gone; `make bronze` reads it" in out
    assert "column public.conta.agencia is new: integer, since run 1" in out and "difference" not in out
    # The run itself read a row wrongly: the lake is as the run left it, but an old row of the source is not in it.
    settings = with_source.settings()
    path = settings.bronze_path / "cartoes/movimento"
    change_by_hand(path, "id = 20")
    (run,) = run_log.read_runs(settings.bronze_path)
    types = {column.name: column.type for column in run.table("movimento").columns}
    _, columns = evidence("bronze.movimento", relation(lake_delta.file_paths(path, 1), types), types, ("id",))
    assert columns != run.table("movimento").columns
    assert "bronze.movimento is not what the source had: 1 row changed in vlr_transacao, key 20" in faults(
        with_source, capsys
    )


@pytest.mark.usefixtures("as_made")
def test_what_changed_the_source_without_writing_its_rows_is_no_damage(
    with_source: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(
        with_source.address,
        "ALTER TABLE associado DROP nascido",
        "ALTER TABLE cartao DROP data_criacao, ADD data_criacao timestamp DEFAULT '2001-01-01'",
        "ALTER TYPE tipo_conta RENAME VALUE 'corrente' TO 'salario'",
    )
    out = reconciled(with_source, capsys)
    assert "difference" not in out and "source.conta: changed since run 1; `make bronze` reads it" in out
    assert "column public.associado.nascido is gone, since run 1" in out


@pytest.mark.usefixtures("as_made")
def test_reconcile_does_not_report_agreement_when_a_comparison_could_not_be_made(
    copy: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFault("No space left on device")

    monkeypatch.setattr("pipelines.commands.reconcile.with_source.postgres_difference", full)
    texts = faults(copy, capsys)
    assert (
        texts[0] == "bronze.associado cannot be compared with the source: No space left on device" and len(texts) == 4
    )


def test_a_damaged_table_keeps_no_other_of_its_layer_from_being_compared(
    copy: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy.settings().silver_path / "cartoes/movimento/_delta_log")
    assert {text.split(" ")[0].rstrip(":") for text in faults(copy, capsys) if text.startswith("silver.")} == {
        "silver.movimento"
    }


@pytest.mark.usefixtures("as_made")
def test_rows_that_share_a_key_or_have_none_are_distinguished(copy: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(copy, "silver.movimento__quarantine")
    table = pq.ParquetFile(file).read()
    without_key = [at for at, key in enumerate(table["id_movimento"].to_pylist()) if key is None]
    pq.write_table(flip("des_transacao", "z", without_key[0])(table), file)
    texts = faults(copy, capsys)
    assert texts[-1].endswith("is not what bronze gives: 1 row changed in des_transacao, key None"), texts
    path = copy.folder / "same.parquet"
    many = pa.table({"id": pa.array([None] * 300, pa.int64()), "v": list(range(300))})
    other = pa.table({"id": pa.array([None] * 300, pa.int64()), "v": list(range(1000, 1300))})
    for name, rows in (("a", many), ("b", other)):
        pq.write_table(rows, path.with_name(name))
    types = {"id": "bigint", "v": "bigint"}
    one_side, other_side = (relation([str(path.with_name(name))], types) for name in ("a", "b"))
    with engine("x", copy.folder) as db:
        (difference,) = differences(db, one_side, other_side, types, ("id",))
    assert (difference.kind, difference.rows, difference.columns) == ("changed", 300, ("v",))


def test_views_and_partitioned_tables_are_compared_too(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    execute(
        lakehouse.address,
        *KEYED,
        "ALTER TABLE movimento RENAME TO antigo",
        """CREATE TABLE movimento (id bigint, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp, id_cartao bigint)
        PARTITION BY RANGE (id)""",
        "CREATE TABLE m1 PARTITION OF movimento FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE m2 PARTITION OF movimento FOR VALUES FROM (100) TO (1000)",
        "INSERT INTO movimento SELECT * FROM antigo",
        "ALTER TABLE conta RENAME TO contas",
        "CREATE VIEW conta AS SELECT * FROM contas",
    )
    lakehouse.run("bronze")
    assert "difference" not in reconciled(lakehouse, capsys)
    execute(
        lakehouse.address, "UPDATE contas SET tipo = 'x' WHERE id = 1", "UPDATE m2 SET vlr_transacao = 0 WHERE id = 150"
    )
    out = reconciled(lakehouse, capsys)
    assert "source.movimento: 1 row written since run 1, 0 gone" in out and "difference" not in out
    assert "source.conta: changed since run 1; `make bronze` reads it" in out


@pytest.mark.usefixtures("as_made")
def test_an_unreadable_source_is_reported_after_the_lake_was_compared(
    copy: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.address = copy.address.model_copy(update={"database": "other"})
    with pytest.raises(SourceFault, match="the settings name .*/other: bronze was not compared"):
        reconciled(copy, capsys)
    assert capsys.readouterr().out.count("agrees") == 4 + 8 * 2 + 2 + 2 + 1
    (copy.folder / "export/movimento_flat.csv").unlink()
    assert faults(copy, capsys) == ["export.movimento_flat.csv is gone"]


def test_a_lake_without_a_run_is_refused(lakehouse: Lake) -> None:
    with Report() as report, pytest.raises(QualityFault, match="bronze has no complete run"):
        reconcile(lakehouse.settings(), ("cartoes",), report, lakehouse.spark)
