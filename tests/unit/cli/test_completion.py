"""What Tab offers: commands, options, the values that are there."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conf.settings import NAMES, PROJECT
from pipelines.cli.completion import ASKED, NAME, Bash, Fish, Zsh, answer, script
from pipelines.cli.words import COMMANDS, GROUP
from pipelines.core import catalogue
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.lake.runs import Run

BASH = Bash(GROUP, {}, NAME, ASKED)
MOMENT = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in {name for name in os.environ if name.startswith(("LAKEHOUSE_", "PG", "POSTGRES_", "DATABASE_"))}:
        monkeypatch.delenv(name)


def offered(text: str, shell: Bash | Zsh | Fish = BASH) -> list[str]:
    """The completions of the last word, which is empty after a blank."""
    *words, last = text.split(" ")
    return [item.value for item in shell.get_completions(words, last)]


def test_commands_options_and_values_are_completed_at_any_place() -> None:
    assert offered("") == [*COMMANDS, "completion"] and offered("sil") == ["silver"]
    assert offered("bronze --domain varejo si") == ["silver"]
    assert offered("bronze silver --") == ["--domain", "--table", "--full", "--replace", "--set", "--help"]
    assert offered("export --format ") == ["csv", "parquet"]
    assert offered("--set LAKEHOUSE_ROOT=x plan --set=LAKEHOUSE_LOG=debug --exit") == ["--exit-code"]
    assert offered("completion ") == ["bash", "zsh", "fish"]
    assert offered("brnze --domain ") == offered("")


def test_names_of_domains_and_tables_are_those_that_are_there_and_end_a_list() -> None:
    assert offered("plan --domain ") == list(catalogue.domains())
    assert offered("plan --domain varejo,c") == ["varejo,cartoes", "varejo,condominio"]
    assert set(offered("gold --full --table ")) == {table.name for layer in LAYERS for table in catalogue.tables(layer)}
    assert offered("gold --full --domain cartoes --table mov") == ["movimento", "movimento_flat"]
    assert offered("export --domain condominio,cartoes --table t,") == [
        f"t,{name}"
        for name in sorted(
            table.name for domain in ("condominio", "cartoes") for table in catalogue.tables_of("gold", domain)
        )
    ]


def test_settings_are_completed_except_secrets() -> None:
    assert offered("status --set LAKEHOUSE_RO") == offered("--set=LAKEHOUSE_RO") == ["LAKEHOUSE_ROOT="]
    secrets = {"LAKEHOUSE_POSTGRES__PASSWORD", "LAKEHOUSE_METASTORE__PASSWORD", "LAKEHOUSE_ALERT__WEBHOOK_URL"}
    assert {f"{name}=" for name in NAMES} - {*offered("status --set ")} == {f"{name}=" for name in secrets}


def test_runs_and_the_database_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (9, 10):
        run_log.record(tmp_path / "x/gold", Run(number, "", "teste", None, "", "", MOMENT, MOMENT))
    assert offered("restore --run ") == []
    assert offered("restore --set LAKEHOUSE_ROOT=x --run go") == ["gold/10", "gold/9"]
    assert offered("--set=LAKEHOUSE_ROOT=x restore --run gold/9") == ["gold/9"]
    assert offered("seed --confirm ") == []
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://leitor:hidden@db.example.com/coop\n")
    assert offered("seed --confirm ") == ["coop"] and offered("seed --confirm x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_wrong_settings_and_words_offer_nothing_and_nothing_runs(
    shell: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKEHOUSE_LOG", "loud")
    for words in ("restore --run ", "seed --confirm ", "--version reset demo restore --set nonsense --run "):
        monkeypatch.setenv("COMP_WORDS", f"{NAME} {words}")
        monkeypatch.setenv("COMP_CWORD", "" if shell == "fish" else str(len(words.split()) + 1))
        assert answer(GROUP, f"{shell}_complete") == 0
        printed = capfd.readouterr()
        assert (printed.out.strip(), printed.err) == ("", ""), words


def test_a_value_after_an_equals_sign_is_completed_as_each_shell_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", f"{NAME}\nplan\n--set\nA\n=\nx\n--domain\n=\nva")
    monkeypatch.setenv("COMP_CWORD", "8")
    assert BASH.get_completion_args() == (["plan", "--set", "A=x"], "--domain=va")
    assert BASH.complete() == "plain,varejo"
    for shell in (Zsh(GROUP, {}, NAME, ASKED), Fish(GROUP, {}, NAME, ASKED)):
        assert offered("plan --domain=va", shell) == ["--domain=varejo"]
    assert "--max 1" in script(GROUP, "fish") and script(GROUP, "zsh").startswith('PATH="$PATH":')


# What bash does when Tab is pressed after `lakehouse restore --run=g`, in a folder where `lakehouse` is a link.
TAB = f"""
cd /
eval "$("$1" completion bash)"
complete -p {NAME}
COMP_WORDS=({NAME} restore --run = g) COMP_CWORD=4
_{NAME}_completion '~/lakehouse'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_bash_knows_the_command_by_its_script_and_asks_it_without_heavy_imports(tmp_path: Path) -> None:
    if not (PROJECT / ".venv/run.stamp").exists():
        pytest.skip("the project is not set up by make")
    run_log.record(tmp_path / "gold", Run(7, "", "teste", None, "", "", MOMENT, MOMENT))
    (tmp_path / "link").symlink_to(PROJECT / "lakehouse")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LAKEHOUSE_GOLD_PATH": str(tmp_path / "gold")}
    environment |= {"PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run(
        ["bash", "-c", TAB, "bash", tmp_path / "link"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.splitlines() == [f"complete -o nosort -F _{NAME}_completion {NAME}", "gold/7"]
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "click" in imported and "import time:" in result.stderr
    assert not imported & {"pyspark", "duckdb", "deltalake", "pyarrow"}


def test_the_script_says_what_to_do_where_nothing_is_set_up(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes((PROJECT / NAME).read_bytes())
    (tmp_path / NAME).chmod(0o755)
    for asked, message in (("", f"{NAME}: {tmp_path} is not set up yet; run `make setup` there\n"), ("x", "")):
        environment = {"PATH": os.environ["PATH"], ASKED: asked}
        result = subprocess.run([tmp_path / NAME, "status"], env=environment, capture_output=True, text=True)
        assert (result.returncode, result.stdout, result.stderr) == (2, "", message)
