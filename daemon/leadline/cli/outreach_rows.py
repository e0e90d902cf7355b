"""Rows of an import, from a file: JSON Lines, or CSV of follow-ups or suppressions.

    {"type": "associate", "name": "ada", "address": "ada@acme.example"}     a line of JSON Lines is a row as it stands
    email,script,First name                                                 a line of CSV becomes one by its header

Nothing is judged here that the daemon judges; a line that is no row at all is told as a fault at its place, and the
others go on. One thing the daemon cannot know is where a password is kept: `password_file` in an associate's `smtp`
names a file, from the folder of the import on, and its text takes the place of the password.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NoReturn

from msgspec import Struct

from leadline.cli.daemon import Failed, Misused
from leadline.features.tables.reading import (
    SAMPLE_BYTES,
    UNDECODABLE,
    CsvFile,
    Lines,
    LineTooLongError,
    RefusedRow,
    UnreadableFileError,
    decoded,
    other_than_text,
    sniff,
    text_encoding,
)
from leadline_protocol.messages import IMPORT_ROWS

CsvType = Literal["follow_up", "suppression"]

TYPES: Final = tuple(str(row.__struct_config__.tag) for row in IMPORT_ROWS)

_COLUMNS: Final[Mapping[CsvType, tuple[str, ...]]] = {
    "follow_up": ("key", "associate", "address", "zone", "script", "step", "follow_up_date"),
    "suppression": ("address", "domain", "detail"),
}
_ALSO_CALLED: Final = {"email": "address", "e_mail": "address"}


class Fault(Struct, frozen=True):
    """Why a line was not imported."""

    line: int
    code: str
    message: str
    at: str | None = None


class Found(Struct, frozen=True):
    """A row, and the line of the file on which it begins."""

    line: int
    row: dict[str, Any]


class RowFile:
    """The rows of a file, read once."""

    def __init__(
        self,
        source: BinaryIO,
        *,
        name: str,
        folder: Path,
        kind: CsvType | None,
        defaults: Mapping[str, str],
        rename: Mapping[str, str],
    ) -> None:
        """`name` is what the file is called in faults, `folder` where it lies.

        `defaults` are those of follow-ups that do not say themselves. Raises Failed where it is no such file, and
        Misused where `rename` is not about its columns.
        """
        self.bytes_read = 0
        self.left_out: list[str] = []
        """Columns that a row has no place for."""
        self.types: Final[set[str]] = set()
        """What its rows are, as far as it was read."""
        self._name: Final = name
        self._folder: Final = folder
        self._defaults: Final = defaults
        sample = source.read(SAMPLE_BYTES)
        complete = len(sample) < SAMPLE_BYTES
        if (other := other_than_text(sample)) is not None:
            raise Failed(f"{name} is {other}: save it as CSV, or write JSON Lines")
        blocks = chain([sample], iter(lambda: source.read(SAMPLE_BYTES), b""))
        text = sample.decode(text_encoding(sample, complete=complete), errors="replace").lstrip("\ufeff \t\r\n")
        if text.startswith("["):
            raise Failed(f"{name} holds one JSON array: write JSON Lines, an object on each line")
        try:
            if text.startswith("{"):
                if rename:
                    raise Misused("--rename is for the columns of a CSV file")
                encoding = text_encoding(sample, complete=complete)
                self._rows = self._of_json(Lines(decoded(self._counted(blocks), encoding), "\n"), kind)
            else:
                table = CsvFile(self._counted(blocks), sniff(sample, complete=complete))
                self._rows = self._of_csv(table, kind or "follow_up", rename)
        except UnreadableFileError as error:
            raise Failed(f"{name}: {error}") from error

    def rows(self) -> Iterator[Found | Fault]:
        """Each row, or what is wrong with its line."""
        return self._rows

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.bytes_read += len(block)
            yield block

    # -- JSON Lines ---------------------------------------------------------------------------------------------------

    def _of_json(self, lines: Lines, kind: CsvType | None) -> Iterator[Found | Fault]:
        while True:
            lines.forget()
            try:
                line = next(lines)
            except StopIteration:
                return
            except LineTooLongError:
                yield Fault(lines.first, "too_large", "the line is longer than a million characters")
                continue
            if line.isspace():
                continue
            if lines.tainted:
                yield Fault(lines.first, "bad_json", UNDECODABLE)
                continue
            yield self._read(lines.first, line, kind)

    def _read(self, number: int, line: str, kind: CsvType | None) -> Found | Fault:
        try:
            row = json.loads(line, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_number)
        except _BadLine as error:
            return Fault(number, "bad_json", str(error))
        except json.JSONDecodeError as error:
            return Fault(number, "bad_json", f"not JSON: {error.msg} at character {error.pos + 1}")
        except RecursionError:
            return Fault(number, "bad_json", "nested too deep")
        if not isinstance(row, dict):
            return Fault(number, "bad_request", "not a JSON object")
        if kind is not None:
            row.setdefault("type", kind)
        type_ = row.get("type")
        if type_ not in TYPES:
            said = "no type is given" if type_ is None else f"there is no type {type_!r}"
            return Fault(number, "bad_request", f"{said}; there are {', '.join(TYPES)}", "type")
        self.types.add(type_)
        if type_ == "follow_up":
            row = {**self._defaults, **row}
        smtp = row.get("smtp")
        if isinstance(smtp, dict) and "password_file" in smtp:
            return self._with_password(number, row, smtp)
        return Found(number, row)

    def _with_password(self, number: int, row: dict[str, Any], smtp: dict[str, Any]) -> Found | Fault:
        at = "smtp.password_file"
        if "password" in smtp:
            return Fault(number, "bad_request", "give a password or a password_file, not both", at)
        file = smtp["password_file"]
        if not isinstance(file, str):
            return Fault(number, "bad_request", "expected `str`", at)
        try:
            password = (self._folder / file).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            return Fault(number, "bad_request", f"{self._folder / file}: {reason}", at)
        others = {key: value for key, value in smtp.items() if key != "password_file"}
        return Found(number, {**row, "smtp": {**others, "password": password}})

    # -- CSV ----------------------------------------------------------------------------------------------------------

    def _of_csv(self, table: CsvFile, kind: CsvType, rename: Mapping[str, str]) -> Iterator[Found | Fault]:
        columns = self._columns(table.headers, kind, rename)
        self.types.add(kind)
        make: Callable[[dict[str, Any], dict[str, str]], dict[str, Any]] = (
            self._follow_up if kind == "follow_up" else self._suppression
        )
        return self._rows_of(table, columns, make)

    def _columns(
        self, headers: Iterable[str], kind: CsvType, rename: Mapping[str, str]
    ) -> list[tuple[str, bool] | None]:
        """For each column what it is called, and whether that is one of those that a row has; None: it is left out."""
        headers = [header.strip() for header in headers]
        if unknown := [header for header in rename if header not in headers]:
            raise Misused(f"{self._name} has no column {unknown[0]}; it has {', '.join(filter(None, headers))}")
        columns: list[tuple[str, bool] | None] = []
        for header in headers:
            plain = re.sub(r"[\s_-]+", "_", header.lower())
            called = rename.get(header) or _ALSO_CALLED.get(plain, plain)
            if called in _COLUMNS[kind]:
                columns.append((called, True))
            elif kind == "follow_up" and header:
                columns.append((rename.get(header, header), False))
            else:
                columns.append(None)
                self.left_out.append(header or "one without a name")
        names = [column[0] for column in columns if column is not None]
        if twice := [name for name in names if names.count(name) > 1]:
            raise Failed(f"{self._name} has {twice[0]} twice: --rename HEADER=COLUMN tells them apart")
        if not {"address", "domain"} & set(names):
            had = ", ".join(filter(None, headers))
            message = f"{self._name} has no column address or email; it has {had}"
            raise Failed(f"{message}: --rename HEADER=address says which it is")
        return columns

    def _rows_of(
        self,
        table: CsvFile,
        columns: list[tuple[str, bool] | None],
        make: Callable[[dict[str, Any], dict[str, str]], dict[str, Any]],
    ) -> Iterator[Found | Fault]:
        for each in table.rows():
            if isinstance(each, RefusedRow):
                yield Fault(each.line, each.reason, each.detail)
                continue
            row: dict[str, Any] = {}
            fields: dict[str, str] = {}
            for column, value in zip(columns, each.values, strict=True):
                text = str(value or "").strip()
                if column is not None and text:
                    name, is_own = column
                    (row if is_own else fields)[name] = text
            if row or fields:
                yield Found(each.line, make(row, fields))

    def _follow_up(self, row: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
        if row.get("step", "").isdecimal():
            row["step"] = int(row["step"])
        if "follow_up_date" in row:
            row["follow_up_date"] = _moment(row["follow_up_date"])
        return {"type": "follow_up", **self._defaults, **row, "fields": fields}

    def _suppression(self, row: dict[str, Any], _: dict[str, str]) -> dict[str, Any]:
        return {"type": "suppression", **row}


def _moment(text: str) -> str:
    """A date or a time, in the person's zone where it names none; what is neither is left to the daemon."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        return text


class _BadLine(Exception):
    """It is JSON, and yet not to be taken."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _BadLine(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _number(text: str) -> float:
    found = float(text)
    return found if isfinite(found) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise _BadLine(f"{text} is no number")
