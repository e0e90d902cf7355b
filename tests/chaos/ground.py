"""Where a daemon runs, and the daemon itself as a process that can be stopped, killed and started over.

Two grounds, for they break differently. `at_home`: the daemon's embedded Postgres and all it keeps lie on one disk,
which may lose its power, fill up or grow slow. `beyond`: the Postgres is somebody else's, and between it and the daemon
is a proxy, which is the network.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import asyncpg
import msgspec

from leadline_protocol.testing import find_command
from tests.chaos import disk as disks
from tests.chaos.disk import Disk
from tests.chaos.services import Outside
from tests.chaos.wire import Answered, ask
from tests.postgres_proxy import Proxy

READY_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02
FREE_BYTES_MIN: Final = 6 << 30

LYING_DISK: Final = "lying_disk"
"""In place of a sabotaged daemon: its disk acknowledges flushes and does not do them."""

CONFIGURATION: Final = """\
database.records_per_hour = 0

[queue.capacity]
tables = 64

"""


class NotReady(AssertionError):
    """A daemon did not come up; the message ends with its last words."""


class Process:
    """One daemon process."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],  # whatever becomes of us, it does not stay behind
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; it is gone afterwards."""
        self._process.kill()
        self._process.wait()

    def ended_with(self, seconds: float) -> int | None:
        """Its exit status, or None when it has not ended in that time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Server(msgspec.Struct):
    """A Postgres beyond the daemon's reach, and the way there."""

    process: Any
    url: str
    folder: Path
    proxy: Proxy


class Ground:
    """A place with a daemon on it."""

    def __init__(
        self, folder: Path, outside: Outside, *, disk: Disk | None, server: Server | None, mutant: str | None
    ) -> None:
        self.folder: Final = folder
        self.outside: Final = outside
        self.disk: Final = disk
        self.server: Final = server
        self._mutant = mutant
        self.state: Final = (folder if disk is None else disk.mountpoint) / "state"
        self._machine = 0
        self.sectors_kept = 0
        self.sectors_lost = 0
        """Of what was not flushed at power cuts."""
        self.log: Final = folder / "log"
        self.configuration: Final = folder / "leadline.toml"
        self.daemon: Process

    @property
    def control(self) -> Path:
        """The present daemon's control socket."""
        return self._runtime() / "control.sock"

    def configure(self) -> None:
        """Write the configuration file."""
        url = "" if self.server is None else f'database.url = "{self.server.proxy.url}"\n'
        text = url + CONFIGURATION + self.outside.configuration()
        self.configuration.write_text(text, encoding="utf-8")

    def spawn(self, *options: str) -> Process:
        """A daemon process that may or may not come up."""
        return self._spawn(self._machine, *options)

    def spawn_beside(self) -> Process:
        """One on another machine, with the same database."""
        return self._spawn(1 - self._machine)

    def move(self) -> None:
        """To another machine: what is spawned from now on has a state directory and sockets of its own there, and
        finds the files of both in the one place where they are kept.
        """
        self._machine = 1 - self._machine

    def _spawn(self, machine: int, *options: str) -> Process:
        command = find_command() if self._mutant in (None, LYING_DISK) else _saboteur(self._mutant)
        state = self.state if machine == 0 else self._state_elsewhere()
        return Process(
            [
                *command,
                "serve",
                f"--config={self.configuration}",
                f"--state-dir={state}",
                f"--runtime-dir={self._runtime(machine)}",
                *options,
            ],
            self.log,
        )

    def _runtime(self, machine: int | None = None) -> Path:
        return self.folder / f"run{self._machine if machine is None else machine}"

    def _state_elsewhere(self) -> Path:
        elsewhere = self.folder / "elsewhere"
        if not elsewhere.exists():
            elsewhere.mkdir()
            for shared in ("incoming", "uploads", "exports"):
                (elsewhere / shared).symlink_to(self.state / shared)
        return elsewhere

    def start(self) -> None:
        """Start the daemon and wait until it takes work. Raises NotReady."""
        self.daemon = self.spawn()
        self.until_ready()

    def until_ready(self, *, seconds: float = READY_SECONDS) -> None:
        """Wait until the daemon takes work. Raises NotReady."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if not self.daemon.running or time.monotonic() > deadline:
                said = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise NotReady(f"no daemon is ready, {self.daemon.ended_with(0)}:\n{said}")
            time.sleep(POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether a daemon takes work now."""
        return isinstance(ask(self.control, {"op": "ping"}, timeout_seconds=1.0), Answered)

    def postmaster(self) -> int:
        """The process id of the Postgres."""
        home = self.state if self.server is None else self.server.folder
        return int((home / "pg" / "data" / "postmaster.pid").read_text().splitlines()[0])

    def url(self) -> str:
        """How to reach the database itself, past the proxy."""
        if self.server is not None:
            return self.server.url
        return f"postgresql://leadline@/leadline?host={quote(str(self.state / 'pg' / 'run'), safe='')}"

    def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Ask the database itself; raises what asyncpg and the system raise."""

        async def fetch() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(
                self.url(), timeout=10, server_settings={"default_transaction_read_only": "off"}
            )
            try:
                return [tuple(row) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close(timeout=5)

        return asyncio.run(fetch())

    def keep_log(self) -> Path:
        """Put the daemons' log where it stays, and the server's beside it."""
        kept = Path(tempfile.mkdtemp(prefix="chaos-log-"))
        home = self.state if self.server is None else self.server.folder
        for log in (self.log, home / "pg" / "server.log"):
            with suppress(OSError):
                shutil.copy(log, kept)
        return kept

    def in_network(self, change: Any) -> None:
        """Do something to the proxy, in the loop in which it runs."""

        async def do() -> None:
            change()

        asyncio.run_coroutine_threadsafe(do(), self.outside.loop).result(10)


def _saboteur(mutant: str | None) -> list[str]:
    assert mutant is not None
    return [sys.executable, "-m", "tests.chaos.sabotage", mutant]


@contextmanager
def at_home(outside: Outside, *, mutant: str | None = None) -> Iterator[Ground]:
    """A daemon with a Postgres of its own; on a disk of ours, where the machine allows one."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        disk = None if disks.missing() else stack.enter_context(disks.disk(folder))
        yield from _ground(Ground(folder, outside, disk=disk, server=None, mutant=mutant), mutant)


