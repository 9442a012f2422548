"""Views whose functions find things by search_path are refused by name; all others are read."""

import re

import pytest

from conf.settings import Postgres
from pipelines.core.errors import ContractFault
from pipelines.sources.postgres.search_path import by_search_path
from pipelines.sources.postgres.snapshot import take_snapshot
from tests.support.lake import Lake
from tests.support.source import LOOSE, execute, query

THINGS = (
    "CREATE SCHEMA outro",
    'CREATE SCHEMA "Três"',
    "CREATE TABLE juros (tipo text, pct numeric)",
    "CREATE TABLE cidade (nome text, uf text)",
    'CREATE TABLE outro."Com espaço" (pct numeric)',
    "CREATE TYPE st AS ENUM ('a')",
    "CREATE DOMAIN outro.codigo AS text",
    "CREATE FUNCTION dobro(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT $1 * 2'",
    "CREATE FUNCTION round(float8, int) RETURNS float8 LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION direto(text) RETURNS numeric LANGUAGE sql AS 'SELECT pct FROM juros WHERE tipo = $1'",
    """CREATE FUNCTION "Três".calado(text) RETURNS numeric LANGUAGE plpgsql AS
    'BEGIN RETURN (SELECT pct FROM juros WHERE tipo = $1); EXCEPTION WHEN undefined_table THEN RETURN 0; END'""",
    "CREATE FUNCTION soma(numeric, text) RETURNS numeric LANGUAGE sql AS 'SELECT $1 + pct FROM juros WHERE tipo = $2'",
    "CREATE AGGREGATE total(text) (SFUNC = soma, STYPE = numeric, INITCOND = '0')",
    "CREATE FUNCTION e_igual(st, text) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM juros WHERE tipo = $2)'",
    "CREATE OPERATOR === (LEFTARG = st, RIGHTARG = text, FUNCTION = e_igual)",
    "CREATE FUNCTION st_texto(st) RETURNS text LANGUAGE sql AS 'SELECT tipo FROM public.cidade, juros LIMIT 1'",
    "CREATE CAST (st AS text) WITH FUNCTION st_texto(st)",
    "CREATE FUNCTION existe(text) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM juros WHERE tipo = $1)'",
    # A text in which case does not count, as citext.
    "CREATE TYPE solto",
    "CREATE FUNCTION solto_in(cstring) RETURNS solto LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
    "CREATE FUNCTION solto_out(solto) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
    "CREATE TYPE solto (INPUT = solto_in, OUTPUT = solto_out, LIKE = text)",
    "CREATE CAST (solto AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE FUNCTION iguais(solto, solto) RETURNS bool LANGUAGE sql AS 'SELECT lower($1::text) = lower($2::text)'",
    "CREATE OPERATOR = (LEFTARG = solto, RIGHTARG = solto, FUNCTION = iguais)",
    "CREATE FUNCTION e_ana(solto) RETURNS bool LANGUAGE sql AS $$SELECT $1 = 'ana'$$",
    "CREATE FUNCTION tem_ana(solto[]) RETURNS bool LANGUAGE sql AS $$SELECT 'ana' IN ($1[1])$$",
    "CREATE FUNCTION tamanho(solto) RETURNS int LANGUAGE sql AS $$SELECT length($1)$$",
    "CREATE TABLE pessoa (email solto)",
    "CREATE FUNCTION replace(solto, text, text) RETURNS text LANGUAGE sql AS 'SELECT $1::text'",
    "CREATE FUNCTION date_trunc(text, date) RETURNS date LANGUAGE sql AS 'SELECT $2'",
    "CREATE DOMAIN checado AS text CHECK (existe(VALUE))",
    "CREATE VIEW outro.esquema AS SELECT current_schema AS a",
    "CREATE VIEW outro.meio AS SELECT direto('x') AS pct",
    # What is in no schema of the role's own path.
    "CREATE SCHEMA alheio",
    "CREATE TABLE alheio.juros (tipo text, pct numeric)",
    "CREATE TABLE alheio.item (a int)",
    "CREATE FUNCTION alheio.saldo(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION alheio.to_char(date, text) RETURNS text LANGUAGE sql AS 'SELECT $2'",
)
# The text of a function f(text), and what it finds by search_path.
TEXTS = {
    "SELECT $1": "",
    "SELECT upper($1) || round(1.5, 1) || (now())::text": "",
    "SELECT max(pct)::text FROM public.juros WHERE tipo = $1": "",
    'SELECT max(pct)::text FROM public . "juros" juros WHERE juros.tipo = $1': "",
    "SELECT max(pct)::text FROM outro.\"Com espaço\" -- FROM juros": "",
    "SELECT /* FROM juros */ extract(year FROM juros)::text FROM (VALUES (now())) v(juros)": "",
    "SELECT nome FROM public.cidade WHERE cidade.uf = $1 AND nome IS DISTINCT FROM cidade.uf": "",
    "WITH juros AS (SELECT 1 AS cidade) SELECT cidade::text FROM juros": "",
    "WITH juros (a) AS MATERIALIZED (SELECT 1) SELECT a::text FROM juros": "",
    "SELECT tipo FROM public.cidade c JOIN public.juros USING (nome, cidade)": "",
    "SELECT public.dobro(1)::text": "",
    "SELECT dobro.a::text FROM unnest('{1}'::int[]) AS dobro(a)": "",
    "SELECT set_config('search_path', 'public', true); SELECT pct::text FROM juros": "",
    "SELECT 'juros from juros''s join juros'": "",
    "SELECT string_agg(x, ' from juros ') || E'\\' from juros' FROM unnest(ARRAY[$1]) u(x)": "",
    "SELECT max(a)::text FROM item": "",
    "SELECT saldo(1)::text": "",
    "WITH dobro (a) AS (SELECT 1) SELECT a::text FROM dobro": "",
    "SELECT a::text FROM unnest('{1}'::int[]) dobro(a)": "",
    "SELECT a::text FROM unnest('{1}'::int[]) AS\n dobro(a)": "",
    "SELECT dobro.a FROM public.cidade dobro(a, b)": "",
    "SELECT trim(substring(lower($1) from juros)) FROM (VALUES (1)) v(juros)": "",
    "SELECT nome FROM public.cidade WHERE nome IN ('ana') AND uf = replace($1, 'a', 'b')": "",
    "SELECT max(email::text) FROM public.pessoa": "",
    "SELECT pg_catalog.date_trunc('day', now())::text || to_char(current_date, 'YYYY')": "",
    "SELECT email::text FROM public.pessoa WHERE email = 'ana'": "operators",
    "SELECT email::text FROM public.pessoa WHERE email IN ('ana')": "operators",
    "SELECT CASE $1::public.solto WHEN 'ana' THEN 'a' END": "operators",
    "SELECT replace(email, 'a', 'b') FROM public.pessoa": "replace",
    "SELECT date_trunc('day', current_date)::text": "date_trunc",
    "SELECT current_schema": "current_schema",
    "SELECT 'ok' WHERE 'public' = ANY (current_schemas(false))": "current_schema",
    "SELECT pct::text FROM juros": "juros",
    "SELECT pct::text FROM ONLY\n  JUROS j": "juros",
    "SELECT pct::text FROM public.cidade AS c, juros": "juros",
    "SELECT pct::text FROM public.cidade c LEFT JOIN juros ON true": "juros",
    "SELECT pct::text FROM \"Com espaço\"": "Com espaço",
    "SELECT '--' || pct FROM juros": "juros",
    "SELECT pct::text FROM juros, \"Com espaço\"": "Com espaço, juros",
    "SELECT trim(both from tipo) FROM juros": "juros",
    "SELECT a::text FROM LATERAL dobro(1) dobro(a)": "dobro",
    "EXECUTE 'SELECT pct FROM juros'": "juros",
    "SELECT query_to_xml('SELECT pct FROM juros', true, true, '')::text": "juros",
    "SELECT dobro (1)::text": "dobro",
    "SELECT $1::st::text": "st",
    "SELECT CAST($1 AS codigo)": "codigo",
    "SELECT ('juros'::regclass)::text": "juros",
    "SELECT to_regclass('juros')::text": "juros",
    "SELECT public.direto($1)::text": "juros",
    "SELECT pct::text FROM outro.meio": "juros",
    'SELECT "Três".calado($1)::text': "juros",
}  # fmt: skip
# The same of a view's column.
EXPRESSIONS = {
    "upper('x')": "",
    "dobro(2)": "",
    "current_schema()": "current_schema",
    "e_ana('Ana')": "operators",
    "tamanho('Ana')": "",
    "tem_ana('{Ana}')": "operators",
    "(SELECT a FROM outro.esquema)": "current_schema",
    "total(tipo) OVER ()": "juros",
    "'a'::st === tipo": "juros",
    "'a'::st::text": "juros",
    "tipo::checado": "juros",
    "(SELECT pct FROM outro.meio)": "juros",
    '"Três".calado(tipo)': "juros",
}


