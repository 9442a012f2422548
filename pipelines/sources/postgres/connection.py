"""Connections to PostgreSQL: any role reads the same bytes, no wait lasts for ever, and an error says if it may pass.

libpq speaks English here, but a server may speak Portuguese: its texts are known in both. What they say is only
recognized, never repeated: it may quote values of rows.
"""

import os
import random
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg2
from psycopg2 import errorcodes, extensions
from psycopg2.extensions import connection as Connection

from conf.connection import LIBPQ_NAMES
from conf.settings import Postgres
from pipelines.core.errors import BusyFault, SourceFault, TransientFault
from pipelines.core.identity import application_name
from pipelines.sources.postgres.transaction import GUARD, NOT_POSSIBLE, attempt, begin, options, state_of

Made = TypeVar("Made")

# libpq's own variables, which the settings have read.
LIBPQ_VARIABLES = {*LIBPQ_NAMES, "PGREQUIRESSL", "PGSERVICEFILE", "PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING"}

CONNECT_SECONDS = 10  # to connect

ANSWER_SECONDS = 3 * CONNECT_SECONDS  # to answer a question that takes no work

KEEPALIVES = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}

# SQLSTATE: connection, resources, locks and conflicts, server stopping or starting.
PASSING_STATES = re.compile("08|53|40|55P03|57P0")

# Our words for an error that has a SQLSTATE, by what SQLSTATE and text begin with; the first that matches counts.
OF_STATES = {
    "^42501.*(row-level security|segurança em nível)": "the row-level security policy would hide rows from role "
    '"{0.user}": ALTER ROLE "{0.user}" BYPASSRLS',
    # What everybody may use unless it was taken away.
    r"(?m)^42501[\s\S]* (pg_\w+|has_\w+_privilege|current_setting|version)$": 'role "{0.user}" may not use {1} of '
    "pg_catalog: GRANT it that",
    "^42501": 'role "{0.user}" lacks a right: GRANT USAGE on the schema, SELECT on its tables, CREATE for `make seed`',
    "^22": "the server cannot make sense of a value in it",
    "^42(P01|883|704)": "something that it names is not there; a function there may find it by search_path only: ALTER "
    "FUNCTION … SET search_path = …",
    "^P0": "a function there raised an error",
    "^(08|57P0)": "the connection was lost",
    "^40": "it is in conflict with other work there",
    "^53[12]00": "the server has no disk space or memory left",
    "^55P03": "lock timeout, another session has it locked",
    "^57014": "the server, or a person there, canceled the query",
}

UNKNOWN = "the server reports an error; LAKEHOUSE_LOG=debug shows its text without values"

# A pooler that knows no such settings of a session says this; it may give each transaction another session.
OPTIONS_REFUSED = "startup parameter:? (in )?options|options startup parameter|command-line options"