@contextmanager
def beyond(outside: Outside, *, mutant: str | None = None) -> Iterator[Ground]:
    """A daemon whose Postgres is elsewhere."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        server = stack.enter_context(_server(folder, outside))
        yield from _ground(Ground(folder, outside, disk=None, server=server, mutant=mutant), mutant)


def _ground(ground: Ground, mutant: str | None) -> Iterator[Ground]:
    ground.configure()
    ground.start()
    if ground.disk is not None and mutant == LYING_DISK:
        ground.disk.lie()
    try:
        yield ground
    finally:
        if ground.daemon.running:
            ground.daemon.signal(signal.SIGTERM)
            if ground.daemon.ended_with(30.0) is None:
                ground.daemon.kill()


@contextmanager
def _server(folder: Path, outside: Outside) -> Iterator[Server]:
    home, network = folder / "server", folder / "net"
    home.mkdir(mode=0o711)
    network.mkdir(mode=0o711)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.server", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        url = process.stdout.readline().strip()
        assert url, (folder / "server.log").read_text()
        proxy, close = asyncio.run_coroutine_threadsafe(_open(url, network), outside.loop).result(10)
        try:
            yield Server(process, url, home, proxy)
        finally:
            asyncio.run_coroutine_threadsafe(close(), outside.loop).result(10)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


async def _open(url: str, network: Path) -> tuple[Proxy, Any]:
    proxy = Proxy(url, network)
    running = proxy.running()
    await running.__aenter__()

    async def close() -> None:
        await running.__aexit__(None, None, None)

    return proxy, close


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory, where there is enough: no fault here is one of the machine's own disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > FREE_BYTES_MIN
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=memory if roomy else None))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
