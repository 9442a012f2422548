"""`make seed` on a PostgreSQL: it creates what the contracts say, and touches nothing else."""

import pytest

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.seed.postgres import seed
from tests.support.lake import Lake
from tests.support.source import execute, query

TABLES = catalogue.tables_of("bronze", "cartoes")


def test_the_seed_creates_what_the_contracts_say_and_again_changes_nothing(lakehouse: Lake) -> None:
    settings, address = lakehouse.settings(SEED__MOVIMENTOS="500"), lakehouse.address
    with Report() as report:
        seed(settings, address, TABLES, False, report)
        before = query(address, "SELECT xmin::text, * FROM movimento ORDER BY id")
        seed(settings, address, TABLES, False, report)
    assert len(before) == 500 and query(address, "SELECT xmin::text, * FROM movimento ORDER BY id") == before
    keys = "SELECT contype::text, count(*) FROM pg_constraint WHERE conrelid::regclass::text = ANY(%s) GROUP BY 1"
    counts = dict(query(address, keys.replace("%s", "ARRAY['associado','conta','cartao','movimento']")))
    assert (counts["p"], counts["f"]) == (4, 4)
    labels = query(address, "SELECT enumlabel::text FROM pg_enum ORDER BY enumsortorder")
    assert [label for (label,) in labels] == list(TABLES[1]["tipo"].labels)
    assert query(address, "SELECT col_description('cartao'::regclass, 2)") == [("Card number, 13 to 19 digits",)]


def test_another_size_replaces_fake_tables_in_the_embedded_server_only(lakehouse: Lake) -> None:
    with Report() as report:
        seed(lakehouse.settings(SEED__MOVIMENTOS="100"), lakehouse.address, TABLES, False, report)
        other = lakehouse.settings(SEED__MOVIMENTOS="200")
        with pytest.raises(SourceFault, match="fake tables of another size"):
            seed(other, lakehouse.address, TABLES, False, report)
        assert query(lakehouse.address, "SELECT count(*) FROM movimento") == [(100,)]
        seed(other, lakehouse.address, TABLES, True, report)
    assert query(lakehouse.address, "SELECT count(*) FROM movimento") == [(200,)]


@pytest.mark.parametrize("embedded", [True, False])
def test_the_seed_never_touches_tables_that_it_did_not_create(lakehouse: Lake, embedded: bool) -> None:
    address: Postgres = lakehouse.address
    execute(address, "CREATE TABLE conta (id int)", "INSERT INTO conta VALUES (7)")
    with Report() as report, pytest.raises(SourceFault, match="conta was not made by `make seed`"):
        seed(lakehouse.settings(), address, TABLES, embedded, report)
    assert query(address, "SELECT * FROM conta") == [(7,)]
    assert query(address, "SELECT count(*) FROM pg_class WHERE relname = 'movimento'") == [(0,)]
