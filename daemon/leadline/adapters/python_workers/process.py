"""One worker process, from its start until it is proven gone.

What is started is its keeper (`keeper`), which forks the worker, is told to end it, and ends itself when that and all
that it has started is gone. A pidfd tells of the keeper's end without collecting it: until then nobody else can get its
number. A process that hangs up is treated like one that died.

What it prints goes to the daemon's log, so much a minute; its last words are kept for the story of its death. The pipe
is always emptied, so that printing never holds a module up.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import anyio
import msgspec
import structlog

from leadline.adapters.python_workers.wire import (
    LINE_BYTES_MAX,
    SAID,
    Answer,
    Beat,
    Ready,
    Task,
    Unusable,
    line,
)
from leadline.adapters.python_workers.worker import Start
from leadline_protocol.errors import LeadlineError

log = structlog.get_logger(__name__)

PROGRAM: Final = "leadline.adapters.python_workers.worker"
ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a worker has of the daemon's environment."""

OUTPUT_BYTES_PER_MINUTE: Final = 64 * 1024
"""So much of what a process prints is logged."""

OUTPUT_LINE_BYTES_MAX: Final = 2_000
LAST_WORDS_CHARACTERS: Final = 300
LAST_WORDS_SECONDS: Final = 1.0
"""How long a dead process is listened to: what it started may hold its output open."""


class ModuleUnusable(LeadlineError):
    """The module cannot be loaded."""


class WorkerDied(LeadlineError):
    """The process ended, or was ended, with the lead in hand."""


class NotStarted(LeadlineError):
    """There is no process: the system did not let it be started, or nobody wanted it any more."""


class Installed(msgspec.Struct, frozen=True):
    """A module as its package names it."""

    name: str
    value: str
    folders: tuple[str, ...]


