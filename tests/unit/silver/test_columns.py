"""What the column functions of silver are made of."""

import re

from silver.columns import BLANK, BLANKS


def test_blanks_are_what_unicode_calls_white_space() -> None:
    assert len(BLANKS) == 25 and set(BLANKS) - {"\x85"} == {chr(i) for i in range(0x3001) if chr(i).isspace()} - set(
        "\x1c\x1d\x1e\x1f\x85"
    )
    assert set(BLANKS) == {chr(i) for i in range(0x10000) if re.fullmatch(f"[{BLANK}]", chr(i))}
