"""A table of a result as lines of text, which fit a screen."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from pipelines.core.texts import visible

GAP = "  "


@dataclass
class Grid:
    """A table without lines. Columns named in `words` stand on the left, numbers on the right. For a screen that is too
    narrow the columns `spare` are left out, then those `below` stand under their row, in this order."""

    titles: tuple[str, ...]
    words: tuple[str, ...]
    spare: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    rows: list[dict[str, Text]] = field(default_factory=list)

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row, a cell a title. A `Text` keeps its colour."""
        texts = (Text(visible(cell)) if isinstance(cell, str) else cell for cell in cells)
        self.rows.append(dict(zip(self.titles, texts, strict=True)))

    def lines(self, width: int | None = None) -> Iterator[Text]:
        """The lines, at most `width` cells wide. No word is broken; only when nothing else helps, cells are cut."""
        widths = self._widths(width)
        yield self._line({title: Text(title) for title in self.titles}, widths)
        for row in self.rows:
            yield self._line(row, widths)
            for title in self.below:
                if row[title] and title not in widths:
                    yield from map(Text, wrapped(f"{2 * GAP}{title}: {row[title].plain}", width, 3 * GAP))

    def _line(self, cells: Mapping[str, Text], widths: Mapping[str, int]) -> Text:
        line = Text()
        for title, width in widths.items():
            cell = cells[title].copy()
            cell.truncate(width, overflow="ellipsis")
            cell.align("left" if title in self.words else "right", width)
            line.append_text(cell).append(GAP)
        line.rstrip()
        return line

    def _widths(self, width: int | None) -> dict[str, int]:
        """The columns that are shown, each with its width."""
        widths = {title: max(cell_len(title), *(row[title].cell_len for row in self.rows), 0) for title in self.titles}
        hidden = iter((*self.spare, *self.below))
        while width and sum(widths.values()) + len(GAP) * (len(widths) - 1) > width:
            if title := next(hidden, ""):
                del widths[title]
            else:
                widths[max(widths, key=lambda title: widths[title])] -= 1
        return widths


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """A text in lines of this width, broken between words only; as it is without a width or if it fits."""
    if width is None or cell_len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def marked(number: int, style: str) -> Text:
    """A number, in a colour unless it is zero."""
    return Text(f"{number:,}", style if number else "")
