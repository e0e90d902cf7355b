"""Who answers for a Python module: its worker processes, started when they are needed and kept.

A request takes a place in a process: the one with the fewest leads in hand, a new one where all are full and there may
be more, else it waits. The places are also a limit of the module's account, so that jobs wait for them where the queue
shares them fairly; here somebody waits only while a process is being replaced.

What the function does with a lead cannot be undone, nor can it be stopped from outside other than by its process. So
whoever gives a lead up, because its job was killed or it took too long, has the process killed, and waits until that is
proven gone.

The complication are the other leads that such a process had in hand, or one that crashed by itself: one of them is to
blame, and nobody knows which. Each of them has failed once, as with a provider that broke, and is tried again by its
job; from then on it is a suspect and gets a process for itself. The one to blame then falls by itself, with its tries
used up, and takes nobody else with it.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from leadline.adapters.python_workers.process import (
    Installed,
    ModuleUnusable,
    NotStarted,
    WorkerDied,
    WorkerProcess,
)
from leadline.adapters.python_workers.wire import Answer, Task
from leadline.ports.provider_client import Request, Response, Unsent, Withdrawn

log = structlog.get_logger(__name__)

SUSPECTS_MAX: Final = 1_000
"""So many leads of a module are remembered that were in hand when a process died."""


class Allowed(msgspec.Struct, frozen=True):
    """What a module's workers may take."""

    processes: int
    leads_at_once: int
    memory_bytes_max: int | None = None


class _Asked(msgspec.Struct, frozen=True):
    """The body of a request to a module."""

    lead: Mapping[str, Any] = {}
    leads: Sequence[Mapping[str, Any]] | None = None
    settings: Mapping[str, str] = {}


_ASKED: Final = msgspec.json.Decoder(_Asked)


class Offer(msgspec.Struct, frozen=True):
    """A module as it is to be answered for."""

    module: Installed
    declared: bytes
    """What it says of itself; another version says something else."""
    allowed: Allowed


