"""What happens to jobs, numbered, for many who look on at a time and may come back.

Pages in browsers listen to a teamspace or to everything. Each of them as a subscriber of its own would have every job
looked up once for each page. So one subscriber listens for all of them, and only while there are any; what it hears is
kept for a while under growing numbers, and who was cut off says the number of the last thing it heard. It is told what
it missed, or, where that is not known any more, that it has missed something, and asks how things are.

Who is slow is told how much it missed; the others do not wait for it.
"""

import asyncio
import secrets
from collections import deque
from typing import Final

from leadline.actors.announcer import Announcer
from leadline.actors.job_operations import JobOperations
from leadline.actors.peers import Peer
from leadline.actors.subscriber import Subscriber
from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId

KEPT_MAX: Final = 10_000
"""Notices that are kept for those who come back."""

BACKLOG_MAX: Final = 1_000
"""Notices that wait for one reader."""

LINGER_SECONDS: Final = 60.0
"""So long after the last reader has gone it is still listened, and a reader that comes back misses nothing."""

UNKNOWN: Final = 0
"""As a count of what was missed: nobody knows how much."""

_EVERYBODY: Final = Peer(-1, -1, operator=True)


class Reader:
    """One who looks on: what waits to be told to it."""

    def __init__(self, teamspace: str | None) -> None:
        """`teamspace`: the only one whose jobs it hears of; None: all."""
        self.teamspace: Final = teamspace
        self.closed = False
        """Nothing more will come."""
        self._waiting: deque[tuple[str, wire.Notice]] = deque()
        self._missed = 0
        self._news = asyncio.Event()

    def put(self, number: str, notice: wire.Notice) -> None:
        """Have a notice told, or counted as missed where too many wait."""
        if self._missed or len(self._waiting) >= BACKLOG_MAX:
            self._missed += 1
        else:
            self._waiting.append((number, notice))
        self._news.set()

    def take(self) -> list[tuple[str, wire.Notice]]:
        """All that waits, with the number of each; empty: nothing does."""
        found = list(self._waiting)
        self._waiting.clear()
        if self._missed:
            found.append(("", wire.Missed(count=self._missed)))
            self._missed = 0
        self._news.clear()
        return found

    @property
    def has_news(self) -> bool:
        """Whether there is something to take, or nothing more will come."""
        return self._news.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to take, or it is closed, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Say that nothing more will come."""
        self.closed = True
        self._news.set()


class Feed:
    """What happens to all jobs."""

    def __init__(self, jobs: JobOperations, announcer: Announcer) -> None:
        self._jobs = jobs
        self._announcer = announcer
        self._subscriber: Subscriber | None = None
        self._life = ""
        """Tells numbers of this time of listening from those of others."""
        self._number = 0
        self._kept: deque[tuple[int, str | None, wire.Notice]] = deque(maxlen=KEPT_MAX)
        self._readers: set[Reader] = set()
        self._lingering: asyncio.TimerHandle | None = None

    async def open(self, teamspace: str | None, after: str | None) -> Reader:
        """Look on from now on, or from behind the number of the last notice that was heard.

        Raises Refused with busy where too many listen.
        """
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._subscriber is None:
            await self._begin()
        reader = Reader(teamspace)
        if after is not None:
            self._catch_up(reader, after)
        self._readers.add(reader)
        return reader

    @property
    def position(self) -> str | None:
        """The number behind which whoever has seen how things are now goes on; None: nobody listens at present."""
        return None if self._subscriber is None else f"{self._life}-{self._number}"

    def close(self, reader: Reader) -> None:
        """One looks on no longer."""
        self._readers.discard(reader)
        if not self._readers and self._subscriber is not None and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.end)

    def end(self) -> None:
        """Listen no longer."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None
        self._kept.clear()
        for reader in tuple(self._readers):
            reader.close()

    async def of_job(self, job: JobId, reader: Reader) -> Subscriber:
        """Have a reader hear of one job, first how it is now. Raises Refused with not_found, or with busy."""
        told = 0

        async def send(notice: wire.Notice) -> None:
            nonlocal told
            told += 1
            has_ended = isinstance(notice, wire.Ended)
            reader.put(ended_number(job) if has_ended else f"{job}-{told}", notice)
            if has_ended:
                reader.close()

        subscriber = Subscriber(self._jobs, self._announcer, _EVERYBODY, send)
        try:
            await subscriber.watch(job)
        except BaseException:  # a reader who has left meanwhile is cancelled: nobody else would close it
            subscriber.close()
            raise
        return subscriber

    async def _begin(self) -> None:
        subscriber = Subscriber(self._jobs, self._announcer, _EVERYBODY, self._hear)
        await subscriber.watch(None)
        self._subscriber = subscriber
        self._life = secrets.token_hex(6)
        self._number = 0

    async def _hear(self, notice: wire.Notice) -> None:
        self._number += 1
        teamspace = None if isinstance(notice, wire.Missed) else notice.teamspace
        self._kept.append((self._number, teamspace, notice))
        for reader in self._readers:
            self._tell(reader, self._number, teamspace, notice)

    def _tell(self, reader: Reader, number: int, teamspace: str | None, notice: wire.Notice) -> None:
        if isinstance(notice, wire.Missed) and reader.teamspace is not None:
            notice = wire.Missed(count=UNKNOWN)  # how much happens to others is not its business
        if teamspace is None or reader.teamspace in {None, teamspace}:
            reader.put(f"{self._life}-{number}", notice)

    def _catch_up(self, reader: Reader, after: str) -> None:
        life, _, text = after.rpartition("-")
        heard = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
        oldest = self._kept[0][0] if self._kept else self._number + 1
        if life != self._life or not oldest - 1 <= heard <= self._number:
            reader.put(f"{self._life}-{self._number}", wire.Missed(count=UNKNOWN))
            return
        for number, teamspace, notice in self._kept:
            if number > heard:
                self._tell(reader, number, teamspace, notice)


def ended_number(job: JobId) -> str:
    """The number under which a reader of one job hears of its end: who has heard it needs nothing more."""
    return f"{job}-ended"
