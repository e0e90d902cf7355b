"""A JSON Lines file's bytes → its rows, in bounded memory: one object a line, a row each.

There is no header. The columns are the names of all objects of the file, in the order in which they first appear, so a
first pass (`keys`) has to see every line before a row can be read. A line that is no JSON object refuses itself alone.

A value that JSON gives a type keeps it: `"007"` is a text and 7 a number. Numbers are read as they are written, without
the detour over binary fractions. A list or an object stays what it is; its column has the type json.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from leadline.features.tables.columns import TEXT_CHARACTERS_MAX, JsonValue, cell_text
from leadline.features.tables.reading import (
    COLUMNS_MAX,
    UNDECODABLE,
    Lines,
    LineTooLongError,
    RefusedRow,
    Row,
    UnreadableFileError,
    decoded,
    record,
)
from leadline_protocol.errors import LeadReason

NAME_CHARACTERS_MAX: Final = 1_000
"""As all names of a file are held, none may be as long as a line."""

DEPTH_MAX: Final = 100
"""How deep a value may nest: whoever reads it later does so by recursion, and how far that goes differs by Python."""

_TOO_DEEP: Final = (LeadReason.BAD_JSON, "JSON that is nested too deeply")

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

Refusal = tuple[LeadReason, str]


class JsonLinesFormat(msgspec.Struct, frozen=True):
    """How a JSON Lines file is written."""

    encoding: str


def is_object(line: str) -> bool:
    """Whether a line is what each line of a JSON Lines file is."""
    return isinstance(_read(line), dict)


def keys(blocks: Iterable[bytes], written: JsonLinesFormat) -> tuple[tuple[str, ...], int]:
    """The names in all objects of the file, in the order of their first appearance, and its number of rows.

    Raises:
        UnreadableFileError: there is no object in it, or they have more than COLUMNS_MAX names, or too long ones.

    """
    names: dict[str, None] = {}
    count = 0
    for _, found in _objects(Lines(decoded(blocks, written.encoding), "\n")):
        count += 1
        if isinstance(found, dict) and not found.keys() <= names.keys():
            if max(map(len, found)) > NAME_CHARACTERS_MAX:
                raise UnreadableFileError(f"an object has a name of more than {NAME_CHARACTERS_MAX:,} characters")
            names |= dict.fromkeys(found)
            if len(names) > COLUMNS_MAX:
                raise UnreadableFileError(f"the objects have more than {COLUMNS_MAX:,} names, and at most so many fit")
    if not count:
        raise UnreadableFileError("the file is empty")
    if not names:
        raise UnreadableFileError("no line of the file is a JSON object with a name in it")
    return tuple(names), count


def rows(
    blocks: Iterable[bytes], written: JsonLinesFormat, names: tuple[str, ...], *, after: int = 0
) -> Iterator[Row | RefusedRow]:
    """The rows of the file, with a value for each of `names`, those up to number `after` left out."""
    lines = Lines(decoded(blocks, written.encoding), "\n")
    for number, (line, found) in enumerate(_objects(lines), start=1):
        if number <= after:
            continue
        if not isinstance(found, dict):
            reason, detail = found
            yield RefusedRow(number, line, reason, detail, record([lines.raw()]))
            continue
        values = [found.get(name) for name in names]
        fault = too_long(values) if lines.characters > TEXT_CHARACTERS_MAX else None
        if fault is not None or (fault := unstorable(values, lines.taken[0])) is not None:
            yield RefusedRow(number, line, *fault, record(map(cell_text, values)))
        else:
            yield Row(number, line, values)


def _objects(lines: Lines) -> Iterator[tuple[int, dict[str, Any] | Refusal]]:
    """For each line that is not blank its number, and the object that it is or why it is none."""
    while True:
        lines.forget()
        try:
            line = next(lines)
        except StopIteration:
            return
        except LineTooLongError:
            yield lines.first, (LeadReason.FIELD_TOO_LONG, "a line of more than a million characters")
            continue
        if line.isspace():
            continue
        yield lines.first, (LeadReason.UNDECODABLE, UNDECODABLE) if lines.tainted else _read(line)


def _read(line: str) -> dict[str, Any] | Refusal:
    try:
        found: dict[str, Any] = _OBJECT.decode(line)
    except msgspec.ValidationError:
        starts = line.lstrip()[:1]
        return LeadReason.BAD_JSON, "a number that is too long" if starts == "{" else "JSON, but no object"
    except msgspec.DecodeError as error:
        return LeadReason.BAD_JSON, str(error)
    except RecursionError:
        return _TOO_DEEP
    if line.count("[") + line.count("{") > DEPTH_MAX and _is_too_deep(found):
        return _TOO_DEEP
    return found


def _is_too_deep(found: JsonValue) -> bool:
    level: list[JsonValue] = [found]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def too_long(values: Iterable[JsonValue]) -> Refusal | None:
    """Why a row with a value that is longer than a cell may be is refused."""
    for position, value in enumerate(values, start=1):
        length = len(cell_text(value)) if isinstance(value, str | list | dict) else 0
        if length > TEXT_CHARACTERS_MAX:
            detail = f"value {position} has {length:,} characters; at most {TEXT_CHARACTERS_MAX:,} fit"
            return LeadReason.FIELD_TOO_LONG, detail
    return None


def unstorable(values: Iterable[JsonValue], line: str | bytes) -> Refusal | None:
    """Why a row whose line in JSON may write a NUL is refused: no database holds one."""
    nul = b"\\u0000" if isinstance(line, bytes) else "\\u0000"
    if nul in line and any("\0" in value for value in values if isinstance(value, str)):  # type: ignore[operator]
        return LeadReason.UNDECODABLE, "a text with a NUL"
    return None
