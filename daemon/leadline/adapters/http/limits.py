"""How much a token may ask for at a time: requests a second, streams, files on their way; and what all bodies take."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from leadline_protocol.errors import ErrorCode, Refused

BURST_SECONDS: Final = 2.0
"""So many seconds' worth of requests may come at once."""

BUCKETS_MAX: Final = 10_000
"""More are kept only while more tokens than that are being used within a burst's time."""

STREAMS_MAX: Final = 1_000
STREAMS_PER_TOKEN_MAX: Final = 250
"""Each open page of a browser is one."""

WAITS_PER_TOKEN_MAX: Final = 50
"""Questions that wait for what a run prints next: each page of a run that goes on is one."""

FILES_PER_TOKEN_MAX: Final = 8
"""On their way at a time, in and out."""

BODIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""What the bodies of all requests that are being read or carried out may take of the memory."""

RETRY_SECONDS: Final = 1.0


class Rates:
    """Requests of each token, as buckets that fill at the rate that is allowed."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: a clock."""
        self._seconds = seconds
        self._full_at: dict[bytes, float] = {}
        """When each bucket will be full again."""

    def take(self, token: bytes, rate: float) -> None:
        """One more request, where so many a second are allowed. Raises Refused with busy."""
        now = self._seconds()
        full_at = max(now, self._full_at.get(token, now)) + 1 / rate
        wait = full_at - now - max(BURST_SECONDS, 1 / rate)
        if wait > 0:
            message = f"a token may send {rate:g} requests a second"
            raise Refused(ErrorCode.BUSY, message, retry_after=math.ceil(wait * 1000) / 1000)
        self._full_at[token] = full_at
        if len(self._full_at) > BUCKETS_MAX:  # sessions come and go: one that is full is like one that is not there
            self._full_at = {token: full_at for token, full_at in self._full_at.items() if full_at > now}


class Room:
    """Things that may be under way at a time, over all and for each token."""

    def __init__(self, what: str, in_all: int, per_token: int) -> None:
        self._what = what
        self._in_all = in_all
        self._per_token = per_token
        self._taken: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many there are."""
        return sum(self._taken.values())

    @contextmanager
    def one(self, token: bytes) -> Iterator[None]:
        """One more, as long as the context is open. Raises Refused with busy."""
        own = self._taken.get(token, 0)
        if own >= self._per_token or len(self) >= self._in_all:
            message = f"there are as many {self._what} as there may be"
            raise Refused(ErrorCode.BUSY, message, retry_after=RETRY_SECONDS)
        self._taken[token] = own + 1
        try:
            yield
        finally:
            self._taken[token] -= 1
            if not self._taken[token]:
                del self._taken[token]


class Memory:
    """What bodies take."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        """So many bytes, as long as the context is open. Raises Refused with busy."""
        if self._taken + size > BODIES_BYTES_MAX:
            raise Refused(ErrorCode.BUSY, "too much is being sent by all together", retry_after=RETRY_SECONDS)
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
