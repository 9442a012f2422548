"""Settings: where the data lies, which PostgreSQL is read. Frozen, and built once, in `pipelines/cli/main.py`.

A name is looked up on the command line, then in the environment, in `.env`, in `$CREDENTIALS_DIRECTORY`, and in
`/run/secrets`. An empty value counts as not set. The connection comes from the first family of names that is set
anywhere: LAKEHOUSE_POSTGRES__*, DATABASE_URL, POSTGRES_*, PG*; without any, the source is the embedded server.
"""

import difflib
import json
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from conf import CALL, machine
from conf.connection import CONNECTION, DOCKER_NAMES, LIBPQ_NAMES, SCHEMA, connection

PROJECT = Path(__file__).resolve().parents[1]
PREFIX = "LAKEHOUSE_"
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class SettingsError(Exception):
    """Every problem with the settings, one sentence each; never a secret's value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Frozen(BaseModel):
    model_config = {"frozen": True, "extra": "forbid"}


def _matches(pattern: str, problem: str) -> AfterValidator:
    """A check of a value's text; `problem` says what it must be."""

    def check(value: object) -> object:
        if not re.fullmatch(pattern, value.get_secret_value() if isinstance(value, SecretStr) else str(value)):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


Share = Annotated[float, Field(ge=0, le=1)]
A_HOST = _matches("[^@]*", "must not have an @; in the user or password of a URL, write it as %40")
MEMORY = _matches("[1-9][0-9]*[mg]", "must be like 2g or 512m")
WEB_ADDRESS = _matches(r"https?://[!-~]+", "must be an http or https address, without blanks")
JDBC = _matches(
    r"(?i)(?!.*(passw|pass=|pwd|secret|token|[^:/]@))jdbc:\w+:[!-~]+",
    "must be like jdbc:postgresql://db.example.com/hive, without role and password, which are settings of their own",
)
TEXTFILE = _matches(r"/(.*/)?[^/]+\.prom", "must be an absolute path that ends in .prom")
MASTER = _matches(
    r"local(\[(\*|[1-9][0-9]*)\])?|spark://[^\s/:,]+:[0-9]+(,[^\s/:,]+:[0-9]+)*|yarn|k8s://\S+",
    "must be local[*], local[2], spark://host:7077, yarn or k8s://https://host:6443",
)


