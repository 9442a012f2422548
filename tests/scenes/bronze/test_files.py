"""Files through all layers: no line lost, none twice, none that shifts its neighbours; the same in one run as in many."""

import json
import os
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from decimal import Decimal
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from bronze.condominio import imoveis
from conf.contract import Column
from pipelines.bronze import files as bronze_files
from pipelines.commands.history import restore
from pipelines.commands.maintain import maintain
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, QualityFault, SourceFault, UsageFault
from pipelines.lake import delta, folders, run_log
from pipelines.lake.versions import table_version
from pipelines.run.layers import RunRequest, run_layers
from pipelines.sources.files import delimited, landing
from tests.support.condominio import NAMES, PARENTS, SALES, drop_all, everything, some_files
from tests.support.lake import NOWHERE, Lake
from tests.support.process import Cli


def aside(lakehouse: Lake, name: str = "transacoes") -> dict[int, tuple[list[str], dict[str, str]]]:
    """The quarantine of a table: reasons and what bronze could not hold, by key."""
    rows = lakehouse.table("silver", f"{name}__quarantine")
    return {row[f"{catalogue_key(name)}"]: (row["_reasons"], json.loads(row["_rescued"] or "{}")) for row in rows}


def catalogue_key(name: str) -> str:
    return next(table.keys[0] for table in catalogue.tables_of("silver", "condominio") if table.name == name)


def reconciled(lakehouse: Lake) -> None:
    with Report() as report:
        reconcile(lakehouse.settings(), (lakehouse.domain,), report, lakehouse.spark)


