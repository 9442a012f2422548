"""What a server says in an error may be a row: it is recognized, and leaves the process in our own words only."""

import itertools
import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import connection_settings
from tests.support.source import TABLES, execute
from tests.support.webhook import listening

PERSON = "João de Sá, joao@exemplo.org, 4111111111111111"
TRACES = re.compile("jo[ãa]o|sá|exemplo|411111|d[eé]bito", re.IGNORECASE)

# Each value of `movimento` goes through a function that fails as `falha` says, with a person in its error.
RAISES = f"""CREATE TABLE falha (state text, at int);
CREATE FUNCTION public.falhar(i bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE f record; BEGIN
  SELECT * INTO f FROM public.falha;
  IF i >= f.at THEN
    IF f.state = '22012' THEN i := i / 0;
    ELSIF f.state = '22P02' THEN i := ('{PERSON}')::bigint;
    ELSE RAISE EXCEPTION '{PERSON}' USING ERRCODE = f.state, DETAIL = '{PERSON}', HINT = '{PERSON}'; END IF;
  END IF; RETURN i; END $$"""
VIEW = """DROP VIEW IF EXISTS movimento; CREATE VIEW movimento AS
SELECT {0} AS id, {1}::numeric(10,2) AS vlr_transacao, 'débito' AS des_transacao, timestamp '2024-01-01' AS data_movimento,
1::bigint AS id_cartao FROM generate_series(1, 6000) i"""
COUNTED, STREAMED = VIEW.format("i", "public.falhar(i)"), VIEW.format("public.falhar(i)", "1")
STATES = {
    "P0001": "a function there raised an error (SQLSTATE P0001, raise_exception)",
    "22P02": "the server cannot make sense of a value in it (SQLSTATE 22P02, invalid_text_representation)",
    "22012": "the server cannot make sense of a value in it (SQLSTATE 22012, division_by_zero)",
    "23505": "shows its text without values (SQLSTATE 23505, unique_violation)",
    "XX000": "shows its text without values (SQLSTATE XX000, internal_error)",
    "57014": "canceled the query (SQLSTATE 57014, query_canceled)",
    "42501": "lacks a right: GRANT USAGE on the schema, SELECT on its tables, CREATE for `make seed` (SQLSTATE 42501,",
    "40001": "in conflict with other work there (SQLSTATE 40001, serialization_failure)",
    "JOAO4": "shows its text without values (SQLSTATE JOAO4, not one of PostgreSQL's)",
}


@pytest.fixture
def call(cli_here: CliHere, lakehouse: Lake) -> Iterator[Callable[..., str]]:
    """Calls the command line and gives all that left the process: output, alerts, metrics, records."""
    execute(lakehouse.address, *TABLES, "DROP TABLE movimento", RAISES, STREAMED)
    metrics = cli_here.folder / "lake.prom"
    with listening() as hook:
        given = connection_settings(lakehouse.address) | hook.env | {"LAKEHOUSE_METRICS__TEXTFILE": str(metrics)}

        def called(*words: str, code: int = 3, **more: str) -> str:
            named = {f"LAKEHOUSE_{name}": value for name, value in more.items()}
            result = cli_here(*words, env=given | {"LAKEHOUSE_RETRY_SECONDS": "0"} | named)
            assert result.returncode == code, result.stderr
            kept = [file.read_bytes().decode("latin-1") for file in cli_here.folder.rglob("_*/*.parquet")]
            numbers = metrics.read_text() if metrics.exists() else ""
            return "\n".join([result.stdout, result.stderr, numbers, str(hook.bodies), *kept])

        yield called


def test_no_error_of_a_query_has_a_value_in_any_output(call: Callable[..., str], lakehouse: Lake) -> None:
    """While the server counts, before the first row, and in the middle of a stream."""
    places = itertools.cycle([(COUNTED, 1), (STREAMED, 1), (COUNTED, 5000), (STREAMED, 5000)])
    forms = itertools.cycle(["text", "json", "debug"])
    for (state, words), (view, at), form in zip(STATES.items(), places, forms, strict=False):
        execute(lakehouse.address, view, f"DELETE FROM falha; INSERT INTO falha VALUES ('{state}', {at})")
        output = call("bronze", LOG="debug") if form == "debug" else call("bronze", LOG_FORMAT=form)
        assert words in output and "movimento" in output and (form != "debug" or "Traceback" in output), output
        assert not TRACES.search(output.replace("JOAO4", "")), output


def test_no_error_of_a_look_at_the_source_has_a_value_in_any_output(call: Callable[..., str], lakehouse: Lake) -> None:
    call("bronze", code=0)
    execute(lakehouse.address, "INSERT INTO falha VALUES ('40001', 5000)")
    assert "SQLSTATE 40001" in (output := call("plan", "reconcile")) and not TRACES.search(output)
    retried = call("bronze", RETRY_SECONDS="3")
    assert "serialization_failure); trying again in" in retried and not TRACES.search(retried)


def test_no_error_while_connecting_or_seeding_has_a_value_in_any_output(
    call: Callable[..., str], lakehouse: Lake
) -> None:
    body = f"LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{PERSON}' USING ERRCODE = '22023'; END $$"
    execute(lakehouse.address, f"CREATE FUNCTION public.dizer() RETURNS event_trigger {body}")
    execute(lakehouse.address, "CREATE EVENT TRIGGER criar ON ddl_command_end EXECUTE FUNCTION public.dizer()")
    seeded = call("seed", "--confirm", lakehouse.address.database, POSTGRES__SCHEMA="outro")
    assert "SQLSTATE 22023, invalid_parameter_value" in seeded and not TRACES.search(seeded)
    execute(lakehouse.address, "DROP EVENT TRIGGER criar")
    execute(lakehouse.address, "CREATE EVENT TRIGGER entrar ON login EXECUTE FUNCTION public.dizer()")
    for words, code in (("bronze", 3), ("doctor", 2), ("bronze", 3)):
        output = call(words, code=code, LOG="debug" if words == "bronze" else "quiet")
        assert "the server reports an error; LAKEHOUSE_LOG=debug" in output and not TRACES.search(output), output
