"""The check of names and parameter lists sees what it is for."""

import ast

import pytest

from tools.check_names import main, no_names, parameter_lists


@pytest.mark.parametrize(
    "code",
    [
        "one = 1",
        "for _, found in pairs: pass",
        "def told(): pass",
        "def f(*, done=None): pass",
        "class Said: pass",
        "self.done = True",
        "import x as some",
        "with open() as one: pass",
        "try: f()\nexcept E as found: pass",
        "[one for one in rows]",
        "match x:\n    case [*some]: pass",
        "(said := 1)",
        "f = lambda one: 1",
    ],
)
def test_a_word_that_is_no_name_is_seen_wherever_it_names_something(code: str) -> None:
    assert len(list(no_names(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["once = 1", "x.done()", "f(done=1)", "'one'", "rows_found = 1"])
def test_other_names_and_other_peoples_names_are_not(code: str) -> None:
    assert not list(no_names(ast.parse(code)))


def test_every_parameter_counts() -> None:
    code = "class C:\n    def f(self, a, /, b, *c, d=1, **e): pass\n    async def g(): pass"
    assert list(parameter_lists(ast.parse(code))) == [(6, 2, "f"), (0, 3, "g")]


def test_the_project_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err
