"""Settings: good and bad, from every source, in the order that docs/reference.md promises."""

import re
from pathlib import Path

import pytest

from conf.settings import NAMES, PROJECT, Settings, SettingsError, load, read_secrets
from tests.support.documents import setting_rows

NASTY = "@:/?#%&' \"çé\\${HOME}"
SERVER = {
    "LAKEHOUSE_POSTGRES__HOST": "db1",
    "LAKEHOUSE_POSTGRES__DATABASE": "coop",
    "LAKEHOUSE_POSTGRES__USER": "leitor",
}


def settings(tmp_path: Path, *sources: dict[str, str]) -> Settings:
    return load(*sources, base=tmp_path)[0]


def problems(tmp_path: Path, *sources: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*sources, base=tmp_path)
    return caught.value.problems


def test_without_settings_the_source_is_embedded_and_the_paths_are_below_lake(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert given.postgres is None
    assert given.layer_path("silver") == tmp_path / "lake/silver"
    assert given.export_path == tmp_path / "export"
    assert (given.seed.movimentos, given.seed.seed, given.card_numbers) == (10_000, 42, "masked")


def test_a_setting_of_an_earlier_source_overrides_a_later_one(tmp_path: Path) -> None:
    name = "LAKEHOUSE_SEED__MOVIMENTOS"
    sources = [{name: "1"}, {name: "2"}, {name: "3"}, {name: "4"}]
    assert [settings(tmp_path, *sources[start:]).seed.movimentos for start in range(4)] == [1, 2, 3, 4]


def test_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    assert settings(tmp_path, {"LAKEHOUSE_ROOT": ""}, {"LAKEHOUSE_ROOT": "other"}).gold_path == tmp_path / "other/gold"


@pytest.mark.parametrize(
    "family",
    [
        {**SERVER, "LAKEHOUSE_POSTGRES__PASSWORD": NASTY, "LAKEHOUSE_POSTGRES__PORT": "6000"},
        {
            "DATABASE_URL": "postgresql+psycopg2://leitor:%40%3A%2F%3F%23%25%26%27%20%22%C3%A7%C3%A9%5C$%7BHOME%7D@db1:6000/coop"
        },
        {
            "POSTGRES_HOST": "db1",
            "POSTGRES_PORT": "6000",
            "POSTGRES_DB": "coop",
            "POSTGRES_USER": "leitor",
            "POSTGRES_PASSWORD": NASTY,
        },
        {"PGHOST": "db1", "PGPORT": "6000", "PGDATABASE": "coop", "PGUSER": "leitor", "PGPASSWORD": NASTY},
    ],
    ids=["LAKEHOUSE", "URL", "POSTGRES", "PG"],
)
def test_every_family_of_names_gives_the_same_connection(tmp_path: Path, family: dict[str, str]) -> None:
    connection = settings(tmp_path, family).postgres
    assert connection is not None and connection.password is not None
    assert (connection.host, connection.port, connection.database, connection.user) == ("db1", 6000, "coop", "leitor")
    assert connection.password.get_secret_value() == NASTY


def test_the_first_family_found_anywhere_wins_over_a_nearer_source(tmp_path: Path) -> None:
    connection = settings(tmp_path, {"PGHOST": "pg", "PGDATABASE": "x", "PGUSER": "y"}, SERVER).postgres
    assert connection is not None and connection.host == "db1"


def test_schema_and_tls_settings_go_with_any_family(tmp_path: Path) -> None:
    named = {"LAKEHOUSE_POSTGRES__SCHEMA": "Minha Base", "LAKEHOUSE_POSTGRES__SSLMODE": "verify-full"}
    given = settings(tmp_path, {"DATABASE_URL": "postgresql://u@h/d", **named})
    assert given.schema_name == "Minha Base"
    assert given.postgres is not None and given.postgres.sslmode == "verify-full"


def test_every_missing_or_malformed_value_is_named_at_once(tmp_path: Path) -> None:
    texts = problems(
        tmp_path,
        {
            "LAKEHOUSE_POSTGRES__HOST": "db1",
            "LAKEHOUSE_POSTGRES__PORT": "many",
            "LAKEHOUSE_SEED__MOVIMENTOS": "-1",
            "LAKEHOUSE_CARD_NUMBERS": "shown",
            "LAKEHOUSE_SPARK__CONF": "[]",
        },
    )
    text = " | ".join(texts)
    names = (
        "POSTGRES__PORT",
        "POSTGRES__DATABASE is missing",
        "POSTGRES__USER is missing",
        "SEED__MOVIMENTOS",
        "CARD_NUMBERS",
        "SPARK__CONF",
    )
    for name in names:
        assert f"LAKEHOUSE_{name}" in text
    assert len(texts) == len(names)
    assert "many" not in text


def test_a_missing_part_is_named_in_the_words_of_its_family(tmp_path: Path) -> None:
    assert problems(tmp_path, {"POSTGRES_PASSWORD": "x"}) == [
        "POSTGRES_HOST is missing",
        "POSTGRES_DB is missing",
        "POSTGRES_USER is missing",
    ]
    assert problems(tmp_path, {"DATABASE_URL": "postgresql://h/d"}) == ["the user in DATABASE_URL is missing"]


def test_a_broken_url_is_refused_without_showing_its_password(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"DATABASE_URL": "postgresql://u:s3cr%zzet@h/d"})
    assert "DATABASE_URL is not a PostgreSQL URL" in problem and "s3cr" not in problem