class Postgres(Frozen):
    """The user's PostgreSQL server, or several of which one is read."""

    host: Annotated[str, A_HOST] = Field(description="the source's server, or the folder of its socket; or `db1,db2`")
    port: int | str = Field(default=5432, description="its port; or `5432,5433`")
    database: str = Field(description="its database")
    user: str = Field(description="a role that may read the tables")
    password: SecretStr | None = Field(default=None, description="its password; a secret, so `--set` refuses it")
    sslmode: SslMode | None = Field(default=None, description="TLS, in libpq's words")
    sslrootcert: str | None = Field(
        default=None, description="file of the authorities that sign the server; or `system`, those of this machine"
    )
    parameters: tuple[tuple[str, SecretStr], ...] | None = Field(
        default=None,
        description="libpq's other parameters, as a URL has them after its `?`: "
        "`channel_binding=require&options=endpoint%3Dep-1`; with a password in it, `--set` refuses it",
    )

    @field_validator("port", mode="before")
    @classmethod
    def _is_a_port_of_each_host(cls, given: int | str, info: ValidationInfo) -> int | str:
        ports = [port.strip() or "5432" for port in str(given).split(",")]
        if not all(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16 for port in ports):
            raise ValueError("must be a valid integer from 1 to 65535")
        if len(ports) not in (1, len(info.data.get("host", "").split(","))):
            raise ValueError("must be one number, or as many as there are hosts")
        return ",".join(ports) if len({*ports}) > 1 else int(ports[0])

    @property
    def servers(self) -> "list[Postgres]":
        """Each server of several by itself."""
        hosts, ports = self.host.split(","), str(self.port).split(",")
        addresses = self.keywords.get("hostaddr", "").split(",")
        if len(hosts) == 1:
            return [self]
        each = zip(hosts, ports * (len(hosts) // len(ports)), addresses * (len(hosts) // len(addresses)), strict=True)
        return [
            self.model_copy(update={"host": host, "port": int(port)}).with_keywords(hostaddr=address)
            for host, port, address in each
        ]

    def with_keywords(self, **more: str) -> "Postgres":
        """The server with other parameters; an empty value takes one away."""
        parameters = dict(self.parameters or ()) | {name: SecretStr(value) for name, value in more.items()}
        return self.model_copy(update={"parameters": tuple(pair for pair in parameters.items() if pair[1])})

    @property
    def address(self) -> str:
        """What messages and `_runs` call the server; the same in whatever order several are named."""
        return f"{','.join(sorted(f'{each.host}:{each.port}' for each in self.servers))}/{self.database}"

    @property
    def keywords(self) -> dict[str, str]:
        """The connection's keywords for libpq, secrets in clear."""
        more = {name: value.get_secret_value() for name, value in self.parameters or ()}
        password = self.password.get_secret_value() if self.password else None
        plain = self.model_dump(exclude={"parameters"}) | {"dbname": self.database, "password": password}
        return {name: str(value) for name, value in plain.items() if value is not None and name != "database"} | more


# Of the other half of the memory Python takes up to 1 GB, and the JVM some 400 MB beside its heap.
MIN_DRIVER_BYTES, MAX_DRIVER_BYTES = 1536 * 2**20, 3 * 2**30

# Spark settings whose values Spark hides in its logs; on the command line of its JVM everybody could read them.
SECRET = re.compile("secret|password|token|credential|access[.]?key|api[.]?key", re.IGNORECASE)


class Spark(Frozen):
    """Where the jobs run: in this process's JVM, or on the executors of a cluster."""

    master: Annotated[str, MASTER] = Field(
        default="local[*]", description="`local[2]` uses two cores, `spark://host:7077` [a cluster](cluster.md)"
    )
    driver_memory: Annotated[str, MEMORY] | None = Field(
        default=None,
        description="memory of Spark's JVM, and of each executor; by default half of the machine's or container's, "
        "`1536m` to `3g`, and `1536m` for an executor",
    )
    conf: dict[str, str] = Field(default={}, description="more Spark settings, as a JSON object")

    @property
    def is_local(self) -> bool:
        return self.master.startswith("local")

    @property
    def driver_bytes(self) -> int:
        """The memory of Spark's JVM: what is given, or a share of what there is."""
        if self.driver_memory:
            return int(self.driver_memory[:-1]) * {"m": 2**20, "g": 2**30}[self.driver_memory[-1]]
        return min(MAX_DRIVER_BYTES, max(MIN_DRIVER_BYTES, machine.memory_bytes() // 2))

    @field_validator("conf", mode="before")
    @classmethod
    def _is_an_object(cls, value: object) -> object:
        """A JSON object's names and values as texts; what is not a text passes."""
        if not isinstance(value, str):
            return value
        with suppress(ValueError):
            if isinstance(parsed := json.loads(value), dict):
                return {str(name): str(setting) for name, setting in parsed.items()}
        raise ValueError('is not a JSON object like {"spark.sql.shuffle.partitions": "8"}')

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
    movimentos: int = Field(default=10_000, ge=1, description="movements in the fake source; the rest in proportion")
    seed: int = Field(default=42, description="seed of the fake source: the same number makes the same people")


class Stream(Frozen):
    max_files_per_trigger: int = Field(default=100, ge=1, description="maximum number of files in a micro-batch")


class Quality(Frozen):
    max_quarantined: Share = Field(
        default=0.05, description="a run that would set aside a larger share of a table's rows (0 to 1) ends instead"
    )


class Alert(Frozen):
    """The webhook that is notified of failures. Its address is a secret: whoever knows it can post there."""

    webhook_url: Annotated[SecretStr, WEB_ADDRESS] | None = Field(
        default=None,
        description="webhook that is notified of failures and of rules whose failures rise; a secret, so `--set` "
        "refuses it",
    )
    format: Literal["json", "slack", "teams"] = Field(default="json", description="or `slack`, `teams`")
    max_warned: Share = Field(
        default=0.05,
        description="a rule of severity `warn` that a larger share of a table's rows (0 to 1) fails is reported",
    )


class Metrics(Frozen):
    textfile: Annotated[Path, TEXTFILE] | None = Field(
        default=None, description="a file for node_exporter, such as `/var/lib/node_exporter/textfile/lakehouse.prom`"
    )


class Metastore(Frozen):
    """The database of a Hive metastore, in which `make catalog` names the tables; without `url` an embedded one."""

    url: Annotated[str, JDBC] | None = Field(
        default=None,
        description="JDBC address of a Hive metastore's database, such as `jdbc:postgresql://db.example.com/hive`; "
        "without it the catalogue is embedded",
    )
    user: str | None = Field(default=None, description="its role")
    password: SecretStr | None = Field(default=None, description="its password; a secret, so `--set` refuses it")
    jar: Path | None = Field(default=None, description="file of its JDBC driver")


# The folders that are written to, or read.
PATHS = ("bronze_path", "silver_path", "gold_path", "catalog_path", "export_path", "landing_path")
ROOT = f"{PREFIX}ROOT"


LAYER = "any other folder on a local disk; for a cluster on a disk that all its machines share"


def _below_root(name: str, text: str = LAYER) -> Any:
    return Field(default_factory=lambda known: known["root"] / name, description=text)


class Settings(BaseSettings):
    """All settings. Folders are absolute. `postgres` is None when the source is the embedded server."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", enable_decoding=False, frozen=True, extra="forbid"
    )

    base: Path = Field(default_factory=Path.cwd, exclude=True)  # where relative paths start; not a setting
    root: Path = Field(default=Path("lake"), description="parent of the layers")
    bronze_path: Path = _below_root("bronze")
    silver_path: Path = _below_root("silver")
    gold_path: Path = _below_root("gold")
    catalog_path: Path = _below_root("catalog", "folder of `make catalog`; only its owner can read it")
    export_path: Path = Field(default=Path("export"), description="folder of `movimento_flat.csv` and other exports")
    landing_path: Path = Field(default=Path("landing"), description="files of a domain arrive in its sub-folders")
    postgres: Postgres | None = None
    schema_name: str = Field(default="public", description="the source's schema")
    spark: Spark = Spark()
    seed: Seed = Seed()
    quality: Quality = Quality()
    stream: Stream = Stream()
    schema_drift: Literal["evolve", "freeze"] = Field(
        default="evolve",
        description="or `freeze`: the run ends when a column that no contract names appears, disappears or changes "
        "after the first run",
    )
    card_numbers: Literal["masked", "plain"] = Field(default="masked", description="or `plain`, from silver on")
    retry_seconds: int = Field(
        default=60, ge=0, description="how long faults of the source that may pass are retried; `0` not at all"
    )
    history_days: int = Field(
        default=30, ge=1, description="how long `make maintain` keeps a run after a newer one replaced it"
    )
    full_days: int = Field(
        default=7, ge=1, description="how often each table is rebuilt in full, although only changes would be enough"
    )
    log: Literal["quiet", "debug"] = Field(
        default="quiet",
        description="or `debug`, which shows Spark's log and stack traces, texts of the source without values",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="or `json`: each line is an object")
    alert: Alert = Alert()
    metrics: Metrics = Metrics()
    metastore: Metastore = Metastore()

    def layer_path(self, layer: str) -> Path:
        return {"bronze": self.bronze_path, "silver": self.silver_path, "gold": self.gold_path}[layer]

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The values that `load` chose from all places are the only environment that is read."""
        chosen = EnvSettingsSource(settings_cls)
        chosen.env_vars = init_settings.init_kwargs.pop("names", {})  # type: ignore[attr-defined]
        return init_settings, chosen

    @field_validator("root", *PATHS)
    @classmethod
    def _is_a_folder_of_its_own(cls, path: Path, info: ValidationInfo) -> Path:
        path = _safe(path, info.data["base"])
        mine = (str(info.field_name), path)
        for other in ((field, info.data[field]) for field in PATHS if field in info.data):
            outer, inner = sorted((other, mine), key=lambda each: len(each[1].parts))
            same = outer[1] == inner[1]
            if inner[0] == "catalog_path" and outer[0] in ("export_path", "landing_path"):
                continue  # lakes from before there was a catalogue may lie like that, and nothing is lost by it
            if same or outer[1] in inner[1].parents:
                problem = "and {} are the same folder" if same else "contains {}; use separate folders"
                raise PydanticCustomError(
                    "paths", "{problem}", {"outer": outer[0], "inner": inner[0], "problem": problem}
                )
        return path


def _names() -> Iterator[tuple[str, tuple[str, ...]]]:
    for field, info in Settings.model_fields.items():
        group = Postgres if field == "postgres" else info.annotation
        if isinstance(group, type) and issubclass(group, Frozen):
            yield from ((f"{PREFIX}{field}__{part}".upper(), (field, part)) for part in group.model_fields)
        elif field != "base":
            yield (SCHEMA if field == "schema_name" else f"{PREFIX}{field}".upper()), (field,)


# Every name that is read, and the field that it fills: `full_days` is LAKEHOUSE_FULL_DAYS, `master` of the group
# `spark` is LAKEHOUSE_SPARK__MASTER. Messages use these names, too.
NAMES: dict[str, tuple[str, ...]] = dict(_names())
# Endings of names that a command line, which anybody can read, must not have.
SECRETS = ("PASSWORD", "DATABASE_URL", "WEBHOOK_URL")
# Names in the environment that stand for an option of the command line; `pipelines/cli/words.py` declares them.
OPTIONS_TAKEN = "DOMAIN", "TABLE", "FULL", "REPLACE", "RUN", "ONCE", "FORMAT", "CONFIRM", "EXIT_CODE"
OPTIONS = {f"{CALL}{name}" for name in OPTIONS_TAKEN}
KNOWN = {*NAMES, "DATABASE_URL", *DOCKER_NAMES, *LIBPQ_NAMES}


def load(*sources: Mapping[str, str], base: Path) -> tuple[Settings, list[str]]:
    """The settings from the sources, the first source first, and warnings about unknown names.

    Relative paths start at `base`. Raises SettingsError, which names every missing or malformed value at once.
    """
    values = ChainMap(*({name: value for name, value in source.items() if value} for source in sources))
    problems: list[str] = []
    postgres, names = connection(values, problems)
    chosen: dict[tuple[str, ...], Any] = {
        field: values[name] for name, field in NAMES.items() if name in values and field[0] != "postgres"
    }
    chosen |= {("postgres", part): value for part, value in postgres.items() if part in CONNECTION}
    if more := {part: value for part, value in postgres.items() if part not in CONNECTION}:
        chosen["postgres", "parameters"] = tuple(more.items())
    fields = {f"{PREFIX}{'__'.join(field)}".lower(): value for field, value in chosen.items()}
    try:
        settings = Settings(names=fields, base=base)  # type: ignore[call-arg]
    except ValidationError as error:
        titles = {field: name for name, field in NAMES.items()}
        titles |= {("postgres", part): name for part, name in names.items()}
        if ROOT in values:  # a folder below it is called by what was typed
            titles |= {field: ROOT for field in titles if field[0] in PATHS[:4] and titles[field] not in values}
        problems += dict.fromkeys(_spelled_out(error, titles))
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


def _safe(path: Path, base: Path) -> Path:
    """The absolute path. Raises ValueError if the lake's engines cannot use it, or writing there could hurt."""
    text = str(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError("is not a local folder: object stores are not supported")
    if set(text) & set("%*?[]\\\n"):
        raise ValueError("must not contain % * ? [ ] \\ or a line break: Delta and DuckDB read them differently")
    path, home = (base / path.expanduser()).resolve(), Path.home().resolve()
    if path == Path(path.anchor):
        raise ValueError("must not be the root of the file system")
    if path == home or path in home.parents:
        raise ValueError("must not be the home directory or a folder above it")
    if path == PROJECT or path in PROJECT.parents:
        raise ValueError("must not be the project's folder or a folder above it")
    if PROJECT in path.parents:
        top = path.relative_to(PROJECT).parts[0]
        if top.startswith(".") or (PROJECT / top / "__init__.py").exists() or top in ("docs", "requirements"):
            raise ValueError("must not be inside a folder of the project's own files")
    return path


def _spelled_out(error: ValidationError, titles: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One sentence for each problem, which names the setting as the user writes it, without its value."""
    for problem in error.errors(include_input=False, include_url=False):
        location = tuple(str(part) for part in problem["loc"])[:2]
        name = titles.get(location) or titles.get(location[:1], ".".join(location))
        if problem["type"] == "missing":
            yield f"{name} is missing"
        elif problem["type"] == "paths":
            outer, inner = (titles[(problem["ctx"][side],)] for side in ("outer", "inner"))
            yield f"{outer} {problem['ctx']['problem'].format(inner)}"
        elif problem["type"] != "default_factory_not_called":  # what it is made from is wrong, and reported
            message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            yield f"{name} {message.partition(', unable to parse')[0]}"


def _unknown(values: Mapping[str, str]) -> Iterator[str]:
    """A warning for each name that looks like a setting and is none."""
    for name in sorted(values):
        if name.startswith(PREFIX) and name not in NAMES and name not in OPTIONS:
            nearest = difflib.get_close_matches(name, [*NAMES, *OPTIONS], n=1)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")
