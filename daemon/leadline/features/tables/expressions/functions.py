"""All functions of the language: what each takes, what it gives, the SQL it becomes, and its line in the documentation.

Most are `plain`: types in, a type out, and a pattern of SQL between. The others look at their arguments first.

There are no regular expressions, and that is on purpose. What Postgres' engine takes of time and memory for a tenant's
pattern has no bound that could be named beforehand, and the one that it runs into in the end, the statement's time,
would be paid by 5,000 leads for one cell. `like` with its wildcards counted costs microseconds, whatever the cell is;
what people mostly want patterns for (domains, dates in another order) has a function of its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from leadline.features.tables.columns import DECIMALS_MAX, TEXT_CHARACTERS_MAX, ColumnType
from leadline.features.tables.expressions.faults import FaultError, Offset
from leadline.features.tables.expressions.terms import (
    FAILS_ZERO,
    NOUNS,
    Term,
    Typing,
    first,
    out_of_range,
    over,
    unread,
)

NUMBER, TEXT, BOOLEAN, DATE, TIMESTAMP, JSON = (
    ColumnType.NUMBER,
    ColumnType.TEXT,
    ColumnType.BOOLEAN,
    ColumnType.DATE,
    ColumnType.TIMESTAMP,
    ColumnType.JSON,
)

PADDED_MAX: Final = 1_000
EXPONENT_MAX: Final = 10
STEPS_MAX: Final = 10
MANY: Final = 200
"""As many as an expression has parts."""

MOVED_DAYS_MAX: Final = 1_000_000
"""Postgres' calendar reaches further than this beyond the dates of cells on both sides."""


class Whole(msgspec.Struct, frozen=True):
    """A parameter that is written out as a whole number within bounds."""

    low: int
    high: int
    zero: bool = True

    def read(self, term: Term) -> int:
        """The number that is written. Raises FaultError."""
        number = term.number
        if number is None or number != int(number) or not self.low <= number <= self.high:
            raise FaultError(f"must be a whole number from {self.low:,} to {self.high:,}, written out", term.at)
        if not number and not self.zero:
            raise FaultError("must not be 0: what is counted is counted from 1", term.at)
        return int(number)


Parameter: TypeAlias = ColumnType | Whole
Build: TypeAlias = Callable[[Typing, str, Sequence[Term]], Term]
"""A call of a function by that name with these arguments, compiled."""


class Function(msgspec.Struct, frozen=True):
    """One function of the language."""

    documentation: str
    build: Build
    least: int
    most: int

    def call(self, typing: Typing, name: str, arguments: Sequence[Term], at: Offset) -> Term:
        """A call of it, compiled. Raises FaultError."""
        if len(arguments) < self.least:
            raise FaultError(f"{name} takes at least {self.least} value{'s'[: self.least - 1]}", at)
        if len(arguments) > self.most:
            raise FaultError(f"{name} takes at most {self.most} value{'s'[: self.most - 1]}", arguments[self.most].at)
        return msgspec.structs.replace(self.build(typing, name, arguments), at=at)


