"""A real daemon and a real outside world, as tests in plain sequence see them.

The daemon is `leadline serve` in a process and a folder of its own, and it can be killed. The outside world is
tests/world behind real HTTP in a thread of this process, with an event loop of its own, so that a test may simply wait
for what a client of the daemon says, and the providers go on answering meanwhile. What a provider wrote down is the
test's to read at any time.

Waiting for a job is asking for it again and again: the daemon is what is under test, and a notice that it forgot to
send would look like a job that never ends.
"""

import asyncio
import csv
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import asyncpg

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.testing import LeadlineDaemon, find_command
from tests.world.behaviours import Behaviour
from tests.world.log import Call
from tests.world.mail import Mailbox, MailServed, serving_mail
from tests.world.servers import LOOPBACK, Served, serving

R = TypeVar("R", bound=wire.Reply)

POLL_SECONDS: Final = 0.02
ENDS_WITHIN_SECONDS: Final = 60.0

HERE: Final = Path(__file__).parent


class Stage(LeadlineDaemon):
    """A running daemon: submit, look, kill, start again."""

    up: ClassVar[set["Stage"]] = set()
    """Those that run now, whose logs are worth reading when a test fails."""

    def __init__(
        self, configuration: str = "", *, command: Sequence[str] | None = None, options: Sequence[str] = ()
    ) -> None:
        super().__init__(configuration, command=command, options=options)
        self.up.add(self)

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.up.discard(self)
        super().remove()

    def kill(self) -> None:
        """SIGKILL, as from the kernel when memory runs out; returns when the process is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def kill_while_starting(self, after_seconds: float) -> None:
        """Start it once more, and kill it before it is ready, or soon after."""
        process = subprocess.Popen(
            self.command("serve", "--config", str(self.configuration)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(after_seconds)
        process.kill()
        process.wait()

    def restart(self) -> None:
        """End it as a service manager would, and start it on the same state."""
        self.stop()
        self.start()

    def take_over(self) -> "subprocess.Popen[bytes]":
        """Start another daemon over the one that runs, on the same state; returns the process of the one before."""
        before = self.process
        self.start("--takeover")
        return before

    def reconfigure(self, configuration: str) -> None:
        """Write another configuration; it is in force after the next start or `reload`."""
        self._configuration.write_text(configuration, encoding="utf-8")

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self._configuration

    def postmaster(self) -> int:
        """The process id of the embedded Postgres."""
        return int((self.state_dir / "pg" / "data" / "postmaster.pid").read_text().splitlines()[0])

    def command(self, *arguments: str) -> list[str]:
        """A `leadline` command that is meant for this daemon."""
        places = ["--state-dir", str(self.state_dir), "--runtime-dir", str(self.submit_socket.parent)]
        return [*find_command(), *arguments, *places]

    def leadline(self, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a `leadline` command against this daemon, with `text` as its standard input."""
        return subprocess.run(self.command(*arguments), input=text, capture_output=True, text=True, check=False)

    def ask(self, operation: wire.Operation[R]) -> R:
        """One question or instruction at the control socket. Raises Refused."""
        with self.blocking_client() as client:
            return client.call(operation)

    def submit(self, submission: wire.Submission | Mapping[str, Any]) -> wire.Receipt:
        """Submit one job. Raises Refused."""
        with self.blocking_client() as client:
            return client.submit(submission)

    def view(self, job: JobId) -> wire.JobView:
        """The job as it is now; its counts add up, whenever one looks."""
        view = self.ask(wire.Get(job=job)).view
        assert adds_up(view.counts), view.counts
        return view

    def until(
        self, job: JobId, true_of: Callable[[wire.JobView], bool], *, seconds: float = ENDS_WITHIN_SECONDS
    ) -> wire.JobView:
        """The first view of a job of which something is true; a daemon that is unavailable is asked again."""
        deadline = time.monotonic() + seconds
        seen: wire.JobView | Refused
        while True:
            try:
                seen = self.view(job)
            except Refused as refused:
                if refused.code is not ErrorCode.UNAVAILABLE:
                    raise
                seen = refused
            else:
                if true_of(seen):
                    return seen
            assert time.monotonic() < deadline, f"still not so after {seconds:g} s: {seen}"
            time.sleep(POLL_SECONDS)

    def ended(self, job: JobId, *, seconds: float = ENDS_WITHIN_SECONDS) -> wire.JobView:
        """The last view of a job."""
        return self.until(job, lambda view: view.state in wire.ENDED_STATES, seconds=seconds)

    def put(self, name: str, rows: Iterable[Mapping[str, object]]) -> str:
        """Put a CSV file into the folder for uploads; its name."""
        (self.state_dir / "incoming" / name).write_text(csv_text(rows), encoding="utf-8")
        return name

    def table(self, teamspace: str, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Make a table of these rows."""
        path = self.put(f"{teamspace}-{table}.csv", rows)
        view = self.ended(self.submit(wire.Upload(teamspace=teamspace, table=table, path=path)).job)
        assert view.state == "completed", view

    def rows(self, teamspace: str, table: str) -> list[dict[str, str]]:
        """What a table holds now, by way of an export."""
        receipt = self.submit(wire.Export(teamspace=teamspace, table=table))
        view = self.ended(receipt.job)
        assert view.state == "completed", view
        (exported,) = [path for path in (self.state_dir / "exports").iterdir() if path.stem.endswith(f"-{receipt.job}")]
        return list(csv.DictReader(io.StringIO(exported.read_text(encoding="utf-8-sig"))))

    def lead_reasons(self, job: JobId) -> dict[str, str]:
        """Why leads were not done in a job, by their address."""
        return dict(
            self.query(
                "SELECT lead.data->>'email', result.reason FROM lead_result AS result"
                " JOIN lead ON lead.id = result.lead WHERE result.job = $1 AND result.reason IS NOT NULL",
                job,
            )
        )

    def calls_begun(self, job: JobId) -> int:
        """How many calls of a job may have left so far: each is stored before its request goes out.

        Right after a pause or a cancel was acknowledged this is all that the providers may ever see, whenever they get
        round to reading it.
        """
        ((begun,),) = self.query("SELECT count(*) FROM call WHERE job = $1 AND state <> 'unsent'", job)
        return int(begun)

    def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Ask the embedded database itself, or meddle with it, whatever its triggers say."""

        async def fetch() -> list[tuple[Any, ...]]:
            connection = await self._connected()
            try:
                return [tuple(row) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    @contextmanager
    def unwritable(self, table: str) -> Iterator[None]:
        """Hold up whoever writes to a table of the embedded database until the block ends."""
        with asyncio.Runner() as runner:
            connection = runner.run(self._connected())
            try:
                runner.run(connection.execute(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE"))
                yield
            finally:
                runner.run(connection.close())

    def until_held_up(self, table: str) -> None:
        """Wait until somebody waits to write to a table that is unwritable."""
        waiting = "SELECT 1 FROM pg_locks WHERE relation = $1::text::regclass AND NOT granted"
        deadline = time.monotonic() + ENDS_WITHIN_SECONDS
        while not self.query(waiting, table):
            assert time.monotonic() < deadline, f"nobody writes to {table}"
            time.sleep(POLL_SECONDS)

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            user="leadline",
            database="leadline",
            host=str(self.state_dir / "pg" / "run"),
            server_settings={"session_replication_role": "replica"},
        )

    def history(self, job: JobId) -> list[wire.HistoryEntry]:
        """What happened to a job."""
        return self.ask(wire.History(job=job)).history


class World:
    """Providers in a thread of their own, up until the block ends."""

    def __init__(self, host: str = LOOPBACK, enter: Callable[[], None] = lambda: None) -> None:
        """`enter` is what the thread does first: it may go to another network, where `host` is its address."""
        self._host: Final = host
        self._enter: Final = enter
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._run, name="world", daemon=True)
        self._servers: Final = AsyncExitStack()

    def serve(self, behaviour: Behaviour, *, name: str = "provider") -> Served:
        """Serve a behaviour on a free port."""

        async def begin() -> Served:
            return await self._servers.enter_async_context(serving(behaviour, name=name, host=self._host))

        return asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    def serve_mail(self, mailbox: Mailbox) -> MailServed:
        """Serve a mail server on a free port."""

        async def begin() -> MailServed:
            return await self._servers.enter_async_context(serving_mail(mailbox, host=self._host))

        return asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    def until(
        self, served: Served, true_of: Callable[[list[Call]], bool], *, seconds: float = ENDS_WITHIN_SECONDS
    ) -> None:
        """Wait until something is true of a server's calls."""
        waiting = asyncio.wait_for(served.until(true_of), seconds)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close every server."""
        asyncio.run_coroutine_threadsafe(self._servers.aclose(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._enter()
        self._loop.run_forever()


@contextmanager
def world(host: str = LOOPBACK, enter: Callable[[], None] = lambda: None) -> Iterator[World]:
    """An outside world; see `World`."""
    running = World(host, enter)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def stage(configuration: str = "", *, command: Sequence[str] | None = None) -> Iterator[Stage]:
    """A daemon with this configuration; `command` starts it otherwise than by its name."""
    running = Stage(configuration, command=command)
    try:
        yield running
    finally:
        running.remove()


def adds_up(counts: wire.Counts) -> bool:
    """Whether every lead is counted exactly once."""
    parts = (counts.done, counts.failed, counts.skipped, counts.unknown, counts.pending)
    return sum(parts) == counts.total and min(parts) >= 0


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as a CSV file; the columns are those of the first."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def people(count: int, *, domain: str = "example.com") -> list[dict[str, object]]:
    """So many leads: `email` and `n`, from 0."""
    return [{"email": f"person{n:05}@{domain}", "n": n} for n in range(count)]


def provider(name: str, served: Served, *, module: str = "company", settings: Sequence[str] = ()) -> str:
    """The part of a configuration that makes a served behaviour a provider, by a module file of this folder."""
    lines = [
        f"[providers.{name}]",
        f'module = "{HERE / "modules" / module}.toml"',
        f'base_url = "{served.url}"',
        *settings,
    ]
    return "\n".join(lines) + "\n\n"


def openai(served: Served, *, name: str = "openai", settings: Sequence[str] = ()) -> str:
    """The part of a configuration that makes a served behaviour a model."""
    limits = 'limits = [{ shape = "window", amount = 100000, per_seconds = 60, unit = "request" }]'
    lines = [
        f"[providers.{name}]",
        'preset = "openai"',
        f'base_url = "{served.url}"',
        'secret = "key"',
        'settings = { model = "small" }',
        *(settings if any(line.startswith("limits") for line in settings) else [limits, *settings]),
    ]
    return "\n".join(lines) + "\n\n"
