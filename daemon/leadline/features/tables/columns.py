"""What a column is called, which type it has, and which JSON value stands for a cell.

A lead is one JSON object, `{"email": "a@b.example", "score": 7}`: a key per column, no key where the cell is empty.
A number is a JSON number, a boolean a JSON boolean; text, dates and timestamps are strings, a date always `2026-01-31`,
a timestamp always UTC `2026-01-31T09:00:00Z` (with six decimals only where there are any), so that equal moments are
equal strings.

The complication is dirt. Two entrances meet it differently. What a provider or a model returns was asked for in a type,
so it is that type or refused (`Column.accept`, reason `bad_output`). What a person uploads is theirs and must not be
lost: a cell that does not fit the type of its column stays in it as the text that it was (`Column.keep`), and a formula
that reads it fails for that lead alone. Leading zeros are such a case: `00123` is never made a 123.
"""

import datetime as dt
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import Final, TypeAlias, cast

import msgspec

from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import LeadId

JsonValue: TypeAlias = "str | int | float | bool | Decimal | list[JsonValue] | dict[str, JsonValue] | None"
Cells: TypeAlias = dict[str, JsonValue]
"""A lead's data: column name to JSON value; an empty cell has no key."""

NAME_CHARACTERS_MAX: Final = 63
"""Length of a column name; the length of a Postgres identifier, so that every name could be one."""

TEXT_CHARACTERS_MAX: Final = 32_768
"""Length of one cell's text: what a cell of a spreadsheet holds."""

NUMBER_DIGITS_MAX: Final = 40
"""A cell's number is below 10^40 and has at most 20 decimals; formulas rely on both to stay in Postgres' numeric."""

DECIMALS_MAX: Final = 20

ALLOWED_VALUES_MAX: Final = 100

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[1-9]\d{0,14}|0", re.ASCII)
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DOTTED_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)
_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|z|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)
_NUMBER_MAX: Final = 10**NUMBER_DIGITS_MAX
_WIDE: Final = Context(prec=2 * NUMBER_DIGITS_MAX)
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "yes": True, "false": False, "no": False}


class ColumnType(StrEnum):
    """The declared types. An enum is text with `allowed` values."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    JSON = "json"


class BadValueError(ValueError):
    """The value cannot be read as the type of its column; the message says so in the words of a person."""


class Column(msgspec.Struct, frozen=True, gc=False):
    """One declared column of a table."""

    name: str
    type: ColumnType
    allowed: tuple[str, ...] = ()
    """The values of an enum, in the order declared; empty for any other column."""

    def accept(self, raw: object) -> JsonValue:
        """The JSON value that stands for a provider's or model's `raw`; None where it is empty.

        Raises:
            BadValueError: `raw` is not of this column's type, or not one of its allowed values.

        """
        if raw is None:
            return None
        match self.type:
            case ColumnType.NUMBER:
                return _number(raw)
            case ColumnType.TEXT:
                return self._text(raw)
            case ColumnType.BOOLEAN:
                return _boolean(raw)
            case ColumnType.DATE:
                return _blank_or(raw, lambda text: read_date(text).isoformat())
            case ColumnType.TIMESTAMP:
                return _blank_or(raw, lambda text: write_timestamp(read_timestamp(text)))
            case ColumnType.JSON:
                return _json(raw)

    def keep(self, cell: JsonValue) -> JsonValue:
        """The JSON value that stands for an uploaded `cell`: of the column's type where it fits, else its text."""
        if not isinstance(cell, str):
            return self._keep_value(cell)
        kind = self.type
        # First what most cells of most files are, at a tenth of the cost.
        if kind is ColumnType.TEXT:
            return cell if cell and not cell.isspace() else None
        if kind is ColumnType.NUMBER and _WHOLE_NUMBER.fullmatch(cell):
            return int(cell)
        if kind is ColumnType.DATE and _is_iso_date(cell):
            return cell
        if not cell or cell.isspace():
            return None
        if kind is ColumnType.JSON:
            return self._keep_structure(cell)
        if kind is ColumnType.NUMBER and not _PLAIN_NUMBER.fullmatch(cell.strip()):
            return cell
        try:
            return self.accept(cell)
        except BadValueError:
            return cell

    def _keep_value(self, cell: JsonValue) -> JsonValue:
        """What stands for a value that came from its file with a type of its own."""
        fits = self.type is not ColumnType.TEXT and self.type is not ColumnType.BOOLEAN
        if cell is None or (self.type is ColumnType.BOOLEAN and isinstance(cell, bool)):
            return cell
        if fits:
            try:
                return self.accept(cell)
            except BadValueError:
                pass
        return cell_text(cell)

    def _keep_structure(self, cell: str) -> JsonValue:
        """A list or an object that an uploaded text writes down; any other text is itself."""
        if cell.lstrip()[0] in "[{":
            try:
                return self.accept(msgspec.json.decode(cell))
            except (BadValueError, msgspec.DecodeError, RecursionError):
                pass
        return cell

    def holds(self, cell: str) -> bool:
        """Whether an uploaded `cell` fits the type without losing anything."""
        if self.type is ColumnType.NUMBER and not _PLAIN_NUMBER.fullmatch(cell.strip()):
            return False
        try:
            self.accept(cell)
        except BadValueError:
            return False
        return True

    def _text(self, raw: object) -> str | None:
        if isinstance(raw, bool):
            text = "true" if raw else "false"
        elif isinstance(raw, str | int | float):
            text = str(raw)
        else:
            raise BadValueError(f"{_named(raw)} where text was expected")
        if len(text) > TEXT_CHARACTERS_MAX:
            raise BadValueError(f"text of {len(text):,} characters; at most {TEXT_CHARACTERS_MAX:,} fit into a cell")
        if not _is_storable(text):
            raise BadValueError("text with a NUL or half a surrogate pair")
        if not self.allowed:
            return text or None
        for value in self.allowed:
            if value.casefold() == text.strip().casefold():
                return value
        raise BadValueError(f"{_quoted(text)} is none of {', '.join(self.allowed)}")


