"""The log as JSON: failures, and what is shown to persons only."""

from tests.support.log import objects
from tests.support.process import Cli


def test_failures_are_objects_too_and_rows_are_shown_to_persons_only(cli: Cli) -> None:
    env = {"LAKEHOUSE_LOG_FORMAT": "json"}
    for words, more, code, kind in (
        (("silver",), {}, 4, "quality"),
        (("silver",), {"LAKEHOUSE_FULL_DAYS": "0"}, 2, "settings"),
        (("silver", "--set", "x"), {}, 2, "settings"),
        (("answers",), {}, 2, "usage"),
    ):
        result = cli(*words, env=env | more)
        (line,) = objects(result)
        assert (result.returncode, line["code"], line["kind"], line["level"]) == (code, code, kind, "error")
    (cli.folder / "lago/bronze/cartoes").mkdir(parents=True)
    asked = cli("reset", env=env | {"LAKEHOUSE_ROOT": "lago"}, stdin="no\n")
    assert "this deletes:" in asked.stdout.splitlines(), "a person is asked in words"
