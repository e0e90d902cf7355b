"""What the JSON of a model's answer must be like, by a JSON Schema that the submission brings.

A schema is a program that a tenant wrote, and it judges texts that a model wrote, in the middle of the daemon. So only
words are taken whose cost is known: no `pattern` (a regular expression can take for ever), no `uniqueItems` (it
compares everything with everything), no references. `format` is not taken either: nobody would check it, and a schema
that promises more than it holds is worse than none. What is left is bounded in length, and so is an answer's text.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from leadline_protocol.errors import ErrorCode, Refused

SCHEMA_CHARACTERS_MAX: Final = 8_000
"""It is sent with every prompt."""

ANSWER_CHARACTERS_MAX: Final = 100_000

FAULT_CHARACTERS_MAX: Final = 300

_SCHEMAS: Final = frozenset({"properties"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE: Final = frozenset({"items", "additionalProperties", "not", "contains"})
_PLAIN: Final = frozenset(
    {
        "const",
        "default",
        "description",
        "enum",
        "examples",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "required",
        "title",
        "type",
    }
)
WORDS: Final = tuple(sorted(_SCHEMAS | _LISTS | _SINGLE | _PLAIN))
"""The words of JSON Schema that are taken."""

Schema = Mapping[str, Any]


def check_schema(schema: Schema, at: str) -> None:
    """Check that a schema is one, and of the words that are taken. Raises Refused with its place below `at`."""
    for place, fault in _unknown_words(schema, at):
        raise Refused(ErrorCode.BAD_REQUEST, fault, at=place)
    if len(schema_text(schema)) > SCHEMA_CHARACTERS_MAX:
        message = f"is longer than the {SCHEMA_CHARACTERS_MAX:,} characters that may go with every prompt"
        raise Refused(ErrorCode.BAD_REQUEST, message, at=at)
    from jsonschema import Draft202012Validator, SchemaError  # only who has a schema pays for it

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        raise Refused(ErrorCode.BAD_REQUEST, error.message[:FAULT_CHARACTERS_MAX], at=at + place) from None


def schema_text(schema: Schema) -> str:
    """A schema as a model is told it."""
    return msgspec.json.encode(schema).decode()


def fault_in(document: object, schema: Schema) -> str | None:
    """What is wrong with a document in the eyes of a schema, in words that a model can be told; None: nothing."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema_text(schema)).iter_errors(document))
    if error is None:
        return None
    where = "" if error.json_path == "$" else f"{error.json_path.removeprefix('$.')}: "
    return f"{where}{error.message}"[:FAULT_CHARACTERS_MAX]


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(msgspec.json.decode(text))


def _unknown_words(schema: object, at: str) -> Iterator[tuple[str, str]]:
    """Words of a schema that are not taken, each with its place."""
    if not isinstance(schema, Mapping):
        return  # true or false, or a fault that is found later
    for word, value in schema.items():
        place = f"{at}.{word}"
        if word in _SCHEMAS and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _unknown_words(inner, f"{place}.{name}")
        elif word in _LISTS and isinstance(value, list):
            for number, inner in enumerate(value):
                yield from _unknown_words(inner, f"{place}[{number}]")
        elif word in _SINGLE:
            yield from _unknown_words(value, place)
        elif word not in WORDS:
            yield place, f"{word} is not taken here; of JSON Schema there are {', '.join(WORDS)}"
