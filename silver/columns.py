"""Column functions (`Column -> Column`) that clean text."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.contract import Table

# Every character that Unicode calls White_Space: what "blank" means here.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# The same as a regular expression has them, in ranges, which Java tests faster than one by one.
BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Letters, digits and signs of Latin scripts, none of them blank. Where a text is clean already, as most are, one look
# tells, for a small part of what cleaning costs.
LATIN = r"!-~\u00c0-\u024f"


def cleaned(table: Table) -> list[Column]:
    """The columns of a table whose input has them by the same names: texts trimmed."""
    return [trimmed(one.name).alias(one.name) if one.type == "string" else F.col(one.name) for one in table.columns]


def trimmed(text: str) -> Column:
    """Without blanks at both ends; what is left empty becomes null. Blanks inside stay, line breaks too."""
    clean = F.col(text).rlike(rf"(?s)\A[{LATIN}].*[{LATIN}]\z")
    return F.when(clean, F.col(text)).otherwise(_trimmed(text))


def tidy(text: str) -> Column:
    """Trimmed, each run of blanks inside one space. The case of names is the source's."""
    clean = F.col(text).rlike(rf"\A(?! )[ {LATIN}]++(?<! )\z") & ~F.contains(text, F.lit("  "))
    return F.when(clean, F.col(text)).otherwise(F.regexp_replace(_trimmed(text), f"[{BLANK}]+", " "))


def _trimmed(text: str) -> Column:
    return F.nullif(F.trim(text, F.lit(BLANKS)), F.lit(""))


def card_digits(number: str) -> Column:
    """A card number without blanks and hyphens. Leading zeros stay; so does what is no digit, for the checks to see."""
    clean = F.col(number).rlike(r"\A[0-9]++\z")
    return F.when(clean, F.col(number)).otherwise(F.nullif(F.translate(number, BLANKS + "-", ""), F.lit("")))


def masked(number: str | Column) -> Column:
    """Stars for all but the last four characters; stars for all where there are no more than four."""
    length = F.length(number)
    shown = F.when(length > 4, F.right(number, F.lit(4))).otherwise("")
    return F.concat(F.repeat(F.lit("*"), length - F.length(shown)), shown)
