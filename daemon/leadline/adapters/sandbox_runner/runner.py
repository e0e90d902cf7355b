"""The daemon's side of runs on this machine: start their supervisors, read what they write, end them.

Nothing here is needed for a run to go on. A daemon that comes later finds the folders and does with them what the one
before did: a run that has ended in between is read like any other, and one whose supervisor was killed is buried here.
"""

import asyncio
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from leadline.adapters.sandbox_runner import network, seccomp
from leadline.adapters.sandbox_runner.cgroups import Cgroup, Ground
from leadline.adapters.sandbox_runner.processes import SEARCH_PATH, descriptor, send
from leadline.adapters.sandbox_runner.questions import answer_line, connect, listen, question
from leadline.adapters.sandbox_runner.run_folder import LogReader, RunFolder, Task
from leadline.ports.runner import (
    QUESTION_BYTES_MAX,
    Answer,
    CannotRun,
    End,
    How,
    Killed,
    KilledFor,
    LogLine,
    Lost,
    NotBegun,
    Order,
    Question,
    Run,
    SandboxMissing,
)

log = structlog.get_logger(__name__)

PROGRAM: Final = "leadline.adapters.sandbox_runner.supervisor"

PATIENCE_SECONDS: Final = 0.5
"""How long a supervisor may take to end its run; then it is done without it."""

MISSING: Final = (
    "untrusted code runs only inside bubblewrap, which is not installed: apt-get install bubblewrap, or have code run "
    "without protection"
)

_WHERE: Final = "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"


