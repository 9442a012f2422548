"""What the documents and the Makefile name."""

import re

from conf.settings import PROJECT

README = (PROJECT / "README.md").read_text("utf-8")


MAKE_TARGETS = set(re.findall(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.M)[0].split())


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines()]
