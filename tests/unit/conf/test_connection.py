"""Connection strings as providers give them: each parameter of libpq arrives there, or is refused by name."""

import ctypes
import re
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from conf.settings import Postgres, SettingsError, load
from pipelines.core.errors import BusyFault, SourceFault, TransientFault
from pipelines.core.identity import NAME
from pipelines.run.call import read_sources
from pipelines.sources.postgres import connection as postgres_connection
from pipelines.sources.postgres import transaction
from pipelines.sources.postgres.connection import LIBPQ_VARIABLES, dsn, source_fault

# Values that a provider may give; of other parameters any will do.
GIVEN = {
    "sslmode": "verify-full",
    "sslrootcert": "/roots.pem",
    "connect_timeout": "60",
    "hostaddr": "192.0.2.7",
    "client_encoding": "utf8",
    "options": "endpoint=ep-a b=c",
    "port": "6432",
    "gssencmode": "disable",
}
REFUSED = {"service", "replication"}
ADDRESS = {"host", "user", "dbname", "password"}
DATABASE = "postgresql://leitor@db1/coop"


class Option(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "variable", "compiled", "value", "label", "shown")]
    _fields_ += [("size", ctypes.c_int)]


def libpqs() -> dict[str, str]:
    """The keywords of the libpq that psycopg2 has, with their variables."""
    assert psycopg2.__libpq_version__
    (path,) = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libpq" in line}
    defaults = ctypes.CDLL(path).PQconndefaults
    defaults.restype = ctypes.POINTER(Option)
    options, keywords = defaults(), dict[str, str]()
    while options[len(keywords)].keyword:
        option = options[len(keywords)]
        keywords[option.keyword.decode()] = (option.variable or b"").decode()
    return keywords


def loaded(tmp_path: Path, **given: str) -> Postgres:
    postgres = load(given, base=tmp_path)[0].postgres
    assert postgres is not None
    return postgres


