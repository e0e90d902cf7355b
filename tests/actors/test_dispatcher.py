"""The dispatcher decides ahead of a commit, and tells nobody anything before its own decision is durable."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from leadline.actors import dispatcher
from leadline.actors.dispatcher import (
    COMPANY_MIN,
    FEW_JOBS,
    INBOX_JOBS_MAX,
    JOBS_AHEAD_MIN,
    JOBS_PER_SHARED_DECISION,
    Dispatcher,
)
from leadline.core.effects import (
    Effects,
    Receipt,
    Records,
    RefuseCall,
    SendCall,
    StartAttempt,
    StopAttempt,
    WarnStalled,
)
from leadline.core.events import Key, KnownKey, NewJob, PauseSet
from leadline.core.model import SECOND, Family, JobState, Kind, Limits, Now, Rules
from leadline.core.scheduler import Scheduler
from leadline.ports.store import OutcomeUnknown, Unavailable
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId
from tests.fakes.store import Disk, FakeStore

KINDS = (Kind(0, "noop", Family.NOOP, instant=True),)
RULES = Rules({}, Limits(dict.fromkeys(Family, 1), max_queued=100_000))


class StillClock:
    """A clock that stands."""

    def now(self) -> Now:
        return Now(Instant(SECOND), Instant(SECOND))


class SlowStore(FakeStore):
    """A store whose commits, and questions for keys, end when the test says so."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.begun: list[Records] = []
        self.asked: list[Sequence[tuple[str, bytes]]] = []
        self.fault: Exception | None = None
        self._gate = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()

    async def commit(self, records: Records) -> None:
        self.begun.append(records)
        await self._tell()
        await self._gate.acquire()
        if self.fault is not None:
            raise self.fault
        await super().commit(records)

    async def known_keys(self, keys: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], KnownKey]:
        known = await super().known_keys(keys)
        self.asked.append(keys)
        await self._tell()
        return known

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    def let_one_land(self) -> None:
        self._gate.release()


class Recorder:
    """Notes what was carried out."""

    def __init__(self) -> None:
        self.records: list[Records] = []

    def start(self, order: StartAttempt) -> None: ...
    def stop(self, order: StopAttempt) -> None: ...
    def send(self, order: SendCall) -> None: ...
    def refuse(self, order: RefuseCall) -> None: ...
    def warn(self, order: WarnStalled) -> None: ...
    def recorded(self, records: Records) -> None:
        if records:
            self.records.append(records)


class Desk:
    """A dispatcher that runs, and what is round it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.store = SlowStore(disk)
        self.scheduler = Scheduler(KINDS, RULES)
        self.performer = Recorder()
        self.dispatcher = Dispatcher(self.scheduler, self.store, StillClock(), self.performer, last_call=0)
        self.loop: asyncio.Task[None]

    def submit(
        self, count: int, first: int = 0, *, keys: str = "", source: Hashable = None
    ) -> asyncio.Future[Sequence[Receipt | Refused]]:
        jobs = [
            NewJob(f"team-{number}", 0, b"{}", key=Key(f"{keys}{number}".encode(), b"body") if keys else None)
            for number in range(first, first + count)
        ]
        return self.dispatcher.submit(jobs, source)


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    it = Desk(Disk())
    await it.store.take_over(owner="test", kinds={"noop": 0})
    await it.dispatcher.open(Effects())
    it.loop = asyncio.ensure_future(it.dispatcher.run())
    try:
        yield it
    finally:
        it.loop.cancel()
        await asyncio.gather(it.loop, return_exceptions=True)


async def turns(count: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def receipts(task: asyncio.Future[Sequence[Receipt | Refused]]) -> list[Receipt]:
    return [answer for answer in task.result() if isinstance(answer, Receipt)]


async def test_nobody_is_told_anything_before_the_commit() -> None:
    async with desk() as it:
        submitted = it.submit(3)
        await it.store.until(lambda: len(it.store.begun) == 1)
        await turns()
        assert not submitted.done()
        assert it.performer.records == []
        it.store.let_one_land()
        await submitted
        assert [receipt.job for receipt in receipts(submitted)] == [1, 2, 3]
        assert it.disk.jobs[JobId(1)].state is JobState.COMPLETED


async def test_with_much_to_do_the_next_decision_is_made_while_the_last_one_commits() -> None:
    async with desk() as it:
        first = it.submit(1)
        await it.store.until(lambda: len(it.store.begun) == 1)
        second = it.submit(JOBS_AHEAD_MIN, first=1)
        await turns()
        assert it.scheduler.next_job == JOBS_AHEAD_MIN + 2
        assert len(it.store.begun) == 1, "its commit begins when the one before has ended"
        assert not second.done()
        it.store.let_one_land()
        await first
        await it.store.until(lambda: len(it.store.begun) == 2)
        assert not second.done()
        it.store.let_one_land()
        await second
        assert [records.admitted[0].id for records in it.performer.records] == [1, 2]


async def test_no_more_than_one_decision_is_made_ahead() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks += [it.submit(5_000, first=5_000 * number) for number in (1, 2, 3)]
        await turns()
        assert it.scheduler.next_job == 5_002
        for task in tasks:
            it.store.let_one_land()
            await task


async def test_a_few_submissions_wait_for_the_commit_and_share_the_next_one() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks += [it.submit(1, first=number) for number in range(1, 51)]
        await turns()
        assert it.scheduler.next_job == 2
        it.store.let_one_land()
        it.store.let_one_land()
        await asyncio.gather(*tasks)
        assert [len(records.admitted) for records in it.store.begun] == [1, 50]


async def all_but_one_answered(it: Desk) -> None:
    """So many sources hand one job in that they are waited for; the last one while the others' are stored."""
    early = [it.submit(1, source, source=source) for source in range(COMPANY_MIN)]
    await it.store.until(lambda: len(it.store.begun) == 1)
    it.submit(1, source="late")
    it.store.let_one_land()
    await asyncio.gather(*early)


