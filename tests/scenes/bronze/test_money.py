"""Money has the decimal places that its database gives it: no role, and none of our settings, moves the point."""

import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines.core.errors import ContractFault
from pipelines.sources.postgres import embedded, snapshot
from tests.support.folders import server_home
from tests.support.lake import Lake
from tests.support.source import LOOSE, execute, fresh_database

AMOUNTS = (
    *LOOSE,
    "CREATE DOMAIN preco AS money",
    "ALTER TABLE conta ADD valor money, ADD preco preco",
    "INSERT INTO conta (id, valor, preco) VALUES (1, '123456', '-1')",
)
NESTED = {
    "lista": "money[]",
    "dominio": "preco[]",
    "par": "par",
    "pares": "par[]",
    "faixa": "faixa",
    "faixas": "faixas",
}
PARTS = (
    "CREATE TYPE par AS (a int, b preco)",
    "CREATE TYPE faixa AS RANGE (SUBTYPE = money, MULTIRANGE_TYPE_NAME = faixas)",
)


def amounts(lakehouse: Lake) -> tuple[object, ...]:
    lakehouse.run("bronze")
    (row,) = lakehouse.table("bronze", "conta")
    return row["valor"], row["preco"], row["_rescued"]


@pytest.mark.parametrize(("places", "factor"), [(0, 100), (3, Decimal("0.1")), (2, 1)])
def test_money_is_read_with_the_places_of_its_database(
    lakehouse: Lake, monkeypatch: pytest.MonkeyPatch, places: int, factor: Decimal
) -> None:
    execute(lakehouse.address, *AMOUNTS)  # with two places: what 64 bits hold is a hundred times as much
    monkeypatch.setattr(snapshot, "of_session", lambda *_: [(places,)])
    assert amounts(lakehouse) == (123456 * factor, -1 * factor, None)
    types = {column.name: column.type for column in lakehouse.last("bronze").table("conta").columns}
    assert types["valor"] == types["preco"] == f"decimal(19,{places})"


def test_money_inside_other_values_is_refused_where_its_text_would_have_other_places(
    lakehouse: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ", ".join(f"ADD {name} {kind}" for name, kind in NESTED.items())
    execute(lakehouse.address, *AMOUNTS, *PARTS, f"ALTER TABLE conta {columns}, ALTER tipo TYPE money USING NULL")
    lakehouse.run("bronze")
    monkeypatch.setattr(snapshot, "of_session", lambda *_: [(0,)])
    with pytest.raises(ContractFault) as caught:
        lakehouse.run("bronze")
    for name in (*NESTED, "tipo"):
        assert (
            f"column public.conta.{name} holds money, whose text would have 2 decimal places, not the 0 of the database's "
            "lc_monetary; make it numeric" in str(caught.value)
        )


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("localedef"), reason="makes locales")
def test_a_role_does_not_move_the_point_of_a_databases_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_home() as home:
        locales = home.with_name(f"{home.name}-locales")
        locales.mkdir(mode=0o755)
        for name in ("ja_JP", "ar_KW", "pt_BR"):
            subprocess.run(["localedef", "-i", name, "-f", "UTF-8", locales / f"{name}.UTF-8"], check=True)
        as_server = embedded._as_server()
        as_server["env"]["LOCPATH"] = str(locales)
        monkeypatch.setattr(embedded, "_as_server", lambda: as_server)
        with embedded.server(home) as server, fresh_database(server) as address:
            lakehouse = Lake(tmp_path, address, None)  # type: ignore[arg-type]
            execute(address, *AMOUNTS, "CREATE ROLE leitor LOGIN", "GRANT pg_read_all_data TO leitor")
            lakehouse.address = address.model_copy(update={"user": "leitor"})
            own_address = lakehouse.address
            lakehouse.address = own_address.with_keywords(options="-c lc_monetary=ja_JP.UTF-8")
            assert amounts(lakehouse) == (123456, -1, None)
            lakehouse.address = own_address
            of_database, of_role = (
                f"ALTER {thing} SET lc_monetary = " for thing in (f"DATABASE {address.database}", "ROLE leitor")
            )
            for of_role_name in ("C", "ja_JP.UTF-8", "pt_BR.UTF-8"):
                execute(address, f"{of_role}'{of_role_name}'")
                assert amounts(lakehouse) == (123456, -1, None)
            for name, factor in (("ja_JP", 100), ("ar_KW", Decimal("0.1")), ("pt_BR", 1)):
                execute(address, f"{of_database}'{name}.UTF-8'")
                assert amounts(lakehouse) == (123456 * factor, -1 * factor, None)
            execute(address, "ALTER ROLE leitor RESET lc_monetary", "REVOKE SELECT ON pg_db_role_setting FROM PUBLIC")
            execute(address, f"{of_database}'ja_JP.UTF-8'")
            assert amounts(lakehouse) == (12345600, -100, None)
        shutil.rmtree(locales)
