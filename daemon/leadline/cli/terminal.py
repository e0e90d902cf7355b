"""Showing things: aligned columns and colours on a terminal, the same words without either colour or cut in a pipe.

Listings are laid out here rather than by rich, whose import alone costs a quarter of the time that a listing may take;
rich draws what lives: bars and `top`. Colours carry no meaning that is not also said in words, and NO_COLOR, a pipe or
a dumb terminal switch them off.
"""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TextIO

import msgspec

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]

_SGR: Final[dict[Style, str]] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

STATE_STYLE: Final[dict[str, Style]] = {
    "running": "cyan",
    "waiting": "yellow",
    "stopping": "yellow",
    "completed": "green",
    "open": "green",
    "ready": "green",
    "published": "green",
    "finished": "green",
    "partial": "yellow",
    "throttled": "yellow",
    "trying": "yellow",
    "draining": "yellow",
    "paused": "yellow",
    "draft": "yellow",
    "unknown": "yellow",
    "failed": "red",
    "parked": "red",
    "unavailable": "red",
    "cancelled": "dim",
    "skipped": "dim",
    "delayed": "dim",
    "unpublished": "dim",
    "stopped": "dim",
}
"""The colour of each word for a state, of jobs, batch jobs, follow-ups, providers and the daemon."""


def now() -> datetime:
    """The present, in the zone of the person."""
    return datetime.now().astimezone()


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours(stream: TextIO) -> bool:
    """Whether colours are wanted on this stream."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, style: Style | None, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream (absent: standard output) has any."""
    if style is None or not text or not has_colours(stream or sys.stdout):
        return text
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m"


def state(word: str) -> str:
    """The word for a state, in its colour."""
    return paint(word, STATE_STYLE.get(word))


def say(text: str = "") -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """What is to be known of something that was done all the same."""
    say(f"  {paint('Warning:', 'yellow')} {text}")


def remark(text: str) -> None:
    """A line beside the matter, on standard error."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def json_line(value: Any) -> None:
    """A value as a line of JSON; of a reply only what is not about the conversation."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value, builtin_types=(datetime,))
        for name in ("ok", "line", "ref"):
            value.pop(name, None)
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Rows under headings, the columns named in `right` flush right; the last column is cut to the terminal's width.

    A cell may be painted with `state`.
    """
    table = [list(headings), *(list(row) for row in rows)]
    widths = [max(width(row[index]) for row in table) for index in range(len(headings))]
    flush = set(right)
    room = None
    if is_terminal(sys.stdout):
        room = max(20, shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(widths) - 1))
    for line, row in enumerate(table):
        if room is not None:
            row[-1] = cut(row[-1], room)
        cells = []
        for index, cell in enumerate(row):
            blank = " " * (widths[index] - width(cell))
            if headings[index] in flush:
                cells.append(blank + cell)
            else:
                cells.append(cell + blank if index < len(row) - 1 else cell)
        text = "  ".join(cells).rstrip()
        say(paint(text, "dim") if line == 0 else text)


def cut(text: str, room: int) -> str:
    """The text, shortened so that it takes no more columns."""
    if width(text) <= room:
        return text
    kept = 0
    taken = 0
    for character in text:
        taken += _columns_of(character)
        if taken > room - 1:
            break
        kept += 1
    return text[:kept] + "…"


def width(text: str) -> int:
    """How many columns a text takes on a terminal, its colours aside."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    total = 0
    painting = False
    for character in text:
        if painting:
            painting = character != "m"
        elif character == "\x1b":
            painting = True
        else:
            total += _columns_of(character)
    return total


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or character == "\u200d" or unicodedata.category(character) == "Mn":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
