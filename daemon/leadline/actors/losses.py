"""The store is lost: what peers are told, and what the log says of it."""

import time
from typing import Final

import structlog

from leadline.actors.dispatcher import unavailable
from leadline.ports.store import Fenced, OutcomeUnknown, Unavailable
from leadline_protocol.errors import Refused

log = structlog.get_logger(__name__)

STORE_LOST: Final = (Unavailable, OutcomeUnknown, Fenced)
"""What a question to the store raises while there is none to be sure of: the peer is told `unavailable`."""

LOST_LOG_SECONDS: Final = 10.0
"""Least time between two lines of the log that say so: every request meets with it."""


class Losses:
    """Turns faults of the store into refusals."""

    def __init__(self) -> None:
        self._told_at = -LOST_LOG_SECONDS

    def refused(self, error: Exception) -> Refused:
        """What the peer is told of a fault; what it was stands in the log, where administrators look."""
        if time.monotonic() - self._told_at >= LOST_LOG_SECONDS:
            self._told_at = time.monotonic()
            log.warning("store_lost", error=str(error))
        return unavailable()
