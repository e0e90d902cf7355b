"""A reign that loses its database ends whole, and the next one goes on from what is stored."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from leadline.actors.announcer import Announcer
from leadline.actors.supervisor import Setting, Supervisor, charge_seconds, resets_by_wall
from leadline.core.events import AccountLearned, NewJob
from leadline.core.model import SECOND, Counts, Family, JobState, Limits, Now, Rules
from leadline.core.places import suspicion_of
from leadline.core.rate_limit import DailyLimit, WindowLimit
from leadline.ports.provider_client import Request, Response
from leadline.ports.store import Fenced, OutcomeUnknown, Recovered, Unavailable
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import AccountName, Instant, JobId
from leadline_protocol.messages import Submission
from tests.fakes.store import Disk, FakeStore, Fault, wall

RULES = Rules({Family.TABLES: 8}, Limits({Family.TABLES: 1, Family.NOOP: 1}))


class Clock:
    """The machine's clock."""

    def now(self) -> Now:
        return Now(wall(), wall())


class NoProviders:
    """A client that nobody may use here."""

    async def send(self, request: Request, *, may_send: object, began: object, beat: object) -> Response:
        raise AssertionError("no call is made in these tests")


class Sleeper:
    """A kind of job that runs until the test lets it end."""

    name = "sleep"
    family = Family.TABLES

    def __init__(self) -> None:
        self.started: list[tuple[JobId, int]] = []
        self.cancelled: list[JobId] = []
        self.changed = anyio.Event()
        self.let_go = anyio.Event()

    async def prepare(
        self, teamspace: str, submission: Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        return Prepared()

    async def run(self, attempt: Attempt) -> Finished:
        self.started.append((attempt.job.id, attempt.number))
        self.changed.set()
        try:
            await self.let_go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(attempt.job.id)
            raise
        return Finished(JobState.COMPLETED, Counts(total=1, done=1))

    async def until_started(self, count: int) -> None:
        while len(self.started) < count:
            self.changed = anyio.Event()
            await self.changed.wait()


@asynccontextmanager
async def supervised(store: FakeStore, kinds: Sequence[Sleeper]) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        owner="test",
        place="here",
        store=store,
        clock=_clock,
        kinds=kinds,
        client=NoProviders(),
        setting=Setting(RULES, {}, ()),
        announcer=Announcer(),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervisor.run)
        yield supervisor
        tasks.cancel_scope.cancel()


def _clock(_: Recovered) -> Clock:
    return Clock()


def sleep(teamspace: str = "acme") -> NewJob:
    return NewJob(teamspace, 2, b"{}")


async def until_refused(supervisor: Supervisor) -> Refused:
    with pytest.raises(Refused) as caught:
        await supervisor.dispatcher.submit([sleep("other")])
    return caught.value


@pytest.mark.parametrize(
    ("fault", "crashes"), [(None, 1), (Fault.REFUSED, 1), (Fault.UNKNOWN_LOST, 0), (Fault.UNKNOWN_STORED, 1)]
)
async def test_a_crash_counts_once_though_the_database_is_lost_as_the_next_reign_begins(
    fault: Fault | None, crashes: int
) -> None:
    """Where nobody can say whether it is stored it may be lost, but is not counted twice."""
    disk, sleeper = Disk(), Sleeper()
    async with supervised(FakeStore(disk), [sleeper]) as supervisor:
        await supervisor.dispatcher.submit([sleep()])
        await sleeper.until_started(1)
    disk.owner = None
    store = FakeStore(disk)
    store.faults = [fault]
    async with supervised(store, [sleeper]) as supervisor:
        await supervisor.until_ready()
        assert supervisor.reign is not None
        suspects = supervisor.reign.dispatcher.scheduler.suspects
        assert [suspicion_of(job).crashes for job in suspects.values()] == [1] * crashes


async def test_a_commit_that_fails_is_answered_unavailable_and_the_next_reign_takes_work() -> None:
    store, sleeper = FakeStore(), Sleeper()
    async with supervised(store, [sleeper]) as supervisor:
        first = supervisor.reign
        store.faults = [Fault.REFUSED]
        assert (await until_refused(supervisor)).code is ErrorCode.UNAVAILABLE
        await supervisor.until_ready()
        (receipt,) = await supervisor.dispatcher.submit([sleep()])
        assert not isinstance(receipt, Refused)
        assert supervisor.reign is not first
        assert [job.new.new.teamspace for job in store.disk.jobs.values()] == ["acme"]


