"""Whose jobs have just ended, asked of the database for many at a time.

The scheduler does not know who submitted a job: in memory that would cost a tenth of what a queued job costs, for what
only followers want. So it is asked for when a job ends while somebody follows: once for all who do, and together for
all jobs that end while the question before is under way. With nobody following nothing is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from leadline_protocol.ids import JobId

Ask = Callable[[Sequence[JobId]], Awaitable[Mapping[JobId, int | None]]]


class Submitters:
    """The user ids that jobs were submitted by."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._wanted: dict[JobId, asyncio.Future[int | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    def of(self, job: JobId) -> "asyncio.Future[int | None]":
        """Who submitted a job; None where nobody can say. Fails as the question does."""
        future = self._wanted.get(job)
        if future is None:
            future = self._wanted[job] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_seen)
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._answer())
        return future

    async def _answer(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                found = await self._ask(tuple(wanted))
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                for future in wanted.values():
                    future.set_exception(error)
                continue
            for job, future in wanted.items():
                future.set_result(found.get(job))


def _seen(future: "asyncio.Future[int | None]") -> None:
    """A listener may be gone before it looks: then nobody misses the answer."""
    if not future.cancelled():
        future.exception()
