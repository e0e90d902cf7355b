"""A filter or a formula → SQL that can reach nothing but the lead it stands on, and cannot fail a statement.

`compile_expression("revenue / employees", columns, field="where")` gives fragments over the table alias `lead`:

    value   what the expression is worth for a lead; never raises
    fails   why it fails for a lead (a word of the lead reasons), NULL where it does not; None where it never can

so that one bad cell costs one lead. A division becomes `a / NULLIF(b, 0)`, a cast calls a function of
the database that gives NULL for what it cannot read, and `fails` asks afterwards what happened. It
follows the way in which a person reads the expression: of AND, OR, CASE and COALESCE only what decides is looked at,
from left to right, so `b <> 0 and a / b > 2` fails for no lead.

The complication is trust: the text is a tenant's. Nothing of it reaches Postgres as text. sqlglot parses it; a first
pass over the tokens and a second over the tree admit what is listed here, by name, and refuse everything else with its
place; the SQL is then written anew from the tree, every literal and every column name as a parameter. What could
grow without bound (numbers, texts, patterns) has its bound at compile time or in its function.

Numbers are Postgres' numeric throughout: 5 / 2 is 2.5. Timestamps are moments, read and written in UTC. `where` and
formulas are the same language; a filter is an expression that is worth true or false.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from leadline.features.tables.columns import (
    DECIMALS_MAX,
    NUMBER_DIGITS_MAX,
    TEXT_CHARACTERS_MAX,
    BadValueError,
    ColumnType,
    read_date,
    read_number,
    read_timestamp,
)
from leadline_protocol.errors import ErrorCode, LeadReason, Refused

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.tokenizer_core import Token

CHARACTERS_MAX: Final = 4_000
NODES_MAX: Final = 200
DEPTH_MAX: Final = 32
PATTERN_CHARACTERS_MAX: Final = 200
PATTERN_WILDCARDS_MAX: Final = 8
"""LIKE tries every place for each `%`: the bounds keep the cost of one lead in microseconds."""

SQL_CHARACTERS_MAX: Final = 200_000
"""What one fragment may come to; only an expression made to be large comes near."""

FUNCTIONS: Final[Mapping[str, str]] = {
    "abs": "abs(number): without its sign",
    "ceil": "ceil(number): rounded up to a whole number",
    "ceiling": "ceiling(number): the same as ceil",
    "floor": "floor(number): rounded down to a whole number",
    "mod": "mod(number, number): the rest of the division, like %",
    "round": "round(number, decimals = 0): rounded, halves away from zero; decimals a whole number from -20 to 20",
    "length": "length(text): its number of characters",
    "char_length": "char_length(text): the same as length",
    "lower": "lower(text): in lower case",
    "upper": "upper(text): in upper case",
    "trim": "trim(text), trim(both|leading|trailing 'characters' from text): without spaces, or those, at its ends",
    "btrim": "btrim(text, 'characters' = ' '): the same as trim(both ...)",
    "ltrim": "ltrim(text, 'characters' = ' '): the same as trim(leading ...)",
    "rtrim": "rtrim(text, 'characters' = ' '): the same as trim(trailing ...)",
    "substring": "substring(text, start, count), substring(text from start for count): a part, from 1",
    "substr": "substr(text, start, count): the same as substring",
    "left": "left(text, count): its first characters",
    "right": "right(text, count): its last characters",
    "replace": "replace(text, old, new): with every `old` made `new`",
    "split_part": "split_part(text, separator, n): the n-th part, from 1 (from the end where negative)",
    "starts_with": "starts_with(text, text): whether it begins so",
    "concat": "concat(value, ...): the values written one after the other, empty ones left out",
    "coalesce": "coalesce(value, ...): the first that is not empty",
    "nullif": "nullif(value, value): empty where the two are equal",
    "extract": "extract(year|quarter|month|week|day|isodow from date); of a timestamp also hour|minute|second",
    "cast": "cast(value as type), value::type: text, number (numeric, integer), boolean, date or timestamp",
}
"""Every function there is, with its documentation."""

_Offset: TypeAlias = int
_FAILS_CAST: Final = f"'{LeadReason.BAD_CAST}'"
_FAILS_ZERO: Final = f"'{LeadReason.DIVISION_BY_ZERO}'"
_FAILS_RANGE: Final = f"'{LeadReason.OUT_OF_RANGE}'"

_SQL_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.NUMBER: "numeric",
    ColumnType.TEXT: "text",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.DATE: "date",
    ColumnType.TIMESTAMP: "timestamptz",
    ColumnType.JSON: "text",
}
_CAST_TYPES: Final[Mapping[str, ColumnType]] = {
    "TEXT": ColumnType.TEXT,
    "DECIMAL": ColumnType.NUMBER,
    "INT": ColumnType.NUMBER,
    "BIGINT": ColumnType.NUMBER,
    "BOOLEAN": ColumnType.BOOLEAN,
    "DATE": ColumnType.DATE,
    "TIMESTAMP": ColumnType.TIMESTAMP,
    "TIMESTAMPTZ": ColumnType.TIMESTAMP,
}
_DATE_FIELDS: Final = frozenset({"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "ISODOW"})
_TIME_FIELDS: Final = _DATE_FIELDS | {"HOUR", "MINUTE", "SECOND"}

_SYMBOLS: Final = frozenset({"(", ")", ",", "+", "-", "*", "/", "%", "=", "<>", "!=", "<", "<=", ">", ">=", "||", "::"})
_KEYWORDS: Final = frozenset(
    {
        "and",
        "or",
        "not",
        "is",
        "null",
        "true",
        "false",
        "in",
        "between",
        "like",
        "ilike",
        "case",
        "when",
        "then",
        "else",
        "end",
        "distinct",
        "from",
        "for",
        "as",
        "current_date",
    }
)
_TYPE_WORDS: Final = frozenset(
    {"text", "numeric", "decimal", "integer", "int", "bigint", "boolean", "bool", "date", "timestamp", "timestamptz"}
)
_NUMERAL: Final = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d{1,2})?", re.ASCII)


class Compiled(msgspec.Struct, frozen=True):
    """An expression, ready to stand in a statement over `lead`; its `$1` is `parameters`, its TimeZone must be UTC."""

    value: str
    """SQL of `type`, NULL where the result is empty; where the lead fails it means nothing, and raises nothing."""
    fails: str | None
    """SQL of type text: a word of the lead reasons where the lead fails, else NULL. None: it fails for no lead."""
    json: str
    """SQL of type jsonb: `value` as a cell holds it (numbers to 20 decimals), NULL where it is empty."""
    parameters: tuple[str, ...]
    """What the array of texts `$1` holds: column names and literals, each cast to its type where it is read."""
    type: ColumnType
    columns: tuple[str, ...]
    """The columns that it reads, in the order of first use."""


def compile_expression(
    text: str,
    columns: Mapping[str, ColumnType],
    *,
    field: str,
    wants: ColumnType | None = None,
) -> Compiled:
    """The SQL of an expression over a table with these columns, for a result of type `wants` (None: of any type).

    Raises:
        Refused: `bad_expression` or `unknown_column`, at `field:N`, N the 1-based character where the fault begins.

    """
    try:
        return _compiled(text, tuple(columns.items()), wants)
    except _FaultError as fault:
        raise Refused(fault.code, fault.message, at=f"{field}:{fault.offset + 1}") from None


class _FaultError(Exception):
    def __init__(self, message: str, offset: _Offset, code: ErrorCode = ErrorCode.BAD_EXPRESSION) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.code = code


@lru_cache(maxsize=2_048)
def _compiled(text: str, columns: tuple[tuple[str, ColumnType], ...], wants: ColumnType | None) -> Compiled:
    names = dict(columns)
    tree = _parsed(text, names)
    compiler = _Compiler(names)
    return compiler.finish(compiler.term(tree, 1), wants)


# From text to tree: what is let in, by its words, with the exact place of what is not.


def _parsed(text: str, columns: Mapping[str, ColumnType]) -> "exp.Expr":
    from sqlglot import parse
    from sqlglot.dialects.postgres import Postgres
    from sqlglot.errors import ParseError, TokenError

    if len(text) > CHARACTERS_MAX:
        raise _FaultError(f"longer than {CHARACTERS_MAX:,} characters", CHARACTERS_MAX)
    if not text.strip():
        raise _FaultError("is empty", 0)
    for offset, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise _FaultError("holds a NUL, or half a surrogate pair", offset)
    dialect = Postgres()
    try:
        words = dialect.tokenize(text)
    except TokenError:
        raise _FaultError("a quotation is not closed", _open_quote(text)) from None
    _admit(text, words, columns)
    try:
        trees = parse(text, read=dialect)
    except ParseError as error:
        raise _FaultError(*_explained(error, text, words)) from None
    except RecursionError:
        raise _FaultError("is nested too deeply", 0) from None
    if len(trees) != 1 or trees[0] is None:
        raise _FaultError("must be one expression", 0)
    return trees[0]


def _admit(text: str, words: Sequence["Token"], columns: Mapping[str, ColumnType]) -> None:
    """Refuse the first token that is no part of the language.

    The tree is judged again afterwards, and that is what keeps the gate; this pass knows where every word stands.
    """
    known = {name.casefold() for name in columns}
    end = 0
    opened: list[_Offset] = []
    for position, word in enumerate(words):
        if text[end : word.start].strip():
            gap = text[end : word.start]
            raise _FaultError("comments are not part of an expression", end + len(gap) - len(gap.lstrip()))
        end = word.end + 1
        written = text[word.start : end]
        before = text[words[position - 1].start : words[position - 1].end + 1].casefold() if position else ""
        calls = position + 1 < len(words) and words[position + 1].text == "("
        if written == "(":
            opened.append(word.start)
            if len(opened) > DEPTH_MAX:
                raise _FaultError(f"is nested deeper than {DEPTH_MAX}", word.start)
        elif written == ")":
            if not opened:
                raise _FaultError("closes a parenthesis that was not opened", word.start)
            opened.pop()
        elif written[0] == "'" == before[:1]:
            raise _FaultError("a quoted text follows another", word.start)
        _admit_word(word, written, before, calls=calls, known=known)
    if text[end:].strip():
        raise _FaultError("comments are not part of an expression", end + len(text[end:]) - len(text[end:].lstrip()))
    if opened:
        raise _FaultError("a parenthesis is not closed", opened[-1])


def _admit_word(word: "Token", written: str, before: str, *, calls: bool, known: set[str]) -> None:
    kind, folded = word.token_type.name, written.casefold()
    if kind == "STRING" and written.startswith("'"):
        return
    if kind == "NUMBER":
        if not _NUMERAL.fullmatch(written):
            raise _FaultError(f"{_shown(written)} is not a number", word.start)
        return
    if kind == "IDENTIFIER":
        if calls:
            raise _FaultError("a quoted name is a column, not a function", word.start)
        if word.text.casefold() not in known:
            raise _unknown_column(word.text, word.start)
        return
    if written in _SYMBOLS:
        return
    if not (written[0].isalpha() or written[0] == "_"):
        raise _FaultError(f"{_shown(written)} is not part of the language", word.start)
    if calls and folded not in _KEYWORDS:
        if folded not in FUNCTIONS:
            raise _FaultError(f"there is no function {_shown(written)}; there are {', '.join(FUNCTIONS)}", word.start)
        return
    follows_call = before == "("
    if (
        folded in known
        or folded in _KEYWORDS
        or (folded in _TYPE_WORDS and (before in {"::", "as"} or not calls))
        or (follows_call and folded in {"both", "leading", "trailing"})
        or (follows_call and folded.upper() in _TIME_FIELDS)
    ):
        return
    if kind == "VAR":
        raise _unknown_column(written, word.start)
    raise _FaultError(f"{_shown(written)} is not part of the language", word.start)


def _unknown_column(name: str, offset: _Offset) -> _FaultError:
    return _FaultError(f"the table has no column {_shown(name)}", offset, ErrorCode.UNKNOWN_COLUMN)


def _open_quote(text: str) -> _Offset:
    """Where the quotation begins that never ends."""
    quote, start = "", 0
    for offset, character in enumerate(text):
        if not quote and character in "'\"":
            quote, start = character, offset
        elif character == quote:
            quote = ""
    return start


def _explained(error: Exception, text: str, words: Sequence["Token"]) -> tuple[str, _Offset]:
    """The parser's first complaint as a sentence, and the offset of the token that it means."""
    details: Mapping[str, Any] = (getattr(error, "errors", None) or [{}])[0]
    place = (details.get("line"), details.get("col"))
    description = str(details.get("description") or "")
    for word in words:
        if (word.line, word.col) == place:
            written = text[word.start : word.end + 1]
            if "number of provided arguments" in description:
                return "too many arguments", word.start
            if "Required keyword" in description:
                return f"something is missing before {_shown(written)}", word.start
            return f"{_shown(written)} was not expected here", word.start
    return "ends too early", max(0, len(text) - 1)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


