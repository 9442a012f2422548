"""Settings: where the data lies, which PostgreSQL is read. Frozen, and built once, in `pipelines/cli/main.py`.

A name is looked up on the command line, then in the environment, in `.env`, in `$CREDENTIALS_DIRECTORY`, and in
`/run/secrets`. An empty value counts as not set. The connection comes from the first family of names that is set
anywhere: LAKEHOUSE_POSTGRES__*, DATABASE_URL, POSTGRES_*, PG*; without any, the source is the embedded server.
"""

import difflib
import itertools
import json
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

PROJECT = Path(__file__).resolve().parents[1]
PREFIX = "LAKEHOUSE_"
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

# What each family of names calls the parts of a connection. A family counts as set when it names any of the first five
# parts; LAKEHOUSE_POSTGRES__SSLMODE and __SSLROOTCERT apply to every family.
CONNECTION = ("host", "port", "database", "user", "password", "sslmode", "sslrootcert")
ADDRESS = set(CONNECTION[:5])
LAKEHOUSE_NAMES = {f"{PREFIX}POSTGRES__{part.upper()}": part for part in CONNECTION}
URL_NAMES = {"DATABASE_URL": "url"}
DOCKER_NAMES = {f"POSTGRES_{'DB' if part == 'database' else part.upper()}": part for part in CONNECTION}
LIBPQ_NAMES = {f"PG{part.upper()}": part for part in CONNECTION}
FAMILIES = (LAKEHOUSE_NAMES, URL_NAMES, DOCKER_NAMES, LIBPQ_NAMES)


class SettingsError(Exception):
    """Every problem with the settings, one sentence each; never a secret's value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _matches(pattern: str, problem: str) -> AfterValidator:
    """A check of a text; `problem` says what it must be."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


A_HOST = _matches("[^@]*", "must not have an @; in the user or password of a URL, write it as %40")
MEMORY = _matches("[1-9][0-9]*[mg]", "must be like 2g or 512m")
MASTER = _matches(
    r"local(\[(\*|[1-9][0-9]*)\])?|spark://[^\s/:,]+:[0-9]+(,[^\s/:,]+:[0-9]+)*|yarn|k8s://\S+",
    "must be local[*], local[2], spark://host:7077, yarn or k8s://https://host:6443",
)


class Postgres(Frozen):
    """The user's PostgreSQL server. `host` may be the folder of a Unix socket."""

    host: Annotated[str, A_HOST]
    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    user: str
    password: SecretStr | None = None
    sslmode: SslMode | None = None
    sslrootcert: str | None = None

    @property
    def address(self) -> str:
        """What messages and `_runs` call the server."""
        return f"{self.host}:{self.port}/{self.database}"

    @property
    def parameters(self) -> dict[str, str]:
        """The connection's libpq parameters, the password in clear."""
        password = self.password.get_secret_value() if self.password else None
        parameters = {"host": self.host, "port": str(self.port), "dbname": self.database, "user": self.user}
        optional = {"password": password, "sslmode": self.sslmode, "sslrootcert": self.sslrootcert}
        return parameters | {name: value for name, value in optional.items() if value is not None}


# Spark settings whose values Spark hides in its logs; on the command line of its JVM everybody could read them.
SECRET = re.compile("secret|password|token|credential|access[.]?key|api[.]?key", re.IGNORECASE)


class Spark(Frozen):
    """Where the jobs run: in this process's JVM, or on the executors of a cluster."""

    master: Annotated[str, MASTER] = "local[*]"
    driver_memory: Annotated[str, MEMORY] = "1536m"
    conf: dict[str, str] = {}

    @property
    def is_local(self) -> bool:
        return self.master.startswith("local")

    @property
    def driver_bytes(self) -> int:
        return int(self.driver_memory[:-1]) * {"m": 2**20, "g": 2**30}[self.driver_memory[-1]]

    @field_validator("conf")
    @classmethod
    def _sets_neither_master_nor_secrets(cls, conf: dict[str, str]) -> dict[str, str]:
        if "spark.master" in conf:
            raise ValueError("must not set spark.master; use LAKEHOUSE_SPARK__MASTER")
        if secrets := sorted(name for name in conf if SECRET.search(name)):
            raise ValueError(
                f"must not set {', '.join(secrets)}: it would show on a command line; write it into "
                "spark-defaults.conf in the folder that SPARK_CONF_DIR names"
            )
        return conf


class Seed(Frozen):
    movimentos: int = Field(default=10_000, ge=1)
    seed: int = 42


class Stream(Frozen):
    max_files_per_trigger: int = Field(default=100, ge=1)


class Quality(Frozen):
    max_quarantined: float = Field(default=0.05, ge=0, le=1)


