"""Files of the condominium domain for tests, and what a lake has made of them."""

import random
from collections.abc import Iterator
from datetime import date
from typing import Any

import duckdb

from pipelines.core import catalogue
from pipelines.core.names import HISTORY
from pipelines.lake.versions import table_version
from tests.support.lake import Lake

PARENTS = {
    "condominios.csv": "nome,endereco\nPalmeiras,Rua das Palmeiras, 123, Centro\nFlores,Avenida das Flores\n",
    "moradores.csv": "nome,condominio_id,data_registro\nAna,1,2024-01-01\nAna,2,2024-02-01\n",
    "imoveis.csv": "tipo,condominio_id,valor\nCasa,1,100.00\nDuplex,2,200.50\n",
}
SALES = "imovel_id,morador_id,data_transacao,valor_transacao\n"
NAMES = ("condominios", "moradores", "imoveis", "transacoes")


def drop_all(lakehouse: Lake, *sales: str) -> None:
    for at, (name, text) in enumerate(PARENTS.items()):
        lakehouse.drop(name, text, at)
    lakehouse.drop("transacoes.csv", SALES + "".join(f"{line}\n" for line in sales), 10)


def everything(lakehouse: Lake, *layers: str) -> dict[str, list[dict[str, Any]]]:
    """All that layers, silver and gold by default, hold, except histories and the numbers of runs."""
    kept, settings = {}, lakehouse.settings()
    for layer in layers or ("silver", "gold"):
        run = lakehouse.last(layer)
        for table_run in run.tables:
            if table_run.name.endswith(HISTORY):
                continue
            table = catalogue.table_of(layer, run.domain, table_run.name)
            assert table is not None
            rows = duckdb.sql(f"FROM {table_version(settings.layer_path(layer), run, table, table_run.name).sql}")
            names = rows.columns
            dicts = (dict(zip(names, values, strict=True)) for values in rows.fetchall())
            kept[table_run.name] = sorted(({k: v for k, v in row.items() if k != "_batch"} for row in dicts), key=str)
    return kept


def some_files(dice: random.Random, number: int) -> Iterator[tuple[str, str]]:
    """Files of all four tables that refer to each other, forwards too, with lines that are no rows."""
    for index in range(number):
        kind = dice.choice(NAMES)
        lines = []
        for _ in range(dice.randint(0, 4)):
            small, other = dice.randint(1, number), dice.randint(1, number)
            day = date(2024, 1, dice.randint(1, 9))
            lines.append(
                {
                    "condominios": f"C{small},Rua {other}, {small}",
                    "moradores": f"{dice.choice(['Ana', 'Bia'])},{small // 3},{day}",
                    "imoveis": f"{dice.choice(['Casa', '', 'Iglu'])},{small // 3},{other}.50",
                    "transacoes": f"{small // 2},{other // 2},{day},{dice.randint(1, 3)}.{small:02d}",
                }[kind]
                if dice.random() < 0.9
                else dice.choice(['"', "x", "1,2,3,4,5", ""])
            )
        header = {**PARENTS, "transacoes.csv": SALES}[f"{kind}.csv"].partition("\n")[0]
        yield f"{kind}_{dice.randint(0, 99):02d}{index}.csv", "\n".join([header, *lines]) + dice.choice(["", "\n"])
