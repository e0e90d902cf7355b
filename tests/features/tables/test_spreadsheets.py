"""Spreadsheets become plain files and back, in a process that hostile ones may bring down."""

import asyncio
import datetime as dt
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import python_calamine
import xlsxwriter

from leadline.features.tables import spreadsheet_worker, spreadsheets
from leadline.features.tables.reading import RefusedRow, Row, UnreadableFileError
from tests.features.child_processes import children


def nothing() -> None:
    """Nobody waits."""


def book(path: Path, *sheets: tuple[str, list[list[Any]]]) -> Path:
    with xlsxwriter.Workbook(str(path)) as made:
        for name, rows in sheets:
            sheet = made.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    return path


def unpacked(path: Path, sheet: str | None = None) -> tuple[tuple[str, ...], list[Row | RefusedRow]]:
    plain = path.with_suffix(".plain")
    plain.unlink(missing_ok=True)
    spreadsheets.unpack(path, sheet, plain, nothing)
    headers, count = spreadsheets.headers(plain)
    rows = list(spreadsheets.rows(plain, len(headers)))
    assert len(rows) == count
    return headers, rows


def test_the_first_sheet_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", ("First", [["a"], [1]]), ("Second", [["b"], [2]]))
    headers, rows = unpacked(path)
    assert (headers, repr(rows)) == (("a",), "[Row(number=1, line=2, values=[1])]"), "and 1.0 is 1"
    assert unpacked(path, "second") == (("b",), [Row(1, 2, [2])])
    with pytest.raises(UnreadableFileError, match="no sheet 'Third'; it has First, Second"):
        unpacked(path, "Third")


def test_blank_rows_are_no_rows_and_stray_cells_no_columns(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", ("S", [[], ["a", "b", " "], [], [1], ["", ""], [None, 2, None], [3, 4, 5]]))
    headers, rows = unpacked(path)
    assert headers == ("a", "b")
    assert [row.values if isinstance(row, Row) else row.reason for row in rows] == [[1, None], [None, 2], "ragged_row"]
    assert [row.line for row in rows] == [4, 6, 7]


@pytest.mark.parametrize("rows", [[], [[]], [[" "]]])
def test_a_sheet_with_nothing_in_it_is_refused(rows: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="nothing in the sheet 'S'"):
        unpacked(book(tmp_path / "b.xlsx", ("S", rows)))


def archive(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in parts.items():
            made.writestr(name.replace("__", "/"), data)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "no XLSX"),
        (lambda path: archive(path, a=b"x"), "a ZIP archive, but no XLSX workbook"),
        (lambda path: archive(path, **{"xl__workbook.xml": b"<not xml"}), "cannot be read as XLSX"),
        (lambda path: archive(path, **{f"p{n}": b"" for n in range(10_001)}), "10,001 parts"),
    ],
)
def test_an_archive_that_is_no_spreadsheet_is_refused(make: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    make(tmp_path / "b.xlsx")
    with pytest.raises(UnreadableFileError, match=says):
        unpacked(tmp_path / "b.xlsx")


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheets, "UNPACKED_BYTES_MAX", 1_000_000)
    path = book(tmp_path / "b.xlsx", ("S", [["a"], [1]]))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as more:
        more.writestr("xl/bomb.xml", bytes(1_000_001))
    assert path.stat().st_size < 20_000
    with pytest.raises(UnreadableFileError, match="unpacked it would have"):
        unpacked(path)


async def test_a_sheet_of_two_far_corners_ends_the_worker_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "b.xlsx"
    with xlsxwriter.Workbook(str(path)) as made:
        sheet = made.add_worksheet()
        sheet.write(0, 0, "a")
        sheet.write(1_048_575, 300, "b")  # ten gigabytes for who holds all cells between them
    with pytest.raises(UnreadableFileError, match="too large to be read"):
        await spreadsheet_worker.unpack(path, None, tmp_path / "plain", nothing)


async def test_the_worker_says_what_is_wrong_and_that_it_goes_on(tmp_path: Path) -> None:
    moves: list[None] = []
    path = book(tmp_path / "b.xlsx", ("Tabelle", [["a"], *([n] for n in range(25_000))]))
    await spreadsheet_worker.unpack(path, None, tmp_path / "plain", lambda: moves.append(None))
    assert spreadsheets.headers(tmp_path / "plain") == (("a",), 25_000)
    assert moves
    with pytest.raises(UnreadableFileError, match=r"^the file has no sheet 'Ä'; it has Tabelle$"):
        await spreadsheet_worker.unpack(path, "Ä", tmp_path / "other", nothing)


async def test_the_worker_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    """A process that waits for a FIFO would wait for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    others = children()
    waiting = asyncio.create_task(spreadsheet_worker.unpack(fifo, None, tmp_path / "plain", nothing))
    while not (children() - others or waiting.done()):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() <= others


def packed(path: Path, columns: list[tuple[str, str]], *rows: list[Any]) -> list[list[Any]]:
    plain = path.with_suffix(".plain")
    lines = [[{"name": name, "type": kind} for name, kind in columns], *rows]
    plain.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spreadsheets.pack(plain, path, nothing)
    found = python_calamine.CalamineWorkbook.from_path(path)
    return [row for name in found.sheet_names for row in found.get_sheet_by_name(name).to_python()]


def test_cells_have_their_types_in_a_spreadsheet(tmp_path: Path) -> None:
    columns = [("n", "number"), ("b", "boolean"), ("d", "date"), ("t", "timestamp"), ("x", "text"), ("j", "json")]
    rows = packed(
        tmp_path / "b.xlsx",
        columns,
        [7, True, "2026-01-31", "2026-01-31T09:30:15Z", "00123", {"a": [1]}],
        [-2.25, False, "soon", "2026-01-31T09:30:15.500000Z", "=1+1", None],
        [123456789012345, None, "1899-12-31", None, "https://a.example", []],
        [1234567890123456, None, None, None, "x" * 32_768, "text"],
    )
    moment = dt.datetime.fromisoformat("2026-01-31T09:30:15")
    assert rows == [
        ["n", "b", "d", "t", "x", "j"],
        [7, True, dt.date(2026, 1, 31), moment, "00123", '{"a":[1]}'],
        [-2.25, False, "soon", moment.replace(microsecond=500_000), "=1+1", ""],
        [123456789012345, "", "1899-12-31", "", "https://a.example", "[]"],
        ["1234567890123456", "", "", "", "x" * 32_766 + "…", "text"],
    ]
    with zipfile.ZipFile(tmp_path / "b.xlsx") as parts:
        assert b'quotePrefix="1"' in parts.read("xl/styles.xml")
        assert b"<f>" not in parts.read("xl/worksheets/sheet1.xml")


def test_more_rows_than_a_sheet_holds_go_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheets, "SHEET_ROWS_MAX", 3)
    for count, sheets in ((0, [[]]), (2, [[0, 1]]), (3, [[0, 1], [2]])):
        rows = packed(tmp_path / "b.xlsx", [("n", "number")], *([n] for n in range(count)))
        assert rows == [cell for sheet in sheets for cell in [["n"], *([n] for n in sheet)]]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