# The same for what libpq, a pooler, or a server that lets nobody in, says without a SQLSTATE: what stays so, then what
# may pass.
FINAL_TEXTS = {
    OPTIONS_REFUSED: "the pooler refuses `options`: leave them out, or set its ignore_startup_parameters = options",
    "transaction blocks not allowed": "the pooler keeps no transaction together: set its pool_mode = transaction",
    "FATAL: +(idle.transaction|transaction|query).timeout": "the pooler ends what lasts: set its {1} timeout to 0",
    "database .* is disabled": 'the pooler has disabled database "{0.database}": ENABLE it there',
    'FATAL:.*(parameter (name )?"|parâmetro|command-line arg|argumento de linha|requires a value|requer um valor'
    "|to set role)": "it does not accept what `options` sets (in the URL, LAKEHOUSE_POSTGRES__PARAMETERS or PGOPTIONS)",
    "password authentication failed|autenticação do tipo senha falhou": 'password authentication failed for "{0.user}"',
    "no password supplied": 'no password supplied for "{0.user}"',
    "pg_hba.conf": 'its pg_hba.conf does not let "{0.user}" in from here',
    'role ".*" (does not|não) exist': 'role "{0.user}" does not exist, or the role that `options` sets',
    '(database|banco de dados) ".*" (does not|não) exist|no such database': 'database "{0.database}" does not exist',
    "permission denied|permissão negada": 'GRANT CONNECT on database "{0.database}" to "{0.user}"',
    "could not (access file|load library)": "it lacks a file of session_preload_libraries or local_preload_libraries: "
    'ALTER ROLE "{0.user}" RESET it, or ALTER DATABASE, or leave it out of `options`',
    "does not support SSL": "server does not support SSL, but SSL was required",
    "certificate verify failed": "certificate verify failed",
    "does not match host name": 'server certificate does not match host name "{0.host}"',
    "root certificate file": "root certificate file of LAKEHOUSE_POSTGRES__SSLROOTCERT does not exist",
    'invalid (?:integer value .* for connection option "|)(\\w+)("| value)': "libpq does not accept the value of {1}",
    "private key|certificate present, but": "libpq cannot use the files of sslcert and sslkey: both must be there, the "
    "key for its owner alone (chmod 600)",
    "certificate": "TLS does not accept a certificate",
    "weak sslmode": "set LAKEHOUSE_POSTGRES__SSLMODE=verify-full, which another parameter needs",
    "channel binding": "the server has no channel binding: set channel_binding=prefer",
    "authentication method requirement": "the server wants an authentication that require_auth does not allow",
    "GSSAPI": 'the readers\' driver has no Kerberos, which it wants: let "{0.user}" in with another authentication',
    "(SSL|TLS) protocol version|unsupported protocol|ALPN|no application protocol": "it does not speak the TLS that "
    "ssl_min_protocol_version, ssl_max_protocol_version or sslnegotiation asks for",
    "service not known": 'the host name "{0.host}" is not known',
    "SSL required": "it wants TLS: set LAKEHOUSE_POSTGRES__SSLMODE=require",
    "authentication failed|autenticação .*falhou|login rejected|no such user": 'authentication failed for "{0.user}": '
    "the server must know it, and a pooler before it",
}
NO_CONNECTION_LEFT = {
    "connections for role|conexões para role": 'too many connections for role "{0.user}"',
    "too many|remaining connection slots|muit[oa]s (clientes|conexões)|lacunas de conexão|no more connections allowed"
    "|connections exceeded|[Mm]ax client": "too many connections",
}
PASSING_TEXTS = NO_CONNECTION_LEFT | {
    "is starting up|está iniciando": "the database system is starting up",
    "the database system is|sistema de banco de dados está": "the database system lets nobody in at the moment",
    "Connection refused": "Connection refused",
    "query_wait_timeout|client_login_timeout|server login|connect (failed|timeout)|cannot connect|server conn crashed|"
    "DNS lookup failed|shutting down|pause failed": "the pooler has no connection to the server at the moment",
    "timeout expired|[Tt]imed.out": "timeout expired, it does not answer",
    "session is (not )?read-only|in hot standby mode": "no server is what target_session_attrs asks for",
    "No route to host|Network is unreachable": "the network has no way to it",
    "Temporary failure in name resolution": 'the host name "{0.host}" cannot be looked up',
    "No such file or directory": "no such socket; is the server running?",
    "onnection reset|Broken pipe|server closed the connection|connection to server was lost|no connection to the server"
    "|EOF detected|could not (receive|send) data|SSL SYSCALL|SSL connection has been closed|unexpected eof"
    "|conflict with recovery|admin forced|terminating connection|terminando conexão": "the connection was lost",
}

FATAL = "FATAL: "  # said by the server that answered, when a host has several addresses

CONNECTING = 20  # psycopg2's status of a connection that is not made yet; it has no name for it


def dsn(server: Postgres, options: str = "") -> str:
    """The connection string, secrets in clear: for libpq only, never shown. `options` are added to the user's, and
    the last of a name counts."""
    theirs = server.keywords
    ours = {
        "application_name": application_name(server),
        "client_encoding": "UTF8",
        # poll() takes no more.
        "connect_timeout": str(min(int(theirs.get("connect_timeout", 0)) or CONNECT_SECONDS, 2**21)),
        "options": " ".join(filter(None, (theirs.get("options"), options))),
    }
    if theirs.get("sslrootcert") == "system":
        ours["sslrootcert"] = _authorities()
    return str(extensions.make_dsn(**KEEPALIVES | theirs | ours))


def _authorities() -> str:
    """The file of the authorities that this machine trusts; the drivers' OpenSSL looks for it where it was built."""
    import ssl

    usual = ("certs/ca-certificates.crt", "ca-bundle.pem", "cert.pem")
    places = (ssl.get_default_verify_paths().cafile, *(f"/etc/ssl/{name}" for name in usual))
    return next((str(place) for place in places if place and Path(place).is_file()), "system")


