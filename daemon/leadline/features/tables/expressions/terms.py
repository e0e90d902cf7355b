"""A part of an expression, compiled: its SQL, its type, and why it fails for a lead.

A term's `sql` never raises. `fails` is asked afterwards: a word of the lead reasons where the lead fails, else NULL. A
term made of others fails as they do, from left to right, or for a reason of its own (`over`).
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from leadline.features.tables.columns import (
    DECIMALS_MAX,
    BadValueError,
    ColumnType,
    read_date,
    read_number,
    read_timestamp,
)
from leadline.features.tables.expressions.faults import FaultError, Offset, shown
from leadline_protocol.errors import LeadReason

FAILS_CAST: Final = f"'{LeadReason.BAD_CAST}'"
FAILS_ZERO: Final = f"'{LeadReason.DIVISION_BY_ZERO}'"
FAILS_RANGE: Final = f"'{LeadReason.OUT_OF_RANGE}'"

SQL_TYPES: Final = {
    ColumnType.NUMBER: "numeric",
    ColumnType.TEXT: "text",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.DATE: "date",
    ColumnType.TIMESTAMP: "timestamptz",
    ColumnType.JSON: "jsonb",
}

NOUNS: Final[dict[ColumnType | None, str]] = {
    ColumnType.NUMBER: "a number",
    ColumnType.TEXT: "text",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "a date",
    ColumnType.TIMESTAMP: "a timestamp",
    ColumnType.JSON: "JSON",
    None: "empty",
}


class Term(msgspec.Struct, frozen=True):
    """A part of the expression, compiled."""

    sql: str
    type: ColumnType | None
    """None for NULL and for a quoted literal, whose type is settled by what it meets."""
    at: Offset
    fails: str | None = None
    null_when_failing: bool = True
    """Whether `sql` is NULL wherever `fails` is not: then only a NULL needs to be asked why."""
    untrue_when_failing: bool = False
    """The same of a condition that is NULL or false there: then what is true need not be asked."""
    literal: str | None = None
    """The text of a quoted literal that has no type yet."""
    number: Decimal | None = None
    """The value of a numeric literal."""
    cell: str | None = None
    """SQL of the cell, as JSON, that a column is read from."""
    grows: bool = False
    """Whether the text may be longer than the cells that it is made of."""
    moved_days: int = 0
    """By how many days at most a date may lie outside the calendar of cells, the years 1 to 9999."""

    @property
    def true_is_sound(self) -> bool:
        """Whether a condition fails for no lead for which it is true."""
        return self.null_when_failing or self.untrue_when_failing

    def asked(self) -> str | None:
        """`fails`, asked only where it can have an answer."""
        if self.fails is None or not self.null_when_failing:
            return self.fails
        return f"CASE WHEN {self.sql} IS NULL THEN {self.fails} END"


def first(*fails: str | None) -> str | None:
    """The first of these reasons that holds."""
    found = [reason for reason in fails if reason is not None]
    if len(found) > 1:
        return f"COALESCE({', '.join(found)})"
    return found[0] if found else None


def over(
    sql: str,
    kind: ColumnType,
    *terms: Term,
    own: str | None = None,
    hides_null: bool = False,
    grows: bool | None = None,
    moved_days: int | None = None,
) -> Term:
    """A term made of others: it fails as they do, from left to right, or for a reason of its `own`.

    `hides_null`: the result may be something although one of the terms is NULL.
    """
    fails = first(*(term.asked() if hides_null else term.fails for term in terms), own)
    return Term(
        sql,
        kind,
        terms[0].at,
        fails,
        null_when_failing=fails is None or (not hides_null and all(term.null_when_failing for term in terms)),
        grows=any(term.grows for term in terms) if grows is None else grows,
        moved_days=max(term.moved_days for term in terms) if moved_days is None else moved_days,
    )


def out_of_range(sql: str, *terms: Term) -> str:
    """The reason of a result that is NULL although nothing that it is made of is."""
    given = " AND ".join(f"{term.sql} IS NOT NULL" for term in terms)
    return f"CASE WHEN {given} AND {sql} IS NULL THEN {FAILS_RANGE} END"


def unread(sql: str, text: str) -> str:
    """The reason of a cell that says something and could not be read."""
    return f"CASE WHEN {sql} IS NULL AND {text} <> '' THEN {FAILS_CAST} END"


class Typing:
    """Brings terms to types, and values into parameters."""

    def __init__(self) -> None:
        self.parameters: dict[str, int] = {}

    def bind(self, value: object, sql_type: str) -> str:
        """The place of a parameter with this value."""
        place = f"($1)[{self.parameters.setdefault(str(value), len(self.parameters) + 1)}]"
        return place if sql_type == "text" else f"{place}::{sql_type}"

    def as_type(self, term: Term, wanted: ColumnType, why: str) -> Term:
        """The term as `wanted` where that needs no cast: NULL, a quoted literal, a date as its midnight."""
        if term.type is wanted:
            return term
        if term.literal is not None:
            return self._literal_as(term, wanted)
        if term.type is None:
            return msgspec.structs.replace(term, sql=f"NULL::{SQL_TYPES[wanted]}", type=wanted)
        if term.type is ColumnType.DATE and wanted is ColumnType.TIMESTAMP:
            sql = f"({term.sql}::timestamp AT TIME ZONE 'UTC')"
            return msgspec.structs.replace(term, sql=sql, type=wanted, cell=None)
        hint = ""
        if wanted is not ColumnType.JSON and term.type is not ColumnType.JSON:
            hint = f"; a cast would be ::{SQL_TYPES[wanted]}"
        raise FaultError(f"{why}, and this is {NOUNS[term.type]}{hint}", term.at)

    def _literal_as(self, term: Term, wanted: ColumnType) -> Term:
        """A quoted literal read as `wanted`, once, now."""
        text = term.literal
        assert text is not None
        value: object
        try:
            match wanted:
                case ColumnType.TEXT:
                    value = text
                case ColumnType.JSON:
                    msgspec.json.decode(text)
                    value = text
                case ColumnType.NUMBER:
                    value = read_number(text.strip())
                case ColumnType.DATE:
                    value = read_date(text.strip())
                case ColumnType.TIMESTAMP:
                    value = read_timestamp(text.strip())
                case ColumnType.BOOLEAN:
                    if text.strip().casefold() not in {"true", "false", "yes", "no"}:
                        raise BadValueError(f"{shown(text)} is neither true nor false")
                    sql = "TRUE" if text.strip().casefold() in {"true", "yes"} else "FALSE"
                    return Term(sql, wanted, term.at)
        except BadValueError as fault:
            raise FaultError(str(fault), term.at) from None
        except msgspec.DecodeError:
            raise FaultError(f"{shown(text)} is not JSON", term.at) from None
        return Term(self.bind(value, SQL_TYPES[wanted]), wanted, term.at)

    def same_type(self, terms: Sequence[Term], *, what: str) -> tuple[list[Term], ColumnType]:
        """Terms that meet each other, brought to one type; the first that has one leads."""
        typed = [term.type for term in terms if term.type is not None]
        leading = typed[0] if typed else ColumnType.TEXT
        if leading is ColumnType.DATE and ColumnType.TIMESTAMP in typed:
            leading = ColumnType.TIMESTAMP
        why = f"{what} {NOUNS[leading]} and {NOUNS[leading]}"
        return [self.as_type(term, leading, why) for term in terms], leading

    def text(self, term: Term) -> Term:
        """Any value as the text that a cell of it shows."""
        match term.type:
            case None:
                return self.as_type(term, ColumnType.TEXT, "")
            case ColumnType.TEXT:
                return term
            case ColumnType.NUMBER:
                sql = f"trim_scale(round({term.sql}, {DECIMALS_MAX}))::text"
            case ColumnType.BOOLEAN:
                sql = f"({term.sql})::text"
            case ColumnType.DATE:
                sql = f"to_char({term.sql}, 'YYYY-MM-DD')"
            case ColumnType.TIMESTAMP:
                sql = f"as_text({term.sql})"
            case ColumnType.JSON:
                sql = f"({term.sql} #>> '{{}}')"
        grows = term.type is ColumnType.JSON  # Postgres writes a space behind each comma
        return msgspec.structs.replace(term, sql=sql, type=ColumnType.TEXT, number=None, cell=None, grows=grows)

    def cast(self, term: Term, wanted: ColumnType) -> Term:
        """The term read as another type; a cell that says something else fails."""
        if wanted is ColumnType.TEXT:
            return self.text(term)
        match term.type, wanted:
            case (None, _) | (ColumnType.DATE, ColumnType.TIMESTAMP):
                return self.as_type(term, wanted, "")
            case (same, _) if same is wanted:
                return term
            case ((ColumnType.TEXT | ColumnType.JSON), _):
                sql = f"as_{wanted}({term.sql})"
                own = unread(sql, f"btrim({self.text(term).sql})")
                moved = 1 if wanted is ColumnType.TIMESTAMP else 0
                return over(sql, wanted, term, own=own, grows=False, moved_days=moved)
            case ColumnType.BOOLEAN, ColumnType.NUMBER:
                return over(f"({term.sql})::int::numeric", wanted, term)
            case ColumnType.TIMESTAMP, ColumnType.DATE:
                return over(f"({term.sql} AT TIME ZONE 'UTC')::date", wanted, term)
            case _:
                raise FaultError(f"{NOUNS[term.type]} cannot be cast to {NOUNS[wanted]}", term.at)