def declared_columns(into: Mapping[str, object], *, field: str = "into") -> tuple[Column, ...]:
    """The columns that a submission's `into` declares: `{"score": "number", "tier": ["a", "b"]}`, in its order.

    Raises:
        Refused: `bad_request` at `into` or `into.NAME` for no column at all, a bad name, or a type that does not exist.

    """
    if not into:
        raise Refused(ErrorCode.BAD_REQUEST, "names no column to write into", at=field)
    return tuple(_declared(name, declared, f"{field}.{name}") for name, declared in into.items())


def _declared(name: str, declared: object, at: str) -> Column:
    if not name or normal_name(name) != name:
        advice = normal_name(name)
        hint = f"; {advice!r} would be one" if advice else ""
        raise Refused(
            ErrorCode.BAD_REQUEST,
            f"{name!r} is no column name: lower-case letters, digits and single underscores, at most "
            f"{NAME_CHARACTERS_MAX} characters, not starting with a digit{hint}",
            at=at,
        )
    if isinstance(declared, str):
        try:
            return Column(name, ColumnType(declared))
        except ValueError:
            raise Refused(
                ErrorCode.BAD_REQUEST, f"{declared!r} is no type; the types are {', '.join(ColumnType)}", at=at
            ) from None
    if not isinstance(declared, list | tuple) or not declared or len(declared) > ALLOWED_VALUES_MAX:
        raise Refused(
            ErrorCode.BAD_REQUEST,
            f"must be one of {', '.join(ColumnType)}, or a list of 1 to {ALLOWED_VALUES_MAX} allowed texts",
            at=at,
        )
    values = tuple(value.strip() for value in declared if isinstance(value, str) and _is_storable(value))
    if len(values) != len(declared) or not all(values) or len({value.casefold() for value in values}) != len(values):
        raise Refused(ErrorCode.BAD_REQUEST, "allowed values must be texts, not empty, each different", at=at)
    return Column(name, ColumnType.TEXT, values)


def normal_name(header: str) -> str:
    """The column name that a header stands for, `E-Mail Address` → `e_mail_address`; empty where nothing remains."""
    small = unicodedata.normalize("NFKC", header).lower()
    text = unicodedata.normalize("NFKC", small)  # a small letter may take up a mark that its capital could not
    words = "".join(
        character if unicodedata.category(character)[0] in "LNM" else " "
        for character in text[: 4 * NAME_CHARACTERS_MAX]
    ).split()
    name = "_".join(words)
    if name[:1].isdigit() or (name and unicodedata.category(name[0])[0] != "L"):
        name = "_" + name
    return name[:NAME_CHARACTERS_MAX].rstrip("_")


