"""What peers do wrong, counted: a line of the log for each would be theirs to flood it with."""

import asyncio
from typing import Final

import structlog

log = structlog.get_logger(__name__)

MISHAPS_SECONDS: Final = 60.0
"""Between two lines of the log on what peers do."""


class Mishaps:
    """Counts what peers do, and says so once in a while: a line for each would be theirs to flood the log with."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def count(self, what: str) -> bool:
        """One more. Returns whether it is the first of its sort since the log was told."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MISHAPS_SECONDS, self.tell)
        return self._counts[what] == 1

    def tell(self) -> None:
        """Write down what has been counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            counts, self._counts = self._counts, {}
            log.warning("peers", **counts)