class LocalRun:
    """A run on this machine."""

    def __init__(self, folder: RunFolder, runs: "dict[str, LocalRun]") -> None:
        """`runs` are those that are kept."""
        self._folder = folder
        self._runs = runs
        self._news = os.open(folder.news, os.O_RDONLY | os.O_NONBLOCK)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._changed = anyio.Event()
        self._end: End | None = None
        self._listened: asyncio.StreamWriter | None = None
        """To whom answers go, as long as somebody takes in questions."""
        self._answering = anyio.Lock()
        self._told = False

    @property
    def name(self) -> str:
        """As it was ordered."""
        return self._folder.name

    async def log(self, after: int = 0) -> AsyncIterator[LogLine]:
        """What it prints."""
        reader = LogReader(self._folder.log)
        while True:
            changed, over = self._changed, self._end is not None
            while lines := await anyio.to_thread.run_sync(reader.read):
                for line in lines:
                    if line.number > after:
                        yield line
            if over:
                return
            await changed.wait()

    async def questions(self) -> AsyncGenerator[Question]:
        """What it asks."""
        try:
            connection = await anyio.to_thread.run_sync(connect, self._folder.questions)
        except OSError:
            return  # its supervisor is gone, or there never was one
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=QUESTION_BYTES_MAX + 1)
        except BaseException:
            connection.close()
            raise
        self._listened = writer
        try:
            with suppress(ConnectionError):
                while (line := await reader.readline()).endswith(b"\n"):
                    yield question(line)
        finally:
            if self._listened is writer:
                self._listened = None
            writer.transport.abort()

    async def answer(self, number: int, answer: Answer) -> None:
        """Answer a question."""
        async with self._answering:
            if self._listened is not None:
                with suppress(ConnectionError):
                    self._listened.write(answer_line(number, answer))
                    await self._listened.drain()

    async def ended(self) -> End:
        """How it ended, as soon as it has."""
        while self._end is None:
            await self._changed.wait()
        return self._end

    async def kill(self) -> End:
        """End it: by its supervisor, or by ourselves should that one not see to it."""
        number = signal.SIGTERM
        while self._end is None:
            self._told = True
            self._signal(number)
            with anyio.move_on_after(PATIENCE_SECONDS):
                await self.ended()
            number = signal.SIGKILL
        return self._end

    async def forget(self) -> None:
        """Keep nothing of it."""
        assert self._end is not None, "it has ended"
        del self._runs[self.name]
        await anyio.to_thread.run_sync(self._folder.remove)

    # -- its supervisor -----------------------------------------------------------------------------------------------

    def supervise(self, packages: Path | None) -> None:
        """Start its supervisor, which lives on without us, and holds the lock on the packages from now on."""
        held = []
        try:
            writer = os.open(self._folder.news, os.O_WRONLY)
            held.append(writer)
            if packages is not None:
                held.append(os.open(packages, os.O_RDONLY | os.O_DIRECTORY))
                fcntl.flock(held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
            with listen(self._folder.questions) as listener, self._folder.trouble.open("wb") as trouble:
                inherited = [writer, listener.fileno(), *held[1:]]
                self._supervisor = subprocess.Popen(  # noqa: S603  our own program
                    [sys.executable, "-P", "-s", "-m", PROGRAM, str(self._folder.path), *map(str, inherited)],
                    stdin=subprocess.DEVNULL,
                    stdout=trouble,
                    stderr=trouble,
                    cwd="/",
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                    pass_fds=inherited,
                    start_new_session=True,
                )
        finally:
            for descriptor in held:
                os.close(descriptor)

    async def watch(self) -> None:
        """Take in its news until its end."""
        try:
            while await self._has_news():
                self._tell()
            self._end = await anyio.to_thread.run_sync(self._found_end)
            if self._supervisor is not None:
                self._supervisor.wait()
            self._tell()
        finally:
            os.close(self._news)
            if self._end is None and self._supervisor is not None:
                self._supervisor.returncode = 0  # it lives on, for which Popen would blame us

    async def _has_news(self) -> bool:
        """Whether something has come; no more will where nobody holds the other end."""
        while True:
            try:
                return bool(os.read(self._news, 4096))
            except BlockingIOError:
                await anyio.wait_readable(self._news)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal; a deadly one to the run itself as well."""
        processes = self._folder.processes()
        if processes is None:
            if self._supervisor is not None and self._end is None:
                self._supervisor.send_signal(number)
            return
        named = [processes.supervisor]
        if number is signal.SIGKILL and processes.first is not None:
            named.append(processes.first)
        for each in named:
            pidfd = descriptor(each)
            if pidfd is not None:
                send(pidfd, number)
                os.close(pidfd)

    def _found_end(self) -> End:
        """How it ended, now that its supervisor has."""
        found = self._folder.end()
        return self._bury() if found is None else found

    def _bury(self) -> End:
        """See to the end of a run whose supervisor was killed."""
        processes = self._folder.processes()
        how: How = NotBegun("its supervisor ended before there was a sandbox")
        began, seconds = None, 0.0
        if processes is not None and processes.first is not None and processes.started is not None:
            first = descriptor(processes.first)
            if first is not None:
                send(first, signal.SIGKILL)
                _wait_readable(first)
                os.close(first)
            how = Lost()
            began, seconds = processes.started, max(0.0, time.time() - processes.started / 1_000_000)
        if processes is not None and processes.cgroup is not None:
            Cgroup(Path(processes.cgroup)).remove()
        end = End(Killed(KilledFor.TOLD) if self._told else how, began, seconds)
        with suppress(OSError):  # it is as dead where the disk is full, and will be found so again
            self._folder.write_end(end)
        log.warning(
            "run_without_supervisor", run=self.name, end=type(how).__name__, trouble=self._folder.last_trouble()
        )
        return end


class LocalRunner:
    """Runs code on this machine (`ports.runner.Runner`)."""

    def __init__(self, folder: Path, tasks: TaskGroup, ground: Ground | None, *, protected: bool) -> None:
        """`protected`: in a sandbox, or not at all."""
        self._folder = folder
        self._tasks = tasks
        self._ground = ground
        self._protected = protected
        self._runs: dict[str, LocalRun] = {}
        self._beginning: set[str] = set()
        """Runs whose folders are being made."""
        self._trees: dict[Path, tuple[str, ...]] = {}

    @property
    def memory_bound(self) -> str:
        """What holds a run's memory."""
        if not self._protected:
            return "nothing"
        return "a look at it ten times a second" if self._ground is None else self._ground.version

    async def start(self, order: Order) -> Run:
        """Have it run. Raises CannotRun."""
        program = shutil.which("bwrap", path=SEARCH_PATH) if self._protected else None
        if self._protected:
            if program is None:
                raise SandboxMissing(MISSING)
            seccomp.program()
            network.check(order.reaches)
        trees = await self._trees_of(order.interpreter)
        assert re.fullmatch(r"[A-Za-z0-9-]{1,100}", order.name), order.name
        folder = RunFolder(self._folder / order.name)
        self._beginning.add(order.name)
        task = Task(order, program, trees, self._ground if self._protected else None)
        try:
            await anyio.to_thread.run_sync(folder.make, task)
            run = LocalRun(folder, self._runs)
            run.supervise(order.packages)
        except OSError as error:
            folder.remove()
            raise CannotRun(f"no run could be started: {error}") from error
        finally:
            self._beginning.discard(order.name)
        return self._keep(run)

    async def adopt(self) -> Sequence[Run]:
        """All runs that are kept."""
        for path in sorted(self._folder.iterdir()):
            folder = RunFolder(path)
            if folder.name in self._beginning:
                continue
            if folder.task() is None:
                folder.remove()  # a daemon died over making it: nobody was told that there is such a run
            elif folder.name not in self._runs:
                self._keep(LocalRun(folder, self._runs))
        return list(self._runs.values())

    def _keep(self, run: LocalRun) -> LocalRun:
        self._runs[run.name] = run
        self._tasks.start_soon(run.watch, name=f"run {run.name}")
        return run

    async def _trees_of(self, interpreter: Path) -> tuple[str, ...]:
        """What an interpreter needs besides /usr: its own folder, and that of the one which it is an environment of."""
        if interpreter not in self._trees:
            try:
                asked = await anyio.run_process([interpreter, "-I", "-c", _WHERE], cwd="/", env={})
            except (OSError, subprocess.CalledProcessError) as error:
                raise CannotRun(f"{interpreter} is no Python that can be run: {error}") from error
            found = {path for path in asked.stdout.decode().splitlines() if not Path(path).is_relative_to("/usr")}
            self._trees[interpreter] = tuple(sorted(found))
        return self._trees[interpreter]


@asynccontextmanager
async def sandbox_runner(folder: Path, *, ground: Ground | None, protected: bool = True) -> AsyncIterator[LocalRunner]:
    """A runner that keeps its runs in a folder; they go on when the context is closed.

    Memory is bounded on the `ground` that `cgroups.find_ground` has found.
    """
    folder.mkdir(mode=0o700, exist_ok=True)  # noqa: ASYNC240  once, at the start
    async with anyio.create_task_group() as tasks:
        try:
            yield LocalRunner(folder, tasks, ground, protected=protected)
        finally:
            tasks.cancel_scope.cancel()


def _wait_readable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
