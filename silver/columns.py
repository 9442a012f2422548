"""Column functions (`Column -> Column`) that clean text."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.contract import Table

# "Blank" means every character that Unicode calls White_Space.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# The same for a regular expression, as ranges, which Java tests faster than single characters.
BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Letters, digits and signs of Latin scripts, none of them blank. Most texts are clean already: one match shows it, at a
# small part of the cost of cleaning.
LATIN = r"!-~\u00c0-\u024f"


def cleaned(table: Table) -> list[Column]:
    """The columns of a table that its input has under the same names, with trimmed texts."""
    return [
        trimmed(column.name).alias(column.name) if column.type == "string" else F.col(column.name)
        for column in table.columns
    ]


def trimmed(text: str) -> Column:
    """The text without blanks at its ends, null when nothing is left. Blanks and line breaks inside stay."""
    clean = F.col(text).rlike(rf"(?s)\A[{LATIN}].*[{LATIN}]\z")
    return F.when(clean, F.col(text)).otherwise(_trimmed(text))


def tidy(text: str) -> Column:
    """The trimmed text with one space for each run of blanks inside. Upper and lower case stay."""
    clean = F.col(text).rlike(rf"\A[{LATIN}]([ {LATIN}]*[{LATIN}])?\z") & ~F.contains(text, F.lit("  "))
    return F.when(clean, F.col(text)).otherwise(F.regexp_replace(_trimmed(text), f"[{BLANK}]+", " "))


def _trimmed(text: str) -> Column:
    return F.nullif(F.trim(text, F.lit(BLANKS)), F.lit(""))


def card_digits(number: str) -> Column:
    """A card number without blanks and hyphens. Leading zeros stay, and other characters, for the checks to find."""
    clean = F.col(number).rlike(r"\A[0-9]++\z")
    return F.when(clean, F.col(number)).otherwise(F.nullif(F.translate(number, BLANKS + "-", ""), F.lit("")))


def masked(number: str | Column) -> Column:
    """Stars for all characters except the last four; only stars when there are four or fewer."""
    length = F.length(number)
    shown = F.when(length > 4, F.right(number, F.lit(4))).otherwise("")
    return F.concat(F.repeat(F.lit("*"), length - F.length(shown)), shown)