async def test_who_is_answered_in_company_and_comes_again_at_once_shares_the_next_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "COMPANY_SECONDS", 60)
    async with desk() as it:
        await all_but_one_answered(it)
        for source in range(COMPANY_MIN - 1):
            await turns()
            assert len(it.store.begun) == 1
            it.submit(1, source, source=source)
        await it.store.until(lambda: len(it.store.begun) == 2)
        assert len(it.store.begun[1].ended) == COMPANY_MIN


async def test_whoever_waits_does_not_wait_long_for_company_that_stays_away() -> None:
    async with desk() as it:
        await all_but_one_answered(it)
        await it.store.until(lambda: len(it.store.begun) == 2)
        assert len(it.store.begun[1].ended) == 1


async def test_what_is_no_submission_waits_for_no_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "COMPANY_SECONDS", 60)
    async with desk() as it:
        await all_but_one_answered(it)
        it.dispatcher.post(PauseSet("queue", "", paused=True))
        await it.store.until(lambda: len(it.store.begun) == 2)
        assert len(it.store.begun[1].admitted) + len(it.store.begun[1].ended) == 1


async def test_a_question_is_answered_when_all_that_was_decided_is_durable() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks.append(it.submit(JOBS_AHEAD_MIN, first=1))
        await turns()
        looked = asyncio.ensure_future(it.dispatcher.look(lambda scheduler, _: (scheduler.next_job, it.disk.commits)))
        it.store.let_one_land()
        await tasks[0]
        await turns()
        assert not looked.done()
        commits = it.disk.commits
        it.store.let_one_land()
        assert await looked == (JOBS_AHEAD_MIN + 2, commits + 1)


async def test_a_question_goes_before_a_decision_ahead_so_that_it_is_not_put_off_for_ever() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        looked = asyncio.ensure_future(it.dispatcher.look(lambda scheduler, _: (scheduler.next_job, it.disk.commits)))
        tasks.append(it.submit(JOBS_AHEAD_MIN, first=1))
        await turns()
        assert not looked.done()
        it.store.let_one_land()
        assert await looked == (2, 1)
        it.store.let_one_land()
        await asyncio.gather(*tasks)


async def test_when_a_commit_fails_what_was_decided_ahead_of_it_is_unavailable_too_and_never_stored() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks += [it.submit(JOBS_AHEAD_MIN, first=1), it.submit(5_000, first=2_000)]
        await turns()
        looked = asyncio.ensure_future(it.dispatcher.look(lambda *_: None))
        it.store.fault = Unavailable("gone")
        it.store.let_one_land()
        with pytest.raises(Unavailable):
            await it.loop
        waiters: list[asyncio.Future[Any]] = [*tasks, looked]
        for waiting in waiters:
            with pytest.raises(Refused) as told:
                await waiting
            assert told.value.code is ErrorCode.UNAVAILABLE
        assert len(it.store.begun) == 1
        assert it.performer.records == []


