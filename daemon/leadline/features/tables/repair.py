"""Refused rows as a CSV file that a person repairs and uploads again.

Each row stands under the headers of its own file, behind four columns that say which it was and why it was refused.
A row with too many fields runs over the end, one that could not be taken apart stands whole in the first column. What a
spreadsheet would run as a formula is defused.

The file may come back as it is, in any format that a spreadsheet saves: by its first four headers it is known, they are
left out, and what was defused is as it was before.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from leadline.features.tables.columns import JsonValue
from leadline.features.tables.formula_cells import defused, restored
from leadline.features.tables.reading import RefusedRow, Row, record, values_of

HEADERS: Final = ("refused_row", "refused_line", "refused_reason", "refused_detail")


def heading(headers: Sequence[str]) -> Sequence[str]:
    """The first line of the file."""
    return [*HEADERS, *map(defused, headers)]


def line(row: int, line: int, reason: str, detail: str, raw: str) -> Sequence[str]:
    """The line of a refused row, whose values are one record of CSV."""
    return [str(row), str(line), reason, *map(defused, (detail, *values_of(raw)))]


def is_repaired(headers: Sequence[str]) -> bool:
    """Whether a file with these headers was once made here."""
    return tuple(headers[: len(HEADERS)]) == HEADERS and len(headers) > len(HEADERS)


def own_headers(headers: Sequence[str]) -> tuple[str, ...]:
    """The headers of such a file without those that tell of the refusal."""
    return tuple(map(restored, headers[len(HEADERS) :]))


def own_rows(rows: Iterator[Row | RefusedRow]) -> Iterator[Row | RefusedRow]:
    """The rows of such a file as they were in their own."""
    for row in rows:
        if isinstance(row, Row):
            yield Row(row.number, row.line, [_restored(value) for value in row.values[len(HEADERS) :]])
            continue
        values = values_of(row.raw)
        own = values[len(HEADERS) :] if len(values) > len(HEADERS) else values
        yield msgspec.structs.replace(row, raw=record(map(restored, own)))


def _restored(value: JsonValue) -> JsonValue:
    return restored(value) if isinstance(value, str) else value
