"""Files and tables of a run: nothing half-written, and read back as written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.runs import print_table, read_csv, write_csv, write_json, write_text
from tests.disk import no_space


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(UserError, match=r"results\.json: No space left on device"):
        write_json(path, {"a": 2})
    with pytest.raises(UserError, match=r"table\.csv"):
        write_csv(tmp_path / "table.csv", [{"a": 1}], ["a"])
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_value_that_is_not_json_does_not_touch_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    for bad in ({"a": math.nan}, {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", bad)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_parents_are_made_and_a_file_in_their_place_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "y" / "a.txt", "grün\r\n")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == "grün\r\n".encode()
    with pytest.raises(UserError, match=r"a\.txt"):
        write_text(tmp_path / "x" / "y" / "a.txt" / "b.txt", "")


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"method": "pcl, d = 1", "seed": 0, "value": 23.5, "low": None},
        {"method": 'the "best"', "seed": -1, "value": 1e-7, "low": 2.0},
        {"method": "two\nlines", "seed": 2, "value": 0.125},
    ]
    columns = ["method", "seed", "value", "low"]
    write_csv(tmp_path / "t.csv", rows, columns)
    found = read_csv(tmp_path / "t.csv")
    assert found == [{c: row.get(c) for c in columns} for row in rows]
    assert all(isinstance(row["seed"], int) for row in found)  # 0 == 0.0, but a seed is no float
    before = (tmp_path / "t.csv").read_bytes()
    write_csv(tmp_path / "t.csv", read_csv(tmp_path / "t.csv"), columns)
    assert (tmp_path / "t.csv").read_bytes() == before


def test_the_order_of_columns_is_the_one_asked_for_and_floats_have_six_digits(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"b": 1 / 3, "a": 123456.789}], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n123457,0.333333\n"


def test_bad_tables_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'c'"):
        write_csv(tmp_path / "t.csv", [{"a": 1, "c": 2}], ["a", "b"])
    assert not (tmp_path / "t.csv").exists()
    with pytest.raises(UserError, match=r"read .*t\.csv"):
        read_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n1\n")
    with pytest.raises(UserError, match="no table"):
        read_csv(tmp_path / "t.csv")


def test_a_printed_table_holds_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Results", [{"method": "pcl", "bleu": 23.456}, {"method": "mle", "bleu": None}], ["method", "bleu"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("Results", "method", "bleu", "pcl", "23.46", "mle"))


def test_no_printed_table_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    columns = ["method", *(f"exact_match{i}" for i in range(8))]
    print_table("Results", [{"method": "pcl", **dict.fromkeys(columns[1:], 1_175_425.0)}], columns)
    out = capsys.readouterr().out
    assert "…" not in out and out.count("Results") == 1
    assert max(map(len, out.splitlines())) <= 60
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in out.splitlines() if "│" in line or "┃" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    shown = [dict(zip(head, row, strict=True)) for head, row in zip(cells[::2], cells[1::2], strict=True)]
    assert [name for table in shown for name in table if name != "method"] == columns[1:]
    assert all(table.pop("method") == "pcl" and set(table.values()) == {"1.18 M"} for table in shown)
    print_table("Results", [{"name": "x" * 100}], ["name"])  # not even what no terminal could hold
    assert capsys.readouterr().out.count("x") == 100