def test_an_at_sign_that_is_not_encoded_does_not_show_a_part_of_the_password(tmp_path: Path) -> None:
    texts = problems(tmp_path, {"DATABASE_URL": "postgresql://u:p@s3cret@127.0.0.1/d"})
    assert "the host in DATABASE_URL" in texts[0] and "s3cret" not in texts[0]


def test_a_password_never_shows(tmp_path: Path) -> None:
    given = settings(tmp_path, {**SERVER, "LAKEHOUSE_POSTGRES__PASSWORD": "s3cret"})
    assert "s3cret" not in repr(given) + str(given) + given.model_dump_json()


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings(tmp_path).card_numbers = "plain"


@pytest.mark.parametrize(
    ("given", "trouble"),
    [
        ({"LAKEHOUSE_SILVER_PATH": "lake/bronze"}, "are the same folder"),
        ({"LAKEHOUSE_SILVER_PATH": "lake/x/../bronze"}, "are the same folder"),
        ({"LAKEHOUSE_GOLD_PATH": "lake/bronze/gold"}, "BRONZE_PATH contains LAKEHOUSE_GOLD_PATH"),
        ({"LAKEHOUSE_EXPORT_PATH": "lake/gold/csv"}, "GOLD_PATH contains LAKEHOUSE_EXPORT_PATH"),
        ({"LAKEHOUSE_EXPORT_PATH": "/"}, "the root of the file system"),
        ({"LAKEHOUSE_EXPORT_PATH": "~"}, "the home directory"),
        ({"LAKEHOUSE_EXPORT_PATH": str(PROJECT)}, "the project's folder"),
        ({"LAKEHOUSE_EXPORT_PATH": str(PROJECT.parent)}, "or a folder above it"),
        ({"LAKEHOUSE_BRONZE_PATH": str(PROJECT / "bronze")}, "a folder of the project's own files"),
        ({"LAKEHOUSE_EXPORT_PATH": str(PROJECT / ".git/x")}, "a folder of the project's own files"),
        ({"LAKEHOUSE_ROOT": "s3://bucket/lake"}, "object stores are not supported"),
        ({"LAKEHOUSE_EXPORT_PATH": "a%20b"}, "must not contain %"),
        ({"LAKEHOUSE_ROOT": "lake[1]"}, "must not contain %"),
    ],
)
def test_a_path_that_could_hurt_something_else_is_refused(tmp_path: Path, given: dict[str, str], trouble: str) -> None:
    text = " | ".join(problems(tmp_path, given))
    assert trouble in text and next(iter(given)).removesuffix("ROOT") in text


def test_a_symbolic_link_does_not_hide_that_two_paths_are_one(tmp_path: Path) -> None:
    (tmp_path / "lake/bronze").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "lake/bronze")
    assert "are the same folder" in problems(tmp_path, {"LAKEHOUSE_SILVER_PATH": "link"})[0]


def test_the_master_is_not_set_through_the_conf(tmp_path: Path) -> None:
    given = {"LAKEHOUSE_SPARK__CONF": '{"spark.master": "yarn"}'}
    assert "use LAKEHOUSE_SPARK__MASTER" in problems(tmp_path, given)[0]


def test_a_secret_is_not_set_through_the_conf_which_is_on_a_command_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"LAKEHOUSE_SPARK__CONF": '{"spark.authenticate.secret": "s3cret"}'})
    assert problem.startswith("LAKEHOUSE_SPARK__CONF must not set spark.authenticate.secret")
    assert "SPARK_CONF_DIR" in problem and "s3cret" not in problem


@pytest.mark.parametrize(
    "master", ["spark://host", "mesos://host:5050", "yarn-client", "local[0]", "local-cluster[1,1,1]"]
)
def test_an_invalid_master_is_refused(tmp_path: Path, master: str) -> None:
    assert "LAKEHOUSE_SPARK__MASTER must be local[*]" in problems(tmp_path, {"LAKEHOUSE_SPARK__MASTER": master})[0]