# From tree to SQL.


class _Term(msgspec.Struct, frozen=True):
    """A part of the expression, compiled."""

    sql: str
    type: ColumnType | None
    """None for NULL and for a quoted literal, whose type is settled by what it meets."""
    at: _Offset
    fails: str | None = None
    null_when_failing: bool = True
    """Whether `sql` is NULL wherever `fails` is not: then only a NULL needs to be asked why."""
    literal: str | None = None
    """The text of a quoted literal that has no type yet."""
    number: Decimal | None = None
    """The value of a numeric literal."""
    grows: bool = False
    """Whether the text may be longer than the cells that it is made of."""
    moved_days: int = 0
    """By how many days at most a date may lie outside the calendar of cells, the years 1 to 9999."""

    def asked(self) -> str | None:
        """`fails`, asked only where it can have an answer."""
        if self.fails is None or not self.null_when_failing:
            return self.fails
        return f"CASE WHEN {self.sql} IS NULL THEN {self.fails} END"


def _first(*fails: str | None) -> str | None:
    """The first of these reasons that holds."""
    found = [reason for reason in fails if reason is not None]
    if len(found) > 1:
        return f"COALESCE({', '.join(found)})"
    return found[0] if found else None


_Handler: TypeAlias = "Callable[[_Compiler, exp.Expr, int], _Term]"
_HANDLERS: Final[dict[str, tuple[_Handler, frozenset[str]]]] = {}