def opened(server: Postgres, make: Callable[[str], Made]) -> Made:
    """What a driver makes of a connection string that pins a session from its first moment; of one that does not, where
    a pooler refuses that."""
    try:
        return make(dsn(server, options()))
    except Exception as error:
        if not re.search(OPTIONS_REFUSED, str(error)):
            raise
    return make(dsn(server))


def forget_libpqs(but: str = "") -> None:
    """Removes libpq's own variables, except `but`, from this process's environment."""
    for name in LIBPQ_VARIABLES - {but}:
        os.environ.pop(name, None)


def source_fault(place: str, error: Exception, server: Postgres) -> SourceFault:
    """The fault for what a database driver raised, in our own words, with SQLSTATE and condition. A TransientFault if
    trying again may help."""
    state = state_of(error).replace("08P01", "")  # a pooler's for everything
    text, known = f"{state} {error}", OF_STATES
    if not state:
        text = next((line for line in reversed(text.splitlines()) if FATAL in line), text)
        known = FINAL_TEXTS | PASSING_TEXTS
    sign, match = next(((sign, match) for sign in known if (match := re.search(sign, text))), ("", None))
    words = known.get(sign, UNKNOWN).format(server, *(match.groups() if match else ()))
    code = f" (SQLSTATE {state}, {_condition(state)})" * bool(state)
    kind = TransientFault if PASSING_STATES.match(state) or sign in PASSING_TEXTS else SourceFault
    kind = BusyFault if state == "53300" or sign in NO_CONNECTION_LEFT else kind
    return kind(f"{place}: {words}{code}")


def _condition(state: str) -> str:
    """PostgreSQL's name of a SQLSTATE."""
    try:
        return str(errorcodes.lookup(state)).lower().rstrip("_")
    except KeyError:
        return "not one of PostgreSQL's"


class SourceConnection(Connection):  # type: ignore[misc]
    """A connection that waits ANSWER_SECONDS for an answer, unless it is `unhurried`."""

    server: Postgres  # the one that it is to
    unhurried = False

    def rows(self, sql: str, parameters: object = None, unhurried: bool = False) -> list[tuple[Any, ...]]:
        """Executes SQL, which may work for as long as it needs if it is `unhurried`; a Watchdog may look after it. The
        rows that it gives, if it gives any."""
        self.unhurried = unhurried
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []


def in_clear_warning(connection: SourceConnection, server: Postgres) -> str:
    """A warning if what this connection carries leaves this machine in clear, and nobody asked for that; else empty.
    Without a setting libpq takes TLS only if the server offers it."""
    if connection.info.ssl_in_use or server.sslmode == "disable" or not _leaves_this_machine(connection):
        return ""
    if attempt(connection.rows, "SELECT pid FROM pg_stat_gssapi WHERE pid = pg_backend_pid() AND encrypted"):
        return ""
    return (
        f"PostgreSQL {server.address}: the connection is not encrypted, so that anybody on the way can read "
        "password and rows; set LAKEHOUSE_POSTGRES__SSLMODE=verify-full"
    )


def _leaves_this_machine(connection: SourceConnection) -> bool:
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        peer = end.getpeername()
        return end.family != socket.AF_UNIX and not ip_address(peer[0].partition("%")[0]).is_loopback


@contextmanager
def connect(server: Postgres, copies: bool = False, pins: bool = False) -> Iterator[SourceConnection]:
    """A connection in autocommit; if it `pins`, its session is pinned where that is possible. Raises SourceFault if the
    server cannot be reached or goes away. Signals are handled while it waits, unless it `copies`: psycopg2 cannot do
    both."""
    extensions.set_wait_callback(None if copies else _wait)
    place = f"PostgreSQL {server.address}"
    with source_faults(f"{place}, user {server.user}", server):
        connection = _connected(server, pins)
    with closing(connection), source_faults(place, server):
        connection.autocommit = True
        yield connection


