"""Other users of this machine: who can connect to Spark's ports reads nothing, and what Spark spills is unreadable."""

import os
import pickle
import pwd
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

CARD = "4916025839471058"  # which no compression hides
RPC_REQUEST, RPC_RESPONSE, OPEN_BLOCKS = 3, 4, 0  # of Spark's transport protocol


def _text(value: str) -> bytes:
    return struct.pack(">I", len(value)) + value.encode()


def opened(port: int, application: str, blocks: list[str]) -> tuple[int, bytes]:
    """What a port answers when somebody without a secret asks for blocks, as an executor does: a kind and a body."""
    body = bytes([OPEN_BLOCKS]) + _text(application) + _text("driver") + struct.pack(">I", len(blocks))
    body += b"".join(map(_text, blocks))
    with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">QBQI", 21 + len(body), RPC_REQUEST, 1, len(body)) + body)
        length, kind = struct.unpack(">QB", answer.read(9))
        return kind, answer.read(length - 9)


def as_another_user(work: Callable[[], Any]) -> Any:
    """What a child process of `nobody` makes of something, or the error that it raises; where only root may be somebody
    else, a child of ours."""
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # the child only asks, then ends
        child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
            answer = work()
        except BaseException as error:
            answer = error
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = pickle.load(answers)
    os.waitpid(child, 0)
    return answer


def _spilled(spark: SparkSession) -> Iterator[Path]:
    return Path(spark.sparkContext.getConf().get("spark.local.dir", "")).rglob("shuffle_*.data")


@pytest.mark.jvm
def test_nobody_reads_blocks_without_the_secret_nor_card_numbers_in_sparks_files(spark: SparkSession) -> None:
    """Whoever they are: a port knows no users."""
    spark.sql(f"SELECT '{CARD}' AS card, id FROM range(100)").repartition(2, "id").groupBy("card").count().collect()
    files = [*_spilled(spark)]
    assert files and not any(CARD.encode() in file.read_bytes() for file in files)
    context = spark.sparkContext
    assert context._jsc is not None and context._gateway is not None
    manager = context._jsc.sc().env().blockManager().blockManagerId().port()
    driver = int(context.getConf().get("spark.driver.port", "") or context._jsc.sc().env().rpcEnv().address().port())
    for port in (manager, driver):
        blocks = [f"{file.stem.rpartition('_')[0]}_0" for file in files]
        kind, text = as_another_user(partial(opened, port, context.applicationId, blocks))
        assert kind != RPC_RESPONSE and b"Expected SaslMessage" in text
    if os.getuid() == 0:
        assert isinstance(as_another_user(files[0].read_bytes), PermissionError)
    jvm = psutil.Process(context._gateway.proc.pid)
    assert {end.laddr[0] for end in jvm.net_connections() if end.status == "LISTEN"} == {"::ffff:127.0.0.1"}
    secret = context._gateway.gateway_parameters.auth_token
    assert secret and not any(secret in word or "authenticate.secret" in word for word in jvm.cmdline())
