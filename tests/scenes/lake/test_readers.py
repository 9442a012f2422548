"""Every table of every layer as others read it by its path: they find what the run recorded, and no filter loses a
row."""

import json
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from conf.settings import PROJECT
from pipelines.commands.maintain import maintain
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.lake.runs import Mode
from tests.support.lake import ALL, Lake
from tests.support.readers import by_delta_rs, lost, misread, readers
from tests.support.source import execute

NIGHTS = (
    r"""UPDATE movimento SET des_transacao = E'linha 1\nlinha "2", \\N', vlr_transacao = 99999999.99 WHERE id % 50 = 1;
    UPDATE movimento SET des_transacao = '', data_movimento = '0001-01-01', vlr_transacao = -0.01 WHERE id % 50 = 2;
    UPDATE movimento SET des_transacao = NULL, data_movimento = '9999-12-31 23:59:59.999999' WHERE id % 50 = 3;
    INSERT INTO movimento VALUES (-5, 1, '😀', '1582-10-10', 1), (9007199254740993, 2, ' ', '2024-01-01', 2)""",
    r"""DELETE FROM movimento WHERE id IN (1, 100, -5); INSERT INTO movimento VALUES (301, NULL, 'x', NULL, 1);
    UPDATE associado SET nome = E' José \u00a0', idade = NULL WHERE id = 3; UPDATE conta SET tipo = 'outra' WHERE id = 4""",
    """UPDATE movimento SET id = id + 1000 WHERE id < 5; INSERT INTO movimento VALUES (-5, 3, 'again', '2024-01-01', 1);
    UPDATE movimento SET vlr_transacao = 1, data_movimento = '2024-01-01' WHERE id = 301""",
)


def test_each_reader_finds_what_the_run_recorded_after_each_night_of_inserts_updates_and_deletes(
    keyed_lake: Lake,
) -> None:
    for changes in NIGHTS:
        execute(keyed_lake.address, changes)
        keyed_lake.run()
        assert {keyed_lake.last(layer).table(name).mode for layer, name in FOLLOWED} == {Mode.CHANGED}
        assert misread(keyed_lake, keyed_lake.spark) == []
    keyed_lake.run(full="movimento conta")
    assert misread(keyed_lake, keyed_lake.spark) == []


FOLLOWED = (("bronze", "movimento"), ("silver", "movimento"), ("gold", "movimento_flat"))


def test_readers_need_not_know_the_change_feed(keyed_lake: Lake) -> None:
    path = keyed_lake.settings().silver_path / "cartoes"
    plain, timed = (DeltaTable(path / name).protocol() for name in ("associado", "movimento"))
    assert (plain.min_reader_version, plain.reader_features) == (1, None)
    assert (timed.min_reader_version, timed.reader_features) == (3, ["timestampNtz"])
    assert "changeDataFeed" in {*(plain.writer_features or ())} & {*(timed.writer_features or ())}


@pytest.mark.parametrize("full", ["", ALL], ids=["incremental", "full"])
def test_the_change_feed_goes_on_over_runs_that_committed_and_failed_also_after_maintain(
    keyed_lake: Lake, full: str
) -> None:
    execute(
        keyed_lake.address, "UPDATE movimento SET vlr_transacao = 9 WHERE id < 9; DELETE FROM movimento WHERE id = 99"
    )
    for layer in LAYERS:
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
                patch.setattr(run_log, "record", lambda *_: 1 / 0)
                keyed_lake.run(layer, full=full)
        keyed_lake.run(layer)
    with Report() as report:
        maintain(keyed_lake.settings(), report)
    for layer, name in FOLLOWED:
        path = keyed_lake.settings().layer_path(layer) / "cartoes" / name
        kinds = Counter(pa.table(DeltaTable(path).load_cdf(starting_version=0).read_all())["_change_type"].to_pylist())
        assert kinds["insert"] - kinds["delete"] == 199 and kinds["update_postimage"] >= 8


def test_each_reader_finds_what_the_run_recorded_of_nasty_rows_in_tables_without_keys(nights_lake: Lake) -> None:
    assert misread(nights_lake, nights_lake.spark) == []


def test_each_reader_finds_what_the_run_recorded_of_files(condominio_lake: Lake) -> None:
    assert misread(condominio_lake, condominio_lake.spark) == []


def test_a_value_that_no_run_recorded_is_seen_by_each_reader(nasty_lake: Lake) -> None:
    path = nasty_lake.settings().silver_path / "cartoes/conta"
    rows = by_delta_rs(path)
    texts = pa.array(["x", *rows["tipo"].to_pylist()[1:]])
    write_deltalake(path, rows.set_column(1, "tipo", texts), mode="overwrite")
    seen = [(text.split(": ")[:2], "name='tipo'" in text) for text in misread(nasty_lake, nasty_lake.spark)]
    assert seen == [([reader, "silver.conta"], True) for reader in readers(nasty_lake.spark)]


def test_delta_rs_finds_each_row_of_each_table_by_any_filter(nasty_lake: Lake) -> None:
    tables = [log.parent for log in nasty_lake.folder.glob("lake/**/_delta_log")]
    assert {"_runs", "_quality", "movimento", "movimento__quarantine", "movimento_flat"} <= {
        path.name for path in tables
    }
    assert [text for path in tables for text in lost(path)] == []


def test_each_commit_says_what_it_did_and_nothing_of_the_machine(nasty_lake: Lake) -> None:
    commits = [file.read_text() for file in nasty_lake.folder.glob("lake/**/_delta_log/*.json")]
    causes = [
        line["commitInfo"] for text in commits for line in map(json.loads, text.splitlines()) if "commitInfo" in line
    ]
    assert len(causes) == len(commits) > 10
    for cause in causes:
        assert cause["operation"] and cause["operationParameters"] and cause["engineInfo"] == "lakehouse"
        assert "numOutputRows" in cause["operationMetrics"] and cause["userMetadata"]
    assert not [text for text in commits if str(nasty_lake.folder) in text or str(PROJECT) in text]