class _Worker:
    """A process and its places."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process: Final = process
        self.in_hand: dict[int, bytes] = {}
        """The bodies of the requests that it has in hand."""
        self.alone = False
        """Whether it is kept for the one that it has in hand."""

    @property
    def open(self) -> bool:
        """Whether it takes leads."""
        return not self.alone and not self.process.ending


class Workers:
    """The worker processes of one module."""

    def __init__(self, module: Installed, allowed: Allowed, tasks: TaskGroup) -> None:
        self.module: Final = module
        self.allowed = allowed
        """May change: what there is already stays as it is."""
        self._tasks = tasks
        self._workers: list[_Worker] = []
        self._changed = anyio.Event()
        self._suspects: OrderedDict[bytes, None] = OrderedDict()
        self._waiting_alone = 0
        self._retired = False
        self._next = 0

    def retire(self) -> None:
        """Take no more: each process ends when it has nothing in hand any more."""
        self._retired = True
        for worker in self._workers:
            if not worker.in_hand:
                self._end(worker)

    async def ask(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None],
    ) -> Response:
        """The module's answer about a lead. Raises Unsent, and ModuleUnusable where there will never be one."""
        number, self._next = self._next, self._next + 1
        worker = await self._place(number, request.body)
        try:
            if not may_send():
                raise Withdrawn("leave to send was withdrawn")
            answer = await self._answer(worker, request, beat)
        finally:
            del worker.in_hand[number]
            worker.alone = False
            if self._retired and not worker.in_hand:
                self._end(worker)
            self._tell_changed()
        began()
        headers = {} if answer.retry_after is None else {"retry-after": f"{answer.retry_after:g}"}
        return Response(answer.status, headers, bytes(answer.body))

    async def _answer(self, worker: _Worker, request: Request, beat: Callable[[], None]) -> Answer:
        process = worker.process
        asked = _ASKED.decode(request.body)
        _, _, secret = request.headers.get("Authorization", "").partition(" ")
        beat()
        try:
            await process.declared()  # loading the module is none of the lead's time
            with anyio.fail_after(request.timeout_seconds):
                return await process.ask(Task(0, asked.settings, secret or None, asked.lead, asked.leads), beat)
        except NotStarted as error:
            raise Unsent(str(error)) from error
        except TimeoutError:
            self._suspect(worker)
            await process.kill("another lead took too long")
            return _failure(504, f"it took longer than {request.timeout_seconds:g} s")
        except WorkerDied as died:
            self._suspect(worker)
            return _failure(500, str(died))
        except anyio.get_cancelled_exc_class():
            self._suspect(worker)
            with anyio.CancelScope(shield=True):
                await process.kill("the job of another lead was stopped by force")
            raise

    async def _place(self, number: int, body: bytes) -> _Worker:
        """A worker that takes this lead in hand."""
        alone = body in self._suspects
        self._waiting_alone += alone
        try:
            while (worker := self._free(alone=alone)) is None:
                await self._changed.wait()
        finally:
            self._waiting_alone -= alone
        worker.in_hand[number] = body
        worker.alone = alone
        return worker

    def _free(self, *, alone: bool) -> _Worker | None:
        """A worker with a place; where a suspect waits for a process of its own, nobody else gets in the way."""
        if self._waiting_alone and not alone:
            return None
        most = 1 if alone else self.allowed.leads_at_once
        free = [each for each in self._workers if each.open and len(each.in_hand) < most]
        if not free and len(self._workers) < self.allowed.processes:
            return self._start()
        return min(free, key=lambda worker: len(worker.in_hand), default=None)

    def _start(self) -> _Worker:
        worker = _Worker(WorkerProcess(self.module, memory_bytes_max=self.allowed.memory_bytes_max))
        self._workers.append(worker)
        self._tasks.start_soon(self._live, worker, name=f"worker of {self.module.name}")
        return worker

    async def _live(self, worker: _Worker) -> None:
        try:
            await worker.process.run()
            log.warning("worker_gone", module=self.module.name, story=worker.process.story)
        finally:
            self._workers.remove(worker)
            self._tell_changed()

    def _end(self, worker: _Worker) -> None:
        self._tasks.start_soon(worker.process.kill, "its module was replaced")

    def _suspect(self, worker: _Worker) -> None:
        """A process ends before its time: all that it has in hand may be to blame."""
        for body in worker.in_hand.values():
            self._suspects[body] = None
        while len(self._suspects) > SUSPECTS_MAX:
            self._suspects.popitem(last=False)

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class PythonModules:
    """The client for requests to `python://NAME` (`ports.provider_client.ProviderClient`)."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._offered: dict[str, tuple[Offer, Workers]] = {}

    def offer(self, offers: Mapping[str, Offer]) -> None:
        """Have these modules answered from now on; the processes of a module that is the same as before stay."""
        before, self._offered = self._offered, {}
        for name, offer in offers.items():
            known = before.get(name)
            if known is None or (known[0].module, known[0].declared) != (offer.module, offer.declared):
                self._offered[name] = (offer, Workers(offer.module, offer.allowed, self._tasks))
            else:
                known[1].allowed = offer.allowed
                self._offered[name] = (offer, known[1])
        kept = {id(workers) for _, workers in self._offered.values()}
        for _, workers in before.values():
            if id(workers) not in kept:
                workers.retire()

    async def send(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None],
    ) -> Response:
        """Ask a module. Raises Unsent, and ModuleUnusable where it cannot be loaded or is not there any more."""
        name = urlsplit(request.url).netloc
        if name not in self._offered:
            raise ModuleUnusable(f"module {name} is not installed any more")
        return await self._offered[name][1].ask(request, may_send=may_send, began=began, beat=beat)


def _failure(status: int, story: str) -> Answer:
    return Answer(0, status, msgspec.Raw(msgspec.json.encode({"error": story})))


@asynccontextmanager
async def python_modules() -> AsyncIterator[PythonModules]:
    """Workers for as long as the context is open; they are gone when it is closed."""
    async with anyio.create_task_group() as tasks:
        try:
            yield PythonModules(tasks)
        finally:
            tasks.cancel_scope.cancel()
