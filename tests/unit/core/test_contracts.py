"""What the author of a table's file reads about a mistake: the file, the column or word, the nearest name; exit code 2."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bronze
import gold
import silver
from pipelines.core import catalogue
from pipelines.core.errors import UsageFault

BRONZE = '''"""Bills as the source has them. One row per bill."""
from bronze.cartoes import conta
from conf.contract import Column, Csv, Files, Reference, Table
TABLE = Table(__name__, __doc__, columns=(
    Column("id", "bigint", "Bill id", key=True),
    Column("valor", "decimal(10,2)", "Amount"),
    Column("id_conta", "bigint", "Account", reference=Reference(conta.TABLE)),
))
'''
SILVER = '''"""Bills. One row per bill."""
from bronze.agua import fatura
from conf.contract import Column, Reference, Table, warn
from silver.cartoes import conta
TABLE = Table(__name__, __doc__, inputs=(fatura.TABLE,), order=("-id",), columns=(
    Column("id", "bigint", "Bill id", key=True),
    Column("valor", "decimal(10,2)", "Amount", rules=(warn("valor > 0"),)),
    Column("id_conta", "bigint", "Account", reference=Reference(conta.TABLE, ("tipo",))),
))
def transform(fatura):
    return fatura
'''
GOLD = '''"""Bills. One row per bill."""
from conf.contract import Column, Table, Total
from silver.agua import fatura
TABLE = Table(__name__, __doc__, inputs=(fatura.TABLE,), one_row_per=fatura.TABLE, columns=(
    Column("id_fatura", "bigint", "Bill id", key=True, source="id"),
    Column("valor", "decimal(10,2)", "Amount", total=Total(fatura.TABLE, "valor")),
))
def transform(fatura):
    return fatura
'''
FILES = {"bronze/agua/fatura.py": BRONZE, "silver/agua/fatura.py": SILVER, "gold/agua/fatura_flat.py": GOLD}

# layer: (what is written, what is written instead, what is read).
MISTAKES = {
    "bronze": [
        ('"bigint", "Bill', '"bigit", "Bill', "fatura.py: column id: there is no type bigit; there are .*mean bigint?"),
        ('"decimal(10,2)"', '"decimal(2,10)"', "fatura.py: column valor: there is no type decimal(2,10)"),
        (", key=True", "", "fatura.py: no column is its key: say key=True"),
        ('"valor", "d', '"ID", "d', "fatura.py: column id is there twice"),
        ("key=True", "keey=True", "fatura.py, line 5: .* argument 'keey'; did you mean key?"),
        ("columns=(", "colums=(", "fatura.py, line 4: .* argument 'colums'; did you mean columns?"),
        (
            "Column, Csv",
            "Colum, Csv",
            "fatura.py, line 3: .*cannot import name 'Colum' from 'conf.contract'; .*mean Column?",
        ),
        ("cartoes import conta", "cartoes import contaa", "fatura.py, line 2: .* 'contaa' .*; did you mean conta?"),
        ("from bronze.cartoes ", "from bronze.cartao ", "fatura.py, line 2: .*No module named 'bronze.cartao'"),
        ("conta.TABLE", "contas.TABLE", "fatura.py, line 7: .* 'contas' is not defined; did you mean conta?"),
        (
            "TABLE = Table(",
            "TABEL = Table(",
            "fatura.py: it declares no table; write TABLE = Table(__name__, __doc__, …)",
        ),
        ("__name__", "'bronze.agua.conta'", "fatura.py: it declares no table"),
        ("))\n", ")\n", "fatura.py, line 4: .*SyntaxError: '(' was never closed"),
        (
            "))\n",
            "), files=Files('f*.csv', Csv(decimal_comma=('valo',))))\n",
            "decimal_comma=: fatura has no column valo; .*valor?",
        ),
        (
            "))\n",
            "), files=Files('f*.csv', Csv(encoding='utf9')))\n",
            "fatura.py, line 8: .*LookupError: unknown encoding: utf9",
        ),
    ],
    "silver": [
        ('"valor", "d', '"valr", "d', "fatura.py: column valr: no input has a column valr; did you mean valor?"),
        ("key=True", 'key=True, source="idd"', "fatura.py: column id: no input has a column idd; did you mean id?"),
        (
            '("tipo",)',
            '("tippo",)',
            "fatura.py: the reference of id_conta: conta has no column tippo; did you mean tipo?",
        ),
        (
            '    Column("id_conta',
            '    Column("outra", "bigint", "x", source="id", reference=Reference(conta.TABLE)),\n    Column("id_conta',
            "fatura.py: two columns refer to conta: rules would not tell them apart",
        ),
        ('("-id",)', '("-idd",)', "fatura.py: order=: fatura has no column idd; did you mean id?"),
        ("inputs=(fatura.TABLE,), ", "", "fatura.py: it has no inputs=: name tables of bronze"),
        ("inputs=(fatura", "inputs=(conta", "fatura.py: inputs= has silver.cartoes.conta: name tables of bronze"),
        ("def transform(", "def tranform(", "fatura.py: it has no function transform(fatura)"),
        (
            "def transform(fatura)",
            "def transform(bills)",
            "fatura.py: its transform takes bills: it must take .*fatura",
        ),
        (
            "from bronze.agua import fatura",
            "from bronze.cartoes import conta as fatura",
            "it must take its inputs, conta",
        ),
        ("warn(", "wran(", "fatura.py, line 7: .* 'wran' is not defined; did you mean warn?"),
    ],
    "gold": [
        ('source="id"', 'source="id_fatura"', "fatura_flat.py: column id_fatura: no input has a column id_fatura"),
        ('TABLE, "valor"', 'TABLE, "valro"', "the total of valor: fatura has no column valro; did you mean valor?"),
        (
            "one_row_per=fatura.TABLE",
            "one_row_per=fatura.conta.TABLE",
            "one_row_per=conta is not one of its inputs, fatura",
        ),
        ("fatura.TABLE,)", 'fatura.TABLE,), order=(fatura.TABLE["valro"].name,)', "line 4: .*has no column 'valro'"),
    ],
}
CASES = [(layer, *case) for layer, cases in MISTAKES.items() for case in cases]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Loads a layer that has one more domain, with a change in its file there."""
    for layer in (bronze, silver, gold):
        monkeypatch.setattr(layer, "__path__", [*layer.__path__, str(tmp_path / layer.__name__)])
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).with_name("__init__.py").touch()
        (tmp_path / file).write_text(text)

    def loaded(layer: str, old: str = "", new: str = "") -> None:
        (path,) = (tmp_path / file for file in FILES if file.startswith(layer))
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        catalogue.entries.__wrapped__(layer)

    yield loaded
    for layer in (bronze, silver, gold):
        for name in [name for name in sys.modules if name.startswith(f"{layer.__name__}.agua")]:
            del sys.modules[name]
        vars(layer).pop("agua", None)


@pytest.mark.parametrize("layer", MISTAKES)
def test_without_a_mistake_a_domain_is_loaded(load: Callable[..., None], layer: str) -> None:
    load(layer)


@pytest.mark.parametrize(("layer", "old", "new", "message"), CASES, ids=[case[2] or case[1] for case in CASES])
def test_a_mistake_is_named_with_its_file_and_the_nearest_name(
    layer: str, old: str, new: str, message: str, load: Callable[..., None]
) -> None:
    with pytest.raises(UsageFault) as caught:
        load(layer, old, new)
    text, *parts = str(caught.value), *message.split(".*")
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), text
    assert f"{layer}/agua/" in text and "\n" not in text


def test_two_tables_of_a_name_are_refused(load: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "silver/agua/conta.py").write_text(SILVER)
    with pytest.raises(UsageFault, match="silver/cartoes/conta.py: silver/agua/conta.py has that name in silver, too"):
        load("silver")
