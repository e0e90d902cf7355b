"""From tree to SQL: one method for each kind of node, and what it reads of it. What is not entered here is refused."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from leadline.features.tables.columns import (
    DECIMALS_MAX,
    NUMBER_DIGITS_MAX,
    TEXT_CHARACTERS_MAX,
    BadValueError,
    ColumnType,
    read_number,
)
from leadline.features.tables.expressions.faults import FaultError, Offset, shown, unknown_column
from leadline.features.tables.expressions.functions import FUNCTIONS, MOVED_DAYS_MAX, division
from leadline.features.tables.expressions.grammar import DATE_FIELDS, DEPTH_MAX, TIME_FIELDS
from leadline.features.tables.expressions.terms import (
    FAILS_RANGE,
    NOUNS,
    Term,
    Typing,
    first,
    out_of_range,
    over,
    unread,
)

if TYPE_CHECKING:
    from sqlglot import exp

NODES_MAX: Final = 200
PATTERN_CHARACTERS_MAX: Final = 200
PATTERN_WILDCARDS_MAX: Final = 8
"""LIKE tries every place for each `%`: the bounds keep the cost of one lead in microseconds."""

SQL_CHARACTERS_MAX: Final = 200_000
"""What one fragment may come to; only an expression made to be large comes near."""

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


class Compiled(msgspec.Struct, frozen=True):
    """An expression, ready to stand in a statement over `lead`; its `$1` is `parameters`, its TimeZone must be UTC."""

    value: str
    """SQL of `type`, NULL where the result is empty; where the lead fails it means nothing, and raises nothing."""
    fails: str | None
    """SQL of type text: a word of the lead reasons where the lead fails, else NULL. None: it fails for no lead."""
    sound: str
    """SQL that is true where the lead does not fail and `json` is not NULL; where it can, it asks for `value` once."""
    true_is_sound: bool
    """Whether a condition fails for no lead for which its `value` is true."""
    json: str
    """SQL of type jsonb: `value` as a cell holds it (numbers to 20 decimals), NULL where it is empty."""
    parameters: tuple[str, ...]
    """What the array of texts `$1` holds: column names and literals, each cast to its type where it is read."""
    type: ColumnType
    columns: tuple[str, ...]
    """The columns that it reads, in the order of first use."""


_Handler: TypeAlias = "Callable[[Compiler, exp.Expr, int], Term]"
_HANDLERS: Final[dict[str, tuple[_Handler, frozenset[str]]]] = {}


def _compiles(*nodes: str, arguments: str = "this expression") -> Callable[[_Handler], _Handler]:
    """Enter a method as the one that compiles these classes of nodes, of which it reads these arguments."""

    def enter(handler: _Handler) -> _Handler:
        for node in nodes:
            _HANDLERS[node] = (handler, frozenset(arguments.split()))
        return handler

    return enter


_ARITHMETIC: Final = frozenset({"Add", "Sub", "Mul", "Div", "Mod"})

_BENIGN: Final = frozenset(
    {("Div", "typed"), ("Div", "safe"), ("DPipe", "safe"), ("Concat", "safe"), ("Concat", "coalesce")}
)
"""Arguments with which sqlglot notes how its dialects differ; they change nothing here."""


class Compiler(Typing):
    """Compiles one tree; holds the parameters and the columns met on the way."""

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        super().__init__()
        self.types = columns
        self.folded: dict[str, list[str]] = {}
        for name in columns:
            self.folded.setdefault(name.casefold(), []).append(name)
        self.used: dict[str, None] = {}
        self.nodes = 0

    def finish(self, term: Term, wants: ColumnType | None) -> Compiled:
        """The whole expression, of the type wanted, with its result held to what a cell can hold."""
        if wants is not None and wants is not ColumnType.JSON:
            term = self.as_type(term, wants, f"the result is to be {NOUNS[wants]}")
        elif term.type is None:
            term = self.as_type(term, ColumnType.TEXT, "")
        assert term.type is not None
        value = term.sql
        there, fits = f"({value}) IS NOT NULL", ""
        match term.type:
            case ColumnType.NUMBER:
                json = f"to_jsonb(trim_scale(round({value}, {DECIMALS_MAX})))"
                if term.number is None:
                    there = fits = f"abs({value}) < 1e{NUMBER_DIGITS_MAX}"
            case ColumnType.TEXT:
                json = f"to_jsonb(NULLIF({value}, ''))"
                there = f"({value}) <> ''"
                if term.grows:
                    fits = f"length({value}) <= {TEXT_CHARACTERS_MAX}"
                    there = f"{there} AND {fits}"
            case ColumnType.BOOLEAN:
                json = f"to_jsonb({value})"
            case ColumnType.JSON:
                json = f"NULLIF({value}, 'null')"
                there = f"({value}) <> 'null'"
            case ColumnType.DATE | ColumnType.TIMESTAMP:
                text = f"to_char({value}, 'YYYY-MM-DD')" if term.type is ColumnType.DATE else f"as_text({value})"
                json = f"to_jsonb({text})"
                if term.moved_days:
                    day = value if term.type is ColumnType.DATE else f"({value} AT TIME ZONE 'UTC')::date"
                    # The middle of the years 1 to 9999, in days.
                    there = fits = f"abs({day} - date '5000-07-02') <= 1826029"
        fails = self._bounded(term, fits) if fits else term.asked()
        if max(len(value), len(fails or "")) > SQL_CHARACTERS_MAX:
            raise FaultError("is too complex", 0)
        sound = there if term.null_when_failing else f"{there} AND ({fails}) IS NULL"
        return Compiled(
            value, fails, sound, term.true_is_sound, json, tuple(self.parameters), term.type, tuple(self.used)
        )

    def _bounded(self, term: Term, fits: str) -> str:
        """Why a lead fails, or that its result does not fit; the usual lead costs one look at its value."""
        if term.fails is not None and not term.null_when_failing:
            return f"COALESCE({term.fails}, CASE WHEN NOT ({fits}) THEN {FAILS_RANGE} END)"
        why = f"CASE WHEN {term.sql} IS NULL THEN {term.fails or 'NULL'} ELSE {FAILS_RANGE} END"
        return f"CASE WHEN {fits} THEN NULL ELSE {why} END"

    def term(self, node: "exp.Expr", depth: int) -> Term:
        """Compile one node and all below it."""
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise FaultError(f"has more than {NODES_MAX} parts", _offset(node))
        if depth > DEPTH_MAX:
            raise FaultError(f"is nested deeper than {DEPTH_MAX}", _offset(node))
        name = type(node).__name__
        handler, arguments = _HANDLERS.get(name, (None, frozenset()))
        if name == "Alias":
            raise FaultError("one expression ends here and something follows", _offset(node.args["alias"]))
        if handler is None:
            raise FaultError(f"{name} is not part of the language", _offset(node))
        for argument, value in node.args.items():
            if value and argument not in arguments and (name, argument) not in _BENIGN:
                raise FaultError(f"{name} is not part of the language in this form", _offset(node))
        return handler(self, node, depth)

    def child(self, node: "exp.Expr", argument: str, depth: int) -> Term:
        """Compile one argument of a node."""
        below = node.args.get(argument)
        if below is None:
            raise FaultError("something is missing here", _offset(node))
        return self.term(below, depth + 1)

    # Leaves.

    @_compiles("Paren", arguments="this")
    def _paren(self, node: "exp.Expr", depth: int) -> Term:
        return self.child(node, "this", depth)

    @_compiles("Column", arguments="this")
    def _column(self, node: "exp.Expr", _depth: int) -> Term:
        if type(node.this).__name__ != "Identifier":
            raise FaultError("is not a column", _offset(node))
        written, offset = node.this.name, _offset(node)
        if written in self.types:
            name = written
        else:
            names = self.folded.get(written.casefold(), [])
            if not names:
                raise unknown_column(written, offset)
            if len(names) > 1:
                raise FaultError(f"{shown(written)} may be {' or '.join(names)}; write it in double quotes", offset)
            name = names[0]
        self.used[name] = None
        kind = self.types[name]
        place = self.bind(name, "text")
        text, cell = f"(lead.data->>{place})", f"(lead.data->{place})"
        if kind is ColumnType.TEXT or kind is ColumnType.JSON:
            return Term(text if kind is ColumnType.TEXT else cell, kind, offset, cell=cell)
        sql = f"as_{kind}({cell})"
        return Term(sql, kind, offset, unread(sql, text), cell=cell)

    @_compiles("Literal", arguments="this is_string")
    def _literal(self, node: "exp.Expr", _depth: int) -> Term:
        offset = _offset(node)
        if node.args["is_string"]:
            return Term("", None, offset, literal=node.this)
        return self._numeral(node.this, offset)

    def _numeral(self, written: str, offset: Offset) -> Term:
        try:
            number = read_number(written)
        except BadValueError as fault:
            raise FaultError(str(fault), offset) from None
        return Term(self.bind(number, "numeric"), ColumnType.NUMBER, offset, number=number)

    @_compiles("Boolean", arguments="this")
    def _boolean(self, node: "exp.Expr", _depth: int) -> Term:
        return Term("TRUE" if node.this else "FALSE", ColumnType.BOOLEAN, _offset(node))

    @_compiles("Null", arguments="")
    def _null(self, node: "exp.Expr", _depth: int) -> Term:
        return Term("NULL", None, _offset(node))

    @_compiles("CurrentDate", arguments="")
    def _today(self, node: "exp.Expr", _depth: int) -> Term:
        return Term("(now() AT TIME ZONE 'UTC')::date", ColumnType.DATE, _offset(node))

    # Arithmetic.

    @_compiles("Neg", arguments="this")
    def _negative(self, node: "exp.Expr", depth: int) -> Term:
        if type(node.this).__name__ == "Literal" and not node.this.args["is_string"]:
            self.nodes += 1
            return self._numeral(f"-{node.this.this}", _offset(node))
        term = self.as_type(self.child(node, "this", depth), ColumnType.NUMBER, "- takes a number")
        return over(f"(- {term.sql})", ColumnType.NUMBER, term)

    @_compiles("Add", "Sub", "Mul")
    def _arithmetic(self, node: "exp.Expr", depth: int) -> Term:
        left, right = self._operands(node, depth)
        operator = {"Add": "+", "Sub": "-", "Mul": "*"}[type(node).__name__]
        if operator == "+" and right.type is ColumnType.DATE:
            left, right = right, left
        if operator == "-" and left.literal is not None and right.type is ColumnType.DATE:
            left = self.as_type(left, ColumnType.DATE, "")
        if left.type is ColumnType.DATE and operator != "*":
            return self._date_arithmetic(left, operator, right)
        left, right = (self.as_type(term, ColumnType.NUMBER, f"{operator} takes numbers") for term in (left, right))
        return over(f"({left.sql} {operator} {right.sql})", ColumnType.NUMBER, left, right)

    def _date_arithmetic(self, left: Term, operator: str, right: Term) -> Term:
        if operator == "-" and (right.type is ColumnType.DATE or right.literal is not None):
            right = self.as_type(right, ColumnType.DATE, "")
            return over(f"({left.sql} - {right.sql})::numeric", ColumnType.NUMBER, left, right)
        days = self.as_type(right, ColumnType.NUMBER, "a date moves by a number of days")
        if days.number is not None and days.number == int(days.number):
            moved = left.moved_days + abs(int(days.number))
            if moved <= MOVED_DAYS_MAX:
                return over(f"({left.sql} {operator} {days.sql}::int)", ColumnType.DATE, left, moved_days=moved)
        sql = f"days_after({left.sql}, {'-' if operator == '-' else ''}{days.sql})"
        return over(sql, ColumnType.DATE, left, days, own=out_of_range(sql, left, days), moved_days=0)

    @_compiles("Div", "Mod")
    def _division(self, node: "exp.Expr", depth: int) -> Term:
        return division(self, "/" if type(node).__name__ == "Div" else "%", *self._operands(node, depth))

    # Comparison and logic.

    @_compiles("EQ", "NEQ", "LT", "LTE", "GT", "GTE")
    def _comparison(self, node: "exp.Expr", depth: int) -> Term:
        operator = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}[type(node).__name__]
        (left, right), kind = self.same_type(self._operands(node, depth), what=f"{operator} compares")
        if kind is ColumnType.JSON:
            raise FaultError("JSON cannot be compared; cast it to text", left.at)
        return over(f"({left.sql} {operator} {right.sql})", ColumnType.BOOLEAN, left, right)

    @_compiles("NullSafeEQ", "NullSafeNEQ")
    def _distinct(self, node: "exp.Expr", depth: int) -> Term:
        negation = "NOT " if type(node).__name__ == "NullSafeEQ" else ""
        (left, right), _ = self.same_type(self._operands(node, depth), what="IS DISTINCT FROM compares")
        return over(
            f"({left.sql} IS {negation}DISTINCT FROM {right.sql})", ColumnType.BOOLEAN, left, right, hides_null=True
        )

    @_compiles("Is", arguments="this expression negate")
    def _is(self, node: "exp.Expr", depth: int) -> Term:
        wanted = {"Null": "NULL", "Boolean": "TRUE" if node.expression.this else "FALSE"}.get(
            type(node.expression).__name__
        )
        if wanted is None:
            raise FaultError("IS takes NULL, TRUE, FALSE or DISTINCT FROM", _offset(node))
        self.nodes += 1
        term = self.child(node, "this", depth)
        if wanted != "NULL":
            term = self.as_type(term, ColumnType.BOOLEAN, f"IS {wanted} takes true or false")
        elif term.type is None:
            term = self.as_type(term, ColumnType.TEXT, "")
        negation = "NOT " if node.args.get("negate") else ""
        return over(f"({term.sql} IS {negation}{wanted})", ColumnType.BOOLEAN, term, hides_null=True)

    @_compiles("In", arguments="this expressions")
    def _in(self, node: "exp.Expr", depth: int) -> Term:
        subject = self.child(node, "this", depth)
        if not node.expressions:
            raise FaultError("IN needs at least one value", subject.at)
        values = [self.term(value, depth + 1) for value in node.expressions]
        (subject, *values), _ = self.same_type([subject, *values], what="IN compares")
        listed = ", ".join(value.sql for value in values)
        sometimes = any(value.fails for value in values)
        return over(f"({subject.sql} IN ({listed}))", ColumnType.BOOLEAN, subject, *values, hides_null=sometimes)

    @_compiles("Between", arguments="this low high")
    def _between(self, node: "exp.Expr", depth: int) -> Term:
        terms = [self.child(node, argument, depth) for argument in ("this", "low", "high")]
        (subject, low, high), _ = self.same_type(terms, what="BETWEEN compares")
        sometimes = bool(low.fails or high.fails)
        sql = f"({subject.sql} BETWEEN {low.sql} AND {high.sql})"
        return over(sql, ColumnType.BOOLEAN, subject, low, high, hides_null=sometimes)

    @_compiles("Like", "ILike", arguments="this expression negate")
    def _like(self, node: "exp.Expr", depth: int) -> Term:
        operator = ("NOT " if node.args.get("negate") else "") + type(node).__name__.upper()
        subject = self.as_type(self.child(node, "this", depth), ColumnType.TEXT, f"{operator} takes text")
        pattern = self.child(node, "expression", depth)
        if pattern.literal is None:
            raise FaultError("the pattern must be written out in quotes", pattern.at)
        if len(pattern.literal) > PATTERN_CHARACTERS_MAX or pattern.literal.count("%") > PATTERN_WILDCARDS_MAX:
            raise FaultError(
                f"a pattern has at most {PATTERN_CHARACTERS_MAX} characters and {PATTERN_WILDCARDS_MAX} times %",
                pattern.at,
            )
        if (len(pattern.literal) - len(pattern.literal.rstrip("\\"))) % 2:
            raise FaultError("the pattern ends in a backslash that escapes nothing", pattern.at)
        return over(f"({subject.sql} {operator} {self.bind(pattern.literal, 'text')})", ColumnType.BOOLEAN, subject)

    @_compiles("Not", arguments="this")
    def _not(self, node: "exp.Expr", depth: int) -> Term:
        term = self.as_type(self.child(node, "this", depth), ColumnType.BOOLEAN, "NOT takes true or false")
        return over(f"(NOT {term.sql})", ColumnType.BOOLEAN, term)

    @_compiles("And", "Or")
    def _logic(self, node: "exp.Expr", depth: int) -> Term:
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
            fails = first(part.asked(), later)
        sql = "(" + f" {operator} ".join(part.sql for part in parts) + ")"
        return Term(
            sql,
            ColumnType.BOOLEAN,
            parts[0].at,
            fails,
            null_when_failing=fails is None,
            untrue_when_failing=name == "And" and all(part.true_is_sound for part in parts),
        )

    @_compiles("Case", arguments="this ifs default")
    def _case(self, node: "exp.Expr", depth: int) -> Term:
        subject = self.child(node, "this", depth) if node.args.get("this") else None
        conditions: list[Term] = []
        results: list[Term] = []
        for branch in node.args["ifs"]:
            self.nodes += 1
            condition = self.term(branch.this, depth + 1)
            if subject is None:
                condition = self.as_type(condition, ColumnType.BOOLEAN, "WHEN takes true or false")
            else:
                (same, value), _ = self.same_type([subject, condition], what="CASE compares")
                condition = over(f"({same.sql} = {value.sql})", ColumnType.BOOLEAN, same, value)
            conditions.append(condition)
            results.append(self.term(branch.args["true"], depth + 1))
        default = self.child(node, "default", depth) if node.args.get("default") else Term("NULL", None, _offset(node))
        (*results, default), kind = self.same_type([*results, default], what="CASE gives")
        fails = default.asked()
        for condition, result in zip(reversed(conditions), reversed(results), strict=True):
            then, otherwise = result.asked(), fails
            chosen = None
            if then or otherwise:
                chosen = f"CASE WHEN {condition.sql} THEN {then or 'NULL'} ELSE {otherwise or 'NULL'} END"
            fails = first(condition.asked(), chosen)
        branches = " ".join(
            f"WHEN {condition.sql} THEN {result.sql}" for condition, result in zip(conditions, results, strict=True)
        )
        return Term(
            f"(CASE {branches} ELSE {default.sql} END)",
            kind,
            _offset(node),
            fails,
            null_when_failing=not any(condition.fails for condition in conditions)
            and all(term.null_when_failing for term in (*results, default)),
            grows=any(term.grows for term in (*results, default)),
            moved_days=max(term.moved_days for term in (*results, default)),
        )

    @_compiles("DPipe")
    def _join(self, node: "exp.Expr", depth: int) -> Term:
        terms = [self.text(self.term(part, depth + 1)) for part in _chain(node)]
        return over("(" + " || ".join(term.sql for term in terms) + ")", ColumnType.TEXT, *terms, grows=True)

    # What is written like a function.

    @_compiles("Anonymous", arguments="this expressions")
    def _function(self, node: "exp.Expr", depth: int) -> Term:
        return self._call(str(node.this).casefold(), node, node.expressions, depth)

    @_compiles("Trim", arguments="this expression position")
    def _trim(self, node: "exp.Expr", depth: int) -> Term:
        name = {"": "trim", "BOTH": "btrim", "LEADING": "ltrim", "TRAILING": "rtrim"}
        return self._call(name[str(node.args.get("position") or "")], node, _given(node, "this", "expression"), depth)

    @_compiles("Substring", arguments="this start length")
    def _substring(self, node: "exp.Expr", depth: int) -> Term:
        return self._call("substring", node, _given(node, "this", "start", "length"), depth)

    @_compiles("StrPosition", arguments="this substr")
    def _position(self, node: "exp.Expr", depth: int) -> Term:
        return self._call("position", node, _given(node, "substr", "this"), depth)

    def _call(self, name: str, node: "exp.Expr", arguments: "Sequence[exp.Expr]", depth: int) -> Term:
        """A call of one of the functions of the language."""
        at = _offset(node)
        if name not in FUNCTIONS:
            raise FaultError(f"there is no function {shown(name)}", at)
        return FUNCTIONS[name].call(self, name, [self.term(below, depth + 1) for below in arguments], at)

    @_compiles("Cast", arguments="this to")
    def _cast(self, node: "exp.Expr", depth: int) -> Term:
        target = node.args["to"]
        kind = str(getattr(getattr(target, "this", None), "name", ""))
        wanted = _CAST_TYPES.get(kind) if type(target).__name__ == "DataType" else None
        term = self.child(node, "this", depth)
        if wanted is None or any(value for key, value in target.args.items() if key != "this"):
            types = "text, numeric, integer, boolean, date and timestamp"
            raise FaultError(f"there is no cast to {shown(target.sql('postgres'))}; there are {types}", term.at)
        cast = self.cast(term, wanted)
        if kind in {"INT", "BIGINT"}:
            return over(f"round({cast.sql})", ColumnType.NUMBER, cast)
        return cast

    @_compiles("Extract")
    def _extract(self, node: "exp.Expr", depth: int) -> Term:
        part = str(node.this.name).upper() if type(node.this).__name__ == "Var" else ""
        term = self.child(node, "expression", depth)
        if term.type not in {ColumnType.DATE, ColumnType.TIMESTAMP}:
            raise FaultError(f"extract takes a date or a timestamp, and this is {NOUNS[term.type]}", term.at)
        fields = DATE_FIELDS if term.type is ColumnType.DATE else TIME_FIELDS
        if part not in fields:
            raise FaultError(f"{NOUNS[term.type]} has {', '.join(sorted(fields)).lower()}", term.at)
        local = term.sql if term.type is ColumnType.DATE else f"({term.sql} AT TIME ZONE 'UTC')"
        return over(f"extract({part} FROM {local})::numeric", ColumnType.NUMBER, term)

    def _operands(self, node: "exp.Expr", depth: int) -> tuple[Term, Term]:
        """Both sides of a binary operator; a sum or product leans left and is no deeper for being long."""
        left = node.args.get("this")
        leaning = depth if {type(left).__name__, type(node).__name__} <= _ARITHMETIC else depth + 1
        if left is None:
            raise FaultError("something is missing here", _offset(node))
        return self.term(left, leaning), self.child(node, "expression", depth)


def _given(node: "exp.Expr", *arguments: str) -> "list[exp.Expr]":
    """Those of a node's arguments that are there, in this order."""
    return [node.args[argument] for argument in arguments if node.args.get(argument)]


def _chain(node: "exp.Expr") -> Iterator["exp.Expr"]:
    """The operands of a run of one operator, left to right."""
    spine = []
    below: exp.Expr = node
    while type(below) is type(node):
        spine.append(below.args["expression"])
        below = below.args["this"]
    yield below
    yield from reversed(spine)


def _offset(node: "exp.Expr", otherwise: Offset = 0) -> Offset:
    """Where a node begins: the leftmost word below it whose place the parser kept."""
    places = [place for below in node.walk() if isinstance(place := below.meta.get("start"), int)]
    return min(places, default=otherwise)
