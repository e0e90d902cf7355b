"""The program beside each run: start it, hold it to its limits, write down what it says and how it ends.

One thread, one loop over descriptors: what the run prints, what its bootstrap says, what its code asks, its death, and
the signal that asks for it. Nothing that the run does can keep the loop waiting. The end is written down only when the
kernel says that nothing of it is left.

Where there is no sandbox, because the daemon was told to do without, the same program runs the code as the daemon's own
user, bound by nothing but its time and what it prints; and what such a run detaches from itself is not found again.
"""

import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from leadline.adapters.sandbox_runner import bubblewrap, modules
from leadline.adapters.sandbox_runner.cgroups import Cgroup
from leadline.adapters.sandbox_runner.entrance import adopt_orphans
from leadline.adapters.sandbox_runner.launch import START_SECONDS_MAX, Life, NotLaunched, launch
from leadline.adapters.sandbox_runner.network import NoNetwork
from leadline.adapters.sandbox_runner.output import LineCutter
from leadline.adapters.sandbox_runner.processes import named, resident_bytes
from leadline.adapters.sandbox_runner.production import Production
from leadline.adapters.sandbox_runner.questions import Switchboard
from leadline.adapters.sandbox_runner.run_folder import Processes, RunFolder, Task, log_line
from leadline.ports.runner import (
    LINE_BYTES_MAX,
    RESULT_BYTES_MAX,
    TRACEBACK_CHARACTERS_MAX,
    End,
    Exited,
    How,
    Killed,
    KilledFor,
    NotBegun,
    Raised,
    Returned,
)

WATCH_SECONDS: Final = 0.1
"""How often the memory of a run is looked at."""

CHANNEL_LINE_BYTES_MAX: Final = 2 * RESULT_BYTES_MAX + 12 * TRACEBACK_CHARACTERS_MAX
"""The bootstrap never says more at once; who does is not listened to any longer."""

UNKEPT_CHARACTERS_MAX: Final = 500
OPEN_FILES_MAX: Final = 1024
READ_BYTES: Final = 64 * 1024


class _Result(msgspec.Struct, frozen=True):
    json: str = "null"
    unkept: str = ""


class _Said(msgspec.Struct, frozen=True):
    """What the bootstrap says: first that it is there, and in the end what came of it."""

    returned: _Result | None = None
    raised: str | None = None
    out_of_memory: bool = False


_SAID: Final = msgspec.json.Decoder(_Said)


