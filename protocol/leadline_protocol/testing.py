"""A pytest fixture for services that submit work to Leadline: the real daemon, in a temporary folder.

    async def test_an_order_is_enriched(leadline: LeadlineDaemon) -> None:
        await my_service.handle(order, socket=leadline.submit_socket)
        async with leadline.client() as client:
            assert (await client.call(Jobs(teamspace="acme"))).jobs[0].kind == "enrich"

`leadline` is one daemon for the whole run, since its Postgres takes a second or two to start; tests keep apart by using
teamspaces of their own. `fresh_leadline` is one for a single test that stops it, or needs its queue empty. Both want
the command `leadline` installed: in the same environment, or on the PATH.

The complication is where: a Unix socket's path holds 107 bytes, far less than pytest's folders are long, and a daemon
that runs as root starts its Postgres as another user, who must be able to come in. So the folder is a short one of its
own below the system's temporary folder, and goes when the daemon does.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol.blocking import BlockingClient
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadlineError, Refused, Unreachable
from leadline_protocol.messages import Ping

START_SECONDS: Final = 60.0
"""How long a daemon may take until it answers: its first start makes a database."""

STOP_SECONDS: Final = 30.0
"""How long it may take to come to an end before it is killed."""


class CannotStart(LeadlineError):
    """The daemon did not come up; the message ends with what it wrote."""


class LeadlineDaemon:
    """A running `leadline serve` with a state directory of its own."""

    def __init__(
        self, configuration: str = "", *, command: Sequence[str] | None = None, options: Sequence[str] = ()
    ) -> None:
        """Start a daemon and wait until it takes work; `configuration` is what its TOML file says.

        `options` are for this first start. Raises CannotStart.
        """
        self._command: Final = [*(command or find_command())]
        self._folder: Final = Path(tempfile.mkdtemp(prefix="leadline-"))
        self._folder.chmod(0o711)  # the user that Postgres runs as must be able to pass through
        self.state_dir: Final = self._folder / "state"
        self.submit_socket: Final = self._folder / "run" / "submit.sock"
        """Where services submit."""
        self.control_socket: Final = self._folder / "run" / "control.sock"
        """Where operators ask and instruct."""
        self.log: Final = self._folder / "log"
        """What the daemon writes to its standard output and error."""
        self._configuration: Final = self._folder / "leadline.toml"
        self._configuration.write_text(configuration, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start(*options)
        except CannotStart:
            self.stop()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The daemon's process, while there is one."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """The number of its process, for tests that kill it."""
        return self.process.pid

    def client(self, *, timeout_seconds: float = 30.0) -> AbstractAsyncContextManager[Client]:
        """An asyncio client of the control socket, which takes submissions too."""
        return Client.connect(self.control_socket, timeout_seconds=timeout_seconds)

    def blocking_client(self, *, timeout_seconds: float = 30.0) -> AbstractContextManager[BlockingClient]:
        """The same without asyncio."""
        return BlockingClient.connect(self.control_socket, timeout_seconds=timeout_seconds)

    def start(self, *options: str) -> None:
        """Start it, again after `stop`, on the same state; return when it takes work. Raises CannotStart."""
        arguments = [
            *self._command,
            "serve",
            f"--config={self._configuration}",
            f"--state-dir={self.state_dir}",
            f"--runtime-dir={self.submit_socket.parent}",
            *options,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """End it as an operator would, and wait for that; its state stays until the fixture ends."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        last: LeadlineError | None = None
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CannotStart(self._story(f"leadline serve ended with {process.returncode}"))
            try:
                with BlockingClient.connect(self.control_socket, timeout_seconds=5.0) as client:
                    client.call(Ping())
            except (Unreachable, Refused) as error:
                last = error
                time.sleep(0.05)
            else:
                return
        raise CannotStart(self._story(f"leadline serve was not ready in {START_SECONDS:g} s: {last}"))

    def _story(self, what: str) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
        return f"{what}\n{said}"


def find_command() -> list[str]:
    """The installed `leadline`: beside this Python, else on the PATH. Raises CannotStart."""
    beside = Path(sys.executable).with_name("leadline")
    found = str(beside) if beside.exists() else shutil.which("leadline")
    if found is None:
        raise CannotStart("There is no command leadline here: install the distribution leadline, or put it on the PATH")
    return [found]


def _environment() -> Mapping[str, str]:
    """Ours without what would tell the daemon of another place to be, or that a service manager waits for it."""
    own = ("LEADLINE_CONFIG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS")
    return {name: value for name, value in os.environ.items() if name not in own}


@pytest.fixture(scope="session")
def leadline() -> Iterator[LeadlineDaemon]:
    """One daemon for the whole run."""
    daemon = LeadlineDaemon()
    yield daemon
    daemon.remove()


@pytest.fixture
def fresh_leadline() -> Iterator[LeadlineDaemon]:
    """A daemon of this test's own."""
    daemon = LeadlineDaemon()
    yield daemon
    daemon.remove()
