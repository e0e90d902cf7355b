"""The client without asyncio: the same conversation over a plain socket, for scripts and for services with threads.

    with BlockingClient.connect("/run/leadline/submit.sock") as client:
        receipt = client.submit(Noop(teamspace="acme", idempotency_key="order-17"))
        ended = client.wait(receipt.job)

What a lost reply means, and what is then sent again, is `codec.Exchange`, as in the asyncio client. The complication
here is that whoever only writes while the daemon only writes waits for ever: so each call writes and reads as the
socket allows. There is no thread inside; a client belongs to one thread at a time.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
from leadline_protocol.messages import Ended, Follow, Get, JobView, Notice, Operation, Preview, Receipt, Refusal, Reply

PIECE_LINES: Final = 10_000
"""How many of `submit_many` are under way at a time."""

READ_BYTES: Final = 256 * 1024

R = TypeVar("R", bound=Reply)


class BlockingClient:
    """One connection to a daemon's submit or control socket, made again when it breaks.

    Every method raises Refused where the daemon says no, Unreachable where it does not answer in `timeout_seconds`,
    OutcomeUnknown where a request without an idempotency key may or may not have been carried out, and
    ProtocolViolation where something else than a daemon answers.
    """

    def __init__(self, path: str | PathLike[str], *, timeout_seconds: float = 30.0) -> None:
        self._path: Final = fspath(path)
        self._timeout_seconds: Final = timeout_seconds
        self._wire: _Wire | None = None
        self._notices: Final[deque[Notice]] = deque()

    @classmethod
    @contextmanager
    def connect(cls, path: str | PathLike[str], *, timeout_seconds: float = 30.0) -> Iterator[Self]:
        """A client connected to the socket at `path`; raises Unreachable at once where nobody listens there."""
        client = cls(path, timeout_seconds=timeout_seconds)
        client._wire = _Wire(client._path)
        try:
            yield client
        finally:
            client.close()

    def close(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def submit(self, submission: AnyRequest) -> Receipt:
        """Submit one job; a mapping is sent as it is and judged by the daemon."""
        return cast("Receipt", self._one(submission))

    def preview(self, submission: AnySubmission, *, leads: int | None = None) -> Preview:
        """What a submission would take now; nothing of it is stored. A formula is shown on so many `leads`, or ten."""
        return cast("Preview", self._one(as_dry_run(submission, leads)))

    def submit_many(self, submissions: Iterable[AnyRequest]) -> list[Receipt | LeadlineError]:
        """Submit any number of jobs, pipelined; the outcomes in the same order, refusals and doubts among them."""
        remaining = iter(submissions)
        outcomes: list[Reply | LeadlineError] = []
        while piece := list(islice(remaining, PIECE_LINES)):
            outcomes += self._exchange(piece)
        return cast("list[Receipt | LeadlineError]", outcomes)

    def call(self, operation: Operation[R]) -> R:
        """Ask or instruct the daemon."""
        return cast("R", self._one(operation))

    def get(self, job: JobId) -> JobView:
        """The job as it is now."""
        return self.call(Get(job=job)).view

    def follow(self, job: JobId | None = None, *, since: JobId | None = None) -> None:
        """Have `ended` notices sent; see `messages.Follow`. Ends with the connection."""
        self.call(Follow(job=job, since=since))

    def wait(self, job: JobId) -> Ended:
        """Wait, as long as it takes and over restarts of the daemon, until the job has ended."""
        while True:
            self.follow(job)
            with suppress(Unreachable):
                return self._ended(job)

    def notices(self, *, timeout_seconds: float | None = None) -> Iterator[Notice]:
        """The notices as they come; ends when none came for `timeout_seconds`, or never.

        Raises Unreachable when the connection broke: the daemon has forgotten what was followed, follow it again.
        """
        while True:
            while self._notices:
                yield self._notices.popleft()
            if not self._listen(timeout_seconds):
                return

    def _ended(self, job: JobId) -> Ended:
        """The `ended` notice of `job`; others stay for `notices`."""
        seen: list[Notice] = []
        try:
            while True:
                self._listen(None)
                notice = self._notices.popleft()
                if isinstance(notice, Ended) and notice.job == job:
                    return notice
                seen.append(notice)
        finally:
            self._notices.extendleft(reversed(seen))

    def _listen(self, timeout_seconds: float | None) -> bool:
        """Read until there is a notice; False when time is up first."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self._notices:
            if self._wire is None:
                raise Unreachable(f"Not connected to {self._path}")
            try:
                self._notices.extend(cast("list[Notice]", self._wire.read(deadline)))
            except TimeoutError:
                return False
            except (OSError, ProtocolViolation, Refused) as error:
                self.close()
                raise Unreachable(f"The connection to {self._path} broke; notices may have been missed") from error
        return True

    def _one(self, request: AnyRequest) -> Reply:
        (outcome,) = self._exchange([request])
        if isinstance(outcome, LeadlineError):
            raise outcome
        return outcome

    def _exchange(self, requests: list[AnyRequest]) -> list[Reply | LeadlineError]:
        exchange = Exchange(requests)
        deadline = time.monotonic() + self._timeout_seconds
        try:
            while not exchange.settled:
                _pause(exchange.retry_after, deadline)
                self._carry(exchange, self._connected(deadline), deadline)
        except TimeoutError:
            # A reply that comes now would be taken for the next request's.
            self.close()
            exchange.expire(f"{self._path} gave no answer in {self._timeout_seconds:g} s")
        return cast("list[Reply | LeadlineError]", exchange.outcomes)

    def _carry(self, exchange: Exchange, wire: "_Wire", deadline: float) -> None:
        """Send what is open of `exchange`; return when it is answered or the connection is gone."""
        wire.write(exchange.begin())
        try:
            while not exchange.answered:
                for message in wire.read(deadline):
                    if isinstance(message, Reply | Refusal):
                        exchange.answer(message)
                    else:
                        self._notices.append(message)
        except TimeoutError:
            raise
        except OSError:
            self.close()
            exchange.lose()
        except (ProtocolViolation, Refused) as error:
            self.close()
            exchange.lose(error)

    def _connected(self, deadline: float) -> "_Wire":
        """The present connection, or a new one as soon as somebody listens."""
        pause_seconds = RETRY_SECONDS_MIN
        while self._wire is None:
            try:
                self._wire = _Wire(self._path)
            except Unreachable:
                _pause(pause_seconds, deadline)
                pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)
        return self._wire


