"""The file of metrics: after success, failure, another domain, a micro-batch; read by Prometheus's own parser."""

import json
import os
import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conf.settings import Settings
from pipelines.commands.stream import Batches
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.notify.metrics import CALL, LAKE
from pipelines.notify.outlets import notify
from tests.condominio import SALES, drop_all
from tests.conftest import Cli, Lake
from tests.process.test_alert import outcome

SUCCESS, CODE = "lakehouse_last_success_timestamp_seconds", "lakehouse_last_call_exit_code"
PROMTOOL = shutil.which("promtool")


def samples(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """The file's samples, by metric and values of labels; each metric once, with help and type."""
    text = path.read_text("utf-8")
    families = list(text_string_to_metric_families(text))
    assert all(one.type == "gauge" and one.documentation for one in families)
    assert len({one.name for one in families}) == len(families) and {one.name for one in families} <= {*CALL, *LAKE}
    assert path.stat().st_mode & 0o777 == 0o644 and [*path.parent.iterdir()] == [path]
    return {one.name: {tuple(sample.labels.values()): sample.value for sample in one.samples} for one in families}


def measured(lakehouse: Lake, name: str = "um.prom") -> tuple[Settings, Path]:
    folder = lakehouse.folder / "metrics"
    folder.mkdir(exist_ok=True)
    return lakehouse.settings(METRICS__TEXTFILE=str(folder / name)), folder / name


def test_a_success_is_counted_and_stays_when_later_calls_fail(condominio: Lake, varejo: Lake) -> None:
    settings, path = measured(condominio)
    drop_all(condominio, "1,1,2023-01-01,1.00", "1,1,2024-03-01,2.00", "x,1,2024-03-01,2.00")
    condominio.run()
    assert notify(settings, outcome(targets=("bronze", "silver", "gold"), seconds=12.5)) == []
    found = samples(path)
    assert found[CODE] == {("um", "run", "all"): 0}
    assert found["lakehouse_last_call_duration_seconds"] == {("um", "run", "all"): 12.5}
    began = outcome().started.timestamp()
    assert found["lakehouse_last_call_timestamp_seconds"] == {("um", "run", "all"): began}
    runs = {layer: condominio.last(layer) for layer in LAYERS}
    assert found[SUCCESS] == {
        ("um", layer, "condominio"): round(run.finished.timestamp(), 3) for layer, run in runs.items()
    }
    sales = ("um", "silver", "condominio", "transacoes")
    assert found["lakehouse_table_input_rows"][sales] == 3 and found["lakehouse_table_rows"][sales] == 2
    assert found["lakehouse_table_set_aside_rows"][sales] == 1
    assert found["lakehouse_table_duration_seconds"][sales] > 0 < found["lakehouse_run_duration_seconds"][sales[:3]]
    failed = {key[4:]: rows for key, rows in found["lakehouse_rule_failed_rows"].items()}
    odd = ("the resident was registered before the transaction", "warn")
    assert failed[odd] == 1 and found["lakehouse_rule_tested_rows"][sales + odd] == 2
    assert sum(rows for (_, severity), rows in failed.items() if severity == "quarantine") == 1

    failing = outcome(3, datetime.now(UTC), targets=("bronze", "silver", "gold"))
    assert notify(settings, failing) == [] == notify(settings, outcome(6, targets=("maintain",), domain="varejo"))
    later = samples(path)
    assert later[CODE] == {("um", "run", "all"): 3, ("um", "maintain", "varejo"): 6}
    assert later["lakehouse_last_call_timestamp_seconds"]["um", "run", "all"] == round(failing.started.timestamp(), 3)
    assert {name: later[name] for name in LAKE} == {name: found[name] for name in LAKE}

    elsewhere = condominio.settings(ROOT="elsewhere", METRICS__TEXTFILE=str(path))
    assert notify(elsewhere, outcome(2, kind="settings", targets=("stream",))) == []
    assert samples(path)[SUCCESS] == found[SUCCESS], "wrong settings do not say where the lake is"
    (settings.silver_path / "_runs/_delta_log/00000000000000000000.json").write_text("damaged")
    assert notify(settings, outcome(5)) == []
    assert samples(path)[SUCCESS] == found[SUCCESS], "of a lake that cannot be read, what was known stays"


def test_each_domain_and_each_micro_batch_is_counted(
    condominio: Lake, varejo: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, path = measured(condominio)
    drop_all(condominio, "1,1,2024-03-01,2.00")
    batches = Batches(settings, "condominio", condominio.spark, True, Report(as_json=True))
    batches.run_all()
    first = samples(path)
    said = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (said["domain"], said["run"], said["set_aside"]) == ("condominio", "gold/1", 0) and said["seconds"] > 0
    assert first[CODE] == {("um", "stream", "condominio"): 0}
    condominio.drop("transacoes_2.csv", SALES + "2,2,2024-03-02,3.00\n", 11)
    batches.run_all()
    second = samples(path)
    sales, gold = ("um", "silver", "condominio", "transacoes"), ("um", "gold", "condominio")
    assert [one["lakehouse_table_rows"][sales] for one in (first, second)] == [1, 2]
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


def test_nobody_sees_half_a_file_and_two_calls_at_a_time_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path = measured(Lake(tmp_path, None, None))  # type: ignore[arg-type]
    strange = 'a"b\\c\nd'
    notify(settings, outcome(targets=("maintain",), domain=strange))
    assert samples(path)[CODE] == {("um", "maintain", strange): 0}
    before = path.open()
    mask = os.umask(0o077)
    try:
        calls = [
            threading.Thread(target=notify, args=(settings, outcome(1, targets=("stream",), domain=f"d{number}")))
            for number in range(8)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    finally:
        os.umask(mask)
    assert len(samples(path)[CODE]) == 9
    assert before.read().count(CODE + "{") == 1, "who read it then has it as it was"
    monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)
    old = path.read_text()
    assert notify(settings, outcome(5)) == ["metrics: ZeroDivisionError"]
    assert path.read_text() == old and [*path.parent.iterdir()] == [path]


def test_a_folder_that_is_missing_is_a_warning_and_a_name_that_nobody_collects_a_mistake(cli: Cli) -> None:
    name, path = "LAKEHOUSE_METRICS__TEXTFILE", cli.folder / "metrics/lakehouse.prom"
    done = cli("silver", env={name: str(path)})
    assert done.returncode == 4 and done.stderr.splitlines()[1:] == [
        f"warning: metrics file {path}: No such file or directory"
    ]
    path.parent.mkdir()
    assert cli("silver", env={name: str(path)}).stderr.count("\n") == 1
    assert samples(path)[CODE] == {("lakehouse", "run", "all"): 4}
    for wrong in ("lakehouse.prom", "/var/lib/lakehouse.txt"):
        done = cli("silver", env={name: wrong})
        assert done.returncode == 2 and f"{name} must be an absolute path that ends in .prom" in done.stderr
    settings = cli("bronze", env={name: str(path), "LAKEHOUSE_FULL_DAYS": "0", "DOMAIN": "varejo"})
    assert settings.returncode == 2 and samples(path)[CODE]["lakehouse", "run", "varejo"] == 2
    assert cli("status", "export", env={name: str(path)}).returncode == 4
    assert len(samples(path)[CODE]) == 2, "calls that a person looks at are not counted"
