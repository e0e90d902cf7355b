"""XLSX ↔ a file of rows as JSON: what is done in a process of its own (`spreadsheet_worker`).

A spreadsheet cannot be read or written like a stream of rows. Reading one holds a whole sheet in memory, and a file of
a few kilobytes may unpack to gigabytes; writing one ends with packing all that was written. So neither happens in the
daemon. A sheet is unpacked once into a plain file, which is then read like any other (`rows`), and an export is
written row by row into such a file, which is packed at its end.

The plain file is JSON Lines of lists. The first line is about the columns: their headers (unpacked), or their names and
types (to be packed). Each other one is a row; an unpacked one begins with the number of its row in the sheet.

What bounds it. Before anything is unpacked: what the archive says that it unpacks to. While it is: the limits of the
process on its memory, its time and the file it writes, which an archive that lies meets, and a sheet with two cells in
opposite corners. What is beyond them ends the process, and refuses the file.

Types. A whole number is made one (5.0 is 5), a date is text as 2026-01-31, a moment as 2026-01-31T09:00:00Z; an error
such as #N/A is empty. The other way, what a spreadsheet cannot hold as it is becomes text: numbers of more than 15
digits, dates before 1900. A text that would be taken for a formula when a person edits its cell is marked as text.
"""

import datetime as dt
import os
import resource
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from leadline.features.tables.columns import (
    BadValueError,
    Column,
    ColumnType,
    JsonValue,
    cell_text,
    read_date,
    read_timestamp,
    write_timestamp,
)
from leadline.features.tables.formula_cells import is_formula
from leadline.features.tables.json_lines import too_long, unstorable
from leadline.features.tables.reading import COLUMNS_MAX, RefusedRow, Row, UnreadableFileError, record
from leadline_protocol.errors import LeadReason

UNPACKED_BYTES_MAX: Final = 2 * 1024**3
"""What an archive may say that it unpacks to: a full sheet of some 40 columns."""

ENTRIES_MAX: Final = 10_000

SHEET_ROWS_MAX: Final = 1_048_576
"""Rows of a sheet, its header among them; more leads go on in the next one."""

CELL_CHARACTERS_MAX: Final = 32_767
"""One fewer than a cell of a lead holds."""

DIGITS_MAX: Final = 15
"""Of a number in a spreadsheet; what is beyond becomes zeros."""

MEMORY_BYTES_MAX: Final = 3 * 1024**3
"""Address space of the process: a sheet of a million rows and seven columns takes a third of it."""

FILE_BYTES_MAX: Final = 8 * 1024**3

FILE_MODE: Final = 0o640
"""Of what is packed: the group of its folder may read it."""

CPU_SECONDS_MAX: Final = 1_800

MOVED_ROWS: Final = 10_000
"""After so many rows it is said that work goes on."""

_ROW: Final = msgspec.json.Decoder(list[Any])
_EXACT_ROW: Final = msgspec.json.Decoder(list[Any], float_hook=Decimal)
_LINES: Final = msgspec.json.Encoder(decimal_format="number")
_FIRST_DAY: Final = dt.datetime(1900, 3, 1)  # noqa: DTZ001  a spreadsheet knows no zones
"""Spreadsheets count the day before, which never was."""


class SheetFormat(msgspec.Struct, frozen=True):
    """A sheet that was unpacked."""


def unpack(source: Path, sheet: str | None, target: Path, moved: Callable[[], None]) -> None:
    """Write the rows of a sheet (None: of the first) into a plain file; blank ones are left out.

    Raises:
        UnreadableFileError: it is no XLSX, is too large, has no such sheet, or there is nothing in it.

    """
    from python_calamine import CalamineError, CalamineWorkbook

    _check_archive(source)
    try:
        with CalamineWorkbook.from_path(source) as book:
            name = _sheet(book.sheet_names, sheet)
            rows = _numbered(book.get_sheet_by_name(name).iter_rows())
            with target.open("xb") as file:
                _, headers = next(rows, (0, []))
                while headers and headers[-1] is None:
                    del headers[-1]
                if not headers:
                    raise UnreadableFileError(f"there is nothing in the sheet {name!r}")
                if len(headers) > COLUMNS_MAX:
                    text = f"the sheet has {len(headers):,} columns; at most {COLUMNS_MAX:,} can be read"
                    raise UnreadableFileError(text)
                file.write(_LINES.encode_lines([[cell_text(header) for header in headers]]))
                while page := list(islice(rows, MOVED_ROWS)):
                    file.write(_LINES.encode_lines([[line, *values] for line, values in page]))
                    moved()
    except CalamineError as error:
        raise UnreadableFileError(f"the file cannot be read as XLSX: {error}") from None