def problems(tmp_path: Path, **given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(given, base=tmp_path)
    return caught.value.problems


def arrived(server: Postgres) -> dict[str, str]:
    return dict(parse_dsn(dsn(server)))


@pytest.mark.parametrize("way", ["url", "parameters", "variable"])
def test_every_keyword_of_libpq_arrives_or_is_refused_by_name(tmp_path: Path, way: str) -> None:
    known = libpqs()
    assert len(known) > 40
    for keyword, variable in known.items():
        value = GIVEN.get(keyword, "/x" if keyword in ("passfile", "sslcert") else "1")
        query = f"{keyword}={quote(value)}"
        if way == "url":
            given, name = {"DATABASE_URL": f"{DATABASE}?{query}"}, f"the {keyword} in DATABASE_URL"
        elif way == "parameters":
            given, name = {"LAKEHOUSE_POSTGRES__PARAMETERS": query}, f"the {keyword} in LAKEHOUSE_POSTGRES__PARAMETERS"
            if keyword in ADDRESS | {"port"}:
                continue
        else:
            given, name = {variable: value}, variable
            if not variable or variable == "PGCLIENTENCODING":  # which cannot change what arrives
                continue
            if keyword in ADDRESS | {"port", "hostaddr", "service"}:
                given |= {"PGHOST": "db1", "PGUSER": "leitor", "PGDATABASE": "coop", variable: value}
        named = {name.split("__")[0] for name in given} & {"DATABASE_URL"} or "PGHOST" in given
        given = given if named else {"DATABASE_URL": DATABASE} | given
        if keyword in REFUSED:
            assert [text for text in problems(tmp_path, **given) if text.startswith(f"{name} ")], keyword
            continue
        sent = arrived(loaded(tmp_path, **given))
        wanted = {"client_encoding": "UTF8"}.get(keyword, value)
        assert re.match("1 [0-9]+ ", sent[keyword]) if keyword == "application_name" else sent[keyword] == wanted, (
            keyword
        )
        assert variable in LIBPQ_VARIABLES or not variable


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("pgbouncer=true", "a parameter that is not supported: pgbouncer; libpq 17 does not know it, leave it out"),
        ("ssl_mode=require", "not supported: ssl_mode; did you mean sslmode?"),
        ("sslMode=require&connection_limit=5", "not supported: sslMode; did you mean sslmode?"),
        ("ssl=require", "not supported: ssl; write sslmode=require"),
        ("schema=vendas", "not supported: schema; set LAKEHOUSE_POSTGRES__SCHEMA"),
        ("sslmode=verify_full", "the sslmode in DATABASE_URL must be 'disable', "),
        ("service=prod", "the service in DATABASE_URL is not supported: runs read no service file"),
        ("options=-csearch_path%3Dvendas", "the options in DATABASE_URL must not set search_path: set LAKEHOUSE_"),
        ("connect_timeout=soon", "the connect_timeout in DATABASE_URL must be a number of seconds"),
        ("client_encoding=latin1", "the client_encoding in DATABASE_URL must be UTF8"),
        ("gssencmode=require", "the gssencmode in DATABASE_URL must not be require"),
        ("sslrootcert=system&sslmode=require", "the sslmode in DATABASE_URL must be verify-full, because the sslroot"),
        ("hostaddr=192.0.2.1,192.0.2.2", "the hostaddr in DATABASE_URL must have as many addresses as there are hosts"),
        ("oauth_issuer=x", "not supported: oauth_issuer; libpq 17 does not know it"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_its_mend(tmp_path: Path, query: str, problem: str) -> None:
    texts = problems(tmp_path, DATABASE_URL=f"{DATABASE}?{query}")
    assert any(problem in text for text in texts), texts


def test_a_password_with_a_question_mark_does_not_show_when_the_url_is_wrong(tmp_path: Path) -> None:
    texts = problems(tmp_path, DATABASE_URL="postgresql://u:p/w?s3cret=x@h/d")
    assert "is not a PostgreSQL URL" in texts[0] and "s3cret" not in str(texts)


@pytest.mark.parametrize(
    "given",
    [
        {"DATABASE_URL": "postgresql://h/db?user=u&password=segre&s3cret"},
        {"DATABASE_URL": "postgresql://u:x@h/db?sslpassword=segre&s3cret=1"},
        {"DATABASE_URL": "postgresql://h/db?user=u&pwd=segre&s3cret"},
        {"DATABASE_URL": "postgresql://u:pa?s3cret=wd1&sslmode=require"},
        {"DATABASE_URL": "postgresql://u:p@ss?s3cret=do"},
        {"DATABASE_URL": "postgresql://u:se?s3cret=do:5432"},
        {"DATABASE_URL": DATABASE, "LAKEHOUSE_POSTGRES__PARAMETERS": "sslpassword=segre&s3cret"},
        {"DATABASE_URL": DATABASE, "LAKEHOUSE_POSTGRES__PARAMETERS": "?passwd=segre&s3cret=x"},
    ],
)
def test_a_piece_of_a_password_is_not_named_as_a_parameter(tmp_path: Path, given: dict[str, str]) -> None:
    texts = problems(tmp_path, **given)
    assert len(texts) == 1 and "s3cret" not in texts[0] and "libpq's" in texts[0]


def test_beside_a_password_words_of_other_drivers_are_still_named(tmp_path: Path) -> None:
    texts = problems(tmp_path, DATABASE_URL="postgresql://h:5432/db?user=u&password=s3cret&ssl_mode=require&schema=x")
    assert [text.partition(": ")[2] for text in texts] == [
        "schema; set LAKEHOUSE_POSTGRES__SCHEMA",
        "ssl_mode; did you mean sslmode?",
    ]


def test_libpqs_variables_that_would_be_refused_do_not_count_beside_another_family(tmp_path: Path) -> None:
    theirs = {"PGGSSENCMODE": "require", "PGCONNECT_TIMEOUT": "soon", "PGSERVICE": "prod"}
    sent = arrived(loaded(tmp_path, DATABASE_URL=DATABASE, PGSSLCERT="/a", **theirs))
    assert sent["sslcert"] == "/a" and not sent.keys() & {"gssencmode", "service"}
    own = {"PGHOST": "h", "PGUSER": "u", "PGDATABASE": "d", **theirs}
    assert len(problems(tmp_path, **own)) == len(theirs)


def test_a_search_path_for_all_programs_is_not_refused(tmp_path: Path) -> None:
    own = {"PGHOST": "h", "PGUSER": "u", "PGDATABASE": "d", "PGPORT": " 6432 "}
    for given in ({"DATABASE_URL": DATABASE}, own):
        sent = arrived(loaded(tmp_path, PGOPTIONS="-c search_path=app -c geqo=off", **given))
        assert "geqo=off" in sent["options"] and sent["port"] == ("6432" if given is own else "5432")


@pytest.mark.parametrize("digits", ["12345678901", "9" * 30, "-1"])
def test_a_time_to_connect_that_libpq_cannot_count_is_refused(tmp_path: Path, digits: str) -> None:
    texts = problems(tmp_path, DATABASE_URL=f"{DATABASE}?connect_timeout={digits}")
    assert "must be a number of seconds" in texts[0]


def test_a_long_time_to_connect_is_a_time_that_can_be_waited(tmp_path: Path) -> None:
    server = loaded(tmp_path, DATABASE_URL=f"{DATABASE}?connect_timeout=999999999")
    assert 10**6 < int(arrived(server)["connect_timeout"]) * 1000 < 2**31


def test_what_a_family_says_counts_more_than_libpqs_variables_and_the_settings_of_their_own_most(
    tmp_path: Path,
) -> None:
    around = {"PGSSLMODE": "prefer", "PGSSLCERT": "/a", "PGSSLKEY": "/k", "PGHOST": "other", "PGHOSTADDR": "192.0.2.9"}
    url = f"{DATABASE}?sslmode=require&sslcert=/b"
    own = {"LAKEHOUSE_POSTGRES__PARAMETERS": "?sslcert=/c&sslpassword=s3cret"}
    sent = arrived(loaded(tmp_path, DATABASE_URL=url, **around))
    assert (sent["sslmode"], sent["sslcert"], sent["sslkey"], sent["host"]) == ("require", "/b", "/k", "db1")
    assert "hostaddr" not in sent
    server = loaded(tmp_path, DATABASE_URL=url, LAKEHOUSE_POSTGRES__SSLMODE="verify-ca", **around, **own)
    sent = arrived(server)
    assert (sent["sslmode"], sent["sslcert"], sent["sslpassword"]) == ("verify-ca", "/c", "s3cret")
    assert "s3cret" not in f"{server!r}{server}{server.model_dump_json()}"


def test_a_demand_for_tls_in_libpqs_old_words_counts(tmp_path: Path) -> None:
    assert loaded(tmp_path, DATABASE_URL=DATABASE, PGREQUIRESSL="1").sslmode == "require"
    assert loaded(tmp_path, DATABASE_URL=f"{DATABASE}?sslmode=disable", PGREQUIRESSL="1").sslmode == "disable"
    assert loaded(tmp_path, DATABASE_URL=DATABASE, PGREQUIRESSL="0").sslmode is None


def test_a_service_alone_is_not_taken_for_no_settings(tmp_path: Path) -> None:
    assert "PGSERVICE is not supported" in str(problems(tmp_path, PGSERVICE="prod"))


def test_an_address_that_the_settings_have_of_their_own_is_not_a_parameter(tmp_path: Path) -> None:
    texts = problems(tmp_path, DATABASE_URL=DATABASE, LAKEHOUSE_POSTGRES__PARAMETERS="host=db2")
    assert texts == ["LAKEHOUSE_POSTGRES__PARAMETERS names the host: set LAKEHOUSE_POSTGRES__HOST"]


def test_a_parameter_with_a_password_is_not_set_on_a_command_line() -> None:
    for pair in ("LAKEHOUSE_POSTGRES__PARAMETERS=sslpassword=s3cret", "PGOPTIONS=-c app.token=s3cret"):
        with pytest.raises(SettingsError, match="anybody can read a command line") as caught:
            read_sources([pair])
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("hosts", "address"),
    [
        ("db2:5433,db1", "db1:5432,db2:5433/coop"),
        ("db1:5432,db2:5433", "db1:5432,db2:5433/coop"),
        ("db2,db1", "db1:5432,db2:5432/coop"),
        ("db1", "db1:5432/coop"),
        ("%2Frun%2Fpg", "/run/pg:5432/coop"),
    ],
)
def test_several_hosts_have_one_address_in_any_order(tmp_path: Path, hosts: str, address: str) -> None:
    server = loaded(tmp_path, DATABASE_URL=f"postgresql://leitor@{hosts}/coop")
    assert server.address == address
    assert {(each.host, each.port) for each in server.servers} == {
        (host, int(port)) for host, _, port in (each.rpartition(":") for each in address.split("/coop")[0].split(","))
    }


def test_each_of_several_hosts_has_its_own_address(tmp_path: Path) -> None:
    query = "hostaddr=192.0.2.1,192.0.2.2&channel_binding=require"
    server = loaded(tmp_path, DATABASE_URL=f"postgresql://leitor@db1,db2:6/coop?{query}")
    assert [arrived(each)["hostaddr"] for each in server.servers] == ["192.0.2.1", "192.0.2.2"]
    assert [arrived(each)["port"] for each in server.servers] == ["5432", "6"]
    assert {arrived(each)["channel_binding"] for each in server.servers} == {"require"}
    texts = problems(tmp_path, DATABASE_URL="postgresql://leitor@db1/coop?port=1,2")
    assert texts == ["the port in DATABASE_URL must be one number, or as many as there are hosts"]


def test_our_options_are_added_to_the_users(tmp_path: Path) -> None:
    server = loaded(tmp_path, DATABASE_URL=f"{DATABASE}?options=endpoint%3Dep-1")
    assert parse_dsn(dsn(server, options="-c jit=off"))["options"] == "endpoint=ep-1 -c jit=off"
    assert parse_dsn(dsn(loaded(tmp_path, DATABASE_URL=DATABASE)))["options"] == ""


def test_the_systems_authorities_are_a_file_that_both_drivers_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "roots.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    sent = arrived(loaded(tmp_path, DATABASE_URL=f"{DATABASE}?sslrootcert=system"))
    assert (sent["sslrootcert"], sent["sslmode"]) == (str(tmp_path / "roots.pem"), "verify-full")


def test_our_sessions_have_the_users_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    server = loaded(tmp_path, DATABASE_URL=f"{DATABASE}?application_name=relat%C3%B3rio")
    assert arrived(server)["application_name"].startswith("relat?rio ")  # as the server shows it


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('invalid channel_binding value: "s3cret"', "libpq does not accept the value of channel_binding"),
        ('invalid integer value "s3cret" for connection option "keepalives"', "not accept the value of keepalives"),
        ('private key file "/s3cret" has group or world access', "files of sslcert and sslkey"),
        ("channel binding required, but server did not offer an authentication method", "channel_binding=prefer"),
        ('authentication method requirement "md5" failed: server requested SCRAM', "require_auth does not allow"),
        ('weak sslmode "prefer" may not be used with sslnegotiation=direct', "SSLMODE=verify-full"),
        ("connection to server failed: session is read-only", "what target_session_attrs asks for"),
        ("SSL error: tlsv1 alert protocol version\nunsupported protocol", "does not speak the TLS"),
        ('FATAL:  unrecognized configuration parameter "s3cret"', "what `options` sets"),
        ('FATAL:  parameter "geqo" requires a Boolean value', "what `options` sets"),
        ('FATAL:  invalid value for parameter "lc_messages": "s3cret"', "what `options` sets"),
        ("FATAL:  invalid command-line argument for server process: s3cret", "what `options` sets"),
        ("FATAL:  -c s3cret requires a value", "what `options` sets"),
        ('FATAL:  permission denied to set role "s3cret"', "what `options` sets"),
        ('FATAL:  role "s3cret" does not exist', 'role "u" does not exist, or the role that `options` sets'),
    ],
)
def test_what_libpq_says_of_a_parameter_is_named(text: str, says: str) -> None:
    fault = source_fault("x", psycopg2.OperationalError(text), Postgres(host="h", database="d", user="u"))
    assert says in str(fault) and "s3cret" not in str(fault)
    assert postgres_connection.UNKNOWN not in str(fault)


