"""Requests to providers over HTTP: each sent exactly once, on a connection that nothing else decides about.

aiohttp keeps the connections, reads the answers and unpacks them. The requests are written here, and its client session
is left out: what that does on its own account (redirects, which may lead inside, retries, cookies, environment proxies)
is nothing that a request to a provider may have, and costs as much as all the rest. Three moments matter to the caller
and are told apart here: before the first byte (`Unsent`: nothing can have happened), between the first byte and the
response's headers (`Ambiguous`), and after the headers (`BrokenResponse`).

The last look before the first byte has to be where the bytes really go to the kernel, after connecting, which takes
its time. So head and body are one piece, which is written right behind the look. uvloop gathers what is written until
the end of the turn: a process that is stopped in between sends when it wakes, long after it has looked. So connections
are told to gather nothing; only TLS, which uvloop writes through a transport of its own, still waits for the end of the
turn. The socket gets TCP_USER_TIMEOUT, so that what is not acknowledged within the request's flight time is given up by
the kernel and cannot reach the provider later.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import ClientRequest, TCPConnector
from aiohttp.connector import Connection
from aiohttp.http import SERVER_SOFTWARE, HttpProcessingError
from yarl import URL

from leadline.core.permits import PERMIT_SECONDS
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest body that is read, after decompression."""

CONNECTIONS_PER_HOST_MAX: Final = 100

CONNECT_SECONDS: Final = PERMIT_SECONDS - 1.0
"""How long a connection may take to come about. Leave to send does not last longer, so a provider that is this slow
could be asked for ever and never sent to; as `Unsent` it is a failure that is counted."""

ORIGINS_MAX: Final = 1_000
"""Whose addresses are kept taken apart."""

HEADERS: Final = {"accept-encoding": "gzip, deflate", "user-agent": SERVER_SOFTWARE}
"""Of every request that has none of its own."""

_PLAIN_URL: Final = re.compile(
    r"(https?://[A-Za-z0-9.:\[\]-]+)(/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]++|%[0-9A-Fa-f]{2})*+)"
)
_BREAK: Final = re.compile(r"[\r\n\0]")


class _Flight:
    """How far a request has got."""

    def __init__(self, may_send: Callable[[], bool], seconds: float) -> None:
        self._may_send = may_send
        self._milliseconds: Final = int(seconds * 1000)
        self.sent = False
        self.answered = False

    def send(self, connection: Connection, data: bytes) -> None:
        """Take the last look, and hand the request to the kernel. Raises Withdrawn."""
        transport = connection.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._milliseconds)
        transport.set_write_buffer_limits(high=0)
        if not self._may_send():
            raise Withdrawn("leave to send was withdrawn")
        self.sent = True
        transport.write(data)


class ProviderHttp:
    """A client for all provider accounts (`ports.provider_client.ProviderClient`)."""

    def __init__(self, connector: TCPConnector) -> None:
        self._connector = connector
        self._patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._origins: dict[str, ClientRequest] = {}

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
        try:
            async with asyncio.timeout(request.timeout_seconds):
                origin, target = self._taken_apart(request.url)
                data = _written(request, origin, target)
                connection = await self._connected(origin)
                try:
                    response = await _exchange(connection, flight, data, began, has_body=request.method != "HEAD")
                except BaseException:  # also where it was cancelled: half an answer may be on its way
                    connection.close()
                    raise
                connection.release()
                return response
        except (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError, ValueError) as error:
            story = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if flight.answered:
                raise BrokenResponse(story) from error
            if flight.sent:
                raise Ambiguous(story) from error
            raise Unsent(story) from error

    async def _connected(self, origin: ClientRequest) -> Connection:
        """A connection on which nothing is to come: what came unasked would be taken for the next answer."""
        while True:
            connection = await self._connector.connect(origin, [], self._patience)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()

    def _taken_apart(self, text: str) -> tuple[ClientRequest, str]:
        """Where a URL leads, in the form in which aiohttp connects to it, and what is asked for there."""
        if (plain := _PLAIN_URL.fullmatch(text)) is not None and "/." not in text:
            place, target = plain.groups()
        else:
            url = URL(text)
            place, target = str(url.origin()), url.raw_path_qs
        origin = self._origins.get(place)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[place] = ClientRequest("GET", URL(place), loop=asyncio.get_running_loop())
        return origin, target


def _written(request: Request, origin: ClientRequest, target: str) -> bytes:
    """A request as it goes over the line. Raises ValueError where something would begin a line of its own."""
    own = {name.lower() for name in request.headers}
    lines = [f"{request.method} {target} HTTP/1.1"]
    if "host" not in own:
        lines.append(f"Host: {origin.headers['Host']}")
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"{name}: {value}" for name, value in HEADERS.items() if name not in own]
    if request.body or request.method in ClientRequest.POST_METHODS:
        lines.append(f"Content-Length: {len(request.body)}")
    if _BREAK.search("".join(lines)):
        raise ValueError("a header with an end of line in it")
    return "\r\n".join([*lines, "", ""]).encode() + request.body


async def _exchange(
    connection: Connection, flight: _Flight, data: bytes, began: Callable[[], None], *, has_body: bool
) -> Response:
    """Send the request on a connection that is free for it, and read the response to its end."""
    protocol = connection.protocol
    assert protocol is not None, "it has just been connected"
    protocol.set_response_params(read_until_eof=True, skip_payload=not has_body)
    flight.send(connection, data)
    message, content = await protocol.read()
    while message.code // 100 == 1 and message.code != HTTPStatus.SWITCHING_PROTOCOLS:  # news, and the answer follows
        message, content = await protocol.read()
    flight.answered = True
    began()
    body = await _body(content)
    return Response(message.code, {name.lower(): value for name, value in message.headers.items()}, body)


async def _body(content: aiohttp.StreamReader) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await content.readany():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise BrokenResponse(f"the body is larger than {BODY_BYTES_MAX} bytes")
        pieces.append(piece)
    return b"".join(pieces)


@asynccontextmanager
async def provider_http() -> AsyncIterator[ProviderHttp]:
    """A client for as long as the context is open."""
    connector = TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_HOST_MAX, keepalive_timeout=30)
    async with connector:
        yield ProviderHttp(connector)
