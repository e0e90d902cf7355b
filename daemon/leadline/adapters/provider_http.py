"""Requests to providers over HTTP: each sent exactly once, on a connection that nothing else decides about.

aiohttp does the HTTP. What it does on its own account is switched off: no redirects (they may lead inside), no
retries, no cookies, no environment proxies. Three moments matter to the caller and are told apart here: before the
first byte (`Unsent`: nothing can have happened), between the first byte and the response's headers (`Ambiguous`), and
after the headers (`BrokenResponse`).

The last look before the first byte has to be where the bytes really go to the kernel, after connecting, which takes
its time. aiohttp writes a request with a body in a task of its own, and uvloop gathers what is written until the end of
the turn: a process that is stopped in between sends when it wakes, long after it has looked. So the look is in that
task (where there is no body, right before the write), and connections are told to gather nothing; only TLS, which
uvloop writes through a transport of its own, still waits for the end of the turn. The socket gets TCP_USER_TIMEOUT, so
that what is not acknowledged within the request's flight time is given up by the kernel and cannot reach the provider
later.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, TCPConnector
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from leadline.core.permits import PERMIT_SECONDS
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest body that is read, after decompression."""

CONNECTIONS_PER_HOST_MAX: Final = 100

CONNECT_SECONDS: Final = PERMIT_SECONDS - 1.0
"""How long a connection may take to come about. Leave to send does not last longer, so a provider that is this slow
could be asked for ever and never sent to; as `Unsent` it is a failure that is counted."""


class _LeaveWithdrawn(Exception):
    """The last look said no."""


class _Flight:
    """How far a request has got."""

    def __init__(self, may_send: Callable[[], bool], seconds: float) -> None:
        self._may_send = may_send
        self.milliseconds: Final = int(seconds * 1000)
        self.sent = False

    def look(self) -> None:
        """Take the last look; what follows without an await sends. Raises _LeaveWithdrawn."""
        if not self.sent:
            if not self._may_send():
                raise _LeaveWithdrawn
            self.sent = True


_FLIGHT: ContextVar[_Flight] = ContextVar("flight")


class _LookingRequest(ClientRequest):
    """A request that looks once more before its first byte."""

    async def send(self, conn: Connection) -> ClientResponse:
        assert conn.transport is not None, "it has just been connected"
        flight = _FLIGHT.get()
        if flight.sent:  # a GET whose connection was closed upon it is sent again, by aiohttp's own lights
            raise aiohttp.ServerDisconnectedError
        sock = conn.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, flight.milliseconds)
        conn.transport.set_write_buffer_limits(high=0)
        if not self.body:
            flight.look()
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        try:
            _FLIGHT.get().look()
        except _LeaveWithdrawn as withdrawn:
            assert conn.protocol is not None
            conn.protocol.set_exception(withdrawn)  # whoever waits for the answer is told
        else:
            await super().write_bytes(writer, conn, content_length)


class ProviderHttp:
    """A client for all provider accounts (`ports.provider_client.ProviderClient`)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None] = lambda: None,  # noqa: ARG002  a server gives no signs of life
    ) -> Response:
        """Send the request and read the response. Raises Unsent, Ambiguous, BrokenResponse."""
        flight = _Flight(may_send, request.flight_seconds)
        _FLIGHT.set(flight)
        headers_came = False
        try:
            async with (
                asyncio.timeout(request.timeout_seconds),
                self._session.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body or None,
                    allow_redirects=False,
                ) as response,
            ):
                headers_came = True
                began()
                body = await _body(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Response(response.status, headers, body)
        except _LeaveWithdrawn:
            raise Withdrawn("leave to send was withdrawn") from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            story = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if headers_came:
                raise BrokenResponse(story) from error
            if flight.sent:
                raise Ambiguous(story) from error
            raise Unsent(story) from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise BrokenResponse(f"the body is larger than {BODY_BYTES_MAX} bytes")
        pieces.append(piece)
    return b"".join(pieces)


@asynccontextmanager
async def provider_http() -> AsyncIterator[ProviderHttp]:
    """A client for as long as the context is open."""
    connector = TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_HOST_MAX, keepalive_timeout=30)
    async with aiohttp.ClientSession(
        connector=connector,
        request_class=_LookingRequest,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        trust_env=False,
        auto_decompress=True,
    ) as session:
        yield ProviderHttp(session)