CLOSED = "\nserver closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"


@pytest.mark.parametrize("state", ["", "08P01"])
@pytest.mark.parametrize(
    ("text", "says", "kind"),
    [
        ("no more connections allowed (max_client_conn)", "too many connections", BusyFault),
        ("client connections exceeded (max_db_client_connections)", "too many connections", BusyFault),
        ("Max client connections reached", "too many connections", BusyFault),
        (f"query_wait_timeout{CLOSED}", "the pooler has no connection to the server", TransientFault),
        ("client_login_timeout (server down)", "the pooler has no connection to the server", TransientFault),
        ("server login has been failing, try again later (server_login_retry)", "has no connection", TransientFault),
        ("server login has been failing, cached error: connect failed (x)", "has no connection", TransientFault),
        ("pooler is shutting down", "the pooler has no connection to the server", TransientFault),
        (
            f"idle transaction timeout{CLOSED}",
            "the pooler ends what lasts: set its idle transaction timeout",
            SourceFault,
        ),
        (f"query timeout{CLOSED}", "the pooler ends what lasts: set its query timeout", SourceFault),
        (f"transaction blocks not allowed in statement pooling mode{CLOSED}", "pool_mode = transaction", SourceFault),
        ('database "d" is disabled', 'has disabled database "d"', SourceFault),
        ("no such database: d", 'database "d" does not exist', SourceFault),
        ('"trust" authentication failed', 'authentication failed for "u"', SourceFault),
        ("SASL authentication failed", 'authentication failed for "u"', SourceFault),
        ("server login has been failing, cached error: password authentication failed", "password auth", SourceFault),
        ("unsupported startup parameter: options", "ignore_startup_parameters = options", SourceFault),
        ("unsupported startup parameter in options: geqo", "ignore_startup_parameters = options", SourceFault),
        ("unsupported options startup parameter: only '-c config=val' and", "ignore_startup_parameters", SourceFault),
        ("SSL required", "SSLMODE=require", SourceFault),
    ],
)
def test_what_a_pooler_says_is_named_and_known_to_pass_or_not(
    text: str, says: str, kind: type[SourceFault], state: str
) -> None:
    error = OSError(f"FATAL:  {text}\n")
    error.__dict__["pgcode"] = state or None
    fault = source_fault("x", error, Postgres(host="h", database="d", user="u"))
    assert says in str(fault) and type(fault) is kind


