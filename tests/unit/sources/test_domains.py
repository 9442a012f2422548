"""Which domains a call is about, and whose software changed."""

import shutil
from pathlib import Path

import pytest

from conf.settings import PROJECT, load
from pipelines.core import catalogue, identity
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.sources.domains import in_use, is_there, known_domains, ready


def test_a_new_domain_does_not_have_the_others_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("conf", "bronze", "silver", "gold", "pipelines", "requirements"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "PROJECT", tmp_path)

    def known() -> list[str]:
        return [identity.software.__wrapped__(domain) for domain in ("cartoes", "varejo")]

    cards, retail = known()
    assert cards != retail
    (tmp_path / "silver/agua").mkdir()
    (tmp_path / "silver/agua/leituras.py").write_text("# a table\n")
    assert known() == [cards, retail]
    with (tmp_path / "silver/varejo/person.py").open("a") as file:
        file.write("# changed\n")
    assert known()[0] == cards and known()[1] != retail
    with (tmp_path / "silver/columns.py").open("a") as file:
        file.write("# changed\n")
    assert known()[0] != cards


def test_domains_are_named_or_those_whose_source_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.postgres.embedded.home", lambda: tmp_path / "none")
    settings, _ = load({}, base=tmp_path)
    assert catalogue.domains() == ("cartoes", "condominio", "varejo")
    assert known_domains(()) == () and known_domains(("varejo", "cartoes")) == ("cartoes", "varejo")
    with pytest.raises(UsageFault, match="no domain is called x; there are cartoes, condominio, varejo"):
        known_domains(("x", "varejo"))
    assert in_use(settings) == ready(settings, "bronze", Report()) == ("cartoes",), "which says how to begin"
    (tmp_path / "landing/varejo").mkdir(parents=True)
    assert in_use(settings) == ready(settings, "bronze", Report()) == ("varejo",)
    server = {"LAKEHOUSE_POSTGRES__HOST": "h", "LAKEHOUSE_POSTGRES__DATABASE": "d", "LAKEHOUSE_POSTGRES__USER": "u"}
    settings, _ = load(server, base=tmp_path)
    assert is_there(settings, "cartoes") and in_use(settings) == ("cartoes", "varejo")


@pytest.mark.parametrize("layer", ["bronze", "silver", "gold"])
def test_the_source_of_a_domain_is_of_one_kind(layer: str) -> None:
    for domain in catalogue.domains():
        tables = catalogue.tables_of("bronze", domain)
        assert len({table.files is None for table in tables}) == 1
        assert catalogue.tables_of(layer, domain), "each layer has the domain"