class WorkerProcess:
    """A worker: starting, at work, gone."""

    def __init__(self, module: Installed, *, memory_bytes_max: int | None = None, logged: bool = True) -> None:
        """`logged`: what it prints goes to the log."""
        self.module: Final = module
        self._memory_bytes_max = memory_bytes_max
        self._popen: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._beats: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._output = _Output(module.name, logged=logged)
        self._killed_for = ""
        self._ready: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())  # nobody need ask
        self.gone: Final = anyio.Event()

    @property
    def ending(self) -> bool:
        """Whether it is dead, or as good as."""
        return bool(self._killed_for) or self.gone.is_set()

    @property
    def story(self) -> str:
        """How it has ended."""
        if self._killed_for:
            return f"its worker process was killed: {self._killed_for}"
        code = self._popen.returncode if self._popen is not None else None
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with {code}"
        words = self._output.last_words()
        return f"its worker process {how}" + (f"; it last said: {words}" if words else "")

    async def declared(self) -> bytes:
        """What the module says of itself, as JSON. Raises ModuleUnusable, NotStarted."""
        return await asyncio.shield(self._ready)

    async def run(self) -> None:
        """Live; ends when the process is gone, which cancelling brings about too."""
        ours, its = socket.socketpair()
        output, its_output = socket.socketpair()
        try:
            with its, its_output:
                if self._killed_for:
                    raise OSError(self._killed_for)
                popen = self._popen = self._start(its, its_output)
        except OSError as error:
            ours.close()
            output.close()
            self._ready.set_exception(NotStarted(f"no worker process could be started: {error}"))
            self.gone.set()
            return
        pidfd = os.pidfd_open(popen.pid)
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES_MAX)
            words, _ = await asyncio.open_unix_connection(sock=output)
            async with anyio.create_task_group() as tasks:
                heard, read = anyio.Event(), anyio.Event()
                tasks.start_soon(self._hear, reader, heard)
                tasks.start_soon(self._output.read, words, read)
                await anyio.wait_readable(pidfd)
                with anyio.move_on_after(LAST_WORDS_SECONDS):  # what it said before it died counts
                    await heard.wait()
                    await read.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                self._end()
                await anyio.wait_readable(pidfd)
                popen.wait()
                os.close(pidfd)
                ours.close()
                output.close()
                self._tell_of_death()
                self.gone.set()

    async def ask(self, task: Task, beat: Callable[[], None]) -> Answer:
        """The worker's answer about a lead. Raises WorkerDied, ModuleUnusable, NotStarted.

        `beat` is called with each of its signs of life. Who gives up waiting has to `kill` it.
        """
        await self.declared()
        assert self._writer is not None, "it has declared itself over this"
        if self.ending:
            raise WorkerDied(self.story)
        number = self._next
        self._next += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[number], self._beats[number] = answer, beat
        try:
            self._writer.write(line(msgspec.structs.replace(task, id=number)))
            return await answer
        finally:
            del self._answers[number], self._beats[number]

    async def kill(self, why: str) -> None:
        """End it, and return when it is proven gone. `why` is what others learn whose leads it had in hand."""
        self._killed_for = self._killed_for or why
        self._end()
        await self.gone.wait()

    # -- its life -----------------------------------------------------------------------------------------------------

    def _start(self, channel: socket.socket, output: socket.socket) -> subprocess.Popen[bytes]:
        """The process. By the main thread, as PR_SET_PDEATHSIG follows the thread that is the parent."""
        start = Start(
            channel.fileno(),
            os.getpid(),
            self.module.name,
            self.module.value,
            self.module.folders,
            self._memory_bytes_max,
        )
        return subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-P", "-s", "-m", PROGRAM, msgspec.json.encode(start).decode()],
            stdin=subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=output.fileno(),
            cwd="/",
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            pass_fds=[channel.fileno()],
            start_new_session=True,
        )

    async def _hear(self, reader: asyncio.StreamReader, heard: anyio.Event) -> None:
        """Take in what it says, until it hangs up or talks nonsense: that is the end of it."""
        try:
            while text := await reader.readline():
                self._heard(SAID.decode(text))
        except (ValueError, OSError) as error:
            self._killed_for = self._killed_for or f"it said what cannot be read: {error}"
        heard.set()
        self._end()

    def _heard(self, said: Ready | Unusable | Beat | Answer) -> None:
        match said:
            case Ready(declared=declared):
                self._ready.set_result(bytes(declared))
            case Unusable(message=message):
                self._ready.set_exception(ModuleUnusable(f"module {self.module.name} cannot be loaded: {message}"))
            case Beat():
                for beat in self._beats.values():
                    beat()
            case Answer(id=number):
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(said)

    def _end(self) -> None:
        """Have the keeper end it; one that was stopped goes on to do so."""
        if self._popen is not None and self._popen.returncode is None:
            os.kill(self._popen.pid, signal.SIGTERM)
            os.kill(self._popen.pid, signal.SIGCONT)

    def _tell_of_death(self) -> None:
        story = self.story
        if not self._ready.done():
            self._ready.set_exception(ModuleUnusable(f"module {self.module.name} cannot be loaded: {story}"))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerDied(story))


class _Output:
    """What a process prints."""

    def __init__(self, module: str, *, logged: bool) -> None:
        self._module = module
        self._logged = logged
        self._rest = b""
        self._last = b""
        self._minute_began = anyio.current_time()
        self._left = OUTPUT_BYTES_PER_MINUTE
        self._dropped = 0

    def last_words(self) -> str:
        """The end of what it has printed."""
        return self._last.decode(errors="replace").strip()[-LAST_WORDS_CHARACTERS:]

    async def read(self, reader: asyncio.StreamReader, ended: anyio.Event) -> None:
        """Log lines until there will be no more."""
        while piece := await reader.read(OUTPUT_BYTES_PER_MINUTE):
            self._last = (self._last + piece)[-4 * LAST_WORDS_CHARACTERS :]
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for text in lines:
                self._log(text)
            if len(self._rest) > OUTPUT_LINE_BYTES_MAX:
                self._log(self._rest)
                self._rest = b""
        ended.set()

    def _log(self, text: bytes) -> None:
        now = anyio.current_time()
        if now >= self._minute_began + 60:
            self._minute_began, self._left = now, OUTPUT_BYTES_PER_MINUTE
            if self._dropped:
                log.warning("module_output_dropped", module=self._module, bytes=self._dropped)
                self._dropped = 0
        if len(text) > self._left:
            self._dropped += len(text)
            return
        self._left -= len(text)
        if text.strip() and self._logged:
            said = text[:OUTPUT_LINE_BYTES_MAX].decode(errors="replace")
            log.info("module_said", module=self._module, said=said)
