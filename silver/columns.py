"""Column functions (`Column -> Column`) that clean text."""

from pyspark.sql import Column
from pyspark.sql import functions as F

# Every character that Unicode calls White_Space: what "blank" means here.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# The same as a regular expression has them, in ranges, which Java tests faster than one by one.
BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def trimmed(text: str | Column) -> Column:
    """Without blanks at both ends; what is left empty becomes null. Blanks inside stay, line breaks too."""
    return F.nullif(F.trim(text, F.lit(BLANKS)), F.lit(""))


def tidy(text: str | Column) -> Column:
    """Trimmed, each run of blanks inside one space. The case of names is the source's."""
    return F.regexp_replace(trimmed(text), f"[{BLANK}]+", " ")


def card_digits(number: str | Column) -> Column:
    """A card number without blanks and hyphens. Leading zeros stay; so does what is no digit, for the checks to see."""
    return F.nullif(F.translate(number, BLANKS + "-", ""), F.lit(""))


def masked(number: str | Column) -> Column:
    """Stars for all but the last four characters; stars for all where there are no more than four."""
    length = F.length(number)
    shown = F.when(length > 4, F.right(number, F.lit(4))).otherwise("")
    return F.concat(F.repeat(F.lit("*"), length - F.length(shown)), shown)
