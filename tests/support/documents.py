"""What the documents and the Makefile name."""

import re

from conf.settings import NAMES, PROJECT, Postgres, Settings

README = (PROJECT / "README.md").read_text("utf-8")
REFERENCE = (PROJECT / "docs/reference.md").read_text("utf-8")


MAKE_TARGETS = set(re.findall(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.M)[0].split())


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines()]


def setting_rows() -> list[str]:
    """The rows of the table of settings, as the models declare them: name, default, what it is."""
    rows = []
    for name, field in NAMES.items():
        owner = (
            Settings if len(field) == 1 else Postgres if field[0] == "postgres" else type(getattr(Settings(), field[0]))
        )
        info = owner.model_fields[field[-1]]
        default = f"<root>/{field[-1].removesuffix('_path')}" if info.default_factory else info.default
        if info.is_required():
            default = None
        rows.append(f"| `{name}` | {'' if default is None else f'`{default}`'} | {info.description} |")
    return rows