async def test_what_ran_is_cancelled_with_its_reign_and_runs_again_under_a_new_attempt() -> None:
    store, sleeper = FakeStore(), Sleeper()
    async with supervised(store, [sleeper]) as supervisor:
        await supervisor.dispatcher.submit([sleep()])
        await sleeper.until_started(1)
        store.faults = [Fault.REFUSED]
        await until_refused(supervisor)
        await sleeper.until_started(2)
        assert sleeper.started == [(1, 1), (1, 2)]
        assert sleeper.cancelled == [1]


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_LOST, Fault.UNKNOWN_STORED])
async def test_after_a_commit_that_nobody_can_tell_of_memory_agrees_with_the_database(fault: Fault) -> None:
    store, sleeper = FakeStore(), Sleeper()
    async with supervised(store, [sleeper]) as supervisor:
        store.faults = [fault]
        with pytest.raises(OutcomeUnknown):
            await supervisor.dispatcher.submit([sleep("other")])
        await supervisor.until_ready()
        in_memory = await supervisor.dispatcher.look(lambda scheduler, _: set(scheduler.jobs))
        stored = {number for number, job in store.disk.jobs.items() if job.ended is None}
        assert in_memory == stored
        assert bool(stored) == (fault is Fault.UNKNOWN_STORED)


async def test_permits_of_an_owner_that_may_have_survived_are_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.actors.supervisor.SURVIVOR_SECONDS", 0.2)
    disk = Disk()
    await FakeStore(disk).take_over(owner="before", place="elsewhere", kinds={})
    disk.owner = None
    began = anyio.current_time()
    async with supervised(FakeStore(disk), [Sleeper()]):
        assert anyio.current_time() - began >= 0.2
    disk.owner = None
    monkeypatch.setattr("leadline.actors.supervisor.SURVIVOR_SECONDS", 60)
    began = anyio.current_time()
    async with supervised(FakeStore(disk), [Sleeper()]):
        assert anyio.current_time() - began < 30, "here is where the one before was"


async def test_an_owner_that_is_replaced_ends_at_once() -> None:
    disk = Disk()

    async def reign_until_replaced() -> None:
        async with supervised(FakeStore(disk), [Sleeper()]):
            await FakeStore(disk).take_over(owner="another", kinds={}, force=True)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await reign_until_replaced()
    assert caught.group_contains(Fenced, match="replaced by another", depth=None)


class Unlucky(Sleeper):
    """Loses the database among its own tasks, the first time."""

    async def run(self, attempt: Attempt) -> Finished:
        if attempt.number == 1:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.lose)
        return await super().run(attempt)

    async def lose(self) -> None:
        raise Unavailable("a connection was cut")


async def test_a_job_whose_tasks_lose_the_database_is_interrupted_and_not_failed() -> None:
    unlucky = Unlucky()
    async with supervised(FakeStore(), [unlucky]) as supervisor:
        await supervisor.dispatcher.submit([sleep()])
        await unlucky.until_started(1)
        assert unlucky.started == [(1, 2)]


async def test_while_the_database_is_away_everybody_is_told_so_and_nothing_is_kept() -> None:
    disk = Disk()
    store, sleeper = FakeStore(disk), Sleeper()
    async with supervised(store, [sleeper]) as supervisor:
        store.away = True
        await until_refused(supervisor)
        assert (await until_refused(supervisor)).retry_after
        store.away = False
        await supervisor.until_ready()
        assert await supervisor.dispatcher.look(lambda scheduler, _: len(scheduler.jobs)) == 0


@pytest.mark.parametrize("moment", ["as it begins", "while it waits for what runs"])
async def test_a_drain_comes_to_an_end_where_the_database_is_lost(moment: str) -> None:
    store, sleeper = FakeStore(), Sleeper()
    async with supervised(store, [sleeper]) as supervisor:
        await supervisor.dispatcher.submit([sleep()])
        await sleeper.until_started(1)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                if moment == "as it begins":
                    store.away = True
                tasks.start_soon(supervisor.drain, 60)
                await anyio.wait_all_tasks_blocked()
                store.away = True
                await until_refused(supervisor)
        assert sleeper.cancelled == [1], "it has not ended before"


def test_a_recovery_reads_as_far_back_as_the_longest_window_reaches() -> None:
    minute = AccountLearned(AccountName("a"), (WindowLimit(15, 60),))
    week = AccountLearned(AccountName("b"), (WindowLimit(1_000, 7 * 86_400),))
    day = AccountLearned(AccountName("c"), (DailyLimit(1_000),))
    paced = AccountLearned(AccountName("d"), (), pace_per_second=1 / 7_200)
    assert 60 < charge_seconds([minute]) < 3_600
    assert charge_seconds([minute, week]) > 7 * 86_400
    assert charge_seconds([day]) > 25 * 3_600
    assert charge_seconds([paced]) > 7_200


def test_a_day_ends_by_the_wall_also_where_its_clock_was_set_back() -> None:
    hour = 3_600 * SECOND
    midnight = 1_800_000_000 * SECOND // (24 * hour) * 24 * hour

    def next_midnight(_: DailyLimit, after: Instant) -> Instant:
        return Instant((after // (24 * hour) + 1) * 24 * hour)

    now = Now(instant=Instant(midnight + 2 * hour), wall=Instant(midnight - hour))
    resets = resets_by_wall(next_midnight, now)
    assert resets(DailyLimit(1), now.instant) == now.instant + hour
