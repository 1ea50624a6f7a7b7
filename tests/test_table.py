"""One table for text and HTML."""

import csv
import io
from html.parser import HTMLParser

from lipsync_nb.notebook import charts
from lipsync_nb.types.table import Column, Table, csv_text

COLUMNS: list[Column[tuple[str, float]]] = [
    Column("name", lambda row: row[0], is_text=True),
    Column("figure", lambda row: f"{row[1]:.2f}"),
    Column("", lambda row: "large" if row[1] > 5 else "", is_text=True),
]
ROWS = [("a", 1.0), ("a longer <name>", 12.345)]


class Cells(HTMLParser):
    """All cells of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_text_is_aligned() -> None:
    assert str(Table.of(COLUMNS, ROWS)).splitlines() == [
        "name             figure",
        "a                  1.00",
        "a longer <name>   12.35  large",
    ]
    assert str(Table.of(COLUMNS, [])) == "name  figure"


def test_html_has_the_same_cells() -> None:
    table = Table.of(COLUMNS, ROWS)
    parser = Cells()
    parser.feed(charts.table_html(table))
    assert parser.cells == [cell for line in (table.names, *table.rows) for cell in line]


def test_a_mark_takes_the_place_of_a_cell() -> None:
    html = charts.table_html(Table.of(COLUMNS, ROWS), lambda column, text: f"{column}={text}")
    assert "name=a longer &lt;name&gt;" in html


def test_csv_holds_the_values() -> None:
    text = csv_text([{"a": 1 / 3, "b": "x,y"}, {"a": None, "b": "z"}])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "0.3333", "b": "x,y"},
        {"a": "", "b": "z"},
    ]
