"""Server-sent events: what happens to jobs, for as long as somebody looks on.

    GET /v1/stream                    everything
    GET /v1/stream?teamspace=acme     the jobs of one teamspace
    GET /v1/stream?job=41             one job: first how it is, then how it gets on, to its end

Written by hand rather than by a library for it: the framing is four lines, and what matters here (a peer that reads
slowly, a token that is revoked meanwhile, a browser that comes back) is not in one.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from leadline.actors.feed import Feed, Reader, ended_number
from leadline.adapters.http.headers import API as HEADERS
from leadline_protocol import messages as wire
from leadline_protocol.codec import encode
from leadline_protocol.ids import JobId

HEARTBEAT_SECONDS: Final = 15.0
"""Between two lines at most: what stands between, proxies above all, must not take the stream for dead."""

WRITE_SECONDS_MAX: Final = 30.0
"""Who has not taken what was written by then is hung up on."""

GATHER_SECONDS: Final = 0.1
"""After each write what happens is gathered for so long: where much happens, each page costs ten writes a second, and
not one for each event. The first event after a silence goes at once."""

RETRY_MILLISECONDS: Final = 2_000
"""A browser that was cut off comes back after so long."""

_STREAM: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class Streams:
    """All who look on."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._readers: dict[object, Reader] = {}
        """By the connection that each reads on."""

    def close(self) -> None:
        """End all streams."""
        for reader in tuple(self._readers.values()):
            reader.close()
        self._feed.end()

    def connection_lost(self, connection: object) -> None:
        """Who read on a connection is gone: nothing would be written to it for as long as nothing happens."""
        if connection in self._readers:
            self._readers[connection].close()

    async def serve(
        self,
        request: web.BaseRequest,
        teamspace: str | None,
        job: JobId | None,
        may_go_on: Callable[[], bool],
        seen: str | None = None,
    ) -> web.StreamResponse:
        """Tell what happens until one of both sides ends. Raises Refused before anything was written.

        `seen`: the number of the last event that whoever looks on has seen the outcome of, until it says one itself.
        """
        after = request.headers.get("Last-Event-ID", seen)
        if job is not None and after == ended_number(job):
            return web.Response(status=204, headers=HEADERS)  # by which a browser knows that it need not come again
        subscriber = None
        if job is None:
            reader = await self._feed.open(teamspace, after)
        else:
            reader = Reader(teamspace)
            subscriber = await self._feed.of_job(job, reader)
        self._readers[request.protocol] = reader
        try:
            response = web.StreamResponse(headers={**HEADERS, **_STREAM})
            await response.prepare(request)
            await self._tell(response, reader, may_go_on)
        finally:
            del self._readers[request.protocol]
            if subscriber is not None:
                subscriber.close()
            else:
                self._feed.close(reader)
        return response

    async def _tell(self, response: web.StreamResponse, reader: Reader, may_go_on: Callable[[], bool]) -> None:
        await _write(response, b"retry: %d\n\n" % RETRY_MILLISECONDS)
        while may_go_on():
            news = reader.take()
            if news:
                await _write(response, b"".join(event(number, notice) for number, notice in news))
                await asyncio.sleep(GATHER_SECONDS)
            elif reader.closed:
                return
            else:
                await reader.wait(HEARTBEAT_SECONDS)
                if not reader.has_news:
                    await _write(response, b":\n\n")


def event(number: str, notice: wire.Notice) -> bytes:
    """One event: its type and data are the notice of the sockets, its id is where to go on from."""
    id_line = f"id: {number}\n" if number else ""
    word = notice.__struct_config__.tag
    return f"{id_line}event: {word}\n".encode() + b"data: " + encode([notice]) + b"\n"


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises TimeoutError where the peer does not read, ConnectionError where it has gone."""
    async with asyncio.timeout(WRITE_SECONDS_MAX):
        await response.write(data)