class Alert(Frozen):
    """The webhook that is notified of failures. Its address is a secret: whoever knows it can post there."""

    webhook_url: SecretStr | None = None
    format: Literal["json", "slack", "teams"] = "json"
    max_warned: float = Field(default=0.05, ge=0, le=1)

    @field_validator("webhook_url")
    @classmethod
    def _is_a_web_address(cls, url: SecretStr) -> SecretStr:
        if not re.fullmatch(r"https?://[!-~]+", url.get_secret_value()):
            raise ValueError("must be an http or https address, without blanks")
        return url


class Metrics(Frozen):
    textfile: Path | None = None

    @field_validator("textfile")
    @classmethod
    def _is_for_the_collector(cls, path: Path) -> Path:
        if not (path.is_absolute() and path.suffix == ".prom"):
            raise ValueError("must be an absolute path that ends in .prom")
        return path


class Settings(Frozen):
    """All settings. Paths are absolute. `postgres` is None when the source is the embedded server."""

    bronze_path: Path
    silver_path: Path
    gold_path: Path
    export_path: Path
    landing_path: Path
    postgres: Postgres | None = None
    schema_name: str = "public"
    spark: Spark = Spark()
    seed: Seed = Seed()
    quality: Quality = Quality()
    stream: Stream = Stream()
    schema_drift: Literal["evolve", "freeze"] = "evolve"
    card_numbers: Literal["masked", "plain"] = "masked"
    retry_seconds: int = Field(default=60, ge=0)
    history_days: int = Field(default=30, ge=1)
    full_days: int = Field(default=7, ge=1)
    log: Literal["quiet", "debug"] = "quiet"
    log_format: Literal["text", "json"] = "text"
    alert: Alert = Alert()
    metrics: Metrics = Metrics()

    def layer_path(self, layer: str) -> Path:
        return {"bronze": self.bronze_path, "silver": self.silver_path, "gold": self.gold_path}[layer]


GROUPS: dict[str, type[Frozen]] = {
    field: info.annotation
    for field, info in Settings.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Frozen)
}
FIELDS = [(field,) for field in Settings.model_fields if field not in ("postgres", "schema_name", *GROUPS)]
GROUPED = [(group, field) for group, model in GROUPS.items() for field in model.model_fields]

# Every name that is read, and the field that it fills; messages use these names, too. A field `full_days` is
# LAKEHOUSE_FULL_DAYS, a field `master` of the group `spark` is LAKEHOUSE_SPARK__MASTER.
NAMES: dict[str, tuple[str, ...]] = {
    f"{PREFIX}ROOT": ("root",),
    f"{PREFIX}POSTGRES__SCHEMA": ("schema_name",),
    **{name: ("postgres", part) for name, part in LAKEHOUSE_NAMES.items()},
    **{PREFIX + "__".join(field).upper(): field for field in (*FIELDS, *GROUPED)},
}
# Endings of names that a command line, which anybody can read, must not have.
SECRETS = ("PASSWORD", "DATABASE_URL", "WEBHOOK_URL")
KNOWN = {*NAMES, *(name for names in FAMILIES for name in names)}


def load(*sources: Mapping[str, str], base: Path) -> tuple[Settings, list[str]]:
    """The settings from the sources, the first source first, and warnings about unknown names.

    Relative paths start at `base`. Raises SettingsError, which names every missing or malformed value at once.
    """
    values = ChainMap(*({name: value for name, value in source.items() if value} for source in sources))
    problems: list[str] = []
    fields: dict[str, Any] = {group: {} for group in GROUPS}
    titles = {field: name for name, field in NAMES.items()}
    for name, value in values.items():
        field = NAMES.get(name)
        if field and field[0] not in ("postgres", "root") and not field[0].endswith("_path"):
            (fields[field[0]] if len(field) == 2 else fields)[field[-1]] = value
    if "conf" in fields["spark"]:
        fields["spark"]["conf"] = _json_object(fields["spark"]["conf"], problems)
    paths = _paths(values, base, problems)
    postgres, names = _connection(values, problems)
    titles |= {("postgres", part): name for part, name in names.items()}
    try:
        settings = Settings(**fields, **paths, postgres=postgres)  # type: ignore[arg-type]
    except ValidationError as error:
        problems += _spelled_out(error, titles)
    if problems:
        raise SettingsError(problems)
    return settings, list(_unknown(values))


def load_outlets(*sources: Mapping[str, str], base: Path) -> Settings:
    """The settings that report a failure (log format, webhook, metrics), when other settings are wrong.

    Of these three groups, those that are wrong are left out, too. All other settings have their defaults.
    """
    for outlets in (("LOG_FORMAT", "ALERT__", "METRICS__"), ("LOG_FORMAT", "ALERT__"), ("LOG_FORMAT",)):
        prefixes = tuple(PREFIX + name for name in outlets)
        chosen = [{name: value for name, value in source.items() if name.startswith(prefixes)} for source in sources]
        with suppress(SettingsError):
            return load(*chosen, base=base)[0]
    return load(base=base)[0]


