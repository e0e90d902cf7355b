"""A file's rows → new leads: what its columns are called and hold, which rows are the same lead, which are refused.

A plan is made once, from the header and a sample of rows; then every row goes through it alone. The key of a lead is
the text of its key columns, trimmed and in one case, so that `Ada@B.example ` and `ada@b.example` are one lead; an
e-mail address in a key is also stored so. Of a website only the domain counts: `https://www.B.example/about` and
`b.example` are one lead, whose cell stays as it was written. What a column holds, its name says.

Whether a key is in the table already, only the database can say: here are the rules for what then happens (`skip`: the
row is refused as a duplicate, `update`: what it says replaces what the lead has, `fill`: it fills what the lead lacks),
and the folding of rows that meet within one batch.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal, TypeAlias

import msgspec

from leadline.features.tables.columns import (
    Cells,
    Column,
    ColumnType,
    JsonValue,
    cell_text,
    encode_cells,
    inferred_type,
    normal_name,
    normal_names,
)
from leadline.features.tables.reading import RefusedRow, Row, UnreadableFileError, record
from leadline_protocol.errors import LeadReason

DOMAIN_CHARACTERS_MAX: Final = 253

EMAIL_CHARACTERS_MAX: Final = 254
"""RFC 5321: a path has 256 octets with its brackets."""

KeyKind: TypeAlias = Literal["text", "email", "domain"]
"""What a column of a key holds, and so, what makes two of its cells the same."""

OnDuplicate: TypeAlias = Literal["skip", "update", "fill"]

_DOMAIN = re.compile(r"[^\s.,;:@/\\]+(?:\.[^\s.,;:@/\\]+)+")
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//")
_BEYOND_AUTHORITY = re.compile(r"[/?#\\].*", re.DOTALL)
_PORT = re.compile(r":\d*$")
_NAMES_DOMAIN = re.compile(r"(?:^|_)(?:domain|website|web_site|homepage)(?:_\d+)?$")
_EMAIL = re.compile(r"[^@\s,;<>()\"\\]+@[^@\s,;<>()\"\\.]+(?:\.[^@\s,;<>()\"\\.]+)+")


class NewRow(msgspec.Struct, frozen=True, gc=False):
    """A row that is to become a lead, or to be added to one."""

    number: int
    line: int
    key: str | None
    """What makes two rows the same lead; None in a table without a key."""
    data: Cells
    values: Sequence[JsonValue]
    """The row as it stands in the file."""


class ReadyLead(msgspec.Struct, frozen=True, gc=False):
    """A row as it is stored."""

    number: int
    key_hash: bytes | None
    data: str
    """Its cells as JSON."""


class KeyColumn(msgspec.Struct, frozen=True):
    """A column that takes part in the key."""

    name: str
    position: int
    """Among the file's columns, from 0."""
    holds: KeyKind


class UploadPlan(msgspec.Struct, frozen=True):
    """How the rows of one file become leads of one table."""

    columns: tuple[Column, ...]
    """A column for each of the file's, in its order."""
    key: tuple[KeyColumn, ...]
    """The columns that make the key; none: every row is a lead of its own."""
    cells: tuple[tuple[str, Callable[[JsonValue], JsonValue], bool], ...]
    """For each of the file's columns its name, what is stored of a cell, and whether that is a text as it is: looked up
    once, read a million times."""

    def lead(self, row: Row) -> NewRow | RefusedRow:
        """The lead that a row makes, or why it makes none."""
        data: Cells = {}
        for (name, keep, keeps_text), cell in zip(self.cells, row.values, strict=True):
            if keeps_text and cell.__class__ is str:
                if cell and not cell.isspace():
                    data[name] = cell
            elif cell is not None and cell != "" and (value := keep(cell)) is not None:
                data[name] = value
        parts: list[str] = []
        for part in self.key:
            cell = cell_text(row.values[part.position]).strip()
            if not cell:
                return _refused(row, LeadReason.MISSING_KEY, f"nothing in {part.name}")
            if part.holds == "email":
                cell = cell.lower()
                if not is_email(cell):
                    return _refused(row, LeadReason.INVALID_EMAIL, f"{cell[:60]!r} in {part.name}")
                data[part.name] = cell
            elif part.holds == "domain":
                domain = domain_of(cell)
                if domain is None:
                    return _refused(row, LeadReason.MISSING_KEY, f"no domain in {part.name}, but {cell[:60]!r}")
                cell = domain
            parts.append(cell.casefold())
        return NewRow(row.number, row.line, "\x1f".join(parts) if parts else None, data, row.values)


