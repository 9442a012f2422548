"""A run costs what changed, and gives what a full load would give."""

from pipelines import records
from tests.conftest import Lake, execute
from tests.pipelines.test_run import agree
from tests.pipelines.test_silver import KEYED


def how(lakehouse: Lake, layer: str = "bronze") -> dict[str, str]:
    run = records.last_run(lakehouse.settings().layer_path(layer), "cartoes")
    assert run is not None
    return {table.name: table.how for table in run.tables}


def test_try(lakehouse: Lake) -> None:
    execute(lakehouse.address, *KEYED)
    lakehouse.run()
    agree(lakehouse)
    lakehouse.run()
    for layer in ("bronze", "silver", "gold"):
        print(how(lakehouse, layer))
    execute(lakehouse.address, "UPDATE associado SET nome = 'Novo' WHERE id = 3", "DELETE FROM movimento WHERE id = 7", "INSERT INTO movimento VALUES (1000, 5, 'x', '2024-01-01', 3)")
    lakehouse.run("bronze")
    execute(lakehouse.address, "UPDATE associado SET nome = 'Mais Novo' WHERE id in (3,4)")
    lakehouse.run()
    for layer in ("bronze", "silver", "gold"):
        print(how(lakehouse, layer))
    agree(lakehouse)
    for r in lakehouse.table("silver", "associado__history"):
        if r["id_associado"] in (3,4,5): print(r)
    from pipelines.plan import plan
    from pipelines.report import Report
    with Report() as r: plan(lakehouse.settings(), frozenset(), r)
    execute(lakehouse.address, "UPDATE associado SET nome = 'Mais Novo' WHERE id in (3,5)","DELETE from movimento where id=1","alter table conta add x int default 5")
    with Report() as r: plan(lakehouse.settings(), frozenset(), r)
    lakehouse.run()
    agree(lakehouse)
