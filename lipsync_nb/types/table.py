"""Tables: columns and rows, said once, and shown as text, as HTML or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column: its name, the text of a row's cell, and whether it holds words.

    Words stand on the left, figures on the right.
    """

    name: str
    cell: Callable[[Row], object]
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as texts.

    Attributes:
        names: of the columns.
        rows: a text for each column.
        are_texts: which columns hold words.

    Example:
        >>> print(Table.of([Column("n", str, True), Column("square", lambda n: n * n)], [2, 30]))
        n    square
        2         4
        30      900
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    are_texts: tuple[bool, ...]

    @classmethod
    def of(cls, columns: Sequence[Column[Row]], rows: Iterable[Row]) -> Table:
        """A table from what each column says of each row."""
        cells = tuple(tuple(str(column.cell(row)) for column in columns) for row in rows)
        names = tuple(column.name for column in columns)
        return cls(names, cells, tuple(column.is_text for column in columns))

    def __str__(self) -> str:
        lines = [self.names, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.names))]
        return "\n".join(self._line(line, widths) for line in lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        aligned = [
            f"{cell:<{width}}" if is_text else f"{cell:>{width}}"
            for cell, width, is_text in zip(cells, widths, self.are_texts, strict=True)
        ]
        return "  ".join(aligned).rstrip()


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of values by name as CSV with a head line, figures to four places."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
