"""The words of the command line: what they ask for, and what is refused with the nearest that exists."""

import pytest

import conf
from conf.settings import OPTIONS
from pipelines.cli.words import COMMANDS, Request, parse
from pipelines.core.errors import UsageFault


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("gold silver bronze", Request(frozenset({"bronze", "silver", "gold"}))),
        ("bronze silver --domain varejo,cartoes --full", Request(frozenset({"bronze", "silver"}), domain=("varejo", "cartoes"), full=True)),
        ("seed --domain varejo bronze --domain varejo", Request(frozenset({"seed", "bronze"}), domain=("varejo",))),
        ("export --table a,b --format parquet", Request(frozenset({"export"}), table=("a", "b"), format="parquet")),
        ("status --set LAKEHOUSE_ROOT=x history --set=A=b", Request(frozenset({"status", "history"}), ("LAKEHOUSE_ROOT=x", "A=b"))),
        ("restore --run gold/12", Request(frozenset({"restore"}), run="gold/12")),
        ("stream --domain condominio --once", Request(frozenset({"stream"}), domain=("condominio",), once=True)),
        ("seed --confirm coop", Request(frozenset({"seed"}), confirm="coop")),
    ],
)  # fmt: skip
def test_words_are_commands_with_options_in_any_order(words: str, asked: Request) -> None:
    assert parse(words.split()) == asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Missing command"),
        ("brnze", "Did you mean 'bronze'"),
        ("bronze --domian x", "--domain"),
        ("status --full", "No such option '--full'"),
        ("restore --run", "requires an argument"),
        ("export --format xls", "'csv', 'parquet'"),
        ("bronze --full=yes", "does not take a value"),
        ("bronze --domain a silver --domain b", "--domain was given twice with different values"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageFault, match=message) as caught:
        parse(words.split())
    assert "\n" not in str(caught.value)


def test_names_of_the_environment_stand_for_options_of_the_commands_that_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CALL__DOMAIN", "varejo,cartoes")
    monkeypatch.setenv("LAKEHOUSE_CALL__FULL", "1")
    monkeypatch.setenv("LAKEHOUSE_CALL__TABLE", "")
    for name in ("DOMAIN", "FULL", "RUN", "TABLES", "FORMAT", "ONCE", "CONFIRM"):
        monkeypatch.setenv(name, "example.com")
    assert parse(["bronze"]) == Request(frozenset({"bronze"}), domain=("varejo", "cartoes"), full=True)
    assert parse(["bronze", "--domain", "condominio"]) == Request(
        frozenset({"bronze"}), domain=("condominio",), full=True
    )
    assert parse(["status"]) == Request(frozenset({"status"}))


def test_each_name_of_the_environment_is_an_option() -> None:
    declared = {option.envvar for _, options in COMMANDS.values() for option in options}
    assert declared == OPTIONS


def test_version_and_help_are_answered_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--version"]) == 0 and capsys.readouterr().out == f"{conf.__version__}\n"
    for words in (["--help"], *([name, "--help"] for name in COMMANDS)):
        assert parse(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 and "..." not in line.split("  ")[-1] for line in lines[1:]), words
