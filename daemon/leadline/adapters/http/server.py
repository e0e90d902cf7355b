"""Listens for HTTP: on a Unix socket always, on TCP where the configuration says so.

Bounds on what strangers may hold are set here and in `face`: the number of connections, the size of a request's head,
the time that a head, a body or a reader may take. A connection that sends half a head, or nothing, is closed when the
time of an idle one is over.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.face import HttpFace

HEAD_BYTES_MAX: Final = 8 * 1024
"""Of the request's line, and of each header."""
HEADERS_MAX: Final = 64
IDLE_SECONDS_MAX: Final = 30.0
"""How long a connection is kept for another request, and how long a head may take."""
LINGER_SECONDS: Final = 2.0
"""For the rest of a body that nobody reads."""
SHUTDOWN_SECONDS: Final = 2.0
CONNECTIONS_MAX: Final = 2_000
"""Fewer where the process may have few open files: an eighth, so that the database and the sockets have theirs."""

_silent: Final = logging.getLogger("leadline.http")
"""What aiohttp says of peers goes nowhere: it would be theirs to flood the log with."""
_silent.setLevel(logging.CRITICAL + 1)


def connections_max() -> int:
    """How many connections there may be, with as many open files as this process may have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(CONNECTIONS_MAX, files // 8)


class HttpServer(web.Server):
    """Hangs up where there are too many."""

    def __init__(self, face: HttpFace) -> None:
        super().__init__(
            face.answer,
            access_log=None,
            logger=_silent,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADERS_MAX,
            keepalive_timeout=IDLE_SECONDS_MAX,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
        self.face: Final = face

    def __len__(self) -> int:
        """How many are connected."""
        return len(self.connections)

    def __bool__(self) -> bool:
        """It is there, also while nobody is connected."""
        return True

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection in, or cut it."""
        super().connection_made(handler, transport)
        if len(self) > connections_max():
            self.face.mishaps.count("refused_connections")
            # Not at once: aiohttp has yet to begin with it, and complains at length where it is gone by then.
            asyncio.get_running_loop().call_soon(transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count a connection out, and let go what waits for it."""
        super().connection_lost(handler, exc)
        self.face.connection_lost(handler)


class Listening(Struct, frozen=True):
    """A server at its addresses."""

    server: HttpServer
    runner: web.ServerRunner

    @property
    def addresses(self) -> list[str]:
        """Where it listens: the path of a Unix socket, and host:port."""
        return [each if isinstance(each, str) else _host_port(*each[:2]) for each in self.runner.addresses]

    @property
    def url(self) -> str | None:
        """What it is reached by on TCP; None where it does not listen there, or on all addresses, which are no one."""
        named = [each for each in self.runner.addresses if not isinstance(each, str)]
        if not named or ip_address(named[0][0]).is_unspecified:
            return None
        return f"http://{_host_port(*named[0][:2])}"

    async def let_nobody_in(self) -> None:
        """Take no more connections; those that there are stay."""
        for site in tuple(self.runner.sites):
            await site.stop()


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def http_server(
    face: HttpFace, sock: socket.socket | None, listen: tuple[str, int] | None
) -> AsyncIterator[Listening]:
    """Listen on a bound Unix socket, and on a TCP address, where there are these, for as long as the context is open.

    Raises OSError where the address is taken.
    """
    server = HttpServer(face)
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        if sock is not None:
            await web.SockSite(runner, sock).start()
        if listen is not None:
            host, port = listen
            await web.TCPSite(runner, host, port).start()
        yield Listening(server, runner)
    finally:
        face.close()
        await runner.cleanup()
