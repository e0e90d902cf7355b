"""A form as it is shown: empty, or once more with what somebody has typed into it and what is wrong with that."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from leadline.adapters.http.pages.rendering import sentence
from leadline.adapters.http.problems import STATUS
from leadline_protocol.errors import ErrorCode, Refused

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Typed(Struct, frozen=True):
    """What stands in a form."""

    fields: Mapping[str, str] = _NOTHING
    refused: Refused | None = None

    @property
    def status(self) -> int:
        """The status of a page with this form."""
        return 200 if self.refused is None else STATUS[self.refused.code]

    def value(self, name: str, otherwise: str = "") -> str:
        """What stands in a field; `otherwise` where nobody has typed anything yet."""
        return self.fields.get(name, otherwise)

    def fault(self, name: str) -> str | None:
        """What is wrong at a field, as a sentence."""
        if self.refused is None or place(self.refused) != name:
            return None
        return sentence(self.refused.message)

    def excerpt(self, name: str) -> "Excerpt | None":
        """Where in a field's text it is, if that is known."""
        if self.refused is None or place(self.refused) != name:
            return None
        return excerpt(self.value(name), self.refused)

    def other_fault(self, *names: str) -> str | None:
        """What is wrong elsewhere than at these fields."""
        if self.refused is None or place(self.refused) in names:
            return None
        return sentence(self.refused.message)


class Excerpt(Struct, frozen=True):
    """A text about one of its characters."""

    before: str
    character: str
    """Empty: it is about the end."""
    after: str


EXCERPT_CHARACTERS: Final = 40
"""How much is shown on either side."""

UNTOUCHED: Final = Typed()


NUMBER_DIGITS_MAX: Final = 18
"""Of a number that is typed: so many are always below 2^63."""


def whole(text: str, at: str, otherwise: str | None = None) -> int:
    """A whole number that somebody has typed. Raises Refused, in the words of `otherwise` where there are any."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= NUMBER_DIGITS_MAX):
        shown = digits if len(digits) <= EXCERPT_CHARACTERS else f"{digits[:EXCERPT_CHARACTERS]}…"
        raise Refused(ErrorCode.BAD_REQUEST, otherwise or f"{shown!r} is no whole number", at=at)
    return int(digits)


def place(refused: Refused) -> str:
    """The field at which somebody was refused: of `where:9` it is `where`, of `key[0]` `key`."""
    return (refused.at or "").partition(":")[0].partition("[")[0]


def excerpt(text: str, refused: Refused) -> Excerpt | None:
    """The text about the character at which somebody was refused; None where no character is named."""
    number = (refused.at or "").rpartition(":")[2]
    if not (number.isascii() and number.isdigit()) or ":" not in (refused.at or ""):
        return None
    index = min(max(int(number) - 1, 0), len(text))
    start, end = max(0, index - EXCERPT_CHARACTERS), index + 1 + EXCERPT_CHARACTERS
    before = ("…" if start else "") + text[start:index]
    after = text[index + 1 : end] + ("…" if end < len(text) else "")
    return Excerpt(before, text[index : index + 1], after)