class Supervisor:
    """Supervises one run."""

    def __init__(self, folder: RunFolder, task: Task, news: int, stop: socket.socket, listener: socket.socket) -> None:
        """`news` is the FIFO; something to read at `stop` asks for the end; at `listener` a daemon may come."""
        self._folder = folder
        self._task = task
        self._news = news
        self._stop = stop
        self._listener = listener
        self._limits = task.order.limits
        self._cgroup: Cgroup | None = None
        self._log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._production = None if task.order.product is None else Production(task.order.product)
        self._lines = LineCutter(LINE_BYTES_MAX)
        self._output_left = self._limits.output_bytes
        self._deadline = _clock() + START_SECONDS_MAX
        self._began: int | None = None
        self._began_at = 0.0
        self._killed_for: KilledFor | None = None
        self._code_ended = False
        self._outcome: How | None = None
        self._heard = b""
        self._last_line = ""

    def supervise(self) -> None:
        """Have the run live and end."""
        how: How
        try:
            life = self._launched()
        except (NotLaunched, NoNetwork, OSError) as error:
            how = NotBegun(str(error))
        else:
            how = self._live(life)
        if self._cgroup is not None:
            self._cgroup.remove()
        self._folder.write_end(End(how, self._began, 0.0 if self._began is None else _clock() - self._began_at))

    def _launched(self) -> Life:
        """Its processes, written down and with the network that they are to have.

        Raises NotLaunched, NoNetwork and OSError, and leaves none behind then.
        """
        processes = Processes(named(os.getpid()))
        self._folder.write_processes(processes)
        if self._task.ground is not None:
            self._cgroup = Cgroup.make(self._task.ground, f"leadline-run-{os.getpid()}", self._limits.memory_bytes)
            processes = msgspec.structs.replace(processes, cgroup=str(self._cgroup.path))
        life = launch(self._task, self._cgroup)
        try:
            self._folder.write_processes(msgspec.structs.replace(processes, first=life.first, started=_now()))
            if self._task.bubblewrap is not None and self._task.order.reaches:
                life.connect(self._task.order.reaches)
        except BaseException:
            life.collect()
            raise
        return life

    def _live(self, life: Life) -> How:
        """Until nothing of it is left."""
        board = Switchboard(life.questions, self._listener)
        sources: dict[int, Callable[[], bool]] = {
            life.output: lambda: self._print(life),
            life.channel.fileno(): lambda: self._hear(life),
            self._stop.fileno(): lambda: self._kill(life, KilledFor.TOLD),
            board.fileno(): lambda: True,  # which is seen to whatever has happened
            life.ended: lambda: self._end(life),
            life.first_gone: lambda: False,
        }
        if life.product is not None:
            sources[life.product] = lambda: self._produce(life)
        with selectors.DefaultSelector() as selector:
            for descriptor in sources:
                selector.register(descriptor, selectors.EVENT_READ)
            while life.first_gone in selector.get_map():
                for key, _ in selector.select(max(0.0, min(WATCH_SECONDS, self._deadline - _clock()))):
                    if not sources[key.fd]():
                        selector.unregister(key.fd)
                board.go()
                self._watch(life)
        board.close()
        while self._print(life) or self._hear(life) or self._produce(life):
            pass
        self._keep(self._lines.end())
        return self._how(life.collect())

    # -- what happens; each says whether it may happen again ----------------------------------------------------------

    def _print(self, life: Life) -> bool:
        """It has printed something."""
        with suppress(BlockingIOError):
            piece = os.read(life.output, READ_BYTES)
            self._keep(self._lines.feed(piece[: self._output_left]))
            if len(piece) > self._output_left:
                self._killed_for = self._killed_for or KilledFor.OUTPUT  # also what it printed in its last moment
                life.kill()
                return False
            self._output_left -= len(piece)
            return bool(piece)
        return False

    def _produce(self, life: Life) -> bool:
        """It has made some of its product."""
        if life.product is None or self._production is None:
            return False
        with suppress(BlockingIOError):
            piece = os.read(life.product, READ_BYTES)
            if self._production.keep(piece):
                return bool(piece)
            self._killed_for = self._killed_for or KilledFor.OUTPUT
            life.kill()
        return False

    def _hear(self, life: Life) -> bool:
        """The bootstrap has said something, or code that has got hold of its socket: nothing that it says does harm."""
        more = False
        with suppress(OSError, ValueError, RecursionError):
            piece = life.channel.recv(READ_BYTES)
            *lines, self._heard = (self._heard + piece).split(b"\n")
            for line in lines:
                said = _SAID.decode(line)
                if self._began is None:
                    self._begin(life)
                else:
                    self._outcome = _outcome(said) or self._outcome
            more = bool(piece) and len(self._heard) <= CHANNEL_LINE_BYTES_MAX
        if not more:
            with suppress(OSError):
                life.channel.shutdown(socket.SHUT_RDWR)  # whoever goes on talking is told
        return more

    def _kill(self, life: Life, why: KilledFor) -> bool:
        """It has to go."""
        if self._killed_for is None and not self._code_ended:
            self._killed_for = why
        life.kill()
        return False

    def _end(self, life: Life) -> bool:
        """The code's own process has ended; what it has left behind goes with it."""
        self._code_ended = True
        life.kill()
        return False

    def _watch(self, life: Life) -> None:
        """See to time and memory."""
        if _clock() >= self._deadline:
            self._deadline = float("inf")
            self._kill(life, KilledFor.TIMEOUT)
        elif self._cgroup is not None:
            if self._cgroup.overrun:
                self._kill(life, KilledFor.MEMORY)
        elif self._task.bubblewrap is not None and self._began is not None:  # or /tmp might still be the machine's
            with suppress(OSError):  # it has just ended
                scratch = os.statvfs(life.scratch)
                written = (scratch.f_blocks - scratch.f_bfree) * scratch.f_frsize
                if written + resident_bytes(life.first.pid) > self._limits.memory_bytes:
                    self._kill(life, KilledFor.MEMORY)

    # -- what is done -------------------------------------------------------------------------------------------------

    def _begin(self, life: Life) -> None:
        """The bootstrap is there: have it load the code."""
        order, protected = self._task.order, self._task.bubblewrap is not None
        packages = None if order.packages is None else str(order.packages)
        told = {
            "code": bubblewrap.CODE if protected else str(order.code),
            "packages": packages and (bubblewrap.PACKAGES if protected else packages),
            "modules": bubblewrap.MODULES if protected else str(Path(modules.__file__).parent),
            "event": order.event,
            "limits": self._kernel_limits() if protected else {},
            "result_bytes_max": RESULT_BYTES_MAX,
            "traceback_characters_max": TRACEBACK_CHARACTERS_MAX,
        }
        life.channel.settimeout(START_SECONDS_MAX)  # it is still our own program that reads
        life.channel.sendall(msgspec.json.encode(told) + b"\n")
        life.channel.setblocking(False)
        self._began, self._began_at = _now(), _clock()
        self._deadline = self._began_at + self._limits.seconds

    def _kernel_limits(self) -> Mapping[str, int]:
        """What the kernel holds each process to, by the names of getrlimit(2)."""
        limits = {
            "RLIMIT_NPROC": self._limits.processes + 1,  # and the sandbox's first process
            "RLIMIT_NOFILE": OPEN_FILES_MAX,
            "RLIMIT_CORE": 0,
        }
        if self._cgroup is None:
            limits["RLIMIT_DATA"] = self._limits.memory_bytes
        return limits

    def _keep(self, lines: Iterable[str]) -> None:
        """Write lines down, and tell whoever reads."""
        text = bytearray()
        for self._last_line in lines:
            text += log_line(_now(), self._last_line)
        if text:
            os.write(self._log, text)
            with suppress(BlockingIOError, BrokenPipeError):  # it has news enough, or there is no daemon
                os.write(self._news, b"\n")

    def _how(self, code: int) -> How:
        """How it has ended, from all that is known; `code` is how its process did."""
        if self._began is None and self._killed_for is not KilledFor.TOLD:
            return NotBegun(self._last_line or "it said nothing")
        if self._killed_for is not None:
            return Killed(self._killed_for)
        if self._cgroup is not None and self._cgroup.overrun:
            return Killed(KilledFor.MEMORY)
        return self._outcome or Exited(code)