def _compiles(*nodes: str, arguments: str = "this expression") -> Callable[[_Handler], _Handler]:
    """Enter a method as the one that compiles these classes of nodes, of which it reads these arguments."""

    def enter(handler: _Handler) -> _Handler:
        for node in nodes:
            _HANDLERS[node] = (handler, frozenset(arguments.split()))
        return handler

    return enter


_MOVED_DAYS_MAX: Final = 1_000_000
"""Postgres' calendar reaches further than this beyond the dates of cells on both sides."""

_ARITHMETIC: Final = frozenset({"Add", "Sub", "Mul", "Div", "Mod"})

_BENIGN: Final = frozenset(
    {("Div", "typed"), ("Div", "safe"), ("DPipe", "safe"), ("Concat", "safe"), ("Concat", "coalesce")}
)
"""Arguments with which sqlglot notes how its dialects differ; they change nothing here."""

_NOUNS: Final[Mapping[ColumnType | None, str]] = {
    ColumnType.NUMBER: "a number",
    ColumnType.TEXT: "text",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "a date",
    ColumnType.TIMESTAMP: "a timestamp",
    ColumnType.JSON: "JSON",
    None: "empty",
}


class _Compiler:
    """Compiles one tree; holds the parameters and the columns met on the way."""

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self.types = columns
        self.folded: dict[str, list[str]] = {}
        for name in columns:
            self.folded.setdefault(name.casefold(), []).append(name)
        self.parameters: dict[str, int] = {}
        self.used: dict[str, None] = {}
        self.nodes = 0

    def finish(self, term: _Term, wants: ColumnType | None) -> Compiled:
        """The whole expression, of the type wanted, with its result held to what a cell can hold."""
        if wants is not None and wants is not ColumnType.JSON:
            term = self.as_type(term, wants, f"the result is to be {_NOUNS[wants]}")
        elif term.type is None:
            term = self.as_type(term, ColumnType.TEXT, "")
        assert term.type is not None
        value = term.sql
        fits = ""
        match term.type:
            case ColumnType.NUMBER:
                json = f"to_jsonb(trim_scale(round({value}, {DECIMALS_MAX})))"
                if term.number is None:
                    fits = f"abs({value}) < 1e{NUMBER_DIGITS_MAX}"
            case ColumnType.TEXT:
                json = f"to_jsonb(NULLIF({value}, ''))"
                if term.grows:
                    fits = f"length({value}) <= {TEXT_CHARACTERS_MAX}"
            case ColumnType.BOOLEAN | ColumnType.JSON:
                json = f"to_jsonb({value})"
            case ColumnType.DATE | ColumnType.TIMESTAMP:
                text = f"to_char({value}, 'YYYY-MM-DD')" if term.type is ColumnType.DATE else f"as_text({value})"
                json = f"to_jsonb({text})"
                if term.moved_days:
                    day = value if term.type is ColumnType.DATE else f"({value} AT TIME ZONE 'UTC')::date"
                    fits = f"abs({day} - date '5000-07-02') <= 1826029"  # the middle of the years 1 to 9999, in days
        fails = self._bounded(term, fits) if fits else term.asked()
        if max(len(value), len(fails or "")) > SQL_CHARACTERS_MAX:
            raise _FaultError("is too complex", 0)
        return Compiled(value, fails, json, tuple(self.parameters), term.type, tuple(self.used))

    def _bounded(self, term: _Term, fits: str) -> str:
        """Why a lead fails, or that its result does not fit; the usual lead costs one look at its value."""
        if term.fails is not None and not term.null_when_failing:
            return f"COALESCE({term.fails}, CASE WHEN NOT ({fits}) THEN {_FAILS_RANGE} END)"
        why = f"CASE WHEN {term.sql} IS NULL THEN {term.fails or 'NULL'} ELSE {_FAILS_RANGE} END"
        return f"CASE WHEN {fits} THEN NULL ELSE {why} END"

    def term(self, node: "exp.Expr", depth: int) -> _Term:
        """Compile one node and all below it."""
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise _FaultError(f"has more than {NODES_MAX} parts", _offset(node))
        if depth > DEPTH_MAX:
            raise _FaultError(f"is nested deeper than {DEPTH_MAX}", _offset(node))
        name = type(node).__name__
        handler, arguments = _HANDLERS.get(name, (None, frozenset()))
        if name == "Alias":
            raise _FaultError("one expression ends here and something follows", _offset(node.args["alias"]))
        if handler is None:
            raise _FaultError(f"{name} is not part of the language", _offset(node))
        for argument, value in node.args.items():
            if value and argument not in arguments and (name, argument) not in _BENIGN:
                raise _FaultError(f"{name} is not part of the language in this form", _offset(node))
        return handler(self, node, depth)

    def child(self, node: "exp.Expr", argument: str, depth: int) -> _Term:
        """Compile one argument of a node."""
        below = node.args.get(argument)
        if below is None:
            raise _FaultError("something is missing here", _offset(node))
        return self.term(below, depth + 1)

    def bind(self, value: object, sql_type: str) -> str:
        """The place of a parameter with this value."""
        place = f"($1)[{self.parameters.setdefault(str(value), len(self.parameters) + 1)}]"
        return place if sql_type == "text" else f"{place}::{sql_type}"

    # Types.

    def as_type(self, term: _Term, wanted: ColumnType, why: str) -> _Term:
        """The term as `wanted` where that needs no cast: NULL, a quoted literal, a date as its midnight."""
        if term.type is wanted:
            return term
        if term.literal is not None:
            return self._literal_as(term, wanted)
        if term.type is None:
            return msgspec.structs.replace(term, sql=f"NULL::{_SQL_TYPES[wanted]}", type=wanted)
        if term.type is ColumnType.DATE and wanted is ColumnType.TIMESTAMP:
            return msgspec.structs.replace(term, sql=_midnight(term.sql), type=wanted)
        hint = ""
        if wanted in _CAST_TYPES.values() and term.type is not ColumnType.JSON:
            hint = f"; a cast would be ::{_SQL_TYPES[wanted]}"
        raise _FaultError(f"{why}, and this is {_NOUNS[term.type]}{hint}", term.at)

    def _literal_as(self, term: _Term, wanted: ColumnType) -> _Term:
        """A quoted literal read as `wanted`, once, now."""
        text = term.literal
        assert text is not None
        value: object
        try:
            match wanted:
                case ColumnType.TEXT | ColumnType.JSON:
                    value = text
                case ColumnType.NUMBER:
                    value = read_number(text.strip())
                case ColumnType.DATE:
                    value = read_date(text.strip())
                case ColumnType.TIMESTAMP:
                    value = read_timestamp(text.strip())
                case ColumnType.BOOLEAN:
                    if text.strip().casefold() not in {"true", "false", "yes", "no"}:
                        raise BadValueError(f"{_shown(text)} is neither true nor false")
                    sql = "TRUE" if text.strip().casefold() in {"true", "yes"} else "FALSE"
                    return _Term(sql, wanted, term.at)
        except BadValueError as fault:
            raise _FaultError(str(fault), term.at) from None
        return _Term(self.bind(value, _SQL_TYPES[wanted]), wanted, term.at)

    def same_type(self, terms: Sequence[_Term], *, what: str) -> tuple[list[_Term], ColumnType]:
        """Terms that meet each other, brought to one type; the first that has one leads."""
        typed = [term.type for term in terms if term.type is not None]
        leading = typed[0] if typed else ColumnType.TEXT
        if leading is ColumnType.DATE and ColumnType.TIMESTAMP in typed:
            leading = ColumnType.TIMESTAMP
        why = f"{what} {_NOUNS[leading]} and {_NOUNS[leading]}"
        return [self.as_type(term, leading, why) for term in terms], leading

    def text(self, term: _Term) -> _Term:
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
                sql = term.sql
        return msgspec.structs.replace(term, sql=sql, type=ColumnType.TEXT, number=None)

    def typed_child(self, node: "exp.Expr", argument: str, depth: int, wanted: ColumnType) -> _Term:
        """An argument that must be of one type."""
        return self.as_type(self.child(node, argument, depth), wanted, f"{_function(node)} takes {_NOUNS[wanted]}")

    def whole_number(self, node: "exp.Expr", argument: str, low: int, high: int) -> int:
        """An argument that must be written out as a whole number within bounds."""
        below = node.args[argument]
        self.nodes += 1
        sign = 1
        if type(below).__name__ == "Neg":
            sign, below = -1, below.this
        written = below.this if type(below).__name__ == "Literal" and not below.args["is_string"] else ""
        if not re.fullmatch(r"[0-9]{1,9}", str(written)) or not low <= sign * int(written) <= high:
            raise _FaultError(
                f"must be a whole number from {low:,} to {high:,}, written out", _offset(below, _offset(node))
            )
        return sign * int(written)

    # Leaves.

    @_compiles("Paren", arguments="this")
    def _paren(self, node: "exp.Expr", depth: int) -> _Term:
        return self.child(node, "this", depth)

    @_compiles("Column", arguments="this")
    def _column(self, node: "exp.Expr", _depth: int) -> _Term:
        if type(node.this).__name__ != "Identifier":
            raise _FaultError("is not a column", _offset(node))
        written, offset = node.this.name, _offset(node)
        if written in self.types:
            name = written
        else:
            names = self.folded.get(written.casefold(), [])
            if not names:
                raise _unknown_column(written, offset)
            if len(names) > 1:
                raise _FaultError(f"{_shown(written)} may be {' or '.join(names)}; write it in double quotes", offset)
            name = names[0]
        self.used[name] = None
        kind = self.types[name]
        place = self.bind(name, "text")
        text, cell = f"(lead.data->>{place})", f"(lead.data->{place})"
        match kind:
            case ColumnType.TEXT | ColumnType.JSON:
                return _Term(text, kind, offset)
            case _:
                sql = f"as_{kind}({cell})"
        return _Term(sql, kind, offset, _unread(sql, text))

    @_compiles("Literal", arguments="this is_string")
    def _literal(self, node: "exp.Expr", _depth: int) -> _Term:
        offset = _offset(node)
        if node.args["is_string"]:
            return _Term("", None, offset, literal=node.this)
        return self._numeral(node.this, offset)

    def _numeral(self, written: str, offset: _Offset) -> _Term:
        try:
            number = read_number(written)
        except BadValueError as fault:
            raise _FaultError(str(fault), offset) from None
        return _Term(self.bind(number, "numeric"), ColumnType.NUMBER, offset, number=number)

    @_compiles("Boolean", arguments="this")
    def _boolean(self, node: "exp.Expr", _depth: int) -> _Term:
        return _Term("TRUE" if node.this else "FALSE", ColumnType.BOOLEAN, _offset(node))

    @_compiles("Null", arguments="")
    def _null(self, node: "exp.Expr", _depth: int) -> _Term:
        return _Term("NULL", None, _offset(node))

    @_compiles("CurrentDate", arguments="")
    def _today(self, node: "exp.Expr", _depth: int) -> _Term:
        return _Term("(now() AT TIME ZONE 'UTC')::date", ColumnType.DATE, _offset(node))

    # Arithmetic.

    @_compiles("Neg", arguments="this")
    def _negative(self, node: "exp.Expr", depth: int) -> _Term:
        if type(node.this).__name__ == "Literal" and not node.this.args["is_string"]:
            self.nodes += 1
            return self._numeral(f"-{node.this.this}", _offset(node))
        term = self.typed_child(node, "this", depth, ColumnType.NUMBER)
        return _over(f"(- {term.sql})", ColumnType.NUMBER, term)

    @_compiles("Add", "Sub", "Mul")
    def _arithmetic(self, node: "exp.Expr", depth: int) -> _Term:
        left, right = self._operands(node, depth)
        operator = {"Add": "+", "Sub": "-", "Mul": "*"}[type(node).__name__]
        if operator == "+" and right.type is ColumnType.DATE:
            left, right = right, left
        if operator == "-" and left.literal is not None and right.type is ColumnType.DATE:
            left = self.as_type(left, ColumnType.DATE, "")
        if left.type is ColumnType.DATE and operator != "*":
            return self._date_arithmetic(left, operator, right)
        left, right = (self.as_type(term, ColumnType.NUMBER, f"{operator} takes numbers") for term in (left, right))
        return _over(f"({left.sql} {operator} {right.sql})", ColumnType.NUMBER, left, right)

    def _date_arithmetic(self, left: _Term, operator: str, right: _Term) -> _Term:
        if operator == "-" and (right.type is ColumnType.DATE or right.literal is not None):
            right = self.as_type(right, ColumnType.DATE, "")
            return _over(f"({left.sql} - {right.sql})::numeric", ColumnType.NUMBER, left, right)
        days = self.as_type(right, ColumnType.NUMBER, "a date moves by a number of days")
        if days.number is not None and days.number == int(days.number):
            moved = left.moved_days + abs(int(days.number))
            if moved <= _MOVED_DAYS_MAX:
                return _over(f"({left.sql} {operator} {days.sql}::int)", ColumnType.DATE, left, moved_days=moved)
        sql = f"days_after({left.sql}, {'-' if operator == '-' else ''}{days.sql})"
        far = f"CASE WHEN {left.sql} IS NOT NULL AND {days.sql} IS NOT NULL AND {sql} IS NULL THEN {_FAILS_RANGE} END"
        return _over(sql, ColumnType.DATE, left, days, own=far, moved_days=0)

    @_compiles("Div", "Mod")
    def _division(self, node: "exp.Expr", depth: int) -> _Term:
        operator = "/" if type(node).__name__ == "Div" else "%"
        left, right = (
            self.as_type(term, ColumnType.NUMBER, f"{operator} takes numbers") for term in self._operands(node, depth)
        )
        if right.number:
            return _over(f"({left.sql} {operator} {right.sql})", ColumnType.NUMBER, left, right)
        zero = f"CASE WHEN {right.sql} = 0 THEN {_FAILS_ZERO} END"
        return _over(f"({left.sql} {operator} NULLIF({right.sql}, 0))", ColumnType.NUMBER, left, right, own=zero)

    @_compiles("Abs", "Floor", "Ceil", arguments="this")
    def _rounding(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.NUMBER)
        return _over(f"{_function(node)}({term.sql})", ColumnType.NUMBER, term)

    @_compiles("Round", arguments="this decimals")
    def _round(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.NUMBER)
        decimals = 0
        if node.args.get("decimals"):
            decimals = self.whole_number(node, "decimals", -DECIMALS_MAX, DECIMALS_MAX)
        return _over(f"round({term.sql}, {self.bind(decimals, 'int')})", ColumnType.NUMBER, term)

    # Comparison and logic.

    @_compiles("EQ", "NEQ", "LT", "LTE", "GT", "GTE")
    def _comparison(self, node: "exp.Expr", depth: int) -> _Term:
        operator = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}[type(node).__name__]
        (left, right), kind = self.same_type(self._operands(node, depth), what=f"{operator} compares")
        if kind is ColumnType.JSON:
            raise _FaultError("JSON cannot be compared; cast it to text", left.at)
        return _over(f"({left.sql} {operator} {right.sql})", ColumnType.BOOLEAN, left, right)

    @_compiles("NullSafeEQ", "NullSafeNEQ")
    def _distinct(self, node: "exp.Expr", depth: int) -> _Term:
        negation = "NOT " if type(node).__name__ == "NullSafeEQ" else ""
        (left, right), _ = self.same_type(self._operands(node, depth), what="IS DISTINCT FROM compares")
        return _over(
            f"({left.sql} IS {negation}DISTINCT FROM {right.sql})", ColumnType.BOOLEAN, left, right, hides_null=True
        )

    @_compiles("Is", arguments="this expression negate")
    def _is(self, node: "exp.Expr", depth: int) -> _Term:
        wanted = {"Null": "NULL", "Boolean": "TRUE" if node.expression.this else "FALSE"}.get(
            type(node.expression).__name__
        )
        if wanted is None:
            raise _FaultError("IS takes NULL, TRUE, FALSE or DISTINCT FROM", _offset(node))
        self.nodes += 1
        term = self.child(node, "this", depth)
        if wanted != "NULL":
            term = self.as_type(term, ColumnType.BOOLEAN, f"IS {wanted} takes true or false")
        elif term.type is None:
            term = self.as_type(term, ColumnType.TEXT, "")
        negation = "NOT " if node.args.get("negate") else ""
        return _over(f"({term.sql} IS {negation}{wanted})", ColumnType.BOOLEAN, term, hides_null=True)

    @_compiles("In", arguments="this expressions")
    def _in(self, node: "exp.Expr", depth: int) -> _Term:
        subject = self.child(node, "this", depth)
        if not node.expressions:
            raise _FaultError("IN needs at least one value", subject.at)
        values = [self.term(value, depth + 1) for value in node.expressions]
        (subject, *values), _ = self.same_type([subject, *values], what="IN compares")
        listed = ", ".join(value.sql for value in values)
        sometimes = any(value.fails for value in values)
        return _over(f"({subject.sql} IN ({listed}))", ColumnType.BOOLEAN, subject, *values, hides_null=sometimes)

    @_compiles("Between", arguments="this low high")
    def _between(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [self.child(node, argument, depth) for argument in ("this", "low", "high")]
        (subject, low, high), _ = self.same_type(terms, what="BETWEEN compares")
        sometimes = bool(low.fails or high.fails)
        sql = f"({subject.sql} BETWEEN {low.sql} AND {high.sql})"
        return _over(sql, ColumnType.BOOLEAN, subject, low, high, hides_null=sometimes)

    @_compiles("Like", "ILike", arguments="this expression negate")
    def _like(self, node: "exp.Expr", depth: int) -> _Term:
        operator = ("NOT " if node.args.get("negate") else "") + type(node).__name__.upper()
        subject = self.as_type(self.child(node, "this", depth), ColumnType.TEXT, f"{operator} takes text")
        pattern = self.child(node, "expression", depth)
        if pattern.literal is None:
            raise _FaultError("the pattern must be written out in quotes", pattern.at)
        if len(pattern.literal) > PATTERN_CHARACTERS_MAX or pattern.literal.count("%") > PATTERN_WILDCARDS_MAX:
            raise _FaultError(
                f"a pattern has at most {PATTERN_CHARACTERS_MAX} characters and {PATTERN_WILDCARDS_MAX} times %",
                pattern.at,
            )
        if (len(pattern.literal) - len(pattern.literal.rstrip("\\"))) % 2:
            raise _FaultError("the pattern ends in a backslash that escapes nothing", pattern.at)
        return _over(f"({subject.sql} {operator} {self.bind(pattern.literal, 'text')})", ColumnType.BOOLEAN, subject)

    @_compiles("Not", arguments="this")
    def _not(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.as_type(self.child(node, "this", depth), ColumnType.BOOLEAN, "NOT takes true or false")
        return _over(f"(NOT {term.sql})", ColumnType.BOOLEAN, term)

    @_compiles("And", "Or")
    def _logic(self, node: "exp.Expr", depth: int) -> _Term:
        """A chain of one connective, flat, its failures asked from left to right until one part decides."""
        name = type(node).__name__
        operator, decided = {"And": ("AND", "FALSE"), "Or": ("OR", "TRUE")}[name]
        parts = [
            self.as_type(self.term(part, depth + 1), ColumnType.BOOLEAN, f"{operator} takes true or false")
            for part in _chain(node)
        ]
        fails: str | None = None
        for part in reversed(parts):
            later = fails and f"CASE WHEN {part.sql} IS NOT {decided} THEN {fails} END"
            fails = _first(part.asked(), later)
        sql = "(" + f" {operator} ".join(part.sql for part in parts) + ")"
        return _Term(sql, ColumnType.BOOLEAN, parts[0].at, fails, null_when_failing=fails is None)

    @_compiles("Case", arguments="this ifs default")
    def _case(self, node: "exp.Expr", depth: int) -> _Term:
        subject = self.child(node, "this", depth) if node.args.get("this") else None
        conditions: list[_Term] = []
        results: list[_Term] = []
        for branch in node.args["ifs"]:
            self.nodes += 1
            condition = self.term(branch.this, depth + 1)
            if subject is None:
                condition = self.as_type(condition, ColumnType.BOOLEAN, "WHEN takes true or false")
            else:
                (same, value), _ = self.same_type([subject, condition], what="CASE compares")
                condition = _over(f"({same.sql} = {value.sql})", ColumnType.BOOLEAN, same, value)
            conditions.append(condition)
            results.append(self.term(branch.args["true"], depth + 1))
        default = self.child(node, "default", depth) if node.args.get("default") else _Term("NULL", None, _offset(node))
        (*results, default), kind = self.same_type([*results, default], what="CASE gives")
        fails = default.asked()
        for condition, result in zip(reversed(conditions), reversed(results), strict=True):
            then, otherwise = result.asked(), fails
            chosen = None
            if then or otherwise:
                chosen = f"CASE WHEN {condition.sql} THEN {then or 'NULL'} ELSE {otherwise or 'NULL'} END"
            fails = _first(condition.asked(), chosen)
        branches = " ".join(
            f"WHEN {condition.sql} THEN {result.sql}" for condition, result in zip(conditions, results, strict=True)
        )
        return _Term(
            f"(CASE {branches} ELSE {default.sql} END)",
            kind,
            _offset(node),
            fails,
            null_when_failing=not any(condition.fails for condition in conditions)
            and all(term.null_when_failing for term in (*results, default)),
            grows=any(term.grows for term in (*results, default)),
            moved_days=max(term.moved_days for term in (*results, default)),
        )

    @_compiles("Coalesce", arguments="this expressions")
    def _coalesce(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [self.child(node, "this", depth), *(self.term(below, depth + 1) for below in node.expressions)]
        terms, kind = self.same_type(terms, what="coalesce takes")
        fails: str | None = None
        for term in reversed(terms):
            later = fails and f"CASE WHEN {term.sql} IS NULL THEN {fails} END"
            fails = _first(term.asked(), later)
        sql = f"COALESCE({', '.join(term.sql for term in terms)})"
        return _Term(
            sql,
            kind,
            terms[0].at,
            fails,
            null_when_failing=fails is None,
            grows=any(term.grows for term in terms),
            moved_days=max(term.moved_days for term in terms),
        )

    @_compiles("Nullif")
    def _nullif(self, node: "exp.Expr", depth: int) -> _Term:
        (left, right), kind = self.same_type(self._operands(node, depth), what="nullif compares")
        sql = f"NULLIF({left.sql}, {right.sql})"
        return _over(sql, kind, left, right, hides_null=right.fails is not None, grows=left.grows)

    # Text.

    @_compiles("Lower", "Upper", arguments="this")
    def _lower(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.TEXT)
        return _over(f"{_function(node)}({term.sql})", ColumnType.TEXT, term)

    @_compiles("Length", arguments="this")
    def _length(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.TEXT)
        return _over(f"length({term.sql})::numeric", ColumnType.NUMBER, term, grows=False)

    @_compiles("Trim", arguments="this expression position")
    def _trim(self, node: "exp.Expr", depth: int) -> _Term:
        function = {"": "btrim", "BOTH": "btrim", "LEADING": "ltrim", "TRAILING": "rtrim"}.get(
            str(node.args.get("position") or "")
        )
        if function is None:
            raise _FaultError("trim takes both, leading or trailing", _offset(node))
        terms = [self.typed_child(node, "this", depth, ColumnType.TEXT)]
        if node.args.get("expression"):
            terms.append(self.typed_child(node, "expression", depth, ColumnType.TEXT))
        return _over(f"{function}({', '.join(term.sql for term in terms)})", ColumnType.TEXT, *terms)

    @_compiles("Substring", arguments="this start length")
    def _substring(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.TEXT)
        places = [
            self.bind(self.whole_number(node, argument, low, TEXT_CHARACTERS_MAX), "int")
            for argument, low in (("start", 1), ("length", 0))
            if node.args.get(argument)
        ]
        if not node.args.get("start"):
            raise _FaultError("substring needs a start", _offset(node))
        return _over(f"substr({term.sql}, {', '.join(places)})", ColumnType.TEXT, term)

    @_compiles("Left", "Right")
    def _left(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.TEXT)
        count = self.whole_number(node, "expression", -TEXT_CHARACTERS_MAX, TEXT_CHARACTERS_MAX)
        return _over(f"{_function(node)}({term.sql}, {self.bind(count, 'int')})", ColumnType.TEXT, term)

    @_compiles("SplitPart", arguments="this delimiter part_index")
    def _split_part(self, node: "exp.Expr", depth: int) -> _Term:
        term = self.typed_child(node, "this", depth, ColumnType.TEXT)
        separator = self.typed_child(node, "delimiter", depth, ColumnType.TEXT)
        part = self.whole_number(node, "part_index", -1_000, 1_000)
        if part == 0:
            raise _FaultError("the parts of split_part count from 1", _offset(node.args["part_index"], _offset(node)))
        sql = f"split_part({term.sql}, {separator.sql}, {self.bind(part, 'int')})"
        return _over(sql, ColumnType.TEXT, term, separator)

    @_compiles("Replace", arguments="this expression replacement")
    def _replace(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [
            self.typed_child(node, argument, depth, ColumnType.TEXT)
            for argument in ("this", "expression", "replacement")
        ]
        sql = f"bounded_replace({', '.join(term.sql for term in terms)})"
        given = " AND ".join(f"{term.sql} IS NOT NULL" for term in terms)
        return _over(
            sql, ColumnType.TEXT, *terms, own=f"CASE WHEN {given} AND {sql} IS NULL THEN {_FAILS_RANGE} END", grows=True
        )

    @_compiles("StartsWith")
    def _starts_with(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [self.typed_child(node, argument, depth, ColumnType.TEXT) for argument in ("this", "expression")]
        return _over(f"starts_with({terms[0].sql}, {terms[1].sql})", ColumnType.BOOLEAN, *terms, grows=False)

    @_compiles("DPipe")
    def _join(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [self.text(self.term(part, depth + 1)) for part in _chain(node)]
        return _over("(" + " || ".join(term.sql for term in terms) + ")", ColumnType.TEXT, *terms, grows=True)

    @_compiles("Concat", arguments="expressions")
    def _concat(self, node: "exp.Expr", depth: int) -> _Term:
        terms = [self.text(self.term(below, depth + 1)) for below in node.expressions]
        if not terms:
            raise _FaultError("concat needs at least one value", _offset(node))
        return _over(
            f"concat({', '.join(term.sql for term in terms)})", ColumnType.TEXT, *terms, hides_null=True, grows=True
        )

    # Casts and dates.

    @_compiles("Cast", arguments="this to")
    def _cast(self, node: "exp.Expr", depth: int) -> _Term:
        target = node.args["to"]
        kind = str(getattr(getattr(target, "this", None), "name", ""))
        wanted = _CAST_TYPES.get(kind) if type(target).__name__ == "DataType" else None
        term = self.child(node, "this", depth)
        if wanted is None or any(value for key, value in target.args.items() if key != "this"):
            types = "text, numeric, integer, boolean, date and timestamp"
            raise _FaultError(f"there is no cast to {_shown(target.sql('postgres'))}; there are {types}", term.at)
        if wanted is ColumnType.TEXT:
            return self.text(term)
        cast = self._cast_to(term, wanted)
        if kind in {"INT", "BIGINT"}:
            return _over(f"round({cast.sql})", ColumnType.NUMBER, cast)
        return cast

    def _cast_to(self, term: _Term, wanted: ColumnType) -> _Term:
        if term.type in {None, wanted}:
            return self.as_type(term, wanted, "")
        match term.type, wanted:
            case ColumnType.TEXT | ColumnType.JSON, _:
                sql = f"as_{wanted}({term.sql})"
                moved = 1 if wanted is ColumnType.TIMESTAMP else 0
                return _over(sql, wanted, term, own=_unread(sql, f"btrim({term.sql})"), grows=False, moved_days=moved)
            case ColumnType.BOOLEAN, ColumnType.NUMBER:
                return _over(f"({term.sql})::int::numeric", wanted, term)
            case ColumnType.DATE, ColumnType.TIMESTAMP:
                return self.as_type(term, wanted, "")
            case ColumnType.TIMESTAMP, ColumnType.DATE:
                return _over(f"({term.sql} AT TIME ZONE 'UTC')::date", wanted, term)
            case _:
                raise _FaultError(f"{_NOUNS[term.type]} cannot be cast to {_NOUNS[wanted]}", term.at)

    @_compiles("Extract")
    def _extract(self, node: "exp.Expr", depth: int) -> _Term:
        part = str(node.this.name).upper() if type(node.this).__name__ == "Var" else ""
        term = self.child(node, "expression", depth)
        if term.type not in {ColumnType.DATE, ColumnType.TIMESTAMP}:
            raise _FaultError(f"extract takes a date or a timestamp, and this is {_NOUNS[term.type]}", term.at)
        fields = _DATE_FIELDS if term.type is ColumnType.DATE else _TIME_FIELDS
        if part not in fields:
            raise _FaultError(f"{_NOUNS[term.type]} has {', '.join(sorted(fields)).lower()}", term.at)
        local = term.sql if term.type is ColumnType.DATE else f"({term.sql} AT TIME ZONE 'UTC')"
        return _over(f"extract({part} FROM {local})::numeric", ColumnType.NUMBER, term)

    def _operands(self, node: "exp.Expr", depth: int) -> tuple[_Term, _Term]:
        """Both sides of a binary operator; a sum or product leans left and is no deeper for being long."""
        left = node.args.get("this")
        leaning = depth if {type(left).__name__, type(node).__name__} <= _ARITHMETIC else depth + 1
        if left is None:
            raise _FaultError("something is missing here", _offset(node))
        return self.term(left, leaning), self.child(node, "expression", depth)


def _over(
    sql: str,
    kind: ColumnType,
    *terms: _Term,
    own: str | None = None,
    hides_null: bool = False,
    grows: bool | None = None,
    moved_days: int | None = None,
) -> _Term:
    """A term made of others: it fails as they do, from left to right, or for a reason of its `own`.

    `hides_null`: the result may be something although one of the terms is NULL.
    """
    fails = _first(*(term.asked() if hides_null else term.fails for term in terms), own)
    return _Term(
        sql,
        kind,
        terms[0].at,
        fails,
        null_when_failing=fails is None or (not hides_null and all(term.null_when_failing for term in terms)),
        grows=any(term.grows for term in terms) if grows is None else grows,
        moved_days=max(term.moved_days for term in terms) if moved_days is None else moved_days,
    )


def _unread(sql: str, text: str) -> str:
    """The reason of a cell that says something and could not be read."""
    return f"CASE WHEN {sql} IS NULL AND {text} <> '' THEN {_FAILS_CAST} END"


def _midnight(date: str) -> str:
    return f"({date}::timestamp AT TIME ZONE 'UTC')"


def _chain(node: "exp.Expr") -> Iterator["exp.Expr"]:
    """The operands of a run of one operator, left to right."""
    spine = []
    below: exp.Expr = node
    while type(below) is type(node):
        spine.append(below.args["expression"])
        below = below.args["this"]
    yield below
    yield from reversed(spine)


def _offset(node: "exp.Expr", otherwise: _Offset = 0) -> _Offset:
    """Where a node begins: the leftmost word below it whose place the parser kept."""
    places = [place for below in node.walk() if isinstance(place := below.meta.get("start"), int)]
    return min(places, default=otherwise)


def _function(node: "exp.Expr") -> str:
    return {"SplitPart": "split_part", "StartsWith": "starts_with", "Neg": "-"}.get(
        type(node).__name__, type(node).__name__.lower()
    )
