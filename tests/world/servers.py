"""Real HTTP round a behaviour: aiohttp receives, the behaviour plans, this file carries the plan out and keeps the log.

The shell decides nothing. It reads both clocks once the whole request is there (that moment is the arrival: a
provider cannot count what it has not read), asks for the plan and follows it: wait, headers, body in the pieces
planned, or silence until the client gives up, or a torn connection. A client that leaves ends its handler at once,
and the log says so.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import assert_never

from aiohttp import web

from tests.world.behaviours import Behaviour, Plan, Request
from tests.world.log import Call, Log, read_clocks

LOOPBACK = "127.0.0.1"


class Served:
    """A running server: where it listens, and what reached it so far."""

    def __init__(self, url: str, log: Log) -> None:
        self.url, self.log = url, log

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order of arrival."""
        return self.log.calls

    async def until(self, true_of: Callable[[list[Call]], bool]) -> None:
        """Wait until `true_of(calls)`; it is asked again whenever a call arrived or ended."""
        await self.log.until(true_of)


@asynccontextmanager
async def serving(
    behaviour: Behaviour, *, name: str = "provider", log_path: Path | None = None, host: str = LOOPBACK, port: int = 0
) -> AsyncIterator[Served]:
    """Serve `behaviour` on an address of this machine (a free port by default) for the time of the block; the log is
    complete after it.
    """
    with closing(Log(name, log_path)) as log:
        server = web.Server(_Shell(behaviour, log).handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
            yield Served(f"http://{host}:{runner.addresses[0][1]}", log)
        finally:
            await runner.cleanup()


class _Shell:
    """One behaviour behind one handler."""

    def __init__(self, behaviour: Behaviour, log: Log) -> None:
        self._behaviour, self._log = behaviour, log

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Receive, plan, log, answer."""
        request = Request(
            method=http.method,
            path=http.path,
            query=dict(http.query),
            headers={name.lower(): value for name, value in http.headers.items()},
            body=await http.read(),
        )
        now = read_clocks()
        plan = self._behaviour.respond(request, now)
        call = self._log.begin(request, now, plan)
        try:
            response = await _answer(http, plan, call)
        except (asyncio.CancelledError, ConnectionError):
            self._log.end(call, "client_left", read_clocks().instant)
            raise
        cut = plan.stop in ("cut_before_headers", "cut_in_body")
        self._log.end(call, "cut" if cut else "answered", read_clocks().instant)
        return response


async def _answer(http: web.BaseRequest, plan: Plan, call: Call) -> web.StreamResponse:
    """Carry out a plan, noting the moments at which headers and body had been written."""
    if plan.delay_us:
        await asyncio.sleep(plan.delay_us / 1_000_000)
    response = web.StreamResponse(status=plan.status, headers=plan.headers)
    response.content_length = len(plan.body) * plan.repeat
    match plan.stop:
        case "hang_before_headers":
            await _until_the_client_leaves()
        case "cut_before_headers":
            _tear_down(http)
        case "hang_after_headers":
            await response.prepare(http)
            call.headers_sent_us = read_clocks().instant
            await _until_the_client_leaves()
        case "cut_in_body":
            await response.prepare(http)
            call.headers_sent_us = read_clocks().instant
            await response.write(plan.body[: len(plan.body) // 2])
            _tear_down(http)
        case None:
            await response.prepare(http)
            call.headers_sent_us = read_clocks().instant
            for piece in itertools.repeat(plan.body, plan.repeat):
                await _write(response, piece, plan)
            await response.write_eof()
            call.body_sent_us = read_clocks().instant
        case never:
            assert_never(never)
    return response


async def _write(response: web.StreamResponse, piece: bytes, plan: Plan) -> None:
    if plan.drip is None:
        await response.write(piece)
        return
    for begin in range(0, len(piece), plan.drip.size):
        await asyncio.sleep(plan.drip.gap_us / 1_000_000)
        await response.write(piece[begin : begin + plan.drip.size])


async def _until_the_client_leaves() -> None:
    await asyncio.Event().wait()


def _tear_down(http: web.BaseRequest) -> None:
    if http.transport is not None:
        http.transport.abort()
