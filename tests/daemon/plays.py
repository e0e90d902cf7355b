"""Days of batch jobs in no time: the whole daemon, on a wall clock that the test sets and a runner that only acts.

An attempt takes as long on that clock as the test says, and is ended by its limit as the real runner would end it. The
runner keeps its attempts while daemons come and go, as the real one does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from leadline import main
from leadline.core.quota.days import day_of
from leadline.core.quota.ledger import KEPT_MICROSECONDS, Ledger
from leadline.daemon import Daemon
from leadline.ports.runner import Answer, End, How, Killed, KilledFor, LogLine, Order, Question, Raised, Returned
from leadline_protocol.client import Client
from leadline_protocol.ids import Instant
from leadline_protocol.messages import BatchJobs, BatchRun, Schedules
from tests.acceptance.batch_jobs import zipped
from tests.daemon.running import WITHIN_SECONDS, Place

SECOND = 1_000_000


class Part(Struct, frozen=True):
    """What an attempt does: so long it takes, and whether it fails in the end."""

    seconds: float
    fails: bool = False


class ActedRun:
    """An attempt on the stage."""

    def __init__(self, play: "Play", order: Order, part: Part) -> None:
        self.name = order.name
        self.began = play.wall
        cut = part.seconds > order.limits.seconds
        self.seconds = min(part.seconds, order.limits.seconds)
        self.how: How = (
            Killed(KilledFor.TIMEOUT) if cut else Raised("E: no") if part.fails else Returned(msgspec.Raw(b"1"))
        )
        self.over = asyncio.Event()
        self._play = play

    @property
    def ends(self) -> Instant:
        return Instant(self.began + round(self.seconds * SECOND))

    async def log(self, after: int = 0) -> AsyncIterator[LogLine]:
        await self.over.wait()
        for _ in ():
            yield LogLine(1, 0, "")

    async def ended(self) -> End:
        await self.over.wait()
        return End(self.how, self.began, self.seconds)

    async def kill(self) -> End:
        if not self.over.is_set():
            self.how = Killed(KilledFor.TOLD)
            self.seconds = (self._play.wall - self.began) / SECOND
            self.over.set()
        return await self.ended()

    async def questions(self) -> AsyncIterator[Question]:
        await self.over.wait()
        for _ in ():
            yield Question(0, "", msgspec.Raw(b""))

    async def answer(self, number: int, answer: Answer) -> None:
        raise AssertionError("it asks nothing")

    async def forget(self) -> None:
        del self._play.runs[self.name]


class Play:
    """A wall clock, and what the attempts of each batch job do, in their order; the last part is played again."""

    def __init__(self, place: Place, start: datetime) -> None:
        self.place = place
        self.wall = Instant(int(start.timestamp()) * SECOND)
        self.parts: dict[str, list[Part]] = {}
        self.runs: dict[str, ActedRun] = {}
        self.begun: list[tuple[str, int]] = []
        self.running: Daemon
        self.client: Client

    # -- the runner ---------------------------------------------------------------------------------------------------

    async def start(self, order: Order) -> ActedRun:
        event = msgspec.json.decode(order.event)
        name = event["job_name"]
        parts = self.parts[name]
        part = parts.pop(0) if len(parts) > 1 else parts[0]
        self.begun.append((name, event["retry_attempt"]))
        run = self.runs[order.name] = ActedRun(self, order, part)
        return run

    async def adopt(self) -> Sequence[ActedRun]:
        return list(self.runs.values())

    # -- the daemon ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator["Play"]:
        """A daemon of this play; another one after it goes on with it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(main, "sandbox_runner", self._runner)
            patch.setattr(Daemon, "wall", lambda _: self.wall)
            async with self.place.daemon() as (self.running, self.client):
                yield self

    @asynccontextmanager
    async def _runner(self, _folder: Path, **_: Any) -> AsyncIterator["Play"]:
        yield self

    async def publish(self, name: str, *parts: Part, **conduct: Any) -> None:
        """A batch job that may be submitted, whose attempts do this."""
        self.parts[name] = list(parts)
        asked = BatchJobs(action="create", teamspace="acme", name=name, api=True, **conduct)
        await self.client.call(asked)
        (self.place.state / "incoming" / f"{name}.zip").write_bytes(zipped({"main.py": "def main(): pass\n"}))
        await self.client.call(BatchJobs(action="upload", teamspace="acme", name=name, path=f"{name}.zip"))
        await self.client.call(BatchJobs(action="publish", teamspace="acme", name=name))

    async def at(self, moment: datetime) -> None:
        """Let time pass until then: what is due fires, and what has run its time ends, in their order."""
        target = Instant(int(moment.timestamp() * SECOND))
        while ending := [run for run in self.runs.values() if run.ends <= target and not run.over.is_set()]:
            first = min(ending, key=lambda run: run.ends)
            self.wall = max(self.wall, first.ends)
            first.over.set()
            await self.quiet()
        self.wall = target

    async def fire(self, *schedules: str) -> None:
        """Have these schedules look at the clock, and wait until what they want has begun or was skipped."""
        deadline = time.monotonic() + WITHIN_SECONDS
        for schedule in schedules:
            self.running.recurrences.wake("acme", schedule)
        for schedule in schedules:
            asked = Schedules(action="describe", teamspace="acme", name=schedule, count=0)
            while not any(
                past.at.timestamp() * SECOND == self.wall for past in (await self.client.call(asked)).schedules[0].past
            ):
                assert time.monotonic() < deadline, schedule
                await asyncio.sleep(0.005)
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until nothing changes any more but by the clock."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            runs = await self.all_runs()
            live = [each for each in runs if each.state not in {"completed", "failed", "skipped", "cancelled"}]
            acting = sum(not run.over.is_set() for run in self.runs.values())
            if len(live) == acting == len(self.runs):
                return
            assert time.monotonic() < deadline, (live, self.runs)
            await asyncio.sleep(0.005)

    async def all_runs(self) -> Sequence[BatchRun]:
        """All runs, oldest first."""
        found = (await self.client.call(BatchJobs(action="runs", teamspace="acme"))).runs
        return sorted(found, key=lambda run: run.instance)

    async def used(self) -> tuple[int, float]:
        """Executions, and recorded seconds, of the present day, which agree with the executions one by one."""
        store, plan = self.running.batch_store, self.running.live.batch_plan("acme")
        today = day_of(self.wall, plan.zone)
        rows = await store.rows("acme", Instant(self.wall - KEPT_MICROSECONDS))
        assert (await store.used("acme", today, self.wall)).usage == Ledger(rows.executions, rows.attempts).usage(today)
        day = (await self.client.call(BatchJobs(teamspace="acme"))).day
        assert day is not None
        return day.executions, day.seconds

    async def tally(self) -> Mapping[str, int]:
        """How many runs ended in which way: their reason, or their state where there is none."""
        counted: dict[str, int] = {}
        for run in await self.all_runs():
            word = str(run.reason or run.state)
            counted[word] = counted.get(word, 0) + 1
        return counted
