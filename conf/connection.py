"""The connection to PostgreSQL as people name it: in four families of names, with libpq's own variables around them."""

import difflib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

from psycopg2 import ProgrammingError
from psycopg2.extensions import libpq_version, parse_dsn

# What a setting of its own names; a family counts as set when it names any of the first five, or what stands for them.
CONNECTION = ("host", "port", "database", "user", "password", "sslmode", "sslrootcert")
ADDRESS = {*CONNECTION[:5], "hostaddr", "service"}

# libpq's other keywords; those that are refused have a mend.
KEYWORDS = (
    *("hostaddr", "service", "passfile", "options", "application_name", "fallback_application_name", "client_encoding"),
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "channel_binding", "require_auth", "requirepeer", "replication", "target_session_attrs"),
    *("load_balance_hosts", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslcertmode"),
    *("sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "gssencmode"),
    *("krbsrvname", "gsslib", "gssdelegation"),
)
KNOWN = {*CONNECTION, *KEYWORDS, "dbname"}
VARIABLES = {"application_name": "appname", "connect_timeout": "connect_timeout"}  # others are PG and the keyword

OWN = "LAKEHOUSE_POSTGRES__"
PARAMETERS, SCHEMA = f"{OWN}PARAMETERS", f"{OWN}SCHEMA"
URL = "DATABASE_URL"

LAKEHOUSE_NAMES = {f"{OWN}{part.upper()}": part for part in CONNECTION}
URL_NAMES = {f"the {part} in {URL}": part for part in (*CONNECTION, *KEYWORDS)}
DOCKER_NAMES = {f"POSTGRES_{'DB' if part == 'database' else part.upper()}": part for part in CONNECTION}
LIBPQ_NAMES = {
    f"PG{VARIABLES.get(part, part.replace('_', ''))}".upper(): part
    for part in (*CONNECTION, *KEYWORDS)
    if part != "client_encoding"  # whatever it is, the same arrives
}
FAMILIES = (LAKEHOUSE_NAMES, URL_NAMES, DOCKER_NAMES, LIBPQ_NAMES)

# What is refused, by the keyword and a pattern of its value, and what to do instead.
REFUSED = {
    "service": (".*", "runs read no service file; write its parameters instead"),
    "replication": (".*", "a run reads tables; leave it out"),
    "options": (".*search_path", f"must not set search_path: set {SCHEMA}"),
    "connect_timeout": ("(?!0*[0-9]{1,10}$).*", "must be a number of seconds, of ten digits at most"),
    "client_encoding": ("(?i)(?!(utf-?8|unicode|auto)$).*", "must be UTF8, in which texts travel; leave it out"),
    "gssencmode": ("require", "must not be require: the readers' driver has no Kerberos; set sslmode"),
}

# In what follows a URL's `?`: there may be a password that goes on after a `?` or `&` of its own.
CONFIDENTIAL = "(?i)@|pas|pw|psw|secret|senha|token|key"

FORMS = {
    PARAMETERS: "must be libpq's, like sslmode=require&channel_binding=require, percent-encoded as in a URL",
    URL: "is not a PostgreSQL URL with libpq's parameters: write postgresql://user:password@host:5432/database, and "
    "percent-encode everything except letters and digits in user and password",
}

# Parameters of other drivers.
ELSEWHERE = {
    "ssl": "write sslmode=require",
    "sslaccept": "write sslmode=verify-full",
    **dict.fromkeys(("schema", "currentSchema", "search_path"), f"set {SCHEMA}"),
}


def connection(values: Mapping[str, str], problems: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The parts of the connection, and what the user calls each; nothing when no family is set. What the first family
    that is set does not name is taken from libpq's variables, except another server's address, user or password."""
    url = _parsed(URL, values.get(URL, ""), problems)
    values = {**values, **{name: url[part] for name, part in URL_NAMES.items() if part in url}}
    for names in FAMILIES:
        if any(part in ADDRESS and name in values for name, part in names.items()):
            break
    else:
        return {}, {}
    more = _parsed(PARAMETERS, values.get(PARAMETERS, ""), problems)
    if theirs := sorted(more.keys() & ADDRESS - {"hostaddr", "service"}):
        problems.append(f"{PARAMETERS} names the {theirs[0]}: set {OWN}{theirs[0].upper()}")
    values |= {f"the {part} in {PARAMETERS}": value for part, value in more.items()}
    tables = (
        {name: part for name, part in LIBPQ_NAMES.items() if not (part in ADDRESS or _is_refused(name, part, values))},
        names,
        {f"the {part} in {PARAMETERS}": part for part in KEYWORDS + CONNECTION[5:]},
        {name: part for name, part in LAKEHOUSE_NAMES.items() if part not in ADDRESS},
    )
    called = {part: name for name, part in names.items()}
    called |= {part: name for table in tables for name, part in table.items() if name in values}
    parts = {part: values[name] for part, name in called.items() if name in values}
    if parts.get("sslrootcert") == "system":
        parts.setdefault("sslmode", "verify-full")
    if values.get("PGREQUIRESSL", "").startswith("1"):
        parts.setdefault("sslmode", "require")
    if "hostaddr" in parts:
        parts.setdefault("host", parts["hostaddr"])
    problems += _refused(parts, called)
    return parts, called


def _refused(parts: Mapping[str, str], called: Mapping[str, str]) -> Iterator[str]:
    for part, (_, mend) in REFUSED.items():
        if part in parts and _is_refused(called[part], part, {called[part]: parts[part]}):
            yield f"{called[part]} {mend if mend.startswith('must') else f'is not supported: {mend}'}"
    hosts, addresses = parts.get("host", "").split(","), parts.get("hostaddr", "").split(",")
    if "hostaddr" in parts and len(hosts) != len(addresses):
        yield f"{called['hostaddr']} must have as many addresses as there are hosts"
    if parts.get("sslrootcert") == "system" and parts["sslmode"] != "verify-full":
        yield f"{called['sslmode']} must be verify-full, because {called['sslrootcert']} is system"


def _is_refused(name: str, part: str, values: Mapping[str, str]) -> bool:
    """Whether a run cannot do with a value; PGOPTIONS is for all programs, and a run pins what it needs."""
    return name != "PGOPTIONS" and part in REFUSED and bool(re.match(REFUSED[part][0], values.get(name, ""), re.DOTALL))


def _parsed(name: str, text: str, problems: list[str]) -> dict[str, str]:
    """The parts in a PostgreSQL URL, or in what such a URL has after its `?`; the driver in `postgresql+driver://` is
    ignored."""
    if name == PARAMETERS:
        text = f"postgresql://?{text.removeprefix('?')}"
    try:
        given: dict[str, str] = parse_dsn(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", text))
    except (ProgrammingError, UnicodeError):
        asked = [f"has a parameter that is not supported: {key}; {_mend(key)}" for key in _unknown(text)]
        problems += [f"{name} {problem}" for problem in asked or [FORMS[name]]]
        return {}
    return {("database" if key == "dbname" else key): value for key, value in given.items() if value}


def _unknown(text: str) -> list[str]:
    """The parameters in a URL that libpq does not know; of those that may be a part of a password only words that other
    drivers have, or that are written like a keyword."""
    head, _, query = text.partition("?")
    asked = sorted({key for key, _ in parse_qsl(query, keep_blank_values=True)} - KNOWN)
    is_open = re.search("://([^:]*|[^/]*@[^@/]*/[^/@]*)$", head) and not re.search(CONFIDENTIAL, query)
    return [key for key in asked if is_open or key in ELSEWHERE or key.lower().replace("_", "") in KNOWN]


def _mend(key: str) -> str:
    """What to do about a parameter that libpq does not know."""
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    nearest = difflib.get_close_matches(key.lower(), [*CONNECTION, *KEYWORDS], n=1, cutoff=0.8)
    return (
        f"did you mean {nearest[0]}?" if nearest else f"libpq {libpq_version() // 10000} does not know it, leave it out"
    )
