"""Where it is measured: one Postgres for everything, and for each scenario a database and a daemon of its own.

The Postgres belongs to the bench and not to the daemon, so that the limits are those of the same server, and the daemon
can be killed and started again without it. The daemon is a process of its own, since it has a core of its own where it
is used. It watches its standard input, so that it does not outlive the bench, however that ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import asyncpg
import msgspec
from msgspec import Struct

from leadline.adapters.embedded_postgres import embedded_postgres

START_SECONDS_MAX: Final = 120.0
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

CONFIG: Final = """
[database]
url = "{url}"
records_per_hour = 0
[queue.capacity]
tables = 10000
[log]
level = "warning"
"""


class Place:
    """The Postgres, and a folder on the same disk."""

    def __init__(self, folder: Path, url: str, *, with_peers: bool) -> None:
        self.folder: Final = folder
        self.with_peers: Final = with_peers
        self._url: Final = url

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """A new database for as long as the context is open; its URL."""
        async with connected(self._url) as connection:
            await connection.execute(f'CREATE DATABASE "{name}"')
            await connection.execute("CHECKPOINT")
        try:
            yield self._url.replace("/leadline?", f"/{name}?")
        finally:
            async with connected(self._url) as connection:
                await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def daemon(self, name: str, configuration: str = "") -> AsyncIterator["Daemon"]:
        """A daemon that is ready, on a new database."""
        async with self.database(name) as url:
            daemon = Daemon(self.folder / name, url, configuration)
            try:
                await anyio.to_thread.run_sync(daemon.start)
                yield daemon
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(daemon.kill)

    async def version(self) -> str:
        """Of Postgres."""
        async with connected(self._url) as connection:
            return str(await connection.fetchval("SHOW server_version"))


@asynccontextmanager
async def place(*, with_peers: bool) -> AsyncIterator[Place]:
    """Everything that is needed, in a temporary folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="leadline-bench-"))
    try:
        folder.chmod(0o755)  # run by root, Postgres is another user
        async with embedded_postgres(folder) as postgres:
            yield Place(folder, postgres.url, with_peers=with_peers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to Postgres."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


class Usage(Struct, frozen=True):
    """What a process has used."""

    cpu_seconds: float
    resident_bytes: int


class Daemon:
    """A daemon's process. Its methods block."""

    def __init__(self, folder: Path, url: str, configuration: str) -> None:
        self.url: Final = url
        self.socket: Final = folder / "run" / "control.sock"
        self.stamps: Final = folder / "stamps"
        self.incoming: Final = folder / "state" / "incoming"
        self._folder: Final = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "leadline.toml").write_text(CONFIG.format(url=url) + configuration, encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it takes work."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.daemon", str(self._folder)], stdin=subprocess.PIPE
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the daemon did not start")
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def usage(self) -> Usage:
        """What it has used so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return Usage(
            cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
            resident_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        )

    def peak_bytes(self) -> int:
        """The most that it has had resident at any time."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def tell(self, operation: dict[str, Any]) -> dict[str, Any]:
        """Have an operation carried out; raises RuntimeError where it is refused."""
        reply = self._ask(operation)
        if not reply["ok"]:
            raise RuntimeError(f"{operation} was refused: {reply}")
        return reply

    def _ask(self, operation: dict[str, Any]) -> dict[str, Any]:
        with dialled(self.socket) as sock:
            sock.sendall(msgspec.json.encode(operation) + b"\n")
            with sock.makefile("rb") as lines:
                reply: dict[str, Any] = msgspec.json.decode(lines.readline())
                return reply

    def _ready(self) -> bool:
        try:
            return bool(self._ask({"op": "ping"})["ok"])
        except (OSError, msgspec.DecodeError):
            return False


@contextmanager
def dialled(path: Path) -> Iterator[socket.socket]:
    """A connection to a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        yield sock