def normal_names(headers: Sequence[str]) -> list[str]:
    """A name for each header, none empty (`column_3`), each different (`email`, `email_2`), none over 63 characters."""
    names: list[str] = []
    taken: set[str] = set()
    for position, header in enumerate(headers, start=1):
        wanted = normal_name(header) or f"column_{position}"
        name, copy = wanted, 1
        while name in taken:
            copy += 1
            suffix = f"_{copy}"
            name = wanted[: NAME_CHARACTERS_MAX - len(suffix)].rstrip("_") + suffix
        names.append(name)
        taken.add(name)
    return names


def inferred_type(cells: Iterable[JsonValue], *, typed: bool = False) -> ColumnType:
    """The narrowest type that every cell of a sample fits without losing anything; text where the sample is empty.

    Dates and timestamps must be ISO 8601 or `31.01.2026`: a slashed date may be American or European, so it stays text.
    `typed` says that the cells come from a file with types of its own: there a text is never a number, only perhaps a
    date, for which JSON has no type.
    """
    if typed:
        return _type_of_values([cell for cell in cells if cell is not None and cell != ""])
    return _type_of_texts(map(cell_text, cells), _INFERRED)


def _type_of_values(values: Sequence[JsonValue]) -> ColumnType:
    if any(isinstance(value, list | dict) for value in values):
        return ColumnType.JSON
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return ColumnType.BOOLEAN
    if kinds and kinds <= {int, float, Decimal}:
        return ColumnType.NUMBER
    if kinds == {str}:
        return _type_of_texts(map(cell_text, values), (ColumnType.DATE, ColumnType.TIMESTAMP))
    return ColumnType.TEXT


def _type_of_texts(cells: Iterable[str], types: Iterable[ColumnType]) -> ColumnType:
    candidates = [Column("", kind) for kind in types]
    seen = False
    for cell in cells:
        if cell and not cell.isspace():
            seen = True
            candidates = [candidate for candidate in candidates if candidate.holds(cell)]
            if not candidates:
                break
    return candidates[0].type if seen and candidates else ColumnType.TEXT


_INFERRED: Final = (ColumnType.NUMBER, ColumnType.BOOLEAN, ColumnType.DATE, ColumnType.TIMESTAMP)


def read_number(text: str) -> Decimal:
    """The number that `text` writes, within the bounds of a cell.

    Raises:
        BadValueError: it writes none, or one that is too large or too fine.

    """
    if len(text) > 3 * NUMBER_DIGITS_MAX or not _NUMBER.fullmatch(text):
        raise BadValueError(f"{_quoted(text)} is not a number")
    return _bounded(Decimal(text))


def read_date(text: str) -> dt.date:
    """The date that `2026-01-31` or `31.01.2026` writes.

    Raises:
        BadValueError: it writes none, or a day that does not exist.

    """
    try:
        if _ISO_DATE.fullmatch(text):
            return dt.date.fromisoformat(text)
        if dotted := _DOTTED_DATE.fullmatch(text):
            day, month, year = map(int, dotted.groups())
            return dt.date(year, month, day)
    except ValueError:
        pass
    raise BadValueError(f"{_quoted(text)} is not a date like 2026-01-31")


def _is_iso_date(text: str) -> bool:
    """Whether `text` is a date as it is stored."""
    try:
        return _ISO_DATE.fullmatch(text) is not None and dt.date.fromisoformat(text) is not None
    except ValueError:
        return False


def read_timestamp(text: str) -> dt.datetime:
    """The moment that `2026-01-31T09:00:00Z` writes, in UTC; without a zone taken as UTC, a bare date as midnight.

    Raises:
        BadValueError: it writes none, or one that does not exist.

    """
    try:
        if _TIMESTAMP.fullmatch(text):
            moment = dt.datetime.fromisoformat(text.upper())
        elif _ISO_DATE.fullmatch(text):
            moment = dt.datetime.combine(dt.date.fromisoformat(text), dt.time())
        else:
            raise BadValueError(f"{_quoted(text)} is not a timestamp like 2026-01-31T09:00:00Z")
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise BadValueError(f"{_quoted(text)} is not a timestamp like 2026-01-31T09:00:00Z") from None


