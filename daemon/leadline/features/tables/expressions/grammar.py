"""From text to tree: what is let in, by its words, with the exact place of what is not.

sqlglot parses, with two restrictions. It knows only the functions that have a syntax of their own, such as `trim(both
' ' from x)`; every other call comes out as a name and its arguments. And before it sees the text, a pass over the
tokens refuses the first that is no part of the language. The tree is judged again afterwards, and that is what keeps
the gate; but this pass knows where every word stands.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from leadline.features.tables.expressions.faults import FaultError, Offset, shown, unknown_column

if TYPE_CHECKING:
    from sqlglot import Dialect, exp
    from sqlglot.tokenizer_core import Token

CHARACTERS_MAX: Final = 4_000
DEPTH_MAX: Final = 32

DATE_FIELDS: Final = frozenset({"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "ISODOW"})
TIME_FIELDS: Final = DATE_FIELDS | {"HOUR", "MINUTE", "SECOND"}
"""What can be extracted from a date, and from a timestamp."""

SYNTAX: Final = frozenset({"CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM"})
"""The functions that have a syntax of their own."""

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


@cache
def _dialect() -> "Dialect":
    from sqlglot.dialects.postgres import Postgres  # half a second, so only where an expression is compiled
    from sqlglot.parsers.postgres import PostgresParser

    class LanguageParser(PostgresParser):
        FUNCTIONS = {}  # noqa: RUF012  sqlglot's way to say it
        FUNCTION_PARSERS = {name: PostgresParser.FUNCTION_PARSERS[name] for name in SYNTAX}  # noqa: RUF012

    class Language(Postgres):
        Parser = LanguageParser

    return Language()


def parsed(text: str, columns: Collection[str], functions: Collection[str]) -> "exp.Expr":
    """The tree of an expression, which may speak of these columns and functions. Raises FaultError."""
    from sqlglot import parse
    from sqlglot.errors import ParseError, TokenError

    if len(text) > CHARACTERS_MAX:
        raise FaultError(f"longer than {CHARACTERS_MAX:,} characters", CHARACTERS_MAX)
    if not text.strip():
        raise FaultError("is empty", 0)
    for offset, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise FaultError("holds a NUL, or half a surrogate pair", offset)
    dialect = _dialect()
    try:
        words = dialect.tokenize(text)
    except TokenError:
        raise FaultError("a quotation is not closed", _open_quote(text)) from None
    _admit(text, words, columns, functions)
    try:
        trees = parse(text, read=dialect)
    except ParseError as error:
        raise FaultError(*_explained(error, text, words)) from None
    except RecursionError:
        raise FaultError("is nested too deeply", 0) from None
    if len(trees) != 1 or trees[0] is None:
        raise FaultError("must be one expression", 0)
    return trees[0]


def _admit(text: str, words: Sequence["Token"], columns: Collection[str], functions: Collection[str]) -> None:
    """Refuse the first token that is no part of the language."""
    known = {name.casefold() for name in columns}
    end = 0
    opened: list[Offset] = []
    for position, word in enumerate(words):
        if text[end : word.start].strip():
            gap = text[end : word.start]
            raise FaultError("comments are not part of an expression", end + len(gap) - len(gap.lstrip()))
        end = word.end + 1
        written = text[word.start : end]
        before = text[words[position - 1].start : words[position - 1].end + 1].casefold() if position else ""
        calls = position + 1 < len(words) and words[position + 1].text == "("
        if written == "(":
            opened.append(word.start)
            if len(opened) > DEPTH_MAX:
                raise FaultError(f"is nested deeper than {DEPTH_MAX}", word.start)
        elif written == ")":
            if not opened:
                raise FaultError("closes a parenthesis that was not opened", word.start)
            opened.pop()
        elif written[0] == "'" == before[:1]:
            raise FaultError("a quoted text follows another", word.start)
        _admit_word(word, written, before, calls=calls, known=known, functions=functions)
    if text[end:].strip():
        raise FaultError("comments are not part of an expression", end + len(text[end:]) - len(text[end:].lstrip()))
    if opened:
        raise FaultError("a parenthesis is not closed", opened[-1])


def _admit_word(
    word: "Token", written: str, before: str, *, calls: bool, known: set[str], functions: Collection[str]
) -> None:
    kind, folded = word.token_type.name, written.casefold()
    if kind == "STRING" and written.startswith("'"):
        return
    if kind == "NUMBER":
        if not _NUMERAL.fullmatch(written):
            raise FaultError(f"{shown(written)} is not a number", word.start)
        return
    if kind == "IDENTIFIER":
        if calls:
            raise FaultError("a quoted name is a column, not a function", word.start)
        if word.text.casefold() not in known:
            raise unknown_column(word.text, word.start)
        return
    if written in _SYMBOLS:
        return
    if not (written[0].isalpha() or written[0] == "_"):
        raise FaultError(f"{shown(written)} is not part of the language", word.start)
    if calls and folded not in _KEYWORDS:
        if folded not in functions:
            raise FaultError(f"there is no function {shown(written)}; there are {', '.join(functions)}", word.start)
        return
    follows_call = before == "("
    if (
        folded in known
        or folded in _KEYWORDS
        or (folded in _TYPE_WORDS and (before in {"::", "as"} or not calls))
        or (follows_call and folded in {"both", "leading", "trailing"})
        or (follows_call and folded.upper() in TIME_FIELDS)
    ):
        return
    if kind == "VAR":
        raise unknown_column(written, word.start)
    raise FaultError(f"{shown(written)} is not part of the language", word.start)


def _open_quote(text: str) -> Offset:
    """Where the quotation begins that never ends."""
    quote, start = "", 0
    for offset, character in enumerate(text):
        if not quote and character in "'\"":
            quote, start = character, offset
        elif character == quote:
            quote = ""
    return start


def _explained(error: Exception, text: str, words: Sequence["Token"]) -> tuple[str, Offset]:
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
                return f"something is missing before {shown(written)}", word.start
            return f"{shown(written)} was not expected here", word.start
    return "ends too early", max(0, len(text) - 1)