class _Wire:
    """One connection while it lasts."""

    __slots__ = ("_connection", "_poll", "_socket", "_unsent")

    def __init__(self, path: str) -> None:
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection: Final = ClientConnection()
        self._poll: Final = select.poll()
        self._unsent = memoryview(b"")
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"No daemon answers at {path}: {error.strerror or error}") from error
        self._socket.setblocking(False)
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def write(self, requests: list[AnyRequest]) -> None:
        """Have `requests` written as `read` goes along."""
        self._unsent = memoryview(self._connection.send(requests))

    def read(self, deadline: float | None) -> list[Reply | Refusal | Notice]:
        """Write and read what the socket allows now, waiting for that until `deadline`.

        Raises TimeoutError when it is past, ConnectionError when the connection has ended.
        """
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        ready = self._poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        ((_, events),) = ready
        if events & select.POLLOUT:
            self._write_some()
        if not events & ~select.POLLOUT:
            return []
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError
        return self._connection.receive(data)

    def _write_some(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            # Why the daemon closed may still be there to be read.
            self._unsent = memoryview(b"")


def _pause(seconds: float, deadline: float) -> None:
    """Sleep, or raise TimeoutError where that would go past `deadline`."""
    if time.monotonic() + seconds >= deadline:
        raise TimeoutError
    if seconds:
        time.sleep(seconds)
