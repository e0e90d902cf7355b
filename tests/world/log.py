"""What a server of the outside world writes down: one record per call, in memory at once, in a file when it is over.

The log is the oracle, so it must not depend on anything it judges. A record enters the memory when the call arrives
(a test may look at calls still open) and the file, one JSON object a line, when the call has ended, however it ended;
calls still open when the server stops are written then. Instants are microseconds of CLOCK_MONOTONIC, one clock for
all processes of the machine; `wall` is microseconds since 1970 for people.
"""

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from tests.world.behaviours import Now, Plan, Request

End = Literal["open", "answered", "client_left", "cut"]
"""How a call ended: `client_left` means that the client hung up before the whole answer was written."""


class Call(msgspec.Struct):
    """One request and what became of it. Times are None where that moment never came."""

    n: int
    server: str
    arrived_us: int
    arrived_wall_us: int
    method: str
    path: str
    teamspace: str | None
    lead: str | None
    body_sha256: str
    status: int | None
    outcome: str
    notes: dict[str, str | int] = {}
    headers_sent_us: int | None = None
    body_sent_us: int | None = None
    ended_us: int | None = None
    ended: End = "open"


def read_clocks() -> Now:
    """Both clocks of this machine, now."""
    return Now(instant=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000, wall=time.time_ns() // 1_000)


class Log:
    """The calls of one server, in order of arrival; numbered from 1."""

    def __init__(self, server: str, path: Path | None = None) -> None:
        self.server = server
        self.calls: list[Call] = []
        self._file = path.open("ab", buffering=0) if path else None
        self._open: dict[int, Call] = {}
        self._changed = asyncio.Event()

    def begin(self, request: Request, now: Now, plan: Plan) -> Call:
        """Note that a request arrived at `now` and that `plan` is what it will get."""
        hung = plan.stop in ("hang_before_headers", "cut_before_headers")
        call = Call(
            n=len(self.calls) + 1,
            server=self.server,
            arrived_us=now.instant,
            arrived_wall_us=now.wall,
            method=request.method,
            path=request.path,
            teamspace=request.teamspace,
            lead=plan.lead or request.lead,
            body_sha256=sha256(request.body).hexdigest(),
            status=None if hung else plan.status,
            outcome=plan.outcome,
            notes=dict(plan.notes),
        )
        self.calls.append(call)
        self._open[call.n] = call
        self._signal()
        return call

    def end(self, call: Call, ended: End, instant: int) -> None:
        """Note how and when (microseconds) a call ended, and write it."""
        call.ended, call.ended_us = ended, instant
        del self._open[call.n]
        self._write(call)
        self._signal()

    async def until(self, true_of: Callable[[list[Call]], bool]) -> None:
        """Wait until `true_of(calls)`; it is asked again whenever a call arrived or ended."""
        while not true_of(self.calls):
            await self._changed.wait()

    def close(self) -> None:
        """Write the calls still open, as such, and close the file."""
        for call in self._open.values():
            self._write(call)
        self._open.clear()
        if self._file:
            self._file.close()
            self._file = None

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _write(self, call: Call) -> None:
        if self._file:
            self._file.write(msgspec.json.encode(call) + b"\n")


def read_log(path: Path) -> list[Call]:
    """The calls of a log file in order of arrival."""
    calls = [msgspec.json.decode(line, type=Call) for line in path.read_bytes().splitlines()]
    return sorted(calls, key=lambda call: call.n)
