"""The attempts that the runner keeps, by the names that they were started under.

An attempt outlives the daemon that has started it. The next daemon finds it here: the job goes on, finds its attempt,
and waits for it as if nothing had been. Where its job was ended meanwhile, or is by somebody before it goes on, nobody
will come for it: then it is ended here, and what it took is put into the books.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

from leadline.features.batch.course import took_ms, words
from leadline.features.batch.ports import BatchStore, StoredRun
from leadline.ports.runner import Order, Run, Runner
from leadline_protocol.ids import Instant, JobId

log = structlog.get_logger(__name__)

WhenEnded = Callable[[JobId, Callable[[], None]], None]
"""Has something called when a job of the queue ends."""


def name_of(token: bytes, retry: int) -> str:
    """What an attempt is called."""
    return f"{token.hex()}-{retry}"


class Attempts:
    """Attempts that are kept."""

    def __init__(self, runner: Runner, store: BatchStore, wall: Callable[[], Instant]) -> None:
        self._runner = runner
        self._store = store
        self._wall = wall
        self._kept: dict[str, Run] = {}
        self._watched: set[str] = set()
        """Those that a job waits for."""
        self._orphaned = anyio.Event()
        self._orphans: list[str] = []
        self._readers: dict[JobId, set[anyio.Event]] = {}

    async def adopt(self) -> None:
        """Take over what daemons before have left."""
        for run in await self._runner.adopt():
            self._kept.setdefault(run.name, run)

    def find(self, name: str) -> Run | None:
        """The attempt of that name, which somebody waits for from now on."""
        run = self._kept.get(name)
        if run is not None:
            self._watched.add(name)
        return run

    async def start(self, order: Order) -> Run:
        """Have one begin. Raises CannotRun."""
        run = self._kept[order.name] = await self._runner.start(order)
        self._watched.add(order.name)
        return run

    def leave(self, run: Run) -> None:
        """Nobody waits for it any more; whether it goes on is seen when its job does."""
        self._watched.discard(run.name)

    async def forget(self, run: Run) -> None:
        """It has ended, and that is in the books."""
        self._kept.pop(run.name, None)
        self._watched.discard(run.name)
        await run.forget()

    # -- orphans ------------------------------------------------------------------------------------------------------

    async def see_to_orphans(self, when_ended: WhenEnded) -> None:
        """Until cancelled: end what no job comes for, now and whenever the job of one ends before it has gone on."""
        for name in [name for name in self._kept if name not in self._watched]:
            run = await self._run_of(name)
            if run is not None:
                when_ended(run.job, lambda name=name: self._orphan(name))  # type: ignore[misc]
            if run is None or not await self._store.is_live(run.job):
                self._orphan(name)
        for run in await self._store.unended():
            if not any(name_of(run.token, tried.retry) in self._kept for tried in run.tried):
                last = run.tried[-1]  # one that was to begin, and of which there is nothing
                await self._store.bury(run, last.retry, 0, "it was never started", self._wall())
        while True:
            while self._orphans:
                await self._end(self._orphans.pop())
            self._orphaned = anyio.Event()
            await self._orphaned.wait()

    def _orphan(self, name: str) -> None:
        self._orphans.append(name)
        self._orphaned.set()

    async def _end(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is None or name in self._watched:
            return
        end = await kept.kill()
        stored = await self._run_of(name)
        if stored is not None:
            for tried in stored.tried:
                if name_of(stored.token, tried.retry) == name:
                    how = words(end.how, tried)
                    await self._store.bury(stored, tried.retry, took_ms(end, tried), how, self._wall())
        log.warning("orphan_ended", run=name, job=None if stored is None else stored.job)
        await self.forget(kept)

    async def _run_of(self, name: str) -> StoredRun | None:
        token, _, _ = name.partition("-")
        try:
            return await self._store.run_of(bytes.fromhex(token))
        except ValueError:
            return None

    # -- who reads along ----------------------------------------------------------------------------------------------

    def printed(self, job: JobId) -> None:
        """More of what a run prints is stored, or it has ended."""
        for reader in self._readers.get(job, ()):
            reader.set()

    @contextmanager
    def reading(self, job: JobId) -> Iterator[anyio.Event]:
        """Something that is set when more is stored of what a run prints from now on, or it ends."""
        news = anyio.Event()
        self._readers.setdefault(job, set()).add(news)
        try:
            yield news
        finally:
            self._readers[job].discard(news)
            if not self._readers[job]:
                del self._readers[job]