def read_secrets(folder: Path) -> dict[str, str]:
    """The secrets in the files of `folder` whose name is a setting's, in any case, without a newline at the end."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        file.name.upper(): file.read_text("utf-8").rstrip("\r\n")
        for file in files
        if file.name.upper() in KNOWN and file.is_file()
    }


def _connection(values: Mapping[str, str], problems: list[str]) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The parts of the connection, and what its family calls each; None when no family is set."""
    for names in FAMILIES:
        if names is URL_NAMES:
            parts = _from_url(values["DATABASE_URL"], problems) if "DATABASE_URL" in values else {}
            titles = {part: f"the {part} in DATABASE_URL" for part in CONNECTION}
        else:
            parts = {part: values[name] for name, part in names.items() if name in values}
            titles = {part: name for name, part in names.items()}
        if parts.keys() & ADDRESS:
            ours = {part: values[name] for name, part in LAKEHOUSE_NAMES.items() if name in values}
            tls = {part: value for part, value in ours.items() if part not in ADDRESS}
            return parts | tls, titles
    return None, {}


def _from_url(url: str, problems: list[str]) -> dict[str, str]:
    """The parts of a PostgreSQL URL; the driver in `postgresql+driver://` is ignored."""
    try:
        given: dict[str, str] = parse_dsn(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))
    except (ProgrammingError, UnicodeError):
        problems.append(
            "DATABASE_URL is not a PostgreSQL URL: write postgresql://user:password@host:5432/database, "
            "and percent-encode everything except letters and digits in user and password"
        )
        return {}
    parts = {("database" if name == "dbname" else name): value for name, value in given.items()}
    problems += [f"DATABASE_URL has a parameter that is not supported: {name}" for name in parts.keys() - {*CONNECTION}]
    return {name: value for name, value in parts.items() if name in CONNECTION}


def _json_object(text: str, problems: list[str]) -> dict[str, str]:
    with suppress(ValueError):
        if isinstance(value := json.loads(text), dict):
            return {str(name): str(setting) for name, setting in value.items()}
    problems.append(f'{PREFIX}SPARK__CONF is not a JSON object like {{"spark.sql.shuffle.partitions": "8"}}')
    return {}


def _paths(values: Mapping[str, str], base: Path, problems: list[str]) -> dict[str, Path]:
    """The five folders, absolute; a folder is a problem when writing there could hurt something else."""
    root = values.get(f"{PREFIX}ROOT", "lake")
    defaults = {f"{PREFIX}{layer.upper()}_PATH": f"{root}/{layer}" for layer in ("bronze", "silver", "gold")}
    defaults |= {f"{PREFIX}EXPORT_PATH": "export", f"{PREFIX}LANDING_PATH": "landing"}
    paths: dict[str, Path] = {}
    for name, default in defaults.items():
        text = values.get(name, default)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
            problems.append(f"{name} is not a local folder: object stores are not supported")
        elif set(text) & set("%*?[]\\\n"):
            problems.append(
                f"{name} must not contain % * ? [ ] \\ or a line break: Delta and DuckDB read them differently"
            )
        else:
            path = paths[name] = (base / Path(text).expanduser()).resolve()
            if place := _dangerous(path):
                problems.append(f"{name} must not be {place}")
    for pair in itertools.combinations(paths, 2):
        outer, inner = sorted(pair, key=lambda name: len(paths[name].parts))
        if paths[outer] == paths[inner]:
            problems.append(f"{outer} and {inner} are the same folder")
        elif paths[outer] in paths[inner].parents:
            problems.append(f"{outer} contains {inner}; use separate folders")
    return {name[len(PREFIX) :].lower(): paths.get(name, base) for name in defaults}


def _dangerous(path: Path) -> str | None:
    """What a folder is that nothing may be written to; None for any other folder."""
    home = Path.home().resolve()
    if path == Path(path.anchor):
        return "the root of the file system"
    if path == home or path in home.parents:
        return "the home directory or a folder above it"
    if path == PROJECT or path in PROJECT.parents:
        return "the project's folder or a folder above it"
    if PROJECT in path.parents:
        top = path.relative_to(PROJECT).parts[0]
        if top.startswith(".") or (PROJECT / top / "__init__.py").exists() or top in ("docs", "requirements"):
            return "inside a folder of the project's own files"
    return None


def _spelled_out(error: ValidationError, titles: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One sentence for each problem, which names the setting as the user writes it, without its value."""
    for problem in error.errors(include_input=False, include_url=False):
        location = tuple(str(part) for part in problem["loc"])[:2]
        name = titles.get(location) or titles.get(location[:1], ".".join(location))
        if problem["type"] == "missing":
            yield f"{name} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            yield f"{name} {message.partition(', unable to parse')[0]}"


def _unknown(values: Mapping[str, str]) -> Iterator[str]:
    """A warning for each name that looks like a setting and is none."""
    for name in sorted(values):
        if name.startswith(PREFIX) and name not in NAMES:
            nearest = difflib.get_close_matches(name, NAMES, n=1)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")
