"""Gold's join in small heaps, on both sides of what a broadcast needs."""

import json

import pytest

from conf.settings import Postgres
from tests.support.process import Cli, connection_settings
from tests.support.source import KEYED, execute

# In 512 MB Spark runs out of memory if it broadcasts them.
CARDS = 400_000
MANY = (
    *KEYED[:4],
    f"""INSERT INTO associado SELECT i, 'Maria Eduarda ' || i, 'Nascimento Araújo', 30, 'maria.' || i || '@example.com'
    FROM generate_series(1, {CARDS}) i""",
    f"INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, {CARDS}) i",
    f"""INSERT INTO cartao SELECT i, '4111111111111111', 'MARIA E N ARAUJO ' || i, '2020-01-01', i, i
    FROM generate_series(1, {CARDS}) i""",
    f"""INSERT INTO movimento SELECT i, 1.25, 'Compra ' || i % 999, '2024-01-01', i::bigint * 7919 % {CARDS} + 1
    FROM generate_series(1, 200000) i""",
)


@pytest.mark.long
def test_cards_are_broadcast_where_the_heap_has_room_and_else_joined_all_the_same(cli: Cli, database: Postgres) -> None:
    execute(database, *MANY)
    environment = connection_settings(database) | {"LAKEHOUSE_LOG": "debug", "LAKEHOUSE_SPARK__CONF": json.dumps({})}
    made = list[bytes]()
    for heap, joined, layers in (
        ("512m", "without", ("bronze", "silver", "gold")),
        ("1536m", "with", ("gold", "--full")),
    ):
        result = cli(*layers, env=environment | {"LAKEHOUSE_SPARK__DRIVER_MEMORY": heap})
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"gold.movimento_flat: joined {joined} a broadcast: it needs " in result.stderr
        assert "OutOfMemoryError" not in result.stderr
        made.append((cli.folder / "export/movimento_flat.csv").read_bytes())
    assert made[0] == made[1] and made[0].count(b"\n") == 200_001
