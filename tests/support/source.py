"""PostgreSQL as a source: databases of a test's own, statements, and the rows that several tests begin with."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from conf.settings import Postgres
from pipelines.sources.postgres.connection import dsn
from tests.support.lake import Lake


@contextmanager
def fresh_database(server: Postgres, template: str = "template1") -> Iterator[Postgres]:
    """A database of its own, empty or the copy of another one."""
    name = f"teste_{uuid.uuid4().hex[:8]}"
    with connected(server) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.model_copy(update={"database": name})
    with connected(server) as admin:
        admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


class connected:
    """A connection in autocommit for a `with` block."""

    def __init__(self, address: Postgres) -> None:
        self.address = address

    def __enter__(self) -> Connection:
        self.connection = psycopg2.connect(dsn(self.address))
        self.connection.autocommit = True
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def execute(address: Postgres, *statements: str) -> None:
    with connected(address) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def query(address: Postgres, sql: str) -> list[tuple[Any, ...]]:
    with connected(address) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


ACCOUNTS, EACH = 40, Decimal("100.00")


# Each account has a card and one movement, its balance; a transfer takes from one and gives to another.
BANK = (
    "CREATE TABLE associado (id int PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id int PRIMARY KEY, tipo text, data_criacao timestamp, id_associado int)",
    "CREATE TABLE cartao (id int PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta int, id_associado int)",
    "CREATE TABLE movimento (id serial PRIMARY KEY, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp, id_cartao int)",
    f"""INSERT INTO associado SELECT i, 'n', 's', 30, 'a@b' FROM generate_series(1, {ACCOUNTS}) i;
    INSERT INTO conta SELECT i, 'corrente', '2024-01-01', i FROM generate_series(1, {ACCOUNTS}) i;
    INSERT INTO cartao SELECT i, '4111111111111111', 'N', '2024-01-01', i, i FROM generate_series(1, {ACCOUNTS}) i;
    INSERT INTO movimento (vlr_transacao, des_transacao, data_movimento, id_cartao)
    SELECT {EACH}, 'abertura', '2024-01-01', i FROM generate_series(1, {ACCOUNTS}) i""",
)


# Tables without a constraint, as an old source has them.
TABLES = (
    "CREATE TABLE associado (id bigint, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id bigint, tipo text, data_criacao timestamp, id_associado bigint)",
    "CREATE TABLE cartao (id bigint, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta bigint, id_associado bigint)",
    "CREATE TABLE movimento (id bigint, vlr_transacao numeric, des_transacao text, data_movimento timestamp, id_cartao bigint)",
)


NASTY = (
    r"""INSERT INTO associado VALUES
    (1, E' José \t Carlos\u00a0', 'd''Ávila', 40, 'JOSE@x.org'), (2, '', '   ', NULL, NULL), (3, 'McDonald "o 3º"', E'Quebra\nLinha', 0, ''),
    (4, 'Sem', 'Conta', 22, 'x'), (-5, 'Négative; Id', '😀', 140, 'a@b'), (6, 'NULL', 'null', 1, '\N')""",
    """INSERT INTO conta VALUES (1, 'corrente', '2018-11-04 00:30:00', 1), (2, NULL, NULL, 3), (3, '  ', '0001-01-01', -5),
    (4, 'outra, coisa', '9999-12-31 23:59:59.999999', 1)""",
    """INSERT INTO cartao VALUES (1, '0000 1234-5678 9012', 'JOSE C', '2018-11-04 00:30:00.5', 1, 1), (2, '4111111111111111', '', NULL, 2, 1),
    (3, NULL, NULL, '2020-02-29', 3, -5), (4, '123', '"QUOTED"', '2020-01-01', 4, 3), (5, 'não é número', 'x', NULL, 1, 6)""",
    r"""INSERT INTO movimento VALUES
    (1, 10.00, 'a,b', '2018-11-04 00:30:00', 1), (2, -0.05, 'diz "oi"', '2018-11-04 00:00:00.000001', 1),
    (3, 0, E'linha 1\nlinha 2', '2024-02-29 12:00', 2), (4, 99999999.99, 'a;b', '0001-01-01', 3), (5, -99999999.99, '😀 çãé', '9999-12-31', 4),
    (6, 0.10, '', '2024-01-01', 5), (7, 1, NULL, '2024-01-01', 5), (8, 1.5, E' \t pontas \u3000', '2024-01-01', 1), (9, 1, E'cr\rcr\r\n.', '2024-01-01', 1),
    (10, 2, '#=1+1', '2024-01-01', 1), (11, 3, E'\\barra\\', '2024-01-01', 1), (12, 4, '"', '2024-01-01', 1), (-1, 5, 'negative id', '2024-01-01', 1),
    (9007199254740993, 6, 'large id', '2024-01-01', 1), (13, 7, 'NULL', '2024-01-01', 1), (14, 8, ',', '2024-01-01', 2)""",
)


# Of these rows, what no log may hold: people, an address, a card's number in full and masked.
PERSONAL = ("José", "Ávila", "jose@x.org", "McDonald", "4111111111111111", "*1111")


def fill(lakehouse: Lake, *more: str) -> None:
    execute(lakehouse.address, *TABLES, *NASTY, *more)


KEYED = (
    "CREATE TABLE associado (id bigint PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id bigint PRIMARY KEY, tipo text, data_criacao timestamp, id_associado bigint REFERENCES associado)",
    """CREATE TABLE cartao (id bigint PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp,
    id_conta bigint REFERENCES conta, id_associado bigint REFERENCES associado)""",
    """CREATE TABLE movimento (id bigint PRIMARY KEY, vlr_transacao numeric(10,2), des_transacao text,
    data_movimento timestamp, id_cartao bigint REFERENCES cartao)""",
    "INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(1, 20) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, 20) i",
    "INSERT INTO cartao SELECT i, '4111111111111111', 'ANA', '2020-01-01', i, i FROM generate_series(1, 20) i",
    "INSERT INTO movimento SELECT i, 1.25, 'x', '2024-01-01', i % 20 + 1 FROM generate_series(1, 200) i",
)


DROPS = (
    "ALTER TABLE movimento DROP CONSTRAINT movimento_pkey, DROP CONSTRAINT movimento_id_cartao_fkey",
    "ALTER TABLE conta DROP CONSTRAINT conta_id_associado_fkey",
)


# The source as the statement's ER diagram draws it, types as loose as they come, no constraint.
LOOSE = (
    "CREATE TABLE associado (id int, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id int, tipo text, data_criacao timestamp, id_associado int)",
    "CREATE TABLE cartao (id int, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta int, id_associado int)",
    "CREATE TABLE movimento (id int, vlr_transacao numeric, des_transacao text, data_movimento timestamp, id_cartao int)",
)
