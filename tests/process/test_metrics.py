"""The file of metrics: after success, failure, another domain, a micro-batch; read by Prometheus's own parser."""

from tests.support.metrics import CODE, samples
from tests.support.process import Cli


def test_a_folder_that_is_missing_is_a_warning_and_a_name_that_nobody_collects_a_mistake(cli: Cli) -> None:
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
    settings = cli("bronze", env={name: str(path), "LAKEHOUSE_FULL_DAYS": "0", "DOMAIN": "varejo"})
    assert settings.returncode == 2 and samples(path)[CODE]["lakehouse", "run", "varejo"] == 2
    assert cli("status", "export", env={name: str(path)}).returncode == 4
    assert len(samples(path)[CODE]) == 2, "calls that a person looks at are not counted"
