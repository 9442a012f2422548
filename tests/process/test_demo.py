"""What a newcomer types, in a copy of the project below a folder with a blank, with an empty home."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from conf.settings import PROJECT
from pipelines.lake.folders import BY_CATALOG
from pipelines.sources.postgres import embedded
from tests.support.documents import shell_lines
from tests.support.picture import as_measured_in, picture, run_at_terminal
from tests.support.process import ABSENT, clean_environment
from tests.support.water import FILES


@dataclass
class Copy:
    """The project's tracked files, with the set-up of the real one."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.home) | {"PYTHONPATH": str(ABSENT)}

    def run(self, *command: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        environment = self.environment | more
        return subprocess.run(
            command, cwd=self.folder, env=environment, input=stdin, capture_output=True, text=True, timeout=400
        )

    def make(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return self.run("make", *words, stdin=stdin)

    @property
    def csv(self) -> Path:
        return self.folder / "export/movimento_flat.csv"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Lake and export are afterwards what they are now."""
        saved = [(path, self.folder.parent / path.name) for path in (self.folder / "lake", self.folder / "export")]
        for path, aside in saved:
            shutil.copytree(path, aside)
        try:
            yield
        finally:
            for path, aside in saved:
                shutil.rmtree(path, ignore_errors=True)
                aside.rename(path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = tmp_path_factory.mktemp("demo") / "meu projeto"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=PROJECT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    for name in (".venv", ".jars"):
        (folder / name).symlink_to(PROJECT / name)
    home = folder.parent / "home"
    home.mkdir()
    yield Copy(folder, home)
    embedded.remove(embedded.home(folder))


@pytest.fixture(scope="module")
def demo(copy: Copy) -> "subprocess.CompletedProcess[str]":
    """Its standard output is a terminal."""
    return run_at_terminal(("make", "demo"), copy.folder, copy.environment)


def processes(folder: Path) -> str:
    """Those that are there in spite of some seconds to end."""
    until = time.monotonic() + 5
    while (listed := _processes(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    return listed


def _processes(folder: Path) -> str:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    wanted = (str(folder), str(embedded.home(folder)))
    return "\n".join(line for line in listed.splitlines() if any(path in line for path in wanted))


def test_make_demo_shows_progress_ends_with_the_result_and_leaves_no_process(
    copy: Copy, demo: "subprocess.CompletedProcess[str]"
) -> None:
    assert demo.returncode == 0, demo.stderr
    for line in (
        "source.movimento: 10,000 fake rows",
        "bronze.movimento: 10,000 rows",
        "silver.conta: 600 rows",
        "gold.movimento_flat",
    ):
        assert line in demo.stderr
    assert re.search(r"layer +table +rows out +set aside +seconds", demo.stdout)
    assert re.search(r"gold +movimento_flat +10,000 +0 ", demo.stdout)
    assert f"\nexport/movimento_flat.csv: 10,000 rows, {copy.csv.stat().st_size:,} bytes\n" in demo.stdout
    assert "source: embedded (fake data)" in demo.stdout
    assert re.search(r"\nnome_associado +sobrenome_associado ", demo.stdout) and "make shell" in demo.stdout
    for noise in ("WARN", "log4j", "Setting default", "incubator"):
        assert noise not in demo.stdout + demo.stderr
    assert processes(copy.folder) == ""
    assert [path.name for path in copy.csv.parent.iterdir()] == ["movimento_flat.csv"]


def test_the_readmes_picture_is_the_demos_screen_and_names_no_host(demo: "subprocess.CompletedProcess[str]") -> None:
    """Except for the seconds: with UPDATE_PICTURES=1 the picture has those of this run."""
    file = PROJECT / "docs/demo.svg"
    if os.environ.get("UPDATE_PICTURES"):
        file.write_text(picture("make demo", demo.stdout), "utf-8")
    drawing = file.read_text("utf-8")
    assert picture("make demo", as_measured_in(demo.stdout, drawing)) == drawing, "UPDATE_PICTURES=1 makes it anew"
    assert re.findall(r"\bhttps?:[^\"]*|url\([^#]", drawing) == ["http://www.w3.org/2000/svg"]


# The README's lines without `make demo` and `make shell`, and what make calls for each.
LINES = {
    "cp .env.example .env": "",
    "make bronze silver gold": "bronze silver gold",
    "make seed DOMAIN=condominio,varejo": "seed --domain 'condominio,varejo'",
    "make bronze silver gold DOMAIN=condominio,varejo": "bronze silver gold --domain 'condominio,varejo'",
    "make answers DOMAIN=varejo": "answers --domain 'varejo'",
    "make export DOMAIN=condominio FORMAT=parquet": "export --format 'parquet' --domain 'condominio'",
}


def test_the_readmes_lines_are_commands_that_run_on_the_demos_lake(
    copy: Copy, demo: "subprocess.CompletedProcess[str]"
) -> None:
    assert [line for line in shell_lines() if not re.match(r"make (demo|shell)$|\$EDITOR", line)] == list(LINES)
    called = {line: words for line, words in LINES.items() if words}
    for line, words in called.items():
        dry = copy.run(*line.split(), "-n").stdout.splitlines()
        (made,) = (text.split() for text in dry if "-m pipelines" in text)
        assert sorted(made[3:]) == sorted(words.split()), line
    csv = copy.csv.read_bytes()
    for line in list(LINES)[:2]:
        result = copy.run(*line.split())
        assert result.returncode == 0, result.stderr
    assert re.search(r"bronze .*silver .*gold ", result.stdout, re.S) and copy.csv.read_bytes() == csv


@pytest.mark.long
def test_the_readmes_commands_for_files_work_as_written(copy: Copy, demo: "subprocess.CompletedProcess[str]") -> None:
    """Files with fewer lines, which must give the same bytes again."""
    outputs = []
    for line in list(LINES)[2:]:
        result = copy.run(*line.split(), LAKEHOUSE_SEED__MOVIMENTOS="300")
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert re.search(r"bronze .*silver .*gold ", outputs[1], re.S)
    assert "gold.mais_vendidos_por_dias_de_fabricacao: The three best-selling products" in outputs[2]
    files = [path for path in copy.csv.parent.iterdir() if path.suffix == ".parquet"]
    assert len(files) == 3
    for path in files:
        path.unlink()
    shutil.rmtree(copy.folder / "landing")


def test_layers_run_once_in_one_process_and_goals_are_not_reordered(
    copy: Copy, demo: "subprocess.CompletedProcess[str]"
) -> None:
    dry = copy.make("-n", "-j4", "gold", "silver", "bronze").stdout
    assert [line for line in dry.splitlines() if "pipelines" in line] == [
        ".venv/bin/python -m pipelines gold silver bronze"
    ]
    result = copy.make("-j4", "seed", "bronze")
    assert result.returncode == 0, result.stderr
    assert result.stderr.index("are there already") < result.stderr.index("bronze: nothing changed")


def asked(shell: "subprocess.CompletedProcess[str]") -> list[str]:
    """The numbers that a shell printed."""
    assert shell.returncode == 0, shell.stderr
    return [word for word in shell.stdout.replace(">>>", " ").split() if word.isdigit()]


def test_the_shell_answers_and_knows_the_run_of_each_version(
    copy: Copy, demo: "subprocess.CompletedProcess[str]"
) -> None:
    """Of gold alone, which is one table."""
    lines = 'run = spark.sql("describe history gold.movimento_flat").first()\n'
    lines += 'print(run.operationMetrics["numOutputRows"], run.userMetadata)\n'
    others = {"LAKEHOUSE_BRONZE_PATH": "none/bronze", "LAKEHOUSE_SILVER_PATH": "none/silver"}
    shell = copy.run("make", "shell", stdin=lines, **others)
    assert re.search(r"10000 gold/\d+$", shell.stdout, re.M), shell.stderr
    assert "gold.movimento_flat" in shell.stderr and "bronze." not in shell.stderr
    assert "Welcome to" in shell.stderr


@pytest.mark.long
def test_the_shell_has_every_table_pinned(copy: Copy, demo: "subprocess.CompletedProcess[str]") -> None:
    shell = copy.make(
        "shell",
        stdin='print(spark.table("gold.movimento_flat").count())\n'
        'print(spark.sql("select count(distinct tipo) from silver.conta").first()[0])\n'
        "spark.table('silver.movimento__quarantine').count()\n",
    )
    assert asked(shell) == ["10000", "4", "0"]
    assert "bronze.cartao" in shell.stderr and "gold.movimento_flat" in shell.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_or_killed_run_leaves_no_server_behind(
    copy: Copy, demo: "subprocess.CompletedProcess[str]", number: signal.Signals
) -> None:
    """A killed run cannot stop its server; the next one does."""
    process = subprocess.Popen(
        [".venv/bin/python", "-m", "pipelines", "bronze"],
        cwd=copy.folder,
        env=copy.environment,
        stderr=subprocess.PIPE,
    )
    while "postgres" not in _processes(copy.folder):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode in (128 + number, -number)
    if number == signal.SIGKILL:
        result = copy.make("bronze")
        assert result.returncode == 0, result.stderr
    assert processes(copy.folder) == ""


@pytest.mark.long
def test_a_table_is_added_as_contributing_says_and_a_domain_too_without_another_edit(
    copy: Copy, demo: "subprocess.CompletedProcess[str]"
) -> None:
    text = (copy.folder / "CONTRIBUTING.md").read_text("utf-8")
    added = re.findall(r"`((?:bronze|silver)/cartoes/\w+\.py)`.*?```python\n(.*?)```", text, re.S)
    assert [name for name, _ in added] == ["bronze/cartoes/agencia.py", "silver/cartoes/agencia.py"]
    files = {name: re.sub(r"^   ", "", code, flags=re.M) for name, code in added} | FILES
    words = ("seed", "bronze", "silver", "gold", "answers", "quality", "reconcile", "export", "status")
    with copy.kept():
        for name, code in files.items():
            (copy.folder / name).parent.mkdir(exist_ok=True)
            (copy.folder / name).write_text(code, "utf-8")
        result = copy.make(*words, "DOMAIN=agua,cartoes")
        assert result.returncode == 0, result.stderr
        assert re.search(r"silver +agencia +10 +10 +0 ", result.stdout)
        assert "gold.divida: What each quarter owes." in result.stdout and "everything agrees" in result.stdout
        assert re.search(r"\nsilver\.agua, run \d+ of .*\n\n\d+ rules? without a failure\n", result.stdout)
        lines = (copy.folder / "landing/agua/leituras.csv").read_bytes().decode("latin-1").split("\r\n")
        owed = sum(int(line.split(";")[1].replace(",", "")) for line in lines[1:-1])
        rows = copy.csv.with_name("divida.csv").read_text("utf-8").splitlines()
        assert rows[0] == "bairro,valor" and len(lines) == 102
        assert sum(int(row.rsplit(",", 1)[1].replace(".", "")) for row in rows[1:]) == owed
        for folder in ("bronze/agua", "silver/agua", "gold/agua", "landing"):
            shutil.rmtree(copy.folder / folder)
        for name, _ in added:
            (copy.folder / name).unlink()


def test_reset_asks_first_and_deletes_only_what_is_ours(copy: Copy, demo: "subprocess.CompletedProcess[str]") -> None:
    mine = copy.csv.with_name("mine.txt")
    mine.write_text("x")
    refused = copy.make("reset", stdin="no\n")
    assert "nothing was deleted" in refused.stdout and copy.csv.exists() and str(copy.csv) in refused.stdout
    with copy.kept():
        (copy.folder / "lake/catalog").mkdir()
        (copy.folder / "lake/catalog/spark.conf").write_text(f"{BY_CATALOG}\n")
        result = copy.make("reset", stdin="yes\n")
        assert result.returncode == 0, result.stderr
        assert not (copy.folder / "lake").exists() and not copy.csv.exists() and mine.exists()
        assert not embedded.home(copy.folder).exists()
