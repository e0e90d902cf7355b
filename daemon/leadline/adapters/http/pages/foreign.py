"""Texts from outside, shown so that nothing in them acts on the page, on the reader, or gives a secret away."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from leadline.adapters.http.confinement import without_prefixes

LINE_CHARACTERS_MAX: Final = 4_000
"""Of one line that is shown; a line has 16 KiB at most, and a page hundreds of them."""

HIDDEN: Final = "(not shown)"

_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and movements of a terminal (ECMA-48 control sequences)
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # its control strings, such as titles and links
    r"|\x1b[ -/]*[0-~]"
)
_UNSEEN_RANGES: Final = (
    *((0x00, 0x08), (0x0A, 0x1F), (0x7F, 0x9F)),
    *((0x200B, 0x200B), (0x200E, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069), (0xFEFF, 0xFEFF)),
    (0xD800, 0xDFFF),
)
_UNSEEN: Final = {
    code: chr(code).encode("unicode_escape").decode()
    for first, last in _UNSEEN_RANGES
    for code in range(first, last + 1)
}
"""What cannot be seen, or turns the text beside it round."""

_SECRET_NAME: Final = re.compile(
    r"secret|passw|token|credential|authori[sz]ation|api[-_]?key|private[-_]?key", re.IGNORECASE
)


def harmless(text: str) -> str:
    """A line that somebody's program has printed: without orders to a terminal, and with nothing unseen in it."""
    left = len(text) - LINE_CHARACTERS_MAX  # cut first: a page of lines full of such characters is written at once
    seen = _ESCAPES.sub("", text[:LINE_CHARACTERS_MAX]).translate(_UNSEEN)
    return seen if left <= 0 else f"{seen} … and {left:,} more characters"


def submitted(submission: Mapping[str, Any]) -> str:
    """What was submitted, as JSON for people; what may be a secret in it is left out."""
    return msgspec.json.format(msgspec.json.encode(_cleared(submission)), indent=2).decode()


def webhook(address: str) -> str:
    """A webhook's address, which is a secret where it ends in a token, as those of many services do: only its host."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}/… {HIDDEN}"


def _cleared(value: Any, name: str = "") -> Any:
    if value is not None and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: _cleared(each, str(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [_cleared(each) for each in value]
    if not isinstance(value, str):
        return value
    if name == "webhook":
        return webhook(value)
    return without_prefixes(value)