def write_timestamp(moment: dt.datetime) -> str:
    """The one string that stands for a moment in UTC."""
    return moment.replace(tzinfo=None).isoformat() + "Z"


def encode_cells(cells: Mapping[str, JsonValue]) -> bytes:
    """The JSON text of a lead's data, for its jsonb column: numbers as numbers, empty cells left out."""
    return _ENCODER.encode(_without_empty(cells))


def encode_cells_of_many(leads: Mapping[LeadId, Mapping[str, JsonValue]]) -> bytes:
    """The same of many leads, as a JSON object by their numbers: encoded at once, which is most of it spared."""
    return _ENCODER.encode({lead: _without_empty(cells) for lead, cells in leads.items()})


def _without_empty(cells: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    return cells if None not in cells.values() else {name: value for name, value in cells.items() if value is not None}


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def cell_text(value: JsonValue) -> str:
    """How a cell reads in a prompt, a request or a key: `7`, `true`, `a@b.example`, JSON for what has structure."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return _ENCODER.encode(value).decode()


def _number(raw: object) -> int | float | Decimal | None:
    if type(raw) is int and abs(raw) < _NUMBER_MAX:
        return raw
    if isinstance(raw, bool):
        raise BadValueError("true or false where a number was expected")
    if isinstance(raw, str):
        text = raw.strip()
        return _narrowest(read_number(text)) if text else None
    if isinstance(raw, float) and not math.isfinite(raw):
        raise BadValueError("not a finite number")
    if isinstance(raw, int | float | Decimal):
        try:
            return _narrowest(_bounded(Decimal(repr(raw) if isinstance(raw, float) else raw)))
        except InvalidOperation:
            raise BadValueError("not a number") from None
    raise BadValueError(f"{_named(raw)} where a number was expected")


def _bounded(number: Decimal) -> Decimal:
    if number.is_zero():
        return Decimal(0)
    if not number.is_finite() or number.adjusted() >= NUMBER_DIGITS_MAX:
        raise BadValueError(f"a number of 10^{NUMBER_DIGITS_MAX} or more")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS_MAX:
        with_decimals = number.quantize(Decimal(1).scaleb(-DECIMALS_MAX), context=_WIDE)
        return with_decimals.normalize(_WIDE)
    return number


def _narrowest(number: Decimal) -> int | float | Decimal:
    """The plainest Python number that is exactly this one: JSON writes all three as a number."""
    if number == number.to_integral_value(context=_WIDE):
        return int(number)
    as_float = float(number)
    return as_float if Decimal(repr(as_float)) == number and 1e-4 <= abs(as_float) < 1e15 else number


def _boolean(raw: object) -> bool | None:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        text = raw.strip().casefold()
        if not text:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        raise BadValueError(f"{_quoted(raw)} is neither true nor false")
    raise BadValueError(f"{_named(raw)} where true or false was expected")


def _blank_or(raw: object, read: Callable[[str], str]) -> str | None:
    if not isinstance(raw, str):
        raise BadValueError(f"{_named(raw)} where a date was expected")
    text = raw.strip()
    return read(text) if text else None


def _json(raw: object) -> JsonValue:
    """What JSON makes of `raw` (of not-a-number nothing), where it is storable and small enough for a cell."""
    try:
        text = _ENCODER.encode(raw).decode()
    except (TypeError, ValueError, RecursionError):
        raise BadValueError("not a JSON value") from None
    if len(text) > TEXT_CHARACTERS_MAX:
        raise BadValueError(f"JSON of {len(text):,} characters; at most {TEXT_CHARACTERS_MAX:,} fit into a cell")
    if "\\u0000" in text:
        raise BadValueError("text with a NUL")
    return cast("JsonValue", msgspec.json.decode(text))


def _is_storable(text: str) -> bool:
    """Whether Postgres can hold the text: no NUL, no lone surrogate."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(raw: object) -> str:
    match raw:
        case bool():
            return "true or false"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "nothing"


def _quoted(text: str) -> str:
    """A value as it is shown in a message: never longer than a glance."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
