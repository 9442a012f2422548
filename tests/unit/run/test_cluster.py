"""What a run makes of the errors of a cluster."""

import pytest

from pipelines.spark import cluster as spark_cluster


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("failed 4 times: ExecutorLostFailure (executor 3 exited; Command exited with code 137)", "lost (code 137);"),
        ("FetchFailedException: java.io.IOException: Failed to connect to node3/10.0.0.3:40123", "lost; their"),
        ("java.io.FileNotFoundException: file:/data/lake/x.parquet", None),
    ],
)
def test_a_lost_executor_is_distinguished_from_a_missing_file(message: str, lost: str | None) -> None:
    fault = spark_cluster.executors_lost(message)
    assert fault is None if lost is None else lost in str(fault)
