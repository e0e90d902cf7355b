"""From what a run prints to lines that can be kept: whatever it prints, in bounded memory."""

from collections.abc import Iterator
from typing import Final

CUT: Final = " […]"
"""At the end of a line of which the rest is missing."""


class LineCutter:
    """Takes bytes as they come and gives lines of text: what is no UTF-8 becomes replacement characters."""

    def __init__(self, line_bytes_max: int) -> None:
        self._most = line_bytes_max
        self._line = bytearray()
        self._over = False
        """Whether a part of the line is missing."""

    def feed(self, piece: bytes) -> Iterator[str]:
        """The lines that end in this piece."""
        *ended, begun = piece.split(b"\n")
        for part in ended:
            self._take(part)
            yield self._text()
        self._take(begun)

    def end(self) -> Iterator[str]:
        """The line that was begun, where there will be no more."""
        if self._line:
            yield self._text()

    def _take(self, part: bytes) -> None:
        room = self._most - len(self._line)
        self._line += part[:room]
        self._over = self._over or len(part) > room

    def _text(self) -> str:
        text = self._line.decode(errors="replace").removesuffix("\r") + (CUT if self._over else "")
        self._line.clear()
        self._over = False
        return text
