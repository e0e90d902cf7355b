"""The program in a worker process: load one module, answer leads, beat.

Three threads. The main one runs the module's function in an event loop, also where the function is not async, and may
be kept from going on by it for as long as it likes. One reads tasks. One beats, every ten seconds while the module is
being loaded or a lead is in hand: it goes on beating while a function computes or waits, as that is no sign of death,
but not in a process that is stopped or holds the interpreter for itself.

The process ends with the daemon, however that ends: its keeper sees to that (`keeper`), and there is nobody on the
other side of the socket any more. Its standard output and error lead to the daemon's log.
"""

import asyncio
import inspect
import os
import resource
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import msgspec

from leadline.adapters.python_workers.keeper import fork_worker
from leadline.adapters.python_workers.wire import (
    BEAT_SECONDS,
    LINE_BYTES_MAX,
    TASKS,
    Answer,
    Beat,
    Ready,
    Said,
    Task,
    Unusable,
    line,
    raw,
)
from leadline_protocol.modules import (
    GROUP,
    Context,
    Module,
    QuotaGone,
    Rejected,
    SecretRefused,
    Throttled,
)

OUT_OF_MEMORY_SCORE: Final = 500
"""Where the kernel has to kill somebody, it is rather a worker than the daemon."""


class Start(msgspec.Struct, frozen=True):
    """What a worker is told on its command line, as JSON."""

    channel: int
    """The number of its end of the socket pair."""
    parent: int
    name: str
    value: str
    """Where the module is, as an entry point has it: `package.module:attribute`."""
    folders: tuple[str, ...] = ()
    """Where packages are looked for before all others."""
    memory_bytes_max: int | None = None


class _Channel:
    """The daemon's ear, and the beat."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._in_hand = 1
        """Leads, and the loading of the module."""

    def say(self, message: Said) -> None:
        with self._writing:
            self._socket.sendall(line(message))

    def took(self) -> None:
        with self._changed:
            self._in_hand += 1
            self._changed.notify()

    def gave(self) -> None:
        with self._changed:
            self._in_hand -= 1

    def beat(self) -> None:
        """Beat until the process ends."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._in_hand)
            self.say(Beat())
            threading.Event().wait(BEAT_SECONDS)


def main() -> None:
    """Work until the daemon is gone."""
    start = msgspec.json.decode(sys.argv[1], type=Start)
    fork_worker(start.parent, start.channel)
    os.set_inheritable(start.channel, False)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE), encoding="ascii")
    if start.memory_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (start.memory_bytes_max, start.memory_bytes_max))
    sock = socket.socket(fileno=start.channel)
    channel = _Channel(sock)
    threading.Thread(target=channel.beat, name="beat", daemon=True).start()
    sys.path[:0] = start.folders
    try:
        module = _loaded(start)
        channel.say(Ready(raw(_declared(module))))
    except BaseException as error:  # noqa: BLE001  whatever a package does when it is imported
        traceback.print_exc()
        channel.say(Unusable(_sentence(error)))
        os._exit(1)
    channel.gave()
    asyncio.run(_work(module, sock, channel))


def _loaded(start: Start) -> Module:
    module = EntryPoint(start.name, start.value, GROUP).load()
    if not isinstance(module, Module):
        raise TypeError(f"{start.value} is no leadline_protocol.modules.Module but a {type(module).__name__}")
    if module.leads_at_once > 1 and not inspect.iscoroutinefunction(module.run):
        raise TypeError("leads_at_once is more than 1, and run is not async")
    return module


def _declared(module: Module) -> dict[str, Any]:
    """All of a module but its function."""
    return {name: getattr(module, name) for name in module.__struct_fields__ if name != "run"}


async def _work(module: Module, sock: socket.socket, channel: _Channel) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin(task: Task) -> None:
        running = loop.create_task(_answer(module, task, channel))
        tasks.add(running)
        running.add_done_callback(tasks.discard)

    def read() -> None:
        with sock.makefile("rb") as lines:
            for text in lines:
                channel.took()
                loop.call_soon_threadsafe(begin, TASKS.decode(text))
        os._exit(0)

    threading.Thread(target=read, name="read", daemon=True).start()
    await loop.create_future()


async def _answer(module: Module, task: Task, channel: _Channel) -> None:
    channel.say(await _answered(module, task))
    channel.gave()


async def _answered(module: Module, task: Task) -> Answer:
    try:
        run: Any = module.run
        found = run(task.lead if task.leads is None else task.leads, Context(task.settings, task.secret))
        values = await found if inspect.isawaitable(found) else found
        body = raw(_values(values) if task.leads is None else _results(values, len(task.leads)))
    except Rejected as error:
        return Answer(task.id, 422, _message(error))
    except Throttled as error:
        return Answer(task.id, 429, _message(error), error.seconds)
    except QuotaGone as error:
        return Answer(task.id, 402, _message(error), error.seconds)
    except SecretRefused as error:
        return Answer(task.id, 401, _message(error))
    except Exception as error:  # noqa: BLE001  whatever a module does: it is this lead's failure
        traceback.print_exc()
        return Answer(task.id, 500, raw({"error": _sentence(error)}))
    if len(bytes(body)) > LINE_BYTES_MAX // 2:
        # A batch is tried again in halves, which may be small enough.
        return Answer(task.id, 422 if task.leads is None else 500, raw({"error": "the answer is too large"}))
    return Answer(task.id, 200, body)


def _values(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if values is None else dict(values)


def _results(results: Sequence[Mapping[str, Any] | Exception | None], leads: int) -> dict[str, Any]:
    if len(results) != leads:
        raise ValueError(f"run has returned {len(results)} results for {leads} leads")
    return {
        "results": [
            {"error": _sentence(each)} if isinstance(each, Exception) else {"values": _values(each)} for each in results
        ]
    }


def _message(error: Exception) -> msgspec.Raw:
    return raw({"error": str(error)})


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    main()
