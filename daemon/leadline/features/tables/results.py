"""What leads bring, on its way into the database: gathered while a transaction commits, stored together by the next.

A result is stored with what it writes into the lead, with the end of the calls that brought it, with what they have
cost, and with the job's counts, in one transaction; only then do its calls count as ended. So a lead either has its
result and is never asked about again, or has none. What comes before a result is stored the same way: orders that a
provider has taken on, so that a restart asks for their results instead of ordering again; answers that cost something
and were not the end; and, where several providers are asked in turn, that one of them is through with the lead.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
from msgspec import Struct

from leadline.core.events import CallEnd
from leadline.core.model import Counts
from leadline.features.tables.ports import AnsweredCall, Charge, LeadStore, Order, Passed, Result, Table
from leadline.ports.work import Attempt, Call
from leadline_protocol.ids import JobId

BATCH_MAX: Final = 500
"""Results that one transaction takes."""


class Delivered(Struct, frozen=True):
    """Every lead of a bulk order has its result: those were handed over before."""

    number: int


class CameBy(Struct, frozen=True):
    """How an end was come by: the call that led to it, how that ended, and what the books keep of it."""

    call: Call | None = None
    """It counts as ended when what it brought is stored."""
    how: CallEnd = CallEnd()
    answered: AnsweredCall | None = None
    charge: Charge | None = None


NO_CALL: Final = CameBy()


class Brought(Struct, frozen=True):
    """A result, or what came before it, with the call that brought it last and how that call ended."""

    item: Result | Order | Passed | Delivered
    call: Call | None
    end: CallEnd


class ResultWriter:
    """Stores what the leads of one attempt bring."""

    def __init__(
        self,
        leads: LeadStore,
        attempt: Attempt,
        table: Table,
        counts: Counts,
        records: Callable[[int], Awaitable[None]],
        run: JobId,
    ) -> None:
        """`records` waits for leave to write so many records; `run`: the first of the job and its reruns."""
        self._leads = leads
        self._attempt = attempt
        self._table = table
        self._records = records
        self._run = run
        self._waiting: list[Brought] = []
        self._more = anyio.Event()
        self._room = anyio.Event()
        self._closing = False
        self.counts = counts

    async def put(self, brought: Brought) -> None:
        """Hand something over; waits while too much is waiting already."""
        while len(self._waiting) >= 4 * BATCH_MAX:
            self._room = anyio.Event()
            await self._room.wait()
        self._waiting.append(brought)
        self._more.set()

    def close(self) -> None:
        """Nothing more comes: `run` ends when everything is stored."""
        self._closing = True
        self._more.set()

    async def run(self) -> None:
        """Store what comes until closed."""
        while True:
            await self._more.wait()
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            self._room.set()
            if not self._waiting and not self._closing:
                self._more = anyio.Event()
            if batch:
                await self._store(batch)
            elif self._closing:
                return

    async def _store(self, batch: Sequence[Brought]) -> None:
        attempt = self._attempt
        results = [brought.item for brought in batch if isinstance(brought.item, Result)]
        news = [brought.item for brought in batch if isinstance(brought.item, Order | Passed)]
        delivered = [brought.item.number for brought in batch if isinstance(brought.item, Delivered)]
        items = [brought.item for brought in batch if not isinstance(brought.item, Delivered)]
        charges = [(item.lead, item.charge) for item in items if item.charge is not None]
        await self._records(len(results))
        counts = counted(self.counts, results)
        async with self._leads.work(attempt.job.id, attempt.number) as work:
            if news:
                await work.note(news)
            if results:
                await work.settle(self._table, results)
            if charges:
                await work.owe(self._run, attempt.job.teamspace, charges)
            if delivered:
                await work.delivered(delivered)
            await work.save(counts, f"{counts.settled:,} of {counts.total:,} leads", None)
        self.counts = counts
        for brought in batch:
            if brought.call is not None:
                brought.call.end(brought.end)
        if results:
            attempt.progressed(counts)
        elif any(isinstance(item, Passed) and item.charge.answer == "none" for item in news):
            attempt.moved()  # a lead is through with one of several providers


def counted(counts: Counts, results: Sequence[Result]) -> Counts:
    """Counts with these results among them."""
    states = [result.state for result in results]
    return Counts(
        counts.total,
        counts.done + states.count("done"),
        counts.failed + states.count("failed"),
        counts.skipped + states.count("skipped"),
        counts.unknown + states.count("unknown"),
    )