def test_what_a_view_finds_by_search_path_is_known(database: Postgres) -> None:
    execute(database, *THINGS, "SET check_function_bodies = off")
    # The role has a path of its own, in its order; another role's counts for nothing.
    execute(
        database,
        f"ALTER DATABASE {database.database} SET search_path = alheio",
        f'ALTER ROLE CURRENT_USER IN DATABASE {database.database} SET search_path = "$user", public, outro, nenhum',
    )
    views = dict[str, str]()
    statements = ["SET check_function_bodies = off", "CREATE TABLE t (tipo text)"]
    for number, (text, expected) in enumerate(TEXTS.items()):
        statements += [
            f"CREATE FUNCTION f{number}(text) RETURNS text LANGUAGE sql AS $${text}$$",
            f"CREATE VIEW v{number} AS SELECT f{number}(tipo) FROM t",
        ]
        views[f"v{number}"] = expected
    for number, (expression, expected) in enumerate(EXPRESSIONS.items()):
        statements.append(f"CREATE VIEW e{number} AS SELECT {expression} FROM t")
        views[f"e{number}"] = expected
    statements += [
        "CREATE VIEW com_corpo AS SELECT 1 AS a",
        "CREATE FUNCTION corpo() RETURNS numeric LANGUAGE sql BEGIN ATOMIC SELECT max(pct) FROM juros; END",
        "CREATE VIEW corpo_lido AS SELECT corpo()",
        "CREATE FUNCTION corpo_fundo() RETURNS numeric LANGUAGE sql BEGIN ATOMIC SELECT direto('x'); END",
        "CREATE VIEW corpo_fundo_lido AS SELECT corpo_fundo()",
        "CREATE MATERIALIZED VIEW guardado AS SELECT direto('x') WITH NO DATA",
        "CREATE VIEW guardado_lido AS SELECT * FROM guardado",
    ]
    views |= {"corpo_lido": "", "corpo_fundo_lido": "juros", "guardado_lido": ""}
    execute(database, "; ".join(statements))
    with take_snapshot(database, "public", []) as snapshot:
        oids = dict(query(database, "SELECT relname, oid::int FROM pg_class WHERE relkind = 'v'"))
        for view, expected in views.items():
            result = list(by_search_path(snapshot, oids[view]))
            assert {thing for _, thing, _ in result} == {*filter(None, [expected])}, (view, result)
            if expected == "Com espaço, juros":
                assert [path for *_, path in result] == ['"pg_catalog", "public", "outro"']


