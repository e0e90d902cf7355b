"""What strangers may do to the server itself: half a head, a head without end, more connections than there may be."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from leadline.actors import mishaps
from leadline.adapters.http import server
from leadline.adapters.http.face import HttpFace
from leadline.adapters.http.reach import Reach
from leadline.adapters.http.routes import OPERATIONS
from leadline.adapters.http.server import Listening, http_server
from leadline_protocol import messages as wire
from leadline_protocol.codec import RequestDecoder
from tests.daemon.running import remove, short_folder

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Hall:
    """A server that is starting: nobody is known to it yet."""

    def __init__(self, path: Path, listening: Listening) -> None:
        self.path = path
        self.listening = listening

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def say(self, data: bytes) -> bytes:
        """What is answered before the connection is closed."""
        reader, writer = await self.dial()
        writer.write(data)
        async with asyncio.timeout(10):
            said = await reader.read()
        writer.close()
        return said


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch, idle_seconds: float) -> AsyncIterator[Hall]:
    monkeypatch.setattr(server, "IDLE_SECONDS_MAX", idle_seconds)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 5)
    folder = short_folder()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "s"))
    sock.setblocking(False)
    decoder = RequestDecoder(wire.SUBMISSION_TYPES, OPERATIONS)
    face = HttpFace(Reach(decoder, incoming=folder, exports=folder), version="1")
    async with http_server(face, sock, None) as listening:
        yield Hall(folder / "s", listening)
    remove(folder)


@pytest.fixture
async def hall(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hall]:
    async with opened(monkeypatch, 0.3) as hall:
        yield hall


@pytest.fixture
async def patient_hall(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hall]:
    """One that lets connections stand while a test that has many takes its time."""
    async with opened(monkeypatch, 60) as hall:
        yield hall


async def test_who_sends_no_whole_head_is_hung_up_on_however_slowly_it_comes(hall: Hall) -> None:
    reader, writer = await hall.dial()
    async with asyncio.timeout(10):
        reading = asyncio.ensure_future(reader.read())
        writer.write(HEALTH[:-2] + b"X: ")
        while not reading.done():
            writer.write(b"y")
            await asyncio.wait([reading], timeout=0.01)
        (end,) = await asyncio.gather(reading, return_exceptions=True)
    assert end == b"" or isinstance(end, ConnectionError), "nothing was said"
    writer.close()
    assert await hall.say(b"") == b"", "who sends nothing at all is, too"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
    ],
)
async def test_a_head_beyond_its_bounds_is_refused_and_the_log_is_quiet(
    hall: Hall, head: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), capture_logs() as logs:
        said = await hall.say(head)
    assert said.split(b" ")[1] == status, said
    assert caplog.records == []
    assert logs == []


async def test_more_connections_than_there_may_be_are_cut_and_counted(
    patient_hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    held = [await patient_hall.dial() for _ in range(5)]
    for reader, writer in held:
        writer.write(HEALTH)
        await reader.readuntil(b"alive\n")
    began = time.monotonic()
    with capture_logs() as logs:
        for _ in range(200):
            reader, writer = await patient_hall.dial()
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
        patient_hall.listening.server.face.mishaps.tell()
    assert caplog.records == [], "a line for each would be theirs to flood the log with"
    assert sum(line["refused_connections"] for line in logs) == 200
    lines_max = 1 + (time.monotonic() - began) // mishaps.MISHAPS_SECONDS
    assert len(logs) <= lines_max, f"one line in {mishaps.MISHAPS_SECONDS:g} s"
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(10):
        while len(patient_hall.listening.server):
            await asyncio.sleep(0.01)
    assert b"alive" in await patient_hall.say(LAST_HEALTH)


async def test_while_the_daemon_starts_it_lives_and_is_not_ready(hall: Hall) -> None:
    for path, status in ((b"/healthz", b"200"), (b"/readyz", b"503"), (b"/v1/jobs", b"503"), (b"/metrics", b"503")):
        said = await hall.say(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
        assert said.split(b" ")[1] == status, said
    assert b"urn:leadline:error:unavailable" in said