def _connected(server: Postgres, pins: bool) -> SourceConnection:
    """A connection to the server, or to the first of several that lets us in, as libpq chooses it; but libpq would
    choose anew for each connection of a run, and waits for each of several for as long as for all."""
    os.environ["PGDATESTYLE"] = "ISO"  # else psycopg2 sets it itself, on a session that a pooler may have lent
    servers, attributes = server.servers, server.keywords.get("target_session_attrs")
    if server.keywords.get("load_balance_hosts") == "random":
        random.shuffle(servers)
    if attributes == "prefer-standby":
        servers = [each.with_keywords(target_session_attrs=wanted) for wanted in ("standby", "any") for each in servers]
    connecting: Callable[[str], SourceConnection] = partial(psycopg2.connect, connection_factory=SourceConnection)
    for number, each in enumerate(servers, start=1):
        try:
            connection = opened(each, connecting) if pins else connecting(dsn(each))
            connection.server = each
            return connection
        except psycopg2.Error as error:
            is_final = FATAL in str(error) and not isinstance(source_fault("", error, each), TransientFault)
            if is_final or number == len(servers):
                raise
    raise AssertionError("there is a server")


@contextmanager
def source_faults(place: str, server: Postgres, kind: type[Exception] = psycopg2.Error) -> Iterator[None]:
    """Turns the errors of a database driver, psycopg2 or another, into a SourceFault that names what is being asked."""
    try:
        yield
    except kind as error:
        raise source_fault(place, error, server) from error


@contextmanager
def reading(server: Postgres, how: str = GUARD) -> Iterator[SourceConnection]:
    """A connection in a read-only transaction in which no setting changes anything; it must last until the end."""
    with connect(server, pins=True) as connection:
        begin(connection.rows, how, connection.info.server_version)
        yield connection
        connection.rows("COMMIT")


def _wait(connection: Connection) -> None:
    """Waits for the server in Python, where a signal can end it; not for ever, unless the work is unhurried."""
    began = time.monotonic()
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        is_connecting = connection.status == CONNECTING
        limit = extensions.parse_dsn(connection.dsn).get("connect_timeout") if is_connecting else None
        seconds = int(limit or CONNECT_SECONDS) if is_connecting else ANSWER_SECONDS
        ends = is_connecting or not getattr(connection, "unhurried", True)
        left = max(0, began + seconds - time.monotonic()) * 1000 if ends else None
        if not poller.poll(left):
            raise psycopg2.OperationalError(f"timeout expired: no answer in {seconds} s")


# The sessions of this process that are at work, or may be where nobody tracks that, whatever role they run as; a pooler
# may add the client's address to their name.
OURS = """
FROM pg_stat_activity WHERE pid <> pg_backend_pid()
  AND (application_name = %(name)s OR starts_with(application_name, %(name)s || ' - '))
  AND usesysid = (SELECT usesysid FROM pg_stat_activity WHERE pid = pg_backend_pid())
  AND state IN ('active', 'disabled')
"""

# A query that cannot send is not at work: its rows would have come.
AT_WORK = f"SELECT EXISTS (SELECT {OURS} AND wait_event IS DISTINCT FROM 'ClientWrite')"

# Not libpq's own cancel: psycopg2 holds the interpreter while that waits.
CANCEL = f"SELECT pg_cancel_backend(pid) {OURS}"


def ask_of_ours(server: Postgres, sql: str) -> list[tuple[Any, ...]]:
    """What the server says of, or does to, the sessions of this process. Raises SourceFault."""
    with reading(server) as connection:
        connection.rows("SET LOCAL ROLE NONE")  # as which it may see all of them
        return connection.rows(sql, {"name": application_name(server)})


def is_at_work(server: Postgres) -> bool:
    """Whether the server works for this process, as far as it may say so; no if it does not answer."""
    try:
        return ask_of_ours(server, AT_WORK) == [(True,)]
    except SourceFault as fault:
        return isinstance(fault, BusyFault) or state_of(fault.__cause__) in NOT_POSSIBLE


def cancel(server: Postgres) -> None:
    """Asks the server to end the queries of this process."""
    with suppress(SourceFault):
        ask_of_ours(server, CANCEL)


def hang_up(server: Postgres) -> None:
    """Cuts every connection of this process to the server at once: a thread that waits on one gets an error."""
    ends = {end for each in server.servers for end in (str(each.port), f"{each.host}/.s.PGSQL.{each.port}")}
    for connection in psutil.Process().net_connections("all"):
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as end:
            peer = end.getpeername()
            if str(peer[1] if isinstance(peer, tuple) else peer) in ends:
                end.shutdown(socket.SHUT_RDWR)