def main() -> None:
    """Supervise the run in the folder that is the first argument.

    The others are the numbers of its FIFO, of the socket for questions and, where it has packages, of the lock on them.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # answers pass through here
    news, listener = int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    os.set_inheritable(news, False)
    os.set_blocking(news, False)
    listener.set_inheritable(False)
    locks = [int(number) for number in sys.argv[4:]]
    for lock in locks:
        os.set_inheritable(lock, False)
    stop, stopped = socket.socketpair()
    stopped.setblocking(False)
    signal.set_wakeup_fd(stopped.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    adopt_orphans()
    folder = RunFolder(Path(sys.argv[1]))
    task = folder.task()
    assert task is not None, "the daemon has written it"
    Supervisor(folder, task, news, stop, listener).supervise()
    for lock in locks:
        os.close(lock)
    os.close(news)  # last: whoever sees it closed finds nothing of the run any more


def _outcome(said: _Said) -> How | None:
    """What it says has come of it. Raises ValueError and RecursionError where that is nothing which could be kept."""
    if said.returned is not None:
        value = said.returned.json.encode()
        if len(value) > RESULT_BYTES_MAX:
            raise ValueError("a result that the bootstrap would have refused")
        msgspec.json.decode(value)
        return Returned(msgspec.Raw(value), said.returned.unkept[:UNKEPT_CHARACTERS_MAX])
    if said.out_of_memory:
        return Killed(KilledFor.MEMORY)
    if said.raised is not None:
        return Raised(said.raised[-TRACEBACK_CHARACTERS_MAX:])
    return None


def _clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    main()
