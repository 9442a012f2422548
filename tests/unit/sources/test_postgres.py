"""PostgreSQL's types, pages, errors and snapshots, without a server."""

import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from conf.settings import Postgres
from pipelines.bronze.readers import ranges
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault, TransientFault
from pipelines.lake.runs import Run
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.connection import SourceConnection, source_fault
from pipelines.sources.postgres.reader import Reader
from pipelines.sources.postgres.snapshot import Relation, Snapshot, SourceColumn
from pipelines.sources.postgres.types import read_as

SERVER = Postgres(host="server", database="d", user="x")


def test_a_reader_that_was_stopped_does_not_wait_for_a_server_in_its_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Postgres(host="127.0.0.1", port=silent.getsockname()[1], database="d", user="u")
        reader = Reader(address, "00000003-1", 1, Report(quiet=True))
        reader.stop()
        with pytest.raises(SourceFault, match="the run stops"):
            reader._connection()
        reader.close()


@pytest.mark.parametrize("readers", [2, 16])
@pytest.mark.parametrize("size", [0, 1, 8192, 9 * 2**20, 70 * 2**20, 500 * 2**20])
def test_ranges_cover_every_page_once(size: int, readers: int) -> None:
    relation = Relation(1, "s", "t", (), size, size // 8192)
    conditions = ranges(relation, readers)
    for page in {0, 1, relation.pages // 2, relation.pages, relation.pages + 5}:
        assert sum(inside(condition, page) for condition in conditions) == 1


@pytest.mark.parametrize(
    ("source", "target", "reads"),
    [
        (("int4",), "bigint", True),
        (("int8",), "integer", True),
        (("numeric",), "decimal(10,2)", True),
        (("int8",), "decimal(10,2)", True),
        (("numeric",), "bigint", True),
        (("enum",), "string", True),
        (("uuid",), "string", True),
        (("date",), "timestamp_ntz", True),
        (("float8",), "decimal(10,2)", False),
        (("float8",), "string", False),
        (("text",), "bigint", False),
        (("text",), "timestamp_ntz", False),
        (("timestamptz",), "timestamp_ntz", False),
        (("timestamp",), "date", False),
        (("bool",), "integer", False),
    ],
)
def test_conversions_stay_within_a_family(source: tuple[str], target: str, reads: bool) -> None:
    assert (read_as(SourceColumn("x", source[0], None, None, True), target) is not None) == reads


def test_a_name_with_quotes_is_quoted_not_pasted() -> None:
    reading = read_as(SourceColumn('a"; DROP TABLE x; --', "timestamp", None, None, True), "timestamp_ntz")
    assert reading is not None and reading.expression == '"a""; DROP TABLE x; --"'


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('FATAL:  password authentication failed for user "x"', False),
        ("FATAL:  autenticação do tipo senha falhou para usuário", False),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "x", database "y", SSL off', False),
        ('FATAL:  database "x" does not exist', False),
        ("fe_sendauth: no password supplied", False),
        ('could not translate host name "x" to address: Name or service not known', False),
        ('could not translate host name "x" to address: Temporary failure in name resolution', True),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  o sistema de banco de dados está iniciando", True),
        ("FATAL:  the database system is in recovery mode", True),
        ("FATAL:  sorry, too many clients already", True),
        ("FATAL:  desculpe, muitos clientes conectados", True),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("SSL SYSCALL error: EOF detected", True),
        ("SSL error: certificate verify failed", False),
        ("server closed the connection unexpectedly", True),
        (
            "[libpq] Execution error [PGRES_FATAL_ERROR]: ERROR:  canceling statement due to conflict with recovery",
            True,
        ),
    ],
)
def test_transient_errors_are_distinguished_from_permanent_ones(text: str, passes: bool) -> None:
    assert isinstance(source_fault("x", OSError(text), SERVER), TransientFault) == passes


def test_of_several_addresses_the_answer_of_a_server_counts() -> None:
    text = """connection to server at "::1", port 5432 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?
connection to server at "127.0.0.1", port 5432 failed: FATAL:  password authentication failed for user "x"
"""
    fault = source_fault("x", OSError(text), SERVER)
    assert not isinstance(fault, TransientFault) and "password authentication failed" in str(fault)


@pytest.mark.parametrize(
    ("was", "now", "back"),
    [
        ("10:10:", "10:10:", ""),
        ("10:20:10,12", "12:25:12,21", ""),
        ("10:20:10,12", "11:20:11", "older"),  # 11 was done before, and is running
        ("10:20:10", "10:19:10", "older"),
        ("10:20:10", f"10:{10 + 2**31}:10", "too many"),
        ("4294967290:4294967300:", "4294967300:4294967300:", ""),
    ],
)
def test_a_snapshot_that_may_miss_what_the_last_one_saw_is_detected(was: str, now: str, back: str) -> None:
    now_, run = datetime.now(UTC), None
    run = Run(1, "x", "d", None, "s", was, now_, now_, position="0/10")
    reason = fingerprint.went_back(run, moment(now))
    assert back in reason and bool(reason) == bool(back)
    assert "older" in fingerprint.went_back(run, moment(now, "0/F"))
    assert fingerprint.went_back(replace(run, position="1/0"), moment(was, "0/FFFFFFFF"))
    assert fingerprint.newer_than(was).endswith(f"'{int(was.split(':')[0]) % 2**32}'::xid))")


def inside(condition: str, page: int) -> bool:
    python = condition.replace("ctid", str(page)).replace("'(", "").replace(",0)'", "").replace("AND", "and")
    return bool(eval(python)) if python else True


def moment(xids: str, log_position: str = "0/10") -> Snapshot:
    server = Postgres(host="server", database="d", user="u")
    return Snapshot(server, "public", cast(SourceConnection, None), "", xids, log_position, log_position, True)