def agreed(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    reconciled(lakehouse)
    return capsys.readouterr().out


@dataclass(frozen=True)
class Faults:
    """A lake of files with lines of every fault, in which bronze and silver ran once: what was warned of, what reconcile
    said of bronze, and the sales that silver accepted and set aside, by id."""

    lake: Lake
    warnings: str
    reconciled: str
    accepted: dict[int, Decimal]
    aside: dict[int, tuple[list[str], dict[str, str]]]


# The ids of the sales in three files: of lines that are no rows, of a file with another header, of values that do not fit.
NO_ROWS, OTHER_HEADER, NO_VALUES = range(1, 8), range(8, 10), range(10, 14)
LINES = ["1,1,2024-03-01,10.00", "2,2,2024-03-02", "2,2,2024-03-02,20.00,x", '"1,1,2024-03-03,30.00']
LINES += ["1,1,2024-03-04,40.00", "1,1,2024-03-05,\xe9", "1,2,2024-03-06,60.00"]
VALUES = ["1,1,2024-03-01,1e3", "1,1,01/03/2024,5.00", "1,,2024-03-01,5.00", "1,1,2024-03-01,0.005"]


@pytest.fixture(scope="module")
def faults(any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Faults:
    lake = Lake(tmp_path_factory.mktemp("faults"), NOWHERE, any_spark, "condominio")
    drop_all(lake)
    lake.drop("condominios_2.csv", 'nome,endereco\nSol,"Rua do Sol, 7"\nLua,Rua da Lua\n', 20)
    lake.drop("transacoes_1.csv", (SALES + "\n".join(LINES)).encode("latin-1"), 20)
    lake.drop("transacoes_2.csv", "imovel,morador,dia,valor\n1,1,2024-03-02,7.00\n", 30)
    lake.drop("transacoes_3.csv", SALES + "".join(f"{line}\n" for line in (*VALUES, "1,1,2024-03-03,20.00")), 40)
    with redirect_stderr(StringIO()) as warnings, redirect_stdout(StringIO()) as output:
        lake.run("bronze")
        reconciled(lake)
        lake.run("silver")
    accepted = {row["transacao_id"]: row["valor_transacao"] for row in lake.table("silver", "transacoes")}
    return Faults(lake, warnings.getvalue(), output.getvalue(), accepted, aside(lake))


def test_a_line_that_is_no_row_is_set_aside_with_its_text_and_its_neighbours_stay(faults: Faults) -> None:
    accepted = {key: amount for key, amount in faults.accepted.items() if key in NO_ROWS}
    assert accepted == {1: Decimal("10.00"), 5: Decimal("40.00"), 7: Decimal("60.00")}
    why = {2: "it has 3 fields, not 4", 3: "it has 5 fields, not 4", 4: "a quoted field does not end"}
    expected = {
        key: (["line:unreadable"], {"_line": LINES[key - 1], "_why": reason, "_at": f"transacoes_1.csv, {key + 1}"})
        for key, reason in why.items()
    }
    expected[6] = (
        ["line:unreadable"],
        {"_line": "1,1,2024-03-05,\\xe9", "_why": "it has bytes that are no utf-8", "_at": "transacoes_1.csv, 7"},
    )
    assert {key: kept for key, kept in faults.aside.items() if key in NO_ROWS} == expected
    bronze = [(row["_source_file"], row["_source_row"]) for row in faults.lake.table("bronze", "transacoes")]
    assert bronze[: len(LINES)] == [("transacoes_1.csv", line) for line in range(2, 9)]
    assert len(bronze) == len(faults.accepted) + len(faults.aside) == 14
    assert "everything agrees" in faults.reconciled


def test_a_value_that_does_not_fit_and_a_missing_one_have_reasons_of_their_own(faults: Faults) -> None:
    assert [faults.aside[key] for key in NO_VALUES] == [
        (["unreadable:valor_transacao"], {"valor_transacao": "1e3"}),
        (["unreadable:data_transacao"], {"data_transacao": "01/03/2024"}),
        (["morador_id:null"], {}),
        (["unreadable:valor_transacao"], {"valor_transacao": "0.005"}),
    ]
    assert faults.accepted[14] == 20


def test_a_file_with_another_header_goes_to_quarantine_whole_and_the_run_says_why(faults: Faults) -> None:
    assert "no line of transacoes_2.csv is a row: its header has no imovel_id" in faults.warnings
    assert [faults.aside[key][1]["_line"] for key in OTHER_HEADER] == [
        "imovel,morador,dia,valor",
        "1,1,2024-03-02,7.00",
    ]


def test_an_unquoted_comma_of_the_last_column_is_kept_and_counted(faults: Faults) -> None:
    assert [row["endereco"] for row in faults.lake.table("silver", "condominios")] == [
        "Rua das Palmeiras, 123, Centro",
        "Avenida das Flores",
        "Rua do Sol, 7",
        "Rua da Lua",
    ]
    rules = run_log.read_rules(faults.lake.settings().silver_path, faults.lake.last("silver"))
    failed = {rule.rule: rule.failed for rule in rules if rule.table == "condominios"}
    assert (failed["endereco is quoted where it has a ,"], failed["line:unreadable"]) == (1, 0)


def test_the_limit_of_quarantine_ends_a_run_and_nothing_is_lost(condominio_lake: Lake) -> None:
    condominio_lake.drop("transacoes_2.csv", SALES + "x\n", 20)
    with pytest.raises(QualityFault, match="1 of 2 rows .* line:unreadable 1"):
        condominio_lake.run("bronze", "silver", QUALITY__MAX_QUARANTINED="0.4")
    condominio_lake.run("silver")
    assert [*aside(condominio_lake)] == [2]


def test_a_file_is_taken_once_and_with_other_content_it_is_an_error_that_says_so(condominio_lake: Lake) -> None:
    before = everything(condominio_lake)
    condominio_lake.drop("transacoes.csv", SALES + "1,1,2024-03-01,10.00\n", 99)  # the same again, younger
    condominio_lake.run()
    assert everything(condominio_lake) == before
    assert {table.how for layer in ("bronze", "silver", "gold") for table in condominio_lake.last(layer).tables} == {
        "unchanged"
    }
    condominio_lake.drop("transacoes.csv", SALES + "1,1,2024-03-01,99.00\n", 10)
    condominio_lake.drop("transacoes_2.csv", SALES + "1,1,2024-03-01,5.00\n", 11)
    with pytest.raises(SourceFault, match=r"transacoes\.csv was taken by run 1 and has other content now"):
        condominio_lake.run()
    assert everything(condominio_lake) == before


def test_the_rows_of_a_file_that_left_the_landing_folder_stay(
    condominio: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_all(condominio, "1,1,2024-03-01,10.00")
    condominio.run("bronze")
    before = everything(condominio, "bronze")
    (condominio.folder / "landing/condominio/transacoes.csv").unlink()
    condominio.run("bronze", full="transacoes imoveis")
    assert everything(condominio, "bronze") == before and len(before["transacoes"]) == 1
    assert (
        "bronze.transacoes: not read again: 1 of its files, as transacoes.csv, are not there" in capsys.readouterr().err
    )
    assert condominio.last("bronze").table("imoveis").how == "full: asked for"
    output = agreed(condominio, capsys)
    assert "source.transacoes: not compared, because the file is gone or has changed: transacoes.csv" in output


def test_ids_are_given_by_time_then_name_and_stay_what_they_are(condominio: Lake) -> None:
    drop_all(condominio)
    for name, at in (("c", 30), ("b", 20), ("a", 30)):
        condominio.drop(f"moradores_{name}.csv", f"nome,condominio_id,data_registro\n{name},1,\n", at)
    condominio.run("bronze")
    condominio.drop("moradores_0.csv", "nome,condominio_id,data_registro\nlate,1,\n", 5)
    condominio.run("bronze")
    names = {row["morador_id"]: row["nome"] for row in condominio.table("bronze", "moradores")}
    assert names == {1: "Ana", 2: "Ana", 3: "b", 4: "a", 5: "c", 6: "late"}


def ids(lakehouse: Lake, name: str, value: str) -> dict[int, Any]:
    return {row[catalogue_key(name)]: row[value] for row in everything(lakehouse, "bronze")[name]}


def test_ids_stay_when_bronze_is_deleted_and_the_files_lost_their_times(
    condominio_lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, folder = condominio_lake, condominio_lake.folder / "landing/condominio"
    bronze = lake.settings().bronze_path
    lake.drop("condominios_2.csv", "nome,endereco\nSol,Rua do Sol\n", -5)  # older, and delivered later
    lake.drop("condominios_1.csv", "nome,endereco\nLua,Rua da Lua\n", 30)
    lake.run("bronze", "silver")
    before = ids(lake, "condominios", "nome")
    assert before == {1: "Palmeiras", 2: "Flores", 3: "Sol", 4: "Lua"}
    for path in folder.iterdir():
        os.utime(path, (50, 50))
    shutil.rmtree(bronze)
    lake.run("bronze")
    assert ids(lake, "condominios", "nome") == before
    lake.run("bronze", full="condominios")
    assert ids(lake, "condominios", "nome") == before
    shutil.rmtree(bronze)
    read = list[str]()

    def hashed(file: landing.LandedFile) -> str:
        read.append(file.name)
        return landing.hashed(file)

    monkeypatch.setattr(bronze_files, "hashed", hashed)
    for _ in folder.iterdir():
        with Report() as report:
            run_layers(lake.settings(), RunRequest({"bronze"}, ("condominio",), at_most_files=1), report, lake.spark)
    assert sorted(read) == sorted(path.name for path in folder.iterdir()), "each is hashed in its own batch only"
    assert ids(lake, "condominios", "nome") == before and "anew" not in capsys.readouterr().err
    (folder / "condominios_1.csv").unlink()
    (folder / "condominios_2.csv").write_text("nome,endereco\nSol,Rua do Sol, 7\n")
    lake.drop("condominios_0.csv", "nome,endereco\nMar,Rua do Mar\n", 60)
    shutil.rmtree(bronze)
    lake.run("bronze")
    assert ids(lake, "condominios", "nome") == {1: "Palmeiras", 2: "Flores", 5: "Mar", 6: "Sol"}
    output = capsys.readouterr().err
    assert "bronze.condominios: ids are given anew, in the order in which the files were last changed" in output
    assert ": condominios_2.csv; those of an earlier lake" in output
    assert "rows of files that left condominio's landing folder went with the earlier bronze: condominios_1" in output


def test_ids_that_are_given_in_a_new_lake_are_reported(condominio: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    drop_all(condominio)
    condominio.drop("condominios_2.csv", "nome,endereco\nSol,Rua do Sol\n", 0)
    condominio.run("bronze")
    order = "ids are given anew, in the order in which the files were last changed, then of their names"
    names = "condominios.csv, condominios_2.csv; those of an earlier lake may have been others"
    assert f"bronze.condominios: {order}: {names}" in capsys.readouterr().err
    condominio.drop("condominios_4.csv", "nome,endereco\nMar,Rua do Mar\n", 7)
    condominio.drop("condominios_3.csv", "nome,endereco\nLua,Rua da Lua\n", 7)
    condominio.run("bronze")
    assert "anew" not in capsys.readouterr().err
    assert ids(condominio, "condominios", "nome") == {1: "Palmeiras", 2: "Flores", 3: "Sol", 4: "Lua", 5: "Mar"}


def test_a_restore_does_not_change_the_order_in_which_files_are_taken_again(condominio: Lake) -> None:
    drop_all(condominio)
    condominio.run("bronze")
    for at, name in ((30, "b"), (20, "a")):
        condominio.drop(f"moradores_{name}.csv", f"nome,condominio_id,data_registro\n{name},1,\n", at)
        condominio.run("bronze")
    before = ids(condominio, "moradores", "nome")
    restore(condominio.settings(), "bronze/1", Report())
    condominio.drop("moradores_c.csv", "nome,condominio_id,data_registro\nc,1,\n", 10)
    condominio.run("bronze")
    assert ids(condominio, "moradores", "nome") == before | {5: "c"} == {1: "Ana", 2: "Ana", 3: "b", 4: "a", 5: "c"}


def test_lines_keep_their_ids_when_their_file_is_replaced_again_after_a_restore(condominio: Lake) -> None:
    def take(*lines: str) -> dict[int, Any]:
        condominio.drop("condominios_2.csv", "".join(f"{line}\n" for line in ("nome,endereco", *lines)), 20)
        condominio.run("bronze", again="condominios_2.csv")
        return ids(condominio, "condominios", "nome")

    earlier, later = ("A,1", "x", "B,1", "A,1"), ("B,1", "A,1", "C,1", "x", "A,1")
    drop_all(condominio)
    condominio.run("bronze")
    first, second = take(*earlier), take(*later)
    assert first == {1: "Palmeiras", 2: "Flores", 3: "A", 4: None, 5: "B", 6: "A"} and second == first | {7: "C"}
    restore(condominio.settings(), "bronze/2", Report())
    assert take(*later) == second
    restore(condominio.settings(), "bronze/1", Report())
    assert take(*earlier) == first


def test_a_file_without_a_row_may_come_to_have_more_lines_and_no_other_line_gets_another_id(
    condominio: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(**asked: str) -> dict[int, Any]:
        condominio.run("bronze", **asked)
        return ids(condominio, "imoveis", "valor")

    drop_all(condominio)
    head, true, true_portions = "tipo,condominio_id,valor", delimited.unread, landing._portions
    condominio.drop("imoveis_2.csv", f"{head}\rCasa,1,1.00\rCasa,2,2.00\r", 20)
    condominio.drop("imoveis_3.csv", f"{head}\nCasa,1,3.00\n", 21)
    with monkeypatch.context() as patched:  # software that takes such a file for a single line
        patched.setattr(landing, "unread", lambda *given: islice(true(*given), 1))
        before = read()
    assert [*before] == [1, 2, 3, 4] and before[3] is None and before[4] == 3
    after = read(full="imoveis")
    assert after == before | {5: None, 6: None}
    condominio.drop("imoveis_4.csv", f"{head}\nCasa,1,7.00\n", 22)
    assert read() == after | {7: 7} == read(full="imoveis")
    monkeypatch.setattr(landing, "_portions", lambda *given: islice(true_portions(*given), 0))
    with pytest.raises(ContractFault, match="of imoveis.csv: it has other lines now; its rows would get other numbers"):
        condominio.run("bronze", full="imoveis")


HALF = "1,1,2024-03-01,10.00\n1,2,2024-03-02,20.00\n1,2,2024-03-02,20.00\n2,2,2024-03-0"
WHOLE = "2,1,2024-03-09,1.00\n" + HALF + "3,30.00\n2,2,2024-03-04,40.00\n"


def test_a_file_that_was_taken_half_written_is_replaced_by_one_command_and_each_line_is_there_once(
    condominio_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = condominio_lake
    lake.drop("transacoes_2.csv", SALES + HALF, 20)
    lake.drop("transacoes_3.csv", SALES + "2,1,2024-03-05,50.00\n", 21)
    lake.run("bronze", "silver")
    assert [*aside(lake)] == [5]
    before = ids(lake, "transacoes", "valor_transacao")
    lake.drop("transacoes_2.csv", SALES + WHOLE, 22)
    lake.drop("transacoes_4.csv", SALES + "1,1,2024-03-06,60.00\n", 23)
    command = "`make bronze silver gold DOMAIN=condominio REPLACE=transacoes_2.csv`"
    with pytest.raises(
        SourceFault, match=rf"transacoes_2.csv was taken by run 2 and has other content now; .*{command}"
    ):
        lake.run()
    bronze_files.landing_state(lake.settings(), "condominio", (streaming := Report(quiet=True)), at_most=1)
    assert command in str(streaming.new_warnings()) and ids(lake, "transacoes", "valor_transacao") == before
    lake.drop("transacoes_9.csv", "")
    with pytest.raises(
        UsageFault, match="names no file that a table of condominio takes .*; an empty file counts as not"
    ):
        lake.run(again="transacoes_9.csv")
    lake.run("bronze", "silver", again="transacoes_[2].csv")
    amounts = {1: 10, 2: 10, 3: 20, 4: 20, 6: 50, 7: 1, 8: 30, 9: 40, 10: 60}
    taken = {key: int(value) for key, value in ids(lake, "transacoes", "valor_transacao").items()}
    assert taken == amounts and aside(lake) == {}
    assert {row["transacao_id"]: row["valor_transacao"] for row in lake.table("silver", "transacoes")} == amounts
    after = everything(lake, "bronze")
    lake.run("bronze", again="transacoes_2.csv", full="transacoes")
    assert everything(lake, "bronze") == after and "everything agrees" in agreed(lake, capsys)


def test_a_file_that_is_written_on_after_it_was_read_is_reported_by_the_same_run(
    condominio: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_all(condominio)
    true = bronze_files._guaranteed

    def slowly(staged: Any) -> Any:
        with (condominio.folder / "landing/condominio/imoveis.csv").open("a") as file:
            file.write("Casa,2,7.00\n")
        return true(staged)

    monkeypatch.setattr(bronze_files, "_guaranteed", slowly)
    condominio.run("bronze")
    output = capsys.readouterr().err
    assert "imoveis.csv was taken by run 1 and has other content now" in output
    assert "`make bronze silver gold DOMAIN=condominio REPLACE=imoveis.csv`" in output


def test_what_holds_of_many_files_is_one_warning_with_a_count(
    condominio: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_all(condominio)
    for number in range(5):
        condominio.drop(f"imoveis_{number}.csv", PARENTS["imoveis.csv"] + "\n" * number, 20)
        condominio.drop(f"moradores_{number}.csv", PARENTS["moradores.csv"], 20)
        condominio.drop(f"transacoes_{number}.csv", f"{number}\n", 20)
        condominio.drop(f"other_{number}.csv", "x")
    condominio.run("bronze")
    warnings = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("warning") and "anew" not in line
    ]
    copies = "moradores_0.csv, moradores_1.csv, moradores_2.csv and 2 more have the content of moradores.csv"
    unread = "no line of transacoes_0.csv, transacoes_1.csv, transacoes_2.csv and 2 more is a row: its header has no"
    for text in (copies, unread, "no table takes other_0.csv, other_1.csv, other_2.csv and 2 more in condominio's"):
        assert [text in line for line in warnings].count(True) == 1
    assert len([line for line in warnings if "imoveis" not in line]) == 3
    for number in range(5):
        condominio.drop(f"moradores_{number}.csv", SALES)
    changed = r"moradores_0.csv, moradores_1.csv, moradores_2.csv and 2 more .* other content now; .* REPLACE='\*'`"
    with pytest.raises(SourceFault, match=changed):
        condominio.run("bronze")


@pytest.mark.parametrize(
    ("seed", "files"), [(9, 6), *(pytest.param(seed, 16, marks=pytest.mark.long) for seed in range(6))]
)
def test_many_runs_of_some_files_give_what_one_run_of_all_gives(
    condominio: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, files: int
) -> None:
    dice = random.Random(seed)
    whole = Lake(tmp_path / "whole", condominio.address, condominio.spark, "condominio")
    for at, (name, text) in enumerate(some_files(dice, files), 1):
        whole.drop(name, text, at)
        condominio.drop(name, text, at)
        if dice.random() < 0.4:
            condominio.run("bronze", "silver")
    condominio.run()
    whole.run()
    assert everything(condominio) == everything(whole)
    assert "everything agrees" in agreed(condominio, capsys)
    serial = condominio.table("bronze", "transacoes")
    assert [row["transacao_id"] for row in serial] == list(range(1, len(serial) + 1))


def test_a_row_waits_in_quarantine_for_its_parent(condominio_lake: Lake) -> None:
    condominio_lake.drop("transacoes_2.csv", SALES + "3,3,2024-03-01,10.00\n", 20)
    condominio_lake.drop("moradores_2.csv", "nome,condominio_id,data_registro\nBia,3,2024-01-01\n", 21)
    condominio_lake.run("bronze", "silver")
    assert aside(condominio_lake)[2][0] == ["imoveis:missing", "moradores:quarantined"]
    condominio_lake.drop("imoveis_2.csv", "tipo,condominio_id,valor\nCasa,3,100.00\n", 22)
    condominio_lake.drop("condominios_2.csv", "nome,endereco\nSol,Rua do Sol\n", 23)
    condominio_lake.run("bronze", "silver")
    assert aside(condominio_lake) == {} and len(condominio_lake.table("silver", "transacoes")) == 2


def test_a_restored_bronze_takes_the_later_files_again_with_the_same_ids(condominio_lake: Lake) -> None:
    settings = condominio_lake.settings()

    def ids() -> dict[int, Decimal]:
        rows = everything(condominio_lake, "bronze")["transacoes"]
        return {row["transacao_id"]: row["valor_transacao"] for row in rows}

    condominio_lake.drop("transacoes_2.csv", SALES + "2,2,2024-03-02,20.00\n2,2,2024-03-03,30.00\n", 20)
    condominio_lake.run("bronze")
    before = ids()
    assert before == {1: 10, 2: 20, 3: 30}
    restore(settings, "bronze/1", Report())
    assert ids() == {1: 10}
    condominio_lake.drop("transacoes_3.csv", SALES + "1,1,2024-03-04,40.00\n", 30)
    condominio_lake.run("bronze", "silver")
    assert ids() == before | {4: 40}
    after = everything(condominio_lake)
    restore(settings, "bronze/2", Report())
    condominio_lake.run("bronze", "silver")
    assert everything(condominio_lake) == after and [row["transacao_id"] for row in after["transacoes"]] == [1, 2, 3, 4]


def test_many_small_files_do_not_stay_many_data_files(
    condominio: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.lake.layout.MANY_SMALL_FILES", 3)
    drop_all(condominio)
    path = condominio.settings().bronze_path / "condominio" / "transacoes"

    def data_files() -> int:
        return len(delta.file_paths(path, condominio.last("bronze").table("transacoes").version))

    files = []
    for number in range(6):
        condominio.drop(f"transacoes_{number}.csv", SALES + f"1,1,2024-03-01,{number}.00\n", 20 + number)
        condominio.run("bronze")
        files.append(data_files())
    assert max(files) == 3 == files[-1], files
    with Report() as report:
        maintain(condominio.settings(), report)
    assert data_files() == 1
    assert "everything agrees" in agreed(condominio, capsys)
    assert [row["valor_transacao"] for row in condominio.table("bronze", "transacoes")] == list(range(6))


def test_a_column_that_is_new_in_the_contract_is_read_from_the_files_again(
    condominio: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_all(condominio)
    condominio.drop("imoveis_2.csv", "tipo,condominio_id,valor,quartos\nCasa,1,7.00,3\n", 20)
    condominio.run("bronze")
    assert [row["_extra"] for row in condominio.table("bronze", "imoveis")] == [None, None, '{"quartos": "3"}']
    rooms = Column("quartos", "integer", "Rooms", nullable=True, optional=True)
    monkeypatch.setitem(imoveis.TABLE.__dict__, "columns", (*imoveis.TABLE.columns, rooms))
    condominio.run("bronze")
    rows = condominio.table("bronze", "imoveis")
    assert [(row["imovel_id"], row["quartos"]) for row in rows] == [(1, None), (2, None), (3, 3)]
    assert condominio.last("bronze").table("imoveis").how == "full: its columns changed"
    (condominio.folder / "landing/condominio/imoveis.csv").unlink()
    monkeypatch.setitem(imoveis.TABLE.__dict__, "columns", imoveis.TABLE.columns[:-1])
    with pytest.raises(ContractFault, match=r"1 of its files, as imoveis\.csv, left the landing folder"):
        condominio.run("bronze")


def test_a_new_column_is_reported_or_ends_the_run_when_the_schema_is_frozen(
    condominio: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_all(condominio)
    wide = ",".join(f"c{place}" for place in range(30))
    condominio.drop("imoveis_0.csv", "tipo,condominio_id,valor,andar,\nCasa,1,7.00,3,\n", 5)
    condominio.drop("imoveis_1.csv", "tipo,condominio_id,valor,andar\nCasa,1,7.00,3\n", 6)
    condominio.drop("moradores_2.csv", f"nome,condominio_id,data_registro,{wide}\n", 7)
    condominio.run("bronze", SCHEMA_DRIFT="freeze")
    warnings = capsys.readouterr().err
    assert warnings.count("column andar is new, no contract names it") == 1
    assert "file imoveis_0.csv: column without a name is new" in warnings
    assert "moradores_2.csv: column c19 is new" in warnings and "10 more columns are new" in warnings
    assert "c20" not in warnings
    condominio.drop("imoveis_2.csv", "tipo,condominio_id,valor,cor\nCasa,1,7.00,azul\n", 20)
    with pytest.raises(ContractFault, match=r"imoveis_2\.csv: column cor is new.*the schema is frozen"):
        condominio.run("bronze", SCHEMA_DRIFT="freeze")
    condominio.run("bronze")
    assert "file imoveis_2.csv: column cor is new" in capsys.readouterr().err
    condominio.drop("imoveis_3.csv", "tipo,condominio_id,valor,cor\nCasa,1,8.00,azul\n", 30)
    condominio.run("bronze", SCHEMA_DRIFT="freeze")


def test_what_was_put_together_or_has_no_fields_of_its_own_is_read_right_or_set_aside(condominio: Lake) -> None:
    """From files to silver: a header among the lines, commas in a column that is not the last, empty columns, NUL."""
    lines = ["nome,endereco", "Sol,Rua 1, 2", "\ufeffnome,endereco", "Lua,Rua \0", "endereco,nome", "Rua 9,Mar"]
    condominio.drop("condominios_1.csv", "".join(f"{line}\n" for line in lines), 1)
    condominio.drop("condominios_2.csv", "endereco,nome\nRua 3, 4,Rio\nRua 5,Mel\n", 2)
    condominio.drop("moradores.csv", "nome,condominio_id,data_registro\n", 3)
    condominio.drop("imoveis.csv", "tipo,condominio_id,valor,,,\nCasa,1,7.00,,,\n", 4)
    condominio.drop("transacoes.csv", SALES, 5)
    condominio.run("bronze", "silver")
    rows = condominio.table("silver", "condominios")
    assert {row["condominio_id"]: (row["nome"], row["endereco"]) for row in rows} == {
        1: ("Sol", "Rua 1, 2"),
        3: ("Lua", "Rua \0"),
        7: ("Mel", "Rua 5"),
    }
    assert {key: (reasons, kept["_why"]) for key, (reasons, kept) in aside(condominio, "condominios").items()} == {
        2: (["line:unreadable"], "it is the header again"),
        4: (["line:unreadable"], "it is another header"),
        5: (["line:unreadable"], "it stands behind another header, in line 5"),
        6: (["line:unreadable"], "it has 3 fields, not 2"),
    }
    assert [row["valor"] for row in condominio.table("silver", "imoveis")] == [Decimal("7.00")]


def test_reconcile_finds_a_row_of_bronze_that_is_not_what_its_file_has(
    condominio: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = landing.ingest

    def wrong(files: Any, place: Any, first: int, report: Report) -> Any:
        path = files[0].path
        text = path.read_text("utf-8")
        stat = path.stat()
        path.write_text(text.replace("200.50", "999.99"), "utf-8")
        try:
            return true(files, place, first, report)
        finally:
            path.write_text(text, "utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    drop_all(condominio)
    monkeypatch.setattr(bronze_files, "ingest", wrong)
    settings = condominio.run("bronze")
    taken = {
        taken_file.name: taken_file.sha256 for taken_file in run_log.read_files(settings.bronze_path, "condominio")
    }
    true_hash = folders.sha256(condominio.folder / "landing/condominio/imoveis.csv")
    monkeypatch.setattr("pipelines.commands.reconcile.with_source.hashed", lambda file: taken[file.name])
    assert taken["imoveis.csv"] != true_hash
    with pytest.raises(QualityFault, match="1 difference"):
        agreed(condominio, capsys)
    out = capsys.readouterr().out
    assert "bronze.imoveis is not what its files have: 1 row changed in valor, key imoveis.csv, 3" in out


def test_domains_run_apart_and_a_fault_in_one_does_not_stop_the_others(
    condominio_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = condominio_lake.settings().model_copy(update={"retry_seconds": 0})
    with Report() as report:
        runs, faults = run_layers(settings, RunRequest(), report, condominio_lake.spark)
    assert [(layer, run.domain, run.run) for layer, run in runs] == [
        (layer, "condominio", 2) for layer in ("bronze", "silver", "gold")
    ]
    assert [fault.kind for fault in faults] == ["source"], "there is no such server"
    assert "cartoes: source: PostgreSQL" in capsys.readouterr().err
    shutil.rmtree(condominio_lake.folder / "landing/condominio")
    replace(condominio_lake, domain="varejo").drop("Sales.Customer.csv", b"\xff")
    with Report() as report:
        runs, _ = run_layers(settings, RunRequest({"bronze"}), report, condominio_lake.spark)
    assert [run.domain for _, run in runs] == ["varejo"]
    assert "condominio was left out: its source, " in capsys.readouterr().err


def test_a_newer_export_takes_the_place_of_the_earlier_one_bad_lines_too(
    varejo: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "SpecialOfferID;ProductID;rowguid;ModifiedDate\r\n"
    row = "{};{};A;2011-04-01 00:00:00.000\r\n"
    varejo.drop("Sales.SpecialOfferProduct.csv", head + row.format(1, 680) + row.format(2, 680) + "x\r\n")
    varejo.run("bronze")
    varejo.drop("Sales.SpecialOfferProduct.csv", "\ufeff" + head + row.format(2, 680) + "y\r\n" + row.format(3, 706))
    varejo.run("bronze")
    assert varejo.last("bronze").table("special_offer_product").how == "1 file: 2 written, 1 updated, 2 deleted"
    bronze = varejo.table("bronze", "special_offer_product")
    assert [(row["SpecialOfferID"], row["_source_row"]) for row in bronze] == [(None, 3), (2, 2), (3, 4)]
    assert "everything agrees" in agreed(varejo, capsys)


def test_a_file_that_changes_just_before_it_is_read_again_leaves_bronze_as_it_was(
    condominio: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_all(condominio)
    condominio.run("bronze")
    before, true = condominio.table("bronze", "imoveis"), bronze_files.landing_state

    def waiting(*arguments: Any, **named: Any) -> Any:
        files = true(*arguments, **named)
        condominio.drop("imoveis.csv", PARENTS["imoveis.csv"].replace("Casa", "Xasa"))
        return files

    monkeypatch.setattr(bronze_files, "landing_state", waiting)
    with pytest.raises(SourceFault, match=r"imoveis\.csv changed while it was read"):
        condominio.run("bronze", full="imoveis")
    assert condominio.table("bronze", "imoveis") == before


def test_a_copy_under_another_name_is_another_file_with_a_warning(
    condominio: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_all(condominio)
    condominio.run("bronze")
    condominio.drop("imoveis_copy.csv", PARENTS["imoveis.csv"], 20)
    condominio.drop("imovel.csv", PARENTS["imoveis.csv"], 20)
    condominio.run("bronze")
    assert len(condominio.table("bronze", "imoveis")) == 4
    output = capsys.readouterr().err
    assert "bronze.imoveis: imoveis_copy.csv has the content of imoveis.csv; its rows came twice" in output
    assert "no table takes imovel.csv in condominio's landing folder" in output


def test_no_odd_file_keeps_the_others_from_all_layers_nor_shows_a_secret(
    condominio_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, folder = condominio_lake, condominio_lake.folder / "landing/condominio"
    secret = lake.folder / "secret.csv"
    secret.write_text(f"{SALES}s3cret\n")
    (folder / "transacoes_link.csv").symlink_to(secret)
    os.mkfifo(folder / "transacoes_fifo.csv")
    (folder / "transacoes_folder.csv").mkdir()
    lake.drop("transacoes_\n.csv", SALES + "1,1,2024-03-01,1.00\n")
    lake.drop("transacoes_nul.csv", b"\0" * 5000, 20)
    lake.drop("transacoes_open.csv", SALES + '"1,1,2024-03-01,1.00\n' * 3, 21)
    lake.drop("transacoes_wide.csv", "x," * 20_000 + "\n", 22)
    lake.drop("transacoes_utf16.csv", (SALES + "1,1,2024-03-01,1.00\n").encode("utf-16"), 23)
    lake.drop("transacoes_late.csv", SALES + "1,1,2024-03-02,2.00\n", 400_000_000_000)  # in the year 14,645
    lake.run()
    output = capsys.readouterr().err
    names = "transacoes_fifo.csv, transacoes_folder.csv, transacoes_link.csv"
    why = "it is a link, a folder or a device; put a file itself there"
    assert f"not taken is {names} in condominio's landing folder: {why}" in output
    assert "not taken is transacoes_\\n.csv in condominio's landing folder: its name is not a line" in output
    accepted = {row["valor_transacao"] for row in lake.table("silver", "transacoes")}
    assert accepted == {Decimal("10.00"), Decimal("2.00")} and lake.last("gold")
    kept = {kept["_at"].split(",")[0] for _, kept in aside(lake).values()}
    assert kept == {f"transacoes_{name}.csv" for name in ("nul", "open", "wide", "utf16")}
    assert "s3cret" not in str(everything(lake, "bronze", "silver"))
    assert "everything agrees" in agreed(lake, capsys)


def test_the_seed_writes_files_once_and_never_over_others(cli: Cli) -> None:
    env = {"LAKEHOUSE_CALL__DOMAIN": "condominio", "LAKEHOUSE_SEED__MOVIMENTOS": "200"}
    assert cli("seed", env=env).returncode == 0
    folder = cli.folder / "landing/condominio"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {f"{name}.csv" for name in NAMES}
    assert "the fake files are there already" in cli("seed", env=env).stderr
    refused = cli("seed", env=env | {"LAKEHOUSE_SEED__MOVIMENTOS": "201"})
    assert refused.returncode == 3 and "has files that `make seed` did not make so; move them away" in refused.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_stored_types_are_those_of_the_contract(condominio: Lake) -> None:
    drop_all(condominio)
    settings = condominio.run("bronze")
    types = table_version(settings.bronze_path, condominio.last("bronze"), imoveis.TABLE).types
    assert types["valor"] == "decimal(15,2)" and types["_source_row"] == "bigint"
