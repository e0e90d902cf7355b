"""Stands between a client and its Postgres: counts the round trips, cuts or holds a COMMIT, spoils the network.

It reads no more of the protocol than it must: the frontend's messages one by one (a type, a length, a body; the first
of a connection has no type), to see a COMMIT pass and to count what waits for an answer. What the server says is passed
on as it comes, or as badly as the network is said to be: not at all in a direction that does not flow, a few bytes at a
time where it drips.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from msgspec import Struct

SOCKET_NAME = ".s.PGSQL.5432"
PIECE_BYTES = 65536


class Cut(Enum):
    """Where a connection is cut that sends COMMIT."""

    REQUEST = "the server never sees the COMMIT"
    REPLY = "the server has carried it out, the client never hears of it"


class Drip(Struct, frozen=True):
    """So many bytes at a time, with a pause before each."""

    size: int
    seconds: float


class Proxy:
    """A proxy on a Unix socket of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        parts = urlsplit(url)
        self._target = str(Path(parse_qs(parts.query)["host"][0]) / SOCKET_NAME)
        self._socket = folder / SOCKET_NAME
        self.url = parts._replace(query=f"host={quote(str(folder), safe='')}").geturl()
        """Where clients connect to come through here."""
        self.cut: Cut | None = None
        """What to do with the next COMMIT."""
        self.has_cut = asyncio.Event()
        """Set when that COMMIT has come, and for REPLY when the server has answered it."""
        self.may_tell = asyncio.Event()
        """Until it is set, as it is at first, the client does not find out that its connection is cut."""
        self.may_tell.set()
        self.held = False
        """Whether a COMMIT lies here that `let_go` will pass on."""
        self._holds_next = False
        self._may_pass = asyncio.Event()
        self.refuses = False
        """True: nobody gets through any more."""
        self.to_server = asyncio.Event()
        self.to_client = asyncio.Event()
        """While one is not set nothing passes in that direction, and no end is told: a half-open connection."""
        self.to_server.set()
        self.to_client.set()
        self.drip: Drip | None = None
        """How slowly what the server says is passed on; None: as it comes."""
        self.round_trips = 0
        """Requests that waited for an answer."""
        self._ends_at: int | None = None
        self._last_passes = False
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_unix_server(self._serve, str(self._socket))
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            await asyncio.sleep(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 5)

    def hold_next_commit(self) -> None:
        """Keep the next COMMIT, as a slow network does, until `let_go`."""
        self._holds_next = True

    def let_go(self) -> None:
        """Pass on what is held, to whatever has become of its connection meanwhile."""
        self._holds_next = self.held = False
        self._may_pass.set()
        self._may_pass = asyncio.Event()

    def end_at(self, request: int | None, *, passes: bool = False) -> None:
        """Let the so manyth request from now on be the last: then all is cut, and nobody gets through until `refuses`
        is false again. `passes`: the server still carries that one out, though nobody hears of it. None: none is last.
        """
        self._ends_at = None if request is None else self.round_trips + request
        self._last_passes = passes

    def cut_all(self) -> None:
        """Cut every connection there is."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.refuses:
            to_client.transport.abort()
            return
        try:
            server, to_server = await asyncio.open_unix_connection(self._target)
        except OSError:  # no server at present
            to_client.transport.abort()
            return
        ends = {to_client, to_server}
        self._writers |= ends
        back = asyncio.create_task(self._pass_on(server, to_client))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._forward(client, server, to_server, back)
        back.cancel()
        for writer in ends:
            writer.transport.abort()
        self._writers -= ends

    async def _forward(
        self,
        client: asyncio.StreamReader,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        back: "asyncio.Task[None]",
    ) -> None:
        length = await client.readexactly(4)
        await self.to_server.wait()
        to_server.write(length + await client.readexactly(int.from_bytes(length) - 4))
        while True:
            head = await client.readexactly(5)
            body = await client.readexactly(int.from_bytes(head[1:]) - 4)
            self.round_trips += head[:1] in {b"Q", b"S"}
            await self.to_server.wait()
            if self._ends_at == self.round_trips:
                self._ends_at = None
                self.refuses = True
                if self._last_passes:
                    back.cancel()
                    with suppress(asyncio.CancelledError):
                        await back
                    to_server.write(head + body)
                    await server.readexactly(1)  # the server answers when it has carried it out
                self.cut_all()
                return
            commits = head[:1] == b"Q" and body == b"COMMIT\0"
            if commits and self._holds_next:
                self._holds_next, self.held = False, True
                await self._may_pass.wait()
            cut = self.cut if commits else None
            if cut is not None:
                self.cut = None
                back.cancel()
                with suppress(asyncio.CancelledError):
                    await back
                if cut is Cut.REPLY:
                    to_server.write(head + body)
                    await server.readexactly(1)  # the server answers when it has committed
                self.has_cut.set()
                await self.may_tell.wait()
                return
            to_server.write(head + body)

    async def _pass_on(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            while block := await server.read(self.drip.size if self.drip else PIECE_BYTES):
                if self.drip:
                    await asyncio.sleep(self.drip.seconds)
                await self.to_client.wait()
                to_client.write(block)
        except ConnectionError:
            to_client.transport.abort()
        to_client.close()