def plan_upload(
    headers: Sequence[str],
    sample: Iterable[Row],
    table: Sequence[Column],
    *,
    mapping: Mapping[str, str],
    declared: Sequence[Column],
    key: Sequence[str] | None,
    typed: bool = False,
) -> UploadPlan:
    """The plan for a file with these headers and first rows, into a table that has these columns.

    `mapping`: header to column name, for headers that should not get their own normal name. `declared`: columns whose
    type is not to be inferred. `key`: names of the key columns; None: `email` where there is such a column. `typed`:
    the file has types of its own (`inferred_type`). A column that the table has keeps its type.

    Raises:
        UnreadableFileError: a name in `mapping`, `declared` or `key` is not in the file, or two headers map to one.

    """
    names = _named(headers, mapping)
    known = {column.name: column for column in (*declared, *table)}
    for column in declared:
        _position(names, column.name, "a type is declared for")
    rows = list(sample)
    columns = tuple(
        known.get(name) or Column(name, inferred_type((row.values[position] for row in rows), typed=typed))
        for position, name in enumerate(names)
    )
    if key is None:
        key = [name for name in names if name == "email"]
    parts = tuple(KeyColumn(name, _position(names, name, "the key is to be"), held_by(name)) for name in key)
    return UploadPlan(columns, parts, tuple(map(_stored, columns)))


def _stored(column: Column) -> tuple[str, Callable[[JsonValue], JsonValue], bool]:
    return column.name, column.keep, column.type is ColumnType.TEXT


def _named(headers: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    wanted = {normal_name(header): name for header, name in mapping.items()}
    present = {normal_name(header) for header in headers}
    for header in mapping:
        if normal_name(header) not in present:
            raise UnreadableFileError(f"the file has no column {header!r}; it has {_listed(headers)}")
    names = normal_names([wanted.get(normal_name(header), header) for header in headers])
    for name in wanted.values():
        if name not in names or f"{name}_2" in names:
            raise UnreadableFileError(f"two columns of the file would both be {name!r}")
    return names


def _position(names: Sequence[str], name: str, why: str) -> int:
    if name not in names:
        raise UnreadableFileError(f"{why} {name!r}, and the file has no such column; it has {_listed(names)}")
    return names.index(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def fold(rows: Iterable[NewRow], on_duplicate: OnDuplicate) -> tuple[list[NewRow], list[NewRow]]:
    """(rows with a key each of its own, rows that were folded into one of those or, with `skip`, are duplicates)."""
    kept: list[NewRow] = []
    places: dict[str, int] = {}
    folded: list[NewRow] = []
    for row in rows:
        place = places.setdefault(row.key, len(kept)) if row.key is not None else len(kept)
        if place == len(kept):
            kept.append(row)
            continue
        folded.append(row)
        if on_duplicate != "skip":
            first = kept[place]
            both = merged(first.data, row.data, on_duplicate)
            kept[place] = NewRow(first.number, first.line, first.key, both, first.values)
    return kept, folded


def merged(cells: Cells, new: Cells, on_duplicate: OnDuplicate) -> Cells:
    """What a lead holds after a row with its key: an empty cell of the row never empties one of the lead."""
    match on_duplicate:
        case "skip":
            return cells
        case "update":
            return cells | new
        case "fill":
            return new | cells


def ready(row: NewRow) -> ReadyLead:
    """A row as it is stored."""
    return ReadyLead(row.number, None if row.key is None else key_hash(row.key), encode_cells(row.data).decode())


def key_hash(key: str) -> bytes:
    """16 bytes that stand for a key in an index of the database: BLAKE2b, so that no file can be made to collide."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def duplicate(row: NewRow) -> RefusedRow:
    """The refusal of a row whose key is known."""
    key = (row.key or "").replace("\x1f", ", ")
    return _refused(row, LeadReason.DUPLICATE, f"{key[:60]!r} is there already")


def _refused(row: Row | NewRow, reason: LeadReason, detail: str) -> RefusedRow:
    return RefusedRow(row.number, row.line, reason, detail, record(map(cell_text, row.values)))


def held_by(name: str) -> KeyKind:
    """What a column of this name is understood to hold, where it takes part in a key."""
    if name == "mail" or "email" in name or "e_mail" in name:
        return "email"
    return "domain" if _NAMES_DOMAIN.search(name) else "text"


def is_email(text: str) -> bool:
    """Whether a text may be one e-mail address: one @, something before it, a domain of at least two labels behind."""
    return len(text) <= EMAIL_CHARACTERS_MAX and _EMAIL.fullmatch(text) is not None


def domain_of(text: str) -> str | None:
    """The domain that a text names, without `www.` and in one spelling: `https://www.B.example/` → `b.example`."""
    authority = _BEYOND_AUTHORITY.sub("", _SCHEME.sub("", text.strip().lower()), count=1)
    host = _PORT.sub("", authority.rpartition("@")[2]).rstrip(".")
    if host.startswith("www.") and host.count(".") > 1:
        host = host[len("www.") :]
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode()
    return host if len(host) <= DOMAIN_CHARACTERS_MAX and _DOMAIN.fullmatch(host) else None
