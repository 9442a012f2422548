"""A table of a result fits the screen: no line is wider, no word is broken, and a file gets no padding."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf.contract import Severity
from conf.settings import load
from pipelines.commands import history, status
from pipelines.core.console import Report
from pipelines.core.grid import Grid
from pipelines.lake import run_log
from pipelines.lake.runs import Mode, RuleRun, Run, TableRun
from pipelines.run.summary import first_records, show, summary_grid

START = datetime(2026, 11, 27, 2, 15, tzinfo=UTC)
LONG = "full: its columns or their defaults changed"
TABLES = (
    TableRun("quantidade_por_produto_e_data", 1, 9_000_000, 8_999_999, 1, seconds=12.5, how=LONG),
    TableRun("transacoes_diarias_por_tipo_imovel", 1, 10, 10, how="LAKEHOUSE_CARD_NUMBERS changed"),
    TableRun("conta", 1, 12, 12, mode=Mode.CHANGED, how="1 written, 2 updated, 3 deleted"),
)
RULES = [
    RuleRun(1, "cartoes", "special_offer_product", "card and account have the same member", Severity.WARN, 10_000, 1),
    RuleRun(1, "cartoes", "conta", "fine", Severity.QUARANTINE, 10, 0),
    RuleRun(1, "cartoes", "movimento", "cartao:missing", Severity.QUARANTINE, 90_000_000, 3, ("1001", "1002", "1003")),
]


def run(number: int, tables: tuple[TableRun, ...] = TABLES) -> Run:
    return Run(number, "lake", "condominio", 7, "embedded", "", START, START + timedelta(seconds=4), tables)


def screen(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_screen_and_no_word_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    screen(monkeypatch, width)
    settings, _ = load({}, base=tmp_path)
    runs = [run(1, TABLES[:1]), run(2)]
    monkeypatch.setattr(run_log, "read_runs", lambda path, domain: runs if domain == "condominio" else [])
    monkeypatch.setattr(run_log, "read_rules", lambda path, _: RULES)
    with Report() as report:
        report.warning("silver.cartao: 21 of 800 rows do not meet: card and account have the same member, as it seems")
        report.show(summary_grid([("gold", runs[1])], 4.2))
        report.show_warnings()
        history.history(settings, report)
        status.quality(settings, ("condominio",), report)
    lines = plain(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width, [line for line in lines if len(line) > width]
    words = " ".join(lines).split()
    for word in ("transacoes_diarias_por_tipo_imovel", "LAKEHOUSE_CARD_NUMBERS", "special_offer_product", "account"):
        assert word in words
    assert "transacoes_diarias_por_tipo_imovel new; conta new" in " ".join(words)
    assert re.search(r"spark +start +4\.2$", "\n".join(lines), re.M)


def test_a_file_gets_the_whole_table_without_padding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with Report() as report:
        report.show(status.rules_grid(RULES, {}))
        report.say("a very long line " * 20)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and not any(line != line.rstrip() for line in lines[:4])
    assert "\x1b" not in "".join(lines)
    assert [line.split()[0] for line in lines[1:4]] == ["movimento", "special_offer_product", "conta"], (
        "the worst first"
    )


@pytest.mark.parametrize(
    ("failed", "text"), [(0, ""), (1, "<0.01%"), (9_999, "<0.01%"), (10_000, "0.01%"), (50_000_000, "50.00%")]
)
def test_a_small_share_is_not_shown_as_none(failed: int, text: str) -> None:
    assert status.share(RuleRun(1, "d", "t", "r", Severity.WARN, 100_000_000, failed)) == text


def test_quality_shows_what_failed_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings, _ = load({}, base=tmp_path)
    monkeypatch.setattr(run_log, "read_runs", lambda path, domain: [run(1)])
    monkeypatch.setattr(run_log, "read_rules", lambda path, _: [*RULES, *RULES[1:2] * 44])
    with Report() as report:
        status.quality(settings, ("cartoes",), report)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[2].startswith("table") and lines[3].startswith("movimento") and lines[5] == "45 rules without a failure"
    )


def test_what_failed_and_what_was_set_aside_have_a_colour_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(monkeypatch, 120)
    for no_color, expected in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        with Report() as report:
            report.show(summary_grid([("gold", run(1))], 0.0))
            report.show(status.rules_grid(RULES, {}))
            report.say("a: failed", level="error")
        output = capsys.readouterr().out
        for coloured in (r"\x1b\[33m +1\x1b", r"\x1b\[31m +3\x1b", r"\x1b\[31ma: failed"):
            assert bool(re.search(coloured, output)) is expected


def test_tables_that_the_summary_repeats_stay_only_if_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(monkeypatch, 80)
    for shown in (True, False):
        with Report() as report:
            report.passing("silver.conta: 12 rows")
            if shown:
                report.show(summary_grid([("gold", run(1))], 0.0))
        assert ("silver.conta" in plain(capsys.readouterr().err)) is not shown


def test_the_line_that_moves_names_the_work_with_rows_share_and_seconds() -> None:
    with Report(quiet=True) as report:
        report.progress("bronze", "conta")
        report.progress("bronze", "movimento", 10)
        assert report._now().plain[2:] == "bronze.movimento, 10 rows, 0 s"
        report.expect("bronze", "movimento", 40)
        assert report._now().plain[2:] == "bronze.movimento, 10 of 40 rows (25%), 0 s"
        with report.waiting("spark", "start"):
            assert report._now().plain[2:] == "spark.start, 0 s"
        report.finished("bronze", "movimento")
        assert report._now().plain[2:] == "bronze.conta, 0 s"
        assert report.waited > 0


def test_a_sample_shows_the_first_columns_that_a_person_can_read(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('nome,descricao,valor\nAna,"uma ""linha"", longa\ne outra",1\nEva,b,2\nIvo,c,3\n', "utf-8")
    sample = first_records(file, 3)
    for width, shown in ((10, ["nome", "Ana", "Eva"]), (80, ["nome  descricao", "Ana   uma", "Eva   b"])):
        lines = [line.plain for line in sample.lines(width)]
        assert [line[: len(text)] for line, text in zip(lines, shown, strict=True)] == shown and len(lines[0]) <= width
    assert r'Ana   uma "linha", longa\ne outra  1' in [line.plain for line in sample.lines()]


@pytest.mark.parametrize("as_json", [False, True])
def test_records_of_a_csv_are_shown_to_a_person_and_go_to_no_log(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = load({}, base=tmp_path)
    settings.export_path.mkdir()
    (settings.export_path / "movimento_flat.csv").write_text("nome\nAna\nEva\n", "utf-8")
    gold = Run(1, "lake", "cartoes", 7, "embedded", "", START, START, (TableRun("movimento_flat", 1, 2, 2),))
    with Report(as_json=as_json) as report:
        show(settings, [("gold", gold)], report, lines=2)
    output = capsys.readouterr().out
    assert "movimento_flat.csv: 2 rows" in output and "Eva" not in output
    assert ("nome\nAna\n" in output) is not as_json and ("Ana" in output) is not as_json


def test_a_cell_is_cut_when_nothing_else_helps() -> None:
    grid = Grid(("a", "b"), words=("a",))
    grid.add_row("x" * 90, "7")
    assert [line.cell_len for line in grid.lines(40)] == [40, 40]
