"""A file of leads of any kind → what it is, what its columns are, and its rows.

What a file is, is found out by looking: a spreadsheet is an archive, the first line of JSON Lines is an object, and
anything else is CSV. The name is believed only where that leaves a doubt: a file called .jsonl whose first line is
broken is no CSV. Whoever hands a file in may say what it is.

Every kind is read the same way: a survey of the whole file in one pass, for its columns, its number of rows and the
first of them, by which types are inferred; then the rows, from behind any of them on.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias, assert_never

import msgspec

from leadline.features.tables import json_lines, repair, spreadsheets
from leadline.features.tables.json_lines import JsonLinesFormat
from leadline.features.tables.reading import (
    SAMPLE_BYTES,
    CsvFile,
    CsvFormat,
    RefusedRow,
    Row,
    UnreadableFileError,
    decoded,
    other_than_text,
    sniff,
    text_encoding,
)
from leadline.features.tables.spreadsheets import SheetFormat
from leadline_protocol import messages as wire

SAMPLE_ROWS: Final = 500
"""From how many rows the types of columns are inferred."""

BLOCK_BYTES: Final = 256 * 1024

ARCHIVE: Final = b"PK\x03\x04"

JSON_LINES_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})

_MEANT: Final[Mapping[str, wire.FileFormat]] = {".xlsx": "xlsx", **dict.fromkeys(JSON_LINES_SUFFIXES, "jsonl")}

_NAMES: Final[Mapping[wire.FileFormat, str]] = {"csv": "CSV file", "jsonl": "JSON Lines file", "xlsx": "XLSX workbook"}

Format: TypeAlias = CsvFormat | JsonLinesFormat | SheetFormat


class Survey(msgspec.Struct, frozen=True):
    """What is to be known of a file before its rows can become leads."""

    headers: tuple[str, ...]
    """Of the columns that leads get."""
    rows: int
    """How many there are, refused ones among them."""
    sample: list[Row]
    typed: bool
    """Whether its values have types of their own; else all are texts."""
    columns: tuple[str, ...]
    """What stands over all its columns, also those that only tell of an earlier refusal (`repair`)."""


def recognised(path: Path, upload: wire.Upload) -> Format:
    """What an upload's file is and how it is written; a sheet is still to be unpacked. Raises UnreadableFileError."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if not sample:
        raise UnreadableFileError("the file is empty")
    if upload.format in {None, "xlsx"} and sample.startswith(ARCHIVE):
        return SheetFormat()
    complete = len(sample) < SAMPLE_BYTES
    dialect = upload.dialect or wire.Dialect()
    _check_text(sample, upload, dialect.encoding)
    encoding = text_encoding(sample, complete=complete, said=dialect.encoding)
    if upload.format == "jsonl" or (upload.format is None and _is_json_lines(sample, encoding, upload.path)):
        return JsonLinesFormat(encoding)
    return sniff(sample, complete=complete, delimiter=dialect.delimiter, quote=dialect.quote, encoding=encoding)


def _check_text(sample: bytes, upload: wire.Upload, encoding: str | None) -> None:
    """Raise UnreadableFileError where the file is no text, or is one and said to be a spreadsheet."""
    kind = other_than_text(sample) if encoding is None else None
    if kind is None and upload.format == "xlsx":
        kind = "text"
    if kind is not None:
        meant = upload.format or _MEANT.get(Path(upload.path).suffix.lower(), "csv")
        raise UnreadableFileError(f"the file is no {_NAMES[meant]}, but {kind}")


def _is_json_lines(sample: bytes, encoding: str, name: str) -> bool:
    if Path(name).suffix.lower() in JSON_LINES_SUFFIXES:
        return True
    lines = "".join(decoded([sample], encoding)).split("\n")
    first = next((line for line in lines if line.strip()), "")
    return first.lstrip().startswith("{") and json_lines.is_object(first)


def survey(path: Path, written: Format) -> Survey:
    """Look through the whole file. Raises UnreadableFileError."""
    if isinstance(written, CsvFormat):
        file = CsvFile(_blocks(path), written)
        found = file.rows()
        sample = list(islice(found, SAMPLE_ROWS))
        headers, count = file.headers, len(sample) + sum(1 for _ in found)
    else:
        headers, count = (
            json_lines.keys(_blocks(path), written)
            if isinstance(written, JsonLinesFormat)
            else spreadsheets.headers(path)
        )
        sample = list(islice(_rows(path, written, headers, after=0), SAMPLE_ROWS))
    repaired = repair.is_repaired(headers)
    taken = [row for row in (repair.own_rows(iter(sample)) if repaired else sample) if isinstance(row, Row)]
    typed = not isinstance(written, CsvFormat)
    return Survey(repair.own_headers(headers) if repaired else headers, count, taken, typed, headers)


def rows(path: Path, written: Format, found: Survey, *, after: int = 0) -> Iterator[Row | RefusedRow]:
    """The rows of a file that was surveyed, those up to number `after` left out."""
    read = _rows(path, written, found.columns, after=after)
    return repair.own_rows(read) if repair.is_repaired(found.columns) else read


def _rows(path: Path, written: Format, columns: tuple[str, ...], *, after: int) -> Iterator[Row | RefusedRow]:
    match written:
        case CsvFormat():
            return CsvFile(_blocks(path), written).rows(after=after)
        case JsonLinesFormat():
            return json_lines.rows(_blocks(path), written, columns, after=after)
        case SheetFormat():
            return spreadsheets.rows(path, len(columns), after=after)
        case never:
            assert_never(never)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