async def test_those_whose_commit_may_have_taken_place_are_told_nothing_that_could_be_wrong() -> None:
    async with desk() as it:
        in_doubt = it.submit(1)
        await it.store.until(lambda: len(it.store.begun) == 1)
        ahead = it.submit(JOBS_AHEAD_MIN, first=1)
        await turns()
        it.store.fault = OutcomeUnknown("cut off")
        it.store.let_one_land()
        with pytest.raises(OutcomeUnknown):
            await it.loop
        with pytest.raises(OutcomeUnknown):
            await in_doubt
        with pytest.raises(Refused):
            await ahead


async def test_a_commit_that_fails_while_nothing_else_is_to_be_done_ends_the_reign_at_once() -> None:
    async with desk() as it:
        submitted = it.submit(1)
        await it.store.until(lambda: len(it.store.begun) == 1)
        it.store.fault = Unavailable("gone")
        it.store.let_one_land()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(it.loop, 30)
        with pytest.raises(Refused):
            await submitted


async def test_a_key_that_comes_again_while_its_first_job_is_being_stored_is_that_job() -> None:
    async with desk() as it:
        it.scheduler.handle([PauseSet("queue", "", paused=True)], StillClock().now())
        first = it.submit(JOBS_AHEAD_MIN, keys="k")
        await it.store.until(lambda: len(it.store.begun) == 1)
        again = it.submit(JOBS_AHEAD_MIN, keys="k")
        await it.store.until(lambda: len(it.store.asked) == 2)
        await turns()
        it.store.let_one_land()
        await asyncio.gather(first, again)
        assert [receipt.job for receipt in receipts(again)] == [receipt.job for receipt in receipts(first)]
        assert all(receipt.duplicate and receipt.state is JobState.QUEUED for receipt in receipts(again))


async def test_a_key_that_comes_again_says_how_its_first_job_ended_in_the_commit_under_way() -> None:
    async with desk() as it:
        first = it.submit(JOBS_AHEAD_MIN, keys="k")
        await it.store.until(lambda: len(it.store.begun) == 1)
        again = it.submit(JOBS_AHEAD_MIN, keys="k")
        await it.store.until(lambda: len(it.store.asked) == 2)
        await turns()
        it.store.let_one_land()
        await asyncio.gather(first, again)
        assert {receipt.state for receipt in receipts(again)} == {JobState.COMPLETED}


async def test_who_comes_while_another_floods_is_in_the_next_decision() -> None:
    async with desk() as it:
        tasks = [it.submit(256, first=256 * number, source="flood") for number in range(90)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        await turns()
        late = it.submit(1, first=20_000, source="patient")
        decisions = 0
        while not late.done():
            it.store.let_one_land()
            decisions += 1
            await turns()
        assert decisions <= 3, "the one under way, the one ahead, and its own"
        assert sum(task.done() for task in tasks) < 70, "the two decisions made before it came are as large as can be"
        assert max(len(records.admitted) for records in it.store.begun[2:]) <= JOBS_PER_SHARED_DECISION
        for task in tasks:
            while not task.done():
                it.store.let_one_land()
                await turns()


async def test_where_too_much_waits_those_are_told_busy_of_whom_it_is() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks.append(it.submit(1_000, first=1, source="flood"))
        await turns()  # it is decided ahead, and nothing more
        tasks += [it.submit(1_000, first=1_000 * number, source="flood") for number in range(2, 52)]
        await turns()
        for count, first, source in ((1, 60_000, "flood"), (FEW_JOBS + 1, 61_000, "newcomer")):
            with pytest.raises(Refused) as told:
                it.submit(count, first=first, source=source)
            assert told.value.code is ErrorCode.BUSY
            assert told.value.retry_after is not None
        few = it.submit(FEW_JOBS, first=62_000, source="modest")
        await turns()
        assert not few.done()
        assert it.scheduler.next_job < INBOX_JOBS_MAX
        while not all(task.done() for task in (*tasks, few)):
            it.store.let_one_land()
            await turns()
        assert len(receipts(few)) == FEW_JOBS


async def test_ending_the_dispatcher_leaves_nobody_waiting() -> None:
    async with desk() as it:
        tasks = [it.submit(1)]
        await it.store.until(lambda: len(it.store.begun) == 1)
        tasks += [it.submit(JOBS_AHEAD_MIN, first=1), it.submit(1, first=2_000)]
        await turns()
        it.loop.cancel()
        with pytest.raises(OutcomeUnknown):
            await tasks[0]
        for task in tasks[1:]:
            with pytest.raises(Refused):
                await task
        with pytest.raises(Refused):
            await it.dispatcher.look(lambda *_: None)
