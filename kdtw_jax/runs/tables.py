"""Tidy CSV files and tables on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, write_text

Cell = str | int | float | None
Row = Mapping[str, Cell]


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Writes `rows` atomically: one header line, the given column order, floats with 6 significant digits.

    None and absent cells are empty.

    Raises:
      ValueError: a row has a column that is not in `columns`.
      UserError: the file system refuses.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        unknown = set(row) - set(columns)
        if unknown:
            raise ValueError(f"columns {sorted(unknown)} are not in {list(columns)}")
        writer.writerow([_cell(row.get(column), ".6g") for column in columns])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, Cell]]:
    """Reads rows as `write_csv` wrote them.

    An empty cell is None, a number an int or (with a point or an exponent) a float.

    Raises:
      UserError: the file is absent or its lines differ in length.
    """
    path = Path(path)
    with explained(path, "read"):
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        raise UserError(f"{path} is no table: every line needs as many cells as the header")
    return [{name: _parse(cell) for name, cell in zip(lines[0], line, strict=True)} for line in lines[1:]]


def print_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Prints `rows` on standard output.

    Numbers are right-aligned, floats with two decimals, from a thousand on with none, from a million on in millions
    ("1.18 M"). What is too wide for the terminal goes on in further tables below, each with the first column: nothing
    is cut off.
    """
    console = Console()
    first, rest = columns[:1], list(columns[1:])
    while True:
        some = next((n for n in range(len(rest), 1, -1) if _fits(console, rows, [*first, *rest[:n]])), 1)
        console.print(_table(title, rows, [*first, *rest[:some]]))
        title, rest = "", rest[some:]
        if not rest:
            return


def _table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    return table


def _fits(console: Console, rows: Sequence[Row], columns: Sequence[str]) -> bool:
    table = _table("", rows, columns)
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width


def _shown(value: Cell) -> str:
    if isinstance(value, float) and abs(value) >= 1e6:
        return f"{value / 1e6:,.2f} M"
    return _cell(value, ",.0f" if isinstance(value, float) and abs(value) >= 1000 else ",.2f")


def _cell(value: Cell, float_format: str) -> str:
    if value is None:
        return ""
    return format(float(value), float_format) if isinstance(value, float) else str(value)


def _parse(cell: str) -> Cell:
    if cell == "":
        return None
    for number in (int, float):
        try:
            return number(cell)
        except ValueError:
            continue
    return cell