def plain(
    documentation: str,
    takes: Sequence[Parameter],
    gives: ColumnType,
    sql: str,
    *,
    defaults: Sequence[str] = (),
    bounded: bool = False,
    grows: bool | None = None,
) -> Function:
    """A function of these parameters by a pattern, in which `{0}` is the first argument.

    `defaults`: SQL for arguments at the end that may be left out. `bounded`: its SQL gives NULL where the result would
    be too large. `grows`: whether its text may be longer than what it is made of; None: where one of those is.
    """

    def build(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
        terms: list[Term] = []
        written: list[str] = []
        for parameter, argument in zip(takes, arguments, strict=False):
            if isinstance(parameter, Whole):
                written.append(typing.bind(parameter.read(argument), "int"))
                continue
            terms.append(typing.as_type(argument, parameter, f"{name} takes {NOUNS[parameter]}"))
            written.append(terms[-1].sql)
        written += defaults[len(arguments) - len(takes) :] if len(arguments) < len(takes) else ()
        filled = sql.format(*written)
        own = out_of_range(filled, *terms) if bounded else None
        return over(filled, gives, *terms, own=own, grows=grows if gives is TEXT else False, moved_days=0)

    return Function(documentation, build, len(takes) - len(defaults), len(takes))


def division(typing: Typing, operator: str, left: Term, right: Term) -> Term:
    """A quotient, or the rest of one."""
    left, right = (typing.as_type(term, NUMBER, f"{operator} takes numbers") for term in (left, right))
    if right.number:
        return over(f"({left.sql} {operator} {right.sql})", NUMBER, left, right)
    zero = f"CASE WHEN {right.sql} = 0 THEN {FAILS_ZERO} END"
    return over(f"({left.sql} {operator} NULLIF({right.sql}, 0))", NUMBER, left, right, own=zero)


def coalesce(typing: Typing, _: str, arguments: Sequence[Term]) -> Term:
    """The first that is not empty; what stands behind it is not looked at."""
    terms, kind = typing.same_type(arguments, what="coalesce takes")
    fails: str | None = None
    for term in reversed(terms):
        later = fails and f"CASE WHEN {term.sql} IS NULL THEN {fails} END"
        fails = first(term.asked(), later)
    return Term(
        f"COALESCE({', '.join(term.sql for term in terms)})",
        kind,
        terms[0].at,
        fails,
        null_when_failing=fails is None,
        grows=any(term.grows for term in terms),
        moved_days=max(term.moved_days for term in terms),
    )


def nullif(typing: Typing, _: str, arguments: Sequence[Term]) -> Term:
    """Empty where the two are equal."""
    (left, right), kind = typing.same_type(arguments, what="nullif compares")
    sql = f"NULLIF({left.sql}, {right.sql})"
    return over(sql, kind, left, right, hides_null=right.fails is not None, grows=left.grows)


def extreme(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """The largest or the smallest; the empty ones are left out."""
    terms, kind = typing.same_type(arguments, what=f"{name} compares")
    if kind in {BOOLEAN, JSON}:
        raise FaultError(f"{name} compares numbers, texts, dates or timestamps", terms[0].at)
    sql = f"{name.upper()}({', '.join(term.sql for term in terms)})"
    return over(sql, kind, *terms, hides_null=len(terms) > 1)


def concat(typing: Typing, _: str, arguments: Sequence[Term]) -> Term:
    """The values written one after the other, empty ones left out."""
    terms = [typing.text(term) for term in arguments]
    return over(f"concat({', '.join(term.sql for term in terms)})", TEXT, *terms, hides_null=True, grows=True)


def reads_as(kind: ColumnType) -> Build:
    """Whether a value can be read as a type: asked of the cell itself, so that it fails for no lead."""

    def build(typing: Typing, _: str, arguments: Sequence[Term]) -> Term:
        (term,) = arguments
        if term.cell is not None:
            return Term(f"(as_{kind}({term.cell}) IS NOT NULL)", BOOLEAN, term.at)
        if term.type is not kind:
            term = typing.text(term)
            return over(f"(as_{kind}({term.sql}) IS NOT NULL)", BOOLEAN, term, hides_null=True, grows=False)
        return over(f"({term.sql} IS NOT NULL)", BOOLEAN, term, hides_null=True, grows=False, moved_days=0)

    return build


def unit_of(name: str, term: Term, units: Sequence[str]) -> str:
    """A unit of time that is written in quotes. Raises FaultError."""
    unit = (term.literal or "").casefold()
    if unit not in units:
        raise FaultError(f"{name} takes one of {', '.join(map(repr, units))}, in quotes", term.at)
    return unit


def moment(typing: Typing, name: str, term: Term) -> Term:
    """A date or a timestamp. Raises FaultError."""
    if term.type not in {DATE, TIMESTAMP}:
        term = typing.as_type(term, DATE, f"{name} takes a date or a timestamp")
    return term


DAYS: Final = {"day": 1, "week": 7}
MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600}


def date_add(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """A date so many units later; a timestamp too."""
    subject = moment(typing, name, arguments[2])
    unit = unit_of(name, arguments[0], [*DAYS, *MONTHS, *(SECONDS if subject.type is TIMESTAMP else ())])
    count = typing.as_type(arguments[1], NUMBER, f"{name} takes a number of {unit}s")
    if unit in MONTHS:
        sql = f"months_after({subject.sql}, trunc({count.sql}) * {MONTHS[unit]})"
    elif subject.type is DATE:
        sql = f"days_after({subject.sql}, trunc({count.sql}) * {DAYS[unit]})"
    else:
        seconds = SECONDS.get(unit) or 86_400 * DAYS[unit]
        sql = f"seconds_after({subject.sql}, trunc({count.sql}) * {seconds})"
    assert subject.type is not None
    return over(sql, subject.type, count, subject, own=out_of_range(sql, count, subject), moved_days=0)


def date_diff(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """How many whole units lie between two dates or timestamps; below 0 where the second is the earlier."""
    pair = [moment(typing, name, term) for term in arguments[1:]]
    (start, end), kind = typing.same_type(pair, what=f"{name} compares")
    unit = unit_of(name, arguments[0], [*DAYS, *MONTHS, *(SECONDS if kind is TIMESTAMP else ())])
    local = ("({})::timestamp" if kind is DATE else "({} AT TIME ZONE 'UTC')").format
    if unit in MONTHS:
        sql = f"months_between({local(start.sql)}, {local(end.sql)}, {MONTHS[unit]})"
    elif kind is DATE:
        sql = f"trunc(({end.sql} - {start.sql})::numeric / {DAYS[unit]})"
    else:
        seconds = SECONDS.get(unit) or 86_400 * DAYS[unit]
        sql = f"trunc(extract(epoch FROM {end.sql} - {start.sql})::numeric / {seconds})"
    return over(sql, NUMBER, start, end, moved_days=0)


def date_trunc(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """The first day, or moment, of the unit in which a date lies; weeks begin on Monday."""
    subject = moment(typing, name, arguments[1])
    unit = unit_of(name, arguments[0], [*DAYS, *MONTHS, *(SECONDS if subject.type is TIMESTAMP else ())])
    word = typing.bind(unit, "text")
    moved = subject.moved_days and subject.moved_days + 366
    if subject.type is DATE:
        return over(f"date_trunc({word}, {subject.sql}::timestamp)::date", DATE, subject, moved_days=moved)
    sql = f"(date_trunc({word}, {subject.sql} AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')"
    return over(sql, TIMESTAMP, subject, moved_days=moved)


_DATE_FORMAT: Final = re.compile(r"(YYYY|MM|DD)([-./ ])(YYYY|MM|DD)\2(YYYY|MM|DD)", re.ASCII | re.IGNORECASE)


def to_date(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """The date that a text writes in a form such as 'DD/MM/YYYY'; what is written otherwise fails."""
    subject = typing.as_type(arguments[0], TEXT, f"{name} takes text")
    form = _DATE_FORMAT.fullmatch(arguments[1].literal or "")
    parts = [part.upper() for part in form.group(1, 3, 4)] if form else []
    if form is None or len(set(parts)) != len(parts):
        message = f"{name} takes YYYY, MM and DD in any order, with one of - . / or a space between, in quotes"
        raise FaultError(message, arguments[1].at)
    places = ", ".join(typing.bind(parts.index(part) + 1, "int") for part in ("YYYY", "MM", "DD"))
    sql = f"date_in({subject.sql}, {typing.bind(form.group(2), 'text')}, {places})"
    return over(sql, DATE, subject, own=unread(sql, f"btrim({subject.sql})"), grows=False, moved_days=0)


def path_of(typing: Typing, name: str, term: Term) -> str:
    """SQL of a way into JSON that is written in quotes. Raises FaultError."""
    steps = (term.literal or "").split(".")
    if not all(steps) or len(steps) > STEPS_MAX:
        raise FaultError(f"{name} takes a path such as 'company.tags.0', of at most {STEPS_MAX} steps", term.at)
    return f"string_to_array({typing.bind(term.literal, 'text')}, '.')"


def json_get(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """What is at a path, as JSON."""
    subject = typing.as_type(arguments[0], JSON, f"{name} takes JSON")
    return over(f"NULLIF({subject.sql} #> {path_of(typing, name, arguments[1])}, 'null')", JSON, subject)


def json_text(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """What is at a path, as text."""
    subject = typing.as_type(arguments[0], JSON, f"{name} takes JSON")
    return over(f"({subject.sql} #>> {path_of(typing, name, arguments[1])})", TEXT, subject, grows=True)


def json_contains(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
    """Whether a list in JSON holds a value."""
    subject = typing.as_type(arguments[0], JSON, f"{name} takes JSON")
    value = arguments[1]
    if value.type is None:
        value = typing.as_type(value, TEXT, "")
    if value.type not in {TEXT, NUMBER, BOOLEAN}:
        raise FaultError(f"{name} looks for a text, a number, true or false", value.at)
    return over(f"({subject.sql} @> to_jsonb({value.sql}))", BOOLEAN, subject, value, grows=False)


CHARACTERS: Final = Whole(-TEXT_CHARACTERS_MAX, TEXT_CHARACTERS_MAX)
PLACES: Final = (Whole(1, TEXT_CHARACTERS_MAX), Whole(0, TEXT_CHARACTERS_MAX))
DECIMALS: Final = Whole(-DECIMALS_MAX, DECIMALS_MAX)
SPACE: Final = ("' '",)


def trimmed(name: str, documentation: str) -> Function:
    """A function that takes characters off the ends."""
    return plain(documentation, (TEXT, TEXT), TEXT, name + "({0}, {1})", defaults=SPACE)


def part_of(documentation: str) -> Function:
    """A function that takes a part of a text."""

    def build(typing: Typing, name: str, arguments: Sequence[Term]) -> Term:
        text = typing.as_type(arguments[0], TEXT, f"{name} takes text")
        places = [typing.bind(place.read(term), "int") for place, term in zip(PLACES, arguments[1:], strict=False)]
        return over(f"substr({text.sql}, {', '.join(places)})", TEXT, text)

    return Function(documentation, build, 2, 3)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "abs": plain("abs(number): without its sign", [NUMBER], NUMBER, "abs({0})"),
    "sign": plain("sign(number): -1, 0 or 1", [NUMBER], NUMBER, "sign({0})"),
    "ceil": plain("ceil(number): rounded up to a whole number", [NUMBER], NUMBER, "ceil({0})"),
    "ceiling": plain("ceiling(number): the same as ceil", [NUMBER], NUMBER, "ceil({0})"),
    "floor": plain("floor(number): rounded down to a whole number", [NUMBER], NUMBER, "floor({0})"),
    "mod": Function(
        "mod(number, number): the rest of the division, like %",
        lambda typing, _, terms: division(typing, "%", *terms),
        2,
        2,
    ),
    "round": plain(
        "round(number, decimals = 0): rounded, halves away from zero; decimals a whole number from -20 to 20",
        [NUMBER, DECIMALS],
        NUMBER,
        "round({0}, {1})",
        defaults=["0"],
    ),
    "trunc": plain(
        "trunc(number, decimals = 0): cut off, towards zero",
        [NUMBER, DECIMALS],
        NUMBER,
        "trunc({0}, {1})",
        defaults=["0"],
    ),
    "power": plain(
        "power(number, exponent): multiplied by itself; the exponent a whole number from 0 to 10",
        [NUMBER, Whole(0, EXPONENT_MAX)],
        NUMBER,
        "bounded_power({0}, {1})",
        bounded=True,
    ),
    "greatest": Function("greatest(value, ...): the largest, or latest; empty ones left out", extreme, 1, MANY),
    "least": Function("least(value, ...): the smallest, or earliest; empty ones left out", extreme, 1, MANY),
    "length": plain("length(text): its number of characters", [TEXT], NUMBER, "length({0})::numeric"),
    "char_length": plain("char_length(text): the same as length", [TEXT], NUMBER, "length({0})::numeric"),
    "lower": plain("lower(text): in lower case", [TEXT], TEXT, "lower({0})"),
    "upper": plain("upper(text): in upper case", [TEXT], TEXT, "upper({0})"),
    "initcap": plain("initcap(text): each word with a capital letter", [TEXT], TEXT, "initcap({0})"),
    "trim": trimmed(
        "btrim", "trim(text), trim(both|leading|trailing 'characters' from text): without spaces, or those, at its ends"
    ),
    "btrim": trimmed("btrim", "btrim(text, 'characters' = ' '): the same as trim(both ...)"),
    "ltrim": trimmed("ltrim", "ltrim(text, 'characters' = ' '): the same as trim(leading ...)"),
    "rtrim": trimmed("rtrim", "rtrim(text, 'characters' = ' '): the same as trim(trailing ...)"),
    "substring": part_of("substring(text, start, count), substring(text from start for count): a part, from 1"),
    "substr": part_of("substr(text, start, count): the same as substring"),
    "left": plain("left(text, count): its first characters", [TEXT, CHARACTERS], TEXT, "left({0}, {1})"),
    "right": plain("right(text, count): its last characters", [TEXT, CHARACTERS], TEXT, "right({0}, {1})"),
    "lpad": plain(
        "lpad(text, length, fill = ' '): made that long (at most 1,000) by filling on the left; what is longer is cut",
        [TEXT, Whole(0, PADDED_MAX), TEXT],
        TEXT,
        "lpad({0}, {1}, {2})",
        defaults=SPACE,
        grows=False,
    ),
    "rpad": plain(
        "rpad(text, length, fill = ' '): the same on the right",
        [TEXT, Whole(0, PADDED_MAX), TEXT],
        TEXT,
        "rpad({0}, {1}, {2})",
        defaults=SPACE,
        grows=False,
    ),
    "reverse": plain("reverse(text): from the end to the beginning", [TEXT], TEXT, "reverse({0})"),
    "replace": plain(
        "replace(text, old, new): with every `old` made `new`",
        [TEXT, TEXT, TEXT],
        TEXT,
        "bounded_replace({0}, {1}, {2})",
        bounded=True,
        grows=True,
    ),
    "split_part": plain(
        "split_part(text, separator, n): the n-th part, from 1 (from the end where negative)",
        [TEXT, TEXT, Whole(-1_000, 1_000, zero=False)],
        TEXT,
        "split_part({0}, {1}, {2})",
    ),
    "position": plain(
        "position(part in text): the character at which it begins, from 1; 0 where it is not in it",
        [TEXT, TEXT],
        NUMBER,
        "strpos({1}, {0})::numeric",
    ),
    "strpos": plain("strpos(text, part): the same", [TEXT, TEXT], NUMBER, "strpos({0}, {1})::numeric"),
    "contains": plain("contains(text, part): whether it is in it", [TEXT, TEXT], BOOLEAN, "(strpos({0}, {1}) > 0)"),
    "starts_with": plain(
        "starts_with(text, text): whether it begins so", [TEXT, TEXT], BOOLEAN, "starts_with({0}, {1})"
    ),
    "ends_with": plain(
        "ends_with(text, text): whether it ends so", [TEXT, TEXT], BOOLEAN, "(right({0}, length({1})) = {1})"
    ),
    "concat": Function(
        "concat(value, ...): the values written one after the other, empty ones left out", concat, 1, MANY
    ),
    "email_domain": plain(
        "email_domain(text): what stands behind the @ of an address, in lower case; empty unless there is one @",
        [TEXT],
        TEXT,
        "email_domain({0})",
    ),
    "domain_of": plain(
        "domain_of(text): the domain of a web address, in lower case, without www.", [TEXT], TEXT, "domain_of({0})"
    ),
    "coalesce": Function("coalesce(value, ...): the first that is not empty", coalesce, 1, MANY),
    "nullif": Function("nullif(value, value): empty where the two are equal", nullif, 2, 2),
    "date_add": Function(
        "date_add('day|week|month|quarter|year', count, date): so much later, the 31st of a shorter month its last day;"
        " of a timestamp also hour|minute|second",
        date_add,
        3,
        3,
    ),
    "date_diff": Function(
        "date_diff('unit', date, date): how many whole units lie between them; the same units", date_diff, 3, 3
    ),
    "date_trunc": Function(
        "date_trunc('unit', date): the first day, or moment, of that unit; weeks begin on Monday", date_trunc, 2, 2
    ),
    "to_date": Function(
        "to_date(text, 'DD/MM/YYYY'): a date written in another order, or with - . or a space", to_date, 2, 2
    ),
    "json_get": Function("json_get(json, 'path.to.0'): what is there, as JSON; lists count from 0", json_get, 2, 2),
    "json_text": Function("json_text(json, 'path.to.0'): the same as text", json_text, 2, 2),
    "json_length": plain(
        "json_length(json): how many values a list has; empty for what is no list", [JSON], NUMBER, "json_length({0})"
    ),
    "json_contains": Function(
        "json_contains(json, value): whether a list holds a text, a number, true or false", json_contains, 2, 2
    ),
    "is_number": Function(
        "is_number(value): whether it can be read as one; never fails for a cell", reads_as(NUMBER), 1, 1
    ),
    "is_boolean": Function("is_boolean(value): the same for true and false", reads_as(BOOLEAN), 1, 1),
    "is_date": Function("is_date(value): the same for dates", reads_as(DATE), 1, 1),
    "is_timestamp": Function("is_timestamp(value): the same for timestamps", reads_as(TIMESTAMP), 1, 1),
}
"""By name, in the order of the documentation."""

SYNTAX_DOCUMENTATION: Final = {
    "extract": "extract(year|quarter|month|week|day|isodow from date); of a timestamp also hour|minute|second",
    "cast": "cast(value as type), value::type: text, number (numeric, integer), boolean, date or timestamp",
}
"""What is written like a function and has a syntax of its own."""

DOCUMENTATION: Final = {name: function.documentation for name, function in FUNCTIONS.items()} | SYNTAX_DOCUMENTATION
"""A line for each word that is written like a function."""