@pytest.mark.parametrize(
    "master", ["local", "local[2]", "spark://a:7077", "spark://a:7077,b:7077", "yarn", "k8s://https://a:6443"]
)
def test_a_master_is_either_local_or_a_cluster(tmp_path: Path, master: str) -> None:
    settings, _ = load({"LAKEHOUSE_SPARK__MASTER": master}, base=tmp_path)
    assert settings.spark.is_local == master.startswith("local")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/hive",
        "jdbc:mysql://u:s3cret@h/hive",
        "jdbc:postgresql://h/x?password=s3cret",
        "jdbc:oracle:thin:scott/s3cret@//h:1521/x",
        "jdbc:mysql://u:a/s3cret@h/hive",
        "jdbc:mysql://(host=h,user=a,pass=s3cret)/hive",
        "jdbc:db2://h/hive:user=a;pwd=s3cret",
    ],
)
def test_the_metastores_address_is_of_jdbc_and_has_no_password(tmp_path: Path, url: str) -> None:
    (problem,) = problems(tmp_path, {"LAKEHOUSE_METASTORE__URL": url})
    assert problem.startswith("LAKEHOUSE_METASTORE__URL must be like jdbc:") and "s3cret" not in problem


def test_an_export_folder_may_be_the_root_when_the_layers_lie_elsewhere(tmp_path: Path) -> None:
    layers = {f"LAKEHOUSE_{layer}_PATH": layer.lower() for layer in ("BRONZE", "SILVER", "GOLD")}
    settings, _ = load(layers | {"LAKEHOUSE_ROOT": "data", "LAKEHOUSE_EXPORT_PATH": "data"}, base=tmp_path)
    assert settings.export_path == tmp_path / "data"
    assert problems(tmp_path, layers | {"LAKEHOUSE_CATALOG_PATH": "gold/x"})


def test_an_unknown_name_is_reported_with_the_nearest_known_one(tmp_path: Path) -> None:
    _, warnings = load({"LAKEHOUSE_POSTGRES__PASWORD": "s3cret"}, base=tmp_path)
    assert warnings == ["LAKEHOUSE_POSTGRES__PASWORD is not a setting; did you mean LAKEHOUSE_POSTGRES__PASSWORD?"]


def test_secret_files_are_read_by_name_without_their_last_newline(tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text(f"{NASTY}\n", "utf-8")
    (tmp_path / "LAKEHOUSE_POSTGRES__USER").write_text("leitor\r\n")
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    assert read_secrets(tmp_path) == {"POSTGRES_PASSWORD": NASTY, "LAKEHOUSE_POSTGRES__USER": "leitor"}
    assert read_secrets(tmp_path / "nowhere") == {}


def test_the_documented_example_can_be_used_line_by_line(tmp_path: Path) -> None:
    lines = (PROJECT / ".env.example").read_text("utf-8").splitlines()
    named = dict(line.lstrip("#").split("=", 1) for line in lines if line.startswith("#LAKEHOUSE_"))
    given, warnings = load({name: value.strip("'") for name, value in named.items()}, base=tmp_path)
    assert len(named) > 15 and warnings == [] and given.postgres is not None


@pytest.mark.parametrize("root", ["/", "~", str(PROJECT), str(PROJECT.parent)])
def test_a_dangerous_root_is_refused_by_its_own_name_once(tmp_path: Path, root: str) -> None:
    (problem,) = problems(tmp_path, {"LAKEHOUSE_ROOT": root})
    assert problem.startswith("LAKEHOUSE_ROOT must not be the ")


def test_a_folder_below_the_root_is_called_by_what_was_typed(tmp_path: Path) -> None:
    assert problems(tmp_path, {"LAKEHOUSE_ROOT": "export"}) == [
        "LAKEHOUSE_EXPORT_PATH contains LAKEHOUSE_ROOT; use separate folders"
    ]
    assert problems(tmp_path, {"LAKEHOUSE_ROOT": "s3://bucket/lake"}) == [
        "LAKEHOUSE_ROOT is not a local folder: object stores are not supported"
    ]


def test_the_environment_is_not_read_behind_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_FULL_DAYS", "3")
    monkeypatch.setenv("lakehouse_history_days", "4")
    given = settings(tmp_path, {"LAKEHOUSE_RETRY_SECONDS": "5"})
    assert (given.full_days, given.history_days, given.retry_seconds) == (7, 30, 5)


def test_every_setting_has_a_description() -> None:
    rows = setting_rows()
    assert len(rows) == len(NAMES) and all(re.fullmatch(r"\| `LAKEHOUSE_\w+` \|.*\| \S.* \|", row) for row in rows)