def _check_archive(source: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableFileError(f"the file is no XLSX workbook, or is cut off: {error}") from None
    if len(entries) > ENTRIES_MAX:
        raise UnreadableFileError(f"the file has {len(entries):,} parts; an XLSX of at most {ENTRIES_MAX:,} is read")
    if "xl/workbook.xml" not in {entry.filename for entry in entries}:
        raise UnreadableFileError("the file is a ZIP archive, but no XLSX workbook")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > UNPACKED_BYTES_MAX:
        text = f"unpacked it would have {unpacked:,} bytes; at most {UNPACKED_BYTES_MAX:,} are read"
        raise UnreadableFileError(text)


def _sheet(names: Sequence[str], wanted: str | None) -> str:
    if not names:
        raise UnreadableFileError("the file has no sheet")
    if wanted is None:
        return names[0]
    for name in names:
        if name.casefold() == wanted.casefold():
            return name
    raise UnreadableFileError(f"the file has no sheet {wanted!r}; it has {', '.join(names[:20])}")


def _numbered(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[int, list[JsonValue]]]:
    """The rows in which there is anything, each with its number in the sheet."""
    for line, row in enumerate(rows, start=1):
        values = [_value(cell) for cell in row]
        if any(value is not None for value in values):
            yield line, values


def _value(cell: object) -> JsonValue:
    match cell:
        case str():
            return None if not cell or cell.isspace() else cell
        case float():
            return int(cell) if cell.is_integer() and abs(cell) < 1e15 else cell
        case bool() | int():
            return cell
        case dt.datetime():
            return write_timestamp(cell)
        case dt.date() | dt.time():
            return cell.isoformat()
        case dt.timedelta():
            seconds = round(cell.total_seconds())
            return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        case _:
            return str(cell)


def headers(unpacked: Path) -> tuple[tuple[str, ...], int]:
    """The headers of an unpacked sheet, and its number of rows."""
    with unpacked.open("rb") as file:
        return tuple(_ROW.decode(file.readline())), sum(1 for _ in file)


def rows(unpacked: Path, columns: int, *, after: int = 0) -> Iterator[Row | RefusedRow]:
    """The rows of an unpacked sheet that has so many headers, those up to number `after` left out."""
    with unpacked.open("rb") as file:
        for number, text in enumerate(islice(file, 1 + after, None), start=1 + after):
            line, *values = _ROW.decode(text)
            values += [None] * (columns - len(values))
            while len(values) > columns and values[-1] is None:
                del values[-1]
            fault: tuple[LeadReason, str] | None = None
            if len(values) > columns:
                fault = LeadReason.RAGGED_ROW, f"{len(values)} cells; the header has {columns}"
            elif len(text) > CELL_CHARACTERS_MAX:
                fault = too_long(values)
            if fault is None and (fault := unstorable(values, text)) is None:
                yield Row(number, line, values)
            else:
                yield RefusedRow(number, line, *fault, record(map(cell_text, values)))


def pack(source: Path, target: Path, moved: Callable[[], None]) -> None:
    """Write a plain file's rows as XLSX, durably."""
    import xlsxwriter

    with (
        source.open("rb") as file,
        # Each sheet is first written into a file of its own.
        TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.", suffix=".part") as folder,
        xlsxwriter.Workbook(str(target), {"constant_memory": True, "tmpdir": folder, "use_zip64": True}) as book,
    ):
        columns = [msgspec.convert(column, Column) for column in _ROW.decode(file.readline())]
        while True:
            sheet = _Sheet(book, columns)
            for number, line in enumerate(islice(file, SHEET_ROWS_MAX - 1), start=1):
                sheet.write(number, _EXACT_ROW.decode(line))
                if number % MOVED_ROWS == 0:
                    moved()
            if not file.peek(1):
                break
    with target.open("rb") as packed:
        os.fchmod(packed.fileno(), FILE_MODE)
        os.fsync(packed.fileno())


class _Sheet:
    """One sheet that is written row by row."""

    def __init__(self, book: Any, columns: Sequence[Column]) -> None:
        self._sheet = book.add_worksheet()
        self._columns = columns
        self._date = book.add_format({"num_format": "yyyy-mm-dd"})
        self._timestamp = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._text = book.add_format({"quote_prefix": True})
        self._sheet.freeze_panes(1, 0)
        heading = book.add_format({"bold": True})
        for position, column in enumerate(columns):
            self._sheet.write_string(0, position, column.name, heading)

    def write(self, row: int, values: Sequence[JsonValue]) -> None:
        for position, value in enumerate(values):
            if value is not None:
                self._cell(row, position, value)

    def _cell(self, row: int, position: int, value: JsonValue) -> None:
        if isinstance(value, bool):
            self._sheet.write_boolean(row, position, value)
        elif isinstance(value, int | Decimal) and _fits(value):
            self._sheet.write_number(row, position, value)
        elif (moment := _moment(self._columns[position].type, value)) is not None:
            form = self._date if self._columns[position].type is ColumnType.DATE else self._timestamp
            self._sheet.write_datetime(row, position, moment, form)
        else:
            text = cell_text(value)
            if len(text) > CELL_CHARACTERS_MAX:
                text = text[: CELL_CHARACTERS_MAX - 1] + "…"
            self._sheet.write_string(row, position, text, self._text if is_formula(text) else None)


def _fits(number: int | Decimal) -> bool:
    """Whether a spreadsheet holds the number as it is."""
    if isinstance(number, int):
        return abs(number) < 10**DIGITS_MAX
    return len(number.as_tuple().digits) <= DIGITS_MAX and abs(number.adjusted()) < 100


def _moment(kind: ColumnType, value: JsonValue) -> dt.datetime | None:
    """The day or moment, in UTC, that a value of a column writes, where it is one and spreadsheets know it."""
    if not isinstance(value, str) or kind not in {ColumnType.DATE, ColumnType.TIMESTAMP}:
        return None
    try:
        if kind is ColumnType.DATE:
            moment = dt.datetime.combine(read_date(value), dt.time())
        else:
            moment = read_timestamp(value).replace(tzinfo=None)
    except BadValueError:
        return None
    return moment if moment >= _FIRST_DAY else None


def main(order: str, source: str, target: str, sheet: str | None = None) -> None:
    """Do what is ordered, under limits; say on standard output that it goes on, and at last what is wrong."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))

    def moved() -> None:
        sys.stdout.write("\n")
        sys.stdout.flush()

    try:
        if order == "unpack":
            unpack(Path(source), sheet, Path(target), moved)
        else:
            pack(Path(source), Path(target), moved)
    except UnreadableFileError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
