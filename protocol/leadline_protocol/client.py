"""The asyncio client: submissions and questions to a Leadline daemon, many at a time over one Unix socket.

    async with Client.connect("/run/leadline/submit.sock") as client:
        receipt = await client.submit(Noop(teamspace="acme", idempotency_key="order-17"))
        ended = await client.wait(receipt.job)

Requests of any number of tasks share the connection and are pipelined; nobody waits for a reply before sending the
next.

The complication is a connection that breaks between a request and its reply: was the job stored? With an idempotency
key the client connects again and sends the same once more, which is exact, since the daemon makes one job of both; so
it does with what only asks. Without a key it raises OutcomeUnknown rather than guess. `codec.Exchange` holds these
rules, for this client and the blocking one; here is only the socket.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from os import PathLike, fspath
from typing import Final, Self, TypeVar, cast

from leadline_protocol.codec import (
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    AnyRequest,
    AnySubmission,
    ClientConnection,
    Exchange,
    as_dry_run,
)
from leadline_protocol.errors import LeadlineError, ProtocolViolation, Refused, Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Ended,
    Follow,
    Get,
    JobView,
    Missed,
    Notice,
    Operation,
    Preview,
    Receipt,
    Refusal,
    Reply,
)

PIECE_LINES: Final = 2_000
PIECES_IN_FLIGHT: Final = 8
"""`submit_many` writes so many lines at a time and so many pieces ahead of their receipts: enough to keep a daemon that
commits thousands at once busy, too little to be felt in memory."""

NOTICES_MAX: Final = 100_000
"""How many notices are kept for who does not take them; then the oldest go, and a Missed says how many."""

R = TypeVar("R", bound=Reply)


class Client:
    """One connection to a daemon's submit or control socket, made again when it breaks.

    Every method raises Refused where the daemon says no, Unreachable where it does not answer in `timeout_seconds`,
    OutcomeUnknown where a request without an idempotency key may or may not have been carried out, and
    ProtocolViolation where something else than a daemon answers.
    """

    def __init__(self, path: str | PathLike[str], *, timeout_seconds: float = 30.0) -> None:
        self._path: Final = fspath(path)
        self._timeout_seconds: Final = timeout_seconds
        self._wire: _Wire | None = None
        self._closed = False
        self._connecting: Final = asyncio.Lock()
        self._notices: Final[deque[Notice]] = deque()
        self._missed = 0
        self._broken = False
        self._arrived: Final = asyncio.Event()
        self._waiting: Final[dict[JobId, list[asyncio.Future[Ended | None]]]] = {}

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: str | PathLike[str], *, timeout_seconds: float = 30.0) -> AsyncIterator[Self]:
        """A client connected to the socket at `path`; raises Unreachable at once where nobody listens there."""
        client = cls(path, timeout_seconds=timeout_seconds)
        client._wire = await client._open()
        try:
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        """Close the connection; what is outstanding fails as if it had broken."""
        self._closed = True
        if self._wire is not None:
            self._wire.transport.abort()
            await self._wire.closed.wait()

    async def submit(self, submission: AnyRequest) -> Receipt:
        """Submit one job; a mapping is sent as it is and judged by the daemon."""
        return cast("Receipt", await self._one(submission))

    async def preview(self, submission: AnySubmission, *, leads: int | None = None) -> Preview:
        """What a submission would take now; nothing of it is stored. A formula is shown on so many `leads`, or ten."""
        return cast("Preview", await self._one(as_dry_run(submission, leads)))

    async def submit_many(self, submissions: Iterable[AnyRequest]) -> list[Receipt | LeadlineError]:
        """Submit any number of jobs, pipelined; the outcomes in the same order, refusals and doubts among them."""
        remaining = iter(submissions)
        outcomes: list[Reply | LeadlineError] = []
        flying: deque[asyncio.Task[list[Reply | LeadlineError]]] = deque()
        try:
            while piece := list(islice(remaining, PIECE_LINES)):
                flying.append(asyncio.create_task(self._exchange(piece)))
                if len(flying) == PIECES_IN_FLIGHT:
                    outcomes += await flying.popleft()
            while flying:
                outcomes += await flying.popleft()
        finally:
            for task in flying:
                task.cancel()
        return cast("list[Receipt | LeadlineError]", outcomes)

    async def call(self, operation: Operation[R]) -> R:
        """Ask or instruct the daemon."""
        return cast("R", await self._one(operation))

    async def get(self, job: JobId) -> JobView:
        """The job as it is now."""
        return (await self.call(Get(job=job))).view

    async def follow(self, job: JobId | None = None, *, since: JobId | None = None) -> None:
        """Have `ended` notices sent; see `messages.Follow`. Ends with the connection."""
        await self.call(Follow(job=job, since=since))

    async def wait(self, job: JobId) -> Ended:
        """Wait, as long as it takes and over restarts of the daemon, until the job has ended."""
        while True:
            future = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(job, []).append(future)
            try:
                await self.follow(job)
                ended: Ended | None = await future
            finally:
                self._stop_waiting(job, future)
            if ended is not None:
                return ended

    async def notices(self) -> AsyncIterator[Notice]:
        """The notices as they come, but for those that `wait` waits for; to be iterated by one task at a time.

        Raises Unreachable when the connection broke: the daemon has forgotten what was followed, follow it again.
        """
        while True:
            if self._missed:
                count, self._missed = self._missed, 0
                yield Missed(count=count)
            elif self._notices:
                yield self._notices.popleft()
            elif self._broken:
                self._broken = False
                raise Unreachable(f"The connection to {self._path} broke; notices may have been missed")
            else:
                self._arrived.clear()
                await self._arrived.wait()

    async def _one(self, request: AnyRequest) -> Reply:
        (outcome,) = await self._exchange([request])
        if isinstance(outcome, LeadlineError):
            raise outcome
        return outcome

    async def _exchange(self, requests: list[AnyRequest]) -> list[Reply | LeadlineError]:
        exchange = Exchange(requests)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while not exchange.settled:
                    if exchange.retry_after:
                        await asyncio.sleep(exchange.retry_after)
                    wire = await self._connected()
                    await wire.carry(exchange)
        except TimeoutError:
            exchange.expire(f"{self._path} gave no answer in {self._timeout_seconds:g} s")
        except Unreachable as closed:
            exchange.expire(str(closed))
        return cast("list[Reply | LeadlineError]", exchange.outcomes)

    async def _connected(self) -> "_Wire":
        """The present connection, or a new one as soon as somebody listens; raises Unreachable once closed."""
        async with self._connecting:
            pause_seconds = RETRY_SECONDS_MIN
            while self._wire is None or self._wire.closed.is_set():
                if self._closed:
                    raise Unreachable(f"The client of {self._path} was closed")
                try:
                    self._wire = await self._open()
                except Unreachable:
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)
            return self._wire

    async def _open(self) -> "_Wire":
        try:
            _, wire = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Wire(self._take, self._break), self._path
            )
        except OSError as error:
            raise Unreachable(f"No daemon answers at {self._path}: {error.strerror or error}") from error
        return wire

    def _take(self, notice: Notice) -> None:
        if isinstance(notice, Ended) and (waiting := self._waiting.get(notice.job)):
            for future in waiting:
                if not future.done():
                    future.set_result(notice)
            return
        if len(self._notices) == NOTICES_MAX:
            self._notices.popleft()
            self._missed += 1
        self._notices.append(notice)
        self._arrived.set()

    def _break(self) -> None:
        self._broken = True
        self._arrived.set()
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _stop_waiting(self, job: JobId, future: "asyncio.Future[Ended | None]") -> None:
        waiting = self._waiting[job]
        waiting.remove(future)
        if not waiting:
            del self._waiting[job]


class _Round:
    """One exchange's share of one connection."""

    __slots__ = ("ended", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Final = exchange
        self.ended: Final = asyncio.get_running_loop().create_future()


class _Wire(asyncio.Protocol):
    """One connection while it lasts."""

    transport: asyncio.Transport

    def __init__(self, take: Callable[[Notice], None], lost: Callable[[], None]) -> None:
        self._take: Final = take
        self._lost: Final = lost
        self._connection: Final = ClientConnection()
        self._rounds: Final[deque[_Round]] = deque()
        self._error: LeadlineError | None = None
        self.closed: Final = asyncio.Event()

    async def carry(self, exchange: Exchange) -> None:
        """Send what is open of `exchange`; return when it is answered or the connection is gone."""
        data = self._connection.send(exchange.begin())
        carried = _Round(exchange)
        self._rounds.append(carried)
        self.transport.write(data)
        await carried.ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._connection.receive(data):
                if isinstance(message, Reply | Refusal):
                    self._answer(message)
                else:
                    self._take(message)
        except (ProtocolViolation, Refused) as error:
            self._error = error
            self.transport.abort()

    def _answer(self, reply: Reply | Refusal) -> None:
        carried = self._rounds[0]
        carried.exchange.answer(reply)
        if carried.exchange.answered:
            self._rounds.popleft()
            if not carried.ended.done():
                carried.ended.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed.set()
        for carried in self._rounds:
            carried.exchange.lose(self._error)
            if not carried.ended.done():
                carried.ended.set_result(None)
        self._rounds.clear()
        self._lost()
