"""What a model is asked about a lead, and what its answer is worth.

A prompt is a template over the columns; in front of it stands a short instruction that says in which form to answer:
one value where one column is to be filled, a JSON object where there are several. Models add a full stop, bold face, a
code fence or a greeting; what surely is not the answer is taken off, and what is left must be of the declared type. If
it is not, the model is told so, once, with its own words before it; a second bad answer fails the lead (`bad_output`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from leadline.features.tables.answer_schemas import ANSWER_CHARACTERS_MAX, Schema, fault_in, schema_text
from leadline.features.tables.columns import BadValueError, Cells, Column, ColumnType, JsonValue
from leadline.features.tables.credits import Tokens

CHARACTERS_PER_TOKEN: Final = 3
"""Bytes of UTF-8 for one token, on the safe side: English has some 4, and limits are charged before the answer."""

MESSAGE_TOKENS: Final = 4
"""What a message costs beside its text."""

SHOWN_CHARACTERS_MAX: Final = 2_000
"""How much of a bad answer is sent back with the request to repair it."""

Schemas = Mapping[str, Schema]
"""Column → what its JSON must be like."""

NO_SCHEMAS: Final[Schemas] = {}

_FORMS: Final = {
    ColumnType.NUMBER: "one number in digits",
    ColumnType.TEXT: "the text itself",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "one date as YYYY-MM-DD",
    ColumnType.TIMESTAMP: "one point in time as YYYY-MM-DDThh:mm:ssZ",
    ColumnType.JSON: "one JSON document",
}
_FENCE = re.compile(r"\A```[a-zA-Z]*\s*\n(.*?)\n?```\Z", re.DOTALL)
_DECORATION: Final = " \t\r\n`*_\"'“”‘’"


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation in OpenAI's form."""

    role: str
    content: str


def conversation(
    prompt: str, into: Sequence[Column], schemas: Schemas = NO_SCHEMAS, *, may_miss: bool = False
) -> tuple[Message, ...]:
    """What to send for a lead whose filled prompt this is.

    `schemas`: what the JSON of a column must be like; `may_miss`: null is an answer, also where one value is asked for.
    """
    return (Message("system", _instruction(into, schemas, may_miss=may_miss)), Message("user", prompt))


def repair(
    sent: Sequence[Message],
    answer: str,
    fault: str,
    into: Sequence[Column],
    schemas: Schemas = NO_SCHEMAS,
    *,
    may_miss: bool = False,
) -> tuple[Message, ...]:
    """What to send after an answer that was not of the declared type: the one try there is."""
    return (
        *sent,
        Message("assistant", answer[:SHOWN_CHARACTERS_MAX]),
        Message("user", f"This cannot be used: {fault}. {_instruction(into, schemas, may_miss=may_miss)}"),
    )


def read_answer(answer: str, into: Sequence[Column], schemas: Schemas = NO_SCHEMAS, *, may_miss: bool = False) -> Cells:
    """The cells that a model's answer fills; `may_miss`: null, in whatever dress, is one of every type.

    Raises:
        BadValueError: as for `_cells`, or a document that is not as the schema of its column says.

    """
    if schemas and len(answer) > ANSWER_CHARACTERS_MAX:
        raise BadValueError(f"the answer is longer than {ANSWER_CHARACTERS_MAX:,} characters")
    if may_miss and len(into) == 1 and answer.strip(_DECORATION).rstrip(".").lower() == "null":
        return {into[0].name: None}
    cells = _cells(answer, into)
    for name, schema in schemas.items():
        value = cells.get(name)
        if value is not None and (fault := fault_in(value, schema)) is not None:
            raise BadValueError(fault if len(into) == 1 else f"{name}: {fault}")
    return cells


def _cells(answer: str, into: Sequence[Column]) -> Cells:
    """The cells of an answer by the types of their columns.

    Raises:
        BadValueError: it is not of the declared type; the message says so in words that the model can be told.

    """
    text = answer.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    if not text:
        raise BadValueError("the answer is empty")
    if len(into) == 1 and into[0].type is not ColumnType.JSON:
        return {into[0].name: _single(text, into[0])}
    document = _json(text)
    if len(into) == 1:
        return {into[0].name: into[0].accept(document)}
    if not isinstance(document, dict):
        raise BadValueError("the answer is not a JSON object")
    cells: Cells = {}
    for column in into:
        if column.name not in document:
            raise BadValueError(f"the object has no key {column.name!r}")
        try:
            cells[column.name] = column.accept(document[column.name])
        except BadValueError as fault:
            raise BadValueError(f"{column.name}: {fault}") from None
    return cells


def estimated_tokens(messages: Sequence[Message], answer_tokens_max: int) -> int:
    """What a conversation may cost at most, as limits in tokens are charged: its text and the longest answer."""
    texts = sum(-(-len(message.content.encode()) // CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS for message in messages)
    return texts + answer_tokens_max


def tokens_at_most(messages: Sequence[Message], answer_tokens_max: int) -> Tokens:
    """What can be paid for a conversation at most, however its text is cut up: no token is less than a byte."""
    texts = sum(len(message.content.encode()) + MESSAGE_TOKENS for message in messages)
    return Tokens(texts + MESSAGE_TOKENS, answer_tokens_max)


def _instruction(into: Sequence[Column], schemas: Schemas, *, may_miss: bool) -> str:
    if len(into) == 1:
        otherwise = ", or with null where you do not know," if may_miss else ""
        return f"Answer with {_form(into[0], schemas)}{otherwise} and nothing else."
    keys = "; ".join(f'"{column.name}": {_form(column, schemas)}, or null' for column in into)
    return f"Answer with one JSON object and nothing else. Its keys: {keys}."


def _form(column: Column, schemas: Schemas) -> str:
    if (schema := schemas.get(column.name)) is not None:
        return f"one JSON document that is valid by this JSON Schema: {schema_text(schema)}"
    if column.allowed:
        return "exactly one of: " + ", ".join(column.allowed)
    return _FORMS[column.type]


def _single(text: str, column: Column) -> JsonValue:
    """One value, also where the model has wrapped it into an object of one key."""
    if text.startswith("{") and text.endswith("}") and (column.type is not ColumnType.TEXT or column.allowed):
        document = _json(text)
        if isinstance(document, dict) and len(document) == 1:
            return column.accept(next(iter(document.values())))
    if column.type is ColumnType.TEXT and not column.allowed:
        return column.accept(_unquoted(text))
    bare = text.strip(_DECORATION).rstrip(".!").strip(_DECORATION)
    value = column.accept(bare)
    if value is None:
        raise BadValueError("the answer is empty")
    return value


def _unquoted(text: str) -> str:
    """A text without the quotation marks that stand round the whole of it."""
    for opening, closing in (('"', '"'), ("“", "”"), ("'", "'")):
        inner = text[1:-1]
        if (
            len(text) > 2
            and text[0] == opening
            and text[-1] == closing
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    return text


def _json(text: str) -> object:
    """The JSON document in an answer, which may have words round it."""
    candidates = [text]
    for opening, closing in sorted((("{", "}"), ("[", "]")), key=lambda pair: text.find(pair[0])):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            candidates.append(text[start : end + 1])
    for candidate in candidates:
        try:
            document: object = msgspec.json.decode(candidate)
        except (msgspec.DecodeError, RecursionError):
            continue
        return document
    raise BadValueError("the answer is not JSON")
