"""`{{placeholder}}` templates: the text of a prompt, and the strings of a request to a provider.

A template is text with names between double braces, nothing else: no expressions, no loops, no way to reach anything
but the values handed in. It is read once, with the place of each fault, and filled for each lead.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from leadline.features.tables.columns import JsonValue, cell_text
from leadline_protocol.errors import ErrorCode, Refused

CHARACTERS_MAX: Final = 100_000
"""Length of a template."""


class Template(msgspec.Struct, frozen=True):
    """A text with holes."""

    texts: tuple[str, ...]
    """What stands before, between and behind the placeholders: one more than there are names."""
    names: tuple[str, ...]
    """The placeholders, in their order."""

    def fill(self, value: Callable[[str], str]) -> str:
        """The text with each placeholder replaced by its value."""
        parts = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            parts += value(name), text
        return "".join(parts)


JsonTemplate: TypeAlias = "Template | int | float | bool | Sequence[JsonTemplate] | Mapping[str, JsonTemplate] | None"
"""A JSON document whose strings are templates."""


class TemplateFaultError(ValueError):
    """The text is no template; `offset` is the 0-based character where the fault begins."""

    def __init__(self, message: str, offset: int, code: ErrorCode = ErrorCode.BAD_EXPRESSION) -> None:
        super().__init__(message)
        self.offset: Final = offset
        self.code: Final = code


def parse_template(text: str, names: Collection[str] | None) -> Template:
    """The template that `text` is, over these names, which are found in any case (None: over any, in lower case).

    Raises:
        TemplateFaultError: a placeholder is not closed, is empty, or is none of the names; or the text is too long.

    """
    if len(text) > CHARACTERS_MAX:
        raise TemplateFaultError(f"longer than {CHARACTERS_MAX:,} characters", CHARACTERS_MAX)
    known = None if names is None else {name.casefold(): name for name in names}
    texts: list[str] = []
    found: list[str] = []
    end = 0
    while (start := text.find("{{", end)) >= 0:
        close = text.find("}}", start)
        name = text[start + 2 : close].strip()
        if close < 0 or "{" in name:
            raise TemplateFaultError("a placeholder is not closed", start)
        if not name:
            raise TemplateFaultError("a placeholder is empty", start)
        if known is not None and name.casefold() not in known:
            raise TemplateFaultError(f"there is no column {name[:60]!r}", start, ErrorCode.UNKNOWN_COLUMN)
        name = name.casefold() if known is None else known[name.casefold()]
        texts.append(text[end:start])
        found.append(name)
        end = close + 2
    return Template((*texts, text[end:]), tuple(found))


def parse_prompt(text: str, columns: Collection[str], *, field: str) -> Template:
    """The prompt that `text` is, over the columns of a table.

    Raises:
        Refused: `bad_expression` or `unknown_column` at `field:N`, N the 1-based character where the fault begins.

    """
    if not text.strip():
        raise Refused(ErrorCode.BAD_EXPRESSION, "is empty", at=f"{field}:1")
    try:
        return parse_template(text, columns)
    except TemplateFaultError as fault:
        raise Refused(fault.code, str(fault), at=f"{field}:{fault.offset + 1}") from None


def fill_text(template: Template, values: Mapping[str, JsonValue]) -> str:
    """The text with each placeholder as its cell reads; an empty cell leaves nothing."""
    return template.fill(lambda name: cell_text(values.get(name)))


def fill_json(template: JsonTemplate, values: Mapping[str, JsonValue]) -> JsonValue:
    """The document with its templates filled.

    A string that is one placeholder and nothing else becomes the value itself: `"{{score}}"` a number. A key whose
    value is a placeholder of an empty cell is left out of its object.
    """
    match template:
        case Template(texts=("", ""), names=(name,)):
            return values.get(name)
        case Template():
            return fill_text(template, values)
        case Mapping():
            filled = {key: fill_json(below, values) for key, below in template.items()}
            return {key: value for key, value in filled.items() if value is not None or template[key] is None}
        case Sequence():
            return [fill_json(below, values) for below in template]
        case _:
            return template


def parse_json_template(document: object, names: Collection[str] | None) -> JsonTemplate:
    """A JSON document with its strings read as `parse_template` does.

    Raises:
        TemplateFaultError: a string of it is no template.

    """
    match document:
        case str():
            return parse_template(document, names)
        case Mapping():
            return {str(key): parse_json_template(below, names) for key, below in document.items()}
        case list() | tuple():
            return [parse_json_template(below, names) for below in document]
        case None | bool() | int() | float():
            return document
        case _:
            raise TemplateFaultError(f"{type(document).__name__} has no place in JSON", 0)


def names_in(template: JsonTemplate) -> tuple[str, ...]:
    """Every placeholder of a document, each once, in the order of first use."""
    found: dict[str, None] = {}

    def visit(below: JsonTemplate) -> None:
        match below:
            case Template():
                found.update(dict.fromkeys(below.names))
            case Mapping():
                for value in below.values():
                    visit(value)
            case Sequence():
                for value in below:
                    visit(value)
            case _:
                pass

    visit(template)
    return tuple(found)
