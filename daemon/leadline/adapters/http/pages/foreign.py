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
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What cannot be seen, or turns the text beside it round."""

_SECRET_NAME: Final = re.compile(
    r"secret|passw|token|credential|authori[sz]ation|api[-_]?key|private[-_]?key", re.IGNORECASE
)


def harmless(text: str) -> str:
    """A line that somebody's program has printed: without orders to a terminal, and with nothing unseen in it."""
    seen = _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), _ESCAPES.sub("", text))
    left = len(seen) - LINE_CHARACTERS_MAX
    return seen if left <= 0 else f"{seen[:LINE_CHARACTERS_MAX]} … and {left:,} more characters"


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
