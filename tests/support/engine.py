"""The session that tests run on: a Spark Connect server in this process, without Java; or Spark's own, in a JVM.

Both do the same work of the same jobs; without Java a run over a few rows takes a fifth of the time. What asks the JVM
itself is marked `jvm`. With LAKEHOUSE_TEST_ENGINE=spark, as in `make test-long` and in one job of ci, all tests run on
Spark, which compiles and plans as in a user's run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

IS_SPARK = os.environ.get("LAKEHOUSE_TEST_ENGINE") == "spark"
REMOTE = "SPARK_CONNECT_MODE_ENABLED"  # PySpark's functions ask it at each call


def use(remote: bool) -> None:
    """Lets PySpark's functions make columns for the server, or for the JVM."""
    if remote:
        os.environ[REMOTE] = "1"
    else:
        os.environ.pop(REMOTE, None)


@contextmanager
def using(remote: bool) -> Iterator[None]:
    """The same while the context lasts."""
    earlier = REMOTE in os.environ
    use(remote)
    try:
        yield
    finally:
        use(earlier)


@contextmanager
def remote_session() -> Iterator[SparkSession]:
    """A session of a server that ends with the context."""
    # gRPC's way to survive a fork may kill the child; ours only execute another program. Both read it when imported.
    os.environ |= {"GRPC_ENABLE_FORK_SUPPORT": "false"}
    os.environ |= {"RUST_LOG": "off", "SAIL_EXECUTION__DEFAULT_PARALLELISM": "1"}
    from pysail.spark import SparkConnectServer
    from pyspark.sql.connect.session import SparkSession as RemoteSession

    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    host, port = server.listening_address
    spark = RemoteSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    spark.conf.set("spark.python.sql.dataFrameDebugging.enabled", "false")  # it looks for the line of each call
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    try:
        yield spark  # type: ignore[misc]
    finally:
        spark.stop()
        server.stop()
