"""Which characters of a text a mail carries.

A field of a contact may hold anything that a file or another system held. What could begin a line of its own, or means
nothing to people, is taken out before it gets anywhere near a message.
"""

import re
from typing import Final

from leadline_protocol.errors import LeadlineError

_GAPS: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
"""What separates words on one line: spaces, and all that is a control character or ends a line."""

_LINE_ENDS: Final = re.compile(r"\r\n|[\r\x85]")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Unwritable(LeadlineError):
    """Something cannot stand in a mail at all; the message says what."""


def one_line(text: str) -> str:
    """The text as one line: what could break it is a space, and there is one space at a time. Raises Unwritable."""
    return _encodable(_GAPS.sub(" ", text).strip(" "))


def lines(text: str) -> str:
    """The text with the same end for all of its lines, one after the last as well, and without control characters but
    the tab. Raises Unwritable.
    """
    return _encodable(_CONTROLS.sub("", _LINE_ENDS.sub("\n", text))).rstrip("\n") + "\n"


def _encodable(text: str) -> str:
    """Half of a surrogate pair is no character. Raises Unwritable."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"character {error.start + 1} is half a character: U+{ord(text[error.start]):04X}") from None
    return text