def test_a_view_is_refused_with_the_mend_that_lets_it_be_read(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.bronze.readers.LOCAL_READERS", 1)
    execute(
        lakehouse.address,
        *LOOSE,
        *THINGS,
        "INSERT INTO juros VALUES ('corrente', 1.5)",
        "INSERT INTO conta (id, tipo) VALUES (1, 'corrente')",
        "ALTER TABLE conta RENAME TO contas",
        'CREATE VIEW conta AS SELECT *, "Três".calado(tipo) AS juros, ARRAY[$$2024-01-01Z$$::timestamptz] AS dias FROM contas',
    )
    with pytest.raises(ContractFault) as caught:
        lakehouse.run("bronze")
    mend = re.search(
        r'view public.conta: "Três".calado\(text\) finds juros by search_path, which is only pg_catalog '
        "here; (.*)",
        str(caught.value),
    )
    assert mend is not None
    execute(lakehouse.address, mend[1])
    lakehouse.run("bronze")
    assert [row["juros"] for row in lakehouse.table("bronze", "conta")] == ["1.5"]
    # A function that sets something while it is called does not shift what is read after it.
    execute(
        lakehouse.address,
        "INSERT INTO associado (id) VALUES (1)",
        "ALTER TABLE associado RENAME TO antigo",
        "CREATE VIEW associado AS SELECT *, set_config('TimeZone', 'Asia/Kathmandu', false) AS zona FROM antigo",
    )
    lakehouse.run("bronze")
    assert lakehouse.table("bronze", "associado")[0]["zona"] == "Asia/Kathmandu"
    assert lakehouse.table("bronze", "conta")[0]["dias"] == '{"2024-01-01 00:00:00+00"}'