def test_a_message_of_the_server_itself_is_not_taken_for_a_poolers() -> None:
    error = OSError(f"FATAL:  terminating connection due to idle-in-transaction timeout{CLOSED}")
    fault = source_fault("x", error, Postgres(host="h", database="d", user="u"))
    assert isinstance(fault, TransientFault) and "pooler" not in str(fault)


def test_queries_are_cancelled_where_the_server_tracks_no_activity() -> None:
    assert "'disabled'" in postgres_connection.CANCEL


def test_what_is_not_there_is_not_blamed_on_a_function_alone() -> None:
    error = OSError('relation "s3cret" does not exist')
    error.__dict__["pgcode"] = "42P01"
    text = str(source_fault("x", error, Postgres(host="h", database="d", user="u")))
    assert "something that it names is not there; a function there may find it by search_path only" in text


def test_what_keeps_rows_from_being_read_safely_is_mended_wherever_it_was_set() -> None:
    def execute(sql: str) -> list[tuple[str, ...]]:
        return [tuple((transaction.PROVED | {"zero_damaged_pages": "on"}).values())] if "SELECT" in sql else []

    with pytest.raises(SourceFault, match="ALTER ROLE .* ALTER DATABASE .*ALTER SYSTEM RESET zero_damaged_pages"):
        transaction.pin(execute)
