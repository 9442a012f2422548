"""The file of metrics after runs of several domains and micro-batches."""

import json
import subprocess
from datetime import UTC, datetime

import pytest

from pipelines.commands.stream import Stream
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.notify.metrics import LAKE
from pipelines.notify.outlets import notify
from tests.support.condominio import SALES
from tests.support.lake import Lake
from tests.support.metrics import CODE, PROMTOOL, SUCCESS, measured, samples
from tests.support.process import Cli
from tests.support.webhook import outcome


def test_a_success_is_counted_and_stays_when_later_calls_fail(condominio_lake: Lake) -> None:
    settings, path = measured(condominio_lake)
    condominio_lake.drop("transacoes_2.csv", SALES + "1,1,2023-01-01,1.00\nx,1,2024-03-01,2.00\n", 11)
    condominio_lake.run()
    assert notify(settings, outcome(targets=("bronze", "silver", "gold"), seconds=12.5)) == []
    metrics = samples(path)
    assert metrics[CODE] == {("um", "run", "all"): 0}
    assert metrics["lakehouse_last_call_duration_seconds"] == {("um", "run", "all"): 12.5}
    began = outcome().started.timestamp()
    assert metrics["lakehouse_last_call_timestamp_seconds"] == {("um", "run", "all"): began}
    runs = {layer: condominio_lake.last(layer) for layer in LAYERS}
    assert metrics[SUCCESS] == {
        ("um", layer, "condominio"): round(run.finished.timestamp(), 3) for layer, run in runs.items()
    }
    sales = ("um", "silver", "condominio", "transacoes")
    assert metrics["lakehouse_table_input_rows"][sales] == 3 and metrics["lakehouse_table_rows"][sales] == 2
    assert metrics["lakehouse_table_set_aside_rows"][sales] == 1
    assert metrics["lakehouse_table_duration_seconds"][sales] > 0 < metrics["lakehouse_run_duration_seconds"][sales[:3]]
    failed = {key[4:]: rows for key, rows in metrics["lakehouse_rule_failed_rows"].items()}
    odd = ("the resident was registered before the transaction", "warn")
    assert failed[odd] == 1 and metrics["lakehouse_rule_tested_rows"][sales + odd] == 2
    assert sum(rows for (_, severity), rows in failed.items() if severity == "quarantine") == 1

    failing = outcome(3, datetime.now(UTC), targets=("bronze", "silver", "gold"))
    assert notify(settings, failing) == [] == notify(settings, outcome(6, targets=("maintain",), domain="varejo"))
    later = samples(path)
    assert later[CODE] == {("um", "run", "all"): 3, ("um", "maintain", "varejo"): 6}
    assert later["lakehouse_last_call_timestamp_seconds"]["um", "run", "all"] == round(failing.started.timestamp(), 3)
    assert {name: later[name] for name in LAKE} == {name: metrics[name] for name in LAKE}

    elsewhere = condominio_lake.settings(ROOT="elsewhere", METRICS__TEXTFILE=str(path))
    assert notify(elsewhere, outcome(2, kind="settings", targets=("stream",))) == []
    assert samples(path)[SUCCESS] == metrics[SUCCESS], "wrong settings do not say where the lake is"
    (settings.silver_path / "_runs/_delta_log/00000000000000000000.json").write_text("damaged")
    assert notify(settings, outcome(5)) == []
    assert samples(path)[SUCCESS] == metrics[SUCCESS], "of a lake that cannot be read, what was known stays"


def test_each_domain_and_each_micro_batch_is_counted(
    condominio_lake: Lake, varejo: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, path = measured(condominio_lake)
    batches = Stream(settings, "condominio", condominio_lake.spark, True, Report(as_json=True))
    batches.run_all()
    first = samples(path)
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["domain"], line["run"], line["set_aside"]) == ("condominio", "gold/2", 0) and line["seconds"] > 0
    assert first[CODE] == {("um", "stream", "condominio"): 0}
    condominio_lake.drop("transacoes_2.csv", SALES + "2,2,2024-03-02,3.00\n", 11)
    batches.run_all()
    second = samples(path)
    sales, gold = ("um", "silver", "condominio", "transacoes"), ("um", "gold", "condominio")
    assert [metrics["lakehouse_table_rows"][sales] for metrics in (first, second)] == [1, 2]
    assert second[SUCCESS][gold] > first[SUCCESS][gold]
    customers = "CustomerID;PersonID;StoreID;TerritoryID;AccountNumber;rowguid;ModifiedDate\n"
    varejo.drop("Sales.Customer.csv", customers, 1)
    varejo.run("bronze")
    assert notify(settings, outcome(targets=("bronze",))) == []
    both = samples(path)
    assert both[CODE] == {("um", "stream", "condominio"): 0, ("um", "run", "all"): 0}
    assert {domain for _, layer, domain in both[SUCCESS] if layer == "bronze"} == {"condominio", "varejo"}
    if PROMTOOL:
        subprocess.run([PROMTOOL, "check", "metrics"], input=path.read_bytes(), check=True, timeout=60)


def test_a_missing_metrics_folder_is_a_warning_and_a_name_without_prom_is_refused(cli: Cli) -> None:
    name, path = "LAKEHOUSE_METRICS__TEXTFILE", cli.folder / "metrics/lakehouse.prom"
    result = cli("silver", env={name: str(path)})
    assert result.returncode == 4 and result.stderr.splitlines()[1:] == [
        f"warning: metrics file {path}: No such file or directory"
    ]
    path.parent.mkdir()
    assert cli("silver", env={name: str(path)}).stderr.count("\n") == 1
    assert samples(path)[CODE] == {("lakehouse", "run", "all"): 4}
    for wrong in ("lakehouse.prom", "/var/lib/lakehouse.txt"):
        result = cli("silver", env={name: wrong})
        assert result.returncode == 2 and f"{name} must be an absolute path that ends in .prom" in result.stderr
    settings = cli("bronze", env={name: str(path), "LAKEHOUSE_FULL_DAYS": "0", "LAKEHOUSE_CALL__DOMAIN": "varejo"})
    assert settings.returncode == 2 and samples(path)[CODE]["lakehouse", "run", "varejo"] == 2
    assert cli("status", "export", env={name: str(path)}).returncode == 4
    assert len(samples(path)[CODE]) == 2, "calls that a person looks at are not counted"
