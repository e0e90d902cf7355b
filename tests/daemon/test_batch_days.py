"""B5 to B9 and B13: the quotas of a day, to the second, whenever the daemon is started again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant
from leadline_protocol.messages import Batch, Plans, Schedules
from leadline_protocol.schedules import Cron
from tests.daemon.plays import Part, Play
from tests.daemon.running import Place
from tests.postgres import meddle

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE, SECOND = 60, 1
UNITS = pytest.mark.parametrize("unit", [MINUTE, SECOND], ids=["minutes", "seconds"])


class Days:
    """A play whose daemon can be started again at any point; it lives in a task of its own."""

    def __init__(self, place: Place) -> None:
        self.play = Play(place, MIDNIGHT)
        self._life: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def begin(self, **plan: object) -> Play:
        lines = [f"{key} = {str(value).lower()}" for key, value in plan.items()]
        self.play.place.configure("[plans.default.batch]", "enabled = true", *lines)
        await self._start()
        return self.play

    async def restart(self) -> None:
        await self.close()
        await self._start()
        await self.play.quiet()

    async def close(self) -> None:
        if self._life is not None:
            self._over.set()
            await self._life

    async def _start(self) -> None:
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._life = asyncio.create_task(self._live(up))
        await asyncio.wait([up, self._life], return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            await self._life

    async def _live(self, up: "asyncio.Future[None]") -> None:
        async with self.play.daemon():
            up.set_result(None)
            await self._over.wait()


@pytest.fixture
async def days(place: Place) -> AsyncIterator[Days]:
    it = Days(place)
    yield it
    await it.close()


async def submit(play: Play, name: str) -> None:
    await play.client.submit(Batch(teamspace="acme", batch_job=name))
    await play.quiet()


async def hourly(play: Play, *names: str) -> None:
    for name in names:
        await play.client.call(
            Schedules(
                action="add",
                teamspace="acme",
                name=name,
                timetable=Cron("0 * * * *", "UTC"),
                submission={"kind": "batch", "batch_job": name},
            )
        )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("one", "two", "three"), {"completed": 24, "daily_executions": 48}),
        (("one",), {"completed": 10, "invocations": 14}),
    ],
    ids=["three hourly jobs", "one hourly job"],
)
async def test_a_day_of_hourly_jobs_runs_what_its_plan_allows_and_skips_the_rest(
    days: Days, names: tuple[str, ...], expected: dict[str, int]
) -> None:
    play = await days.begin()
    play.wall = Instant(play.wall - 1)
    for each in names:
        await play.publish(each, Part(60), timeout_seconds=600)
    await hourly(play, *names)
    for hour in range(24):
        await play.at(MIDNIGHT + hour * HOUR)
        await play.fire(*names)
        if hour == 5:
            await days.restart()
        await play.at(MIDNIGHT + hour * HOUR + timedelta(minutes=30))
    assert await play.tally() == expected
    await play.at(MIDNIGHT + 24 * HOUR)
    await play.fire(*names)
    assert (await play.all_runs())[-1].state == "running"


@UNITS
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_the_second_of_two_jobs_is_blocked_where_less_is_left_than_its_timeout(
    days: Days, unit: int, restarted: bool
) -> None:
    play = await days.begin(seconds_per_day=60 * unit)
    for each in ("first", "second"):
        await play.publish(each, Part(40 * unit), timeout_seconds=60 * unit)
    await submit(play, "first")
    if restarted:
        await days.restart()
    await play.at(MIDNIGHT + timedelta(seconds=60 * unit))
    assert await play.used() == (1, 40 * unit)
    with pytest.raises(Refused, match="more than is left of the day") as refused:
        await submit(play, "second")
    assert refused.value.code is ErrorCode.QUOTA
    assert refused.value.retry_after == 86_400 - 60 * unit


@UNITS
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_two_that_run_side_by_side_are_both_let_end_and_nothing_is_after_them(
    days: Days, unit: int, restarted: bool
) -> None:
    play = await days.begin(seconds_per_day=60 * unit)
    for each in ("first", "second", "third"):
        await play.publish(each, Part(45 * unit), timeout_seconds=60 * unit if each != "third" else unit)
    await submit(play, "first")
    await submit(play, "second")
    if restarted:
        await days.restart()
    await play.at(MIDNIGHT + timedelta(seconds=45 * unit))
    assert await play.tally() == {"completed": 2}
    assert await play.used() == (2, 90 * unit)
    with pytest.raises(Refused, match="more than is left of the day"):
        await submit(play, "third")


@UNITS
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_a_retry_costs_time_and_neither_an_execution_nor_an_invocation(
    days: Days, unit: int, restarted: bool
) -> None:
    play = await days.begin(seconds_per_day=240 * unit, executions_per_day=1, invocations_per_day=1)
    await play.publish("job", Part(25 * unit, fails=True), Part(30 * unit), timeout_seconds=60 * unit, retries=1)
    await submit(play, "job")
    await play.at(MIDNIGHT + timedelta(seconds=26 * unit))
    if restarted:
        await days.restart()
    await play.at(MIDNIGHT + timedelta(seconds=60 * unit))
    assert play.begun == [("job", 0), ("job", 1)]
    assert await play.tally() == {"completed": 1}
    assert await play.used() == (1, 55 * unit)


@UNITS
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_a_retry_is_capped_by_what_the_day_has_left(days: Days, unit: int, restarted: bool) -> None:
    play = await days.begin(seconds_per_day=60 * unit)
    await play.publish("job", Part(40 * unit, fails=True), Part(60 * unit), timeout_seconds=45 * unit, retries=1)
    await submit(play, "job")
    await play.at(MIDNIGHT + timedelta(seconds=41 * unit))
    if restarted:
        await days.restart()
    await play.at(MIDNIGHT + timedelta(seconds=100 * unit))
    (run,) = await play.all_runs()
    assert (run.state, run.reason) == ("failed", JobReason.LEFT_DURATION)
    assert [(each.cap_seconds, each.seconds) for each in run.attempts] == [
        (45 * unit, 40 * unit),
        (20 * unit, 20 * unit),
    ]
    assert await play.used() == (1, 60 * unit)


async def test_a_run_over_midnight_belongs_to_the_day_in_which_it_started(days: Days) -> None:
    play = await days.begin()
    await play.publish("late", Part(3_600), timeout_seconds=3_600)
    await play.at(MIDNIGHT + 23.5 * HOUR)
    await submit(play, "late")
    await play.at(MIDNIGHT + 24 * HOUR + timedelta(minutes=10))
    assert await play.used() == (0, 0)
    await days.restart()
    await play.at(MIDNIGHT + 25 * HOUR)
    assert await play.tally() == {"completed": 1}
    assert await play.used() == (0, 0)


async def test_of_calls_that_come_together_no_more_are_let_in_than_the_day_has_left(days: Days) -> None:
    play = await days.begin(executions_per_day=3, jobs_max=5)
    await play.publish("job", Part(60), timeout_seconds=60)
    answers = await play.client.submit_many([Batch(teamspace="acme", batch_job="job") for _ in range(5)])
    assert [isinstance(each, Refused) for each in answers] == [False] * 3 + [True] * 2
    await play.quiet()


async def test_a_run_without_a_slot_in_time_is_skipped_without_ever_starting(days: Days) -> None:
    play = await days.begin()
    await play.publish("long", Part(1_800), timeout_seconds=3_600)
    await play.publish("soon", Part(60), timeout_seconds=60)
    await play.client.call(Plans(teamspace="acme", key="slots.batch", value=1))
    await hourly(play, "soon")
    await play.at(MIDNIGHT + timedelta(minutes=50))
    await submit(play, "long")
    await play.at(MIDNIGHT + HOUR)
    play.running.recurrences.wake("acme", "soon")
    while len(await play.all_runs()) < 2:
        await asyncio.sleep(0.005)
    play.wall = Instant(play.wall + 301 * 1_000_000)
    play.running.punctuality.wake()
    await play.quiet()
    long, soon = await play.all_runs()
    assert (long.state, soon.state, soon.reason) == ("running", "skipped", JobReason.NO_SLOT)
    assert (await play.used())[0] == 1


async def test_a_run_whose_job_ended_behind_its_back_is_closed_in_the_books(days: Days) -> None:
    play = await days.begin()
    await play.publish("job", Part(60))
    await submit(play, "job")
    (run,) = await play.all_runs()
    await days.close()
    async with meddle(play.place.url) as connection:
        await connection.execute("DELETE FROM job WHERE id = $1", run.instance)
        await connection.execute("DELETE FROM running_slot WHERE job = $1", run.instance)
    play.runs.clear()
    await days._start()
    while await play.running.batch_store.unended():
        await asyncio.sleep(0.005)
    assert await play.used() == (1, 0)


async def test_a_run_that_is_only_tried_takes_nothing_and_is_refused_where_it_would_be(days: Days) -> None:
    play = await days.begin(executions_per_day=1)
    await play.publish("job", Part(60))
    for _ in range(3):
        (step,) = (await play.client.preview(Batch(teamspace="acme", batch_job="job"))).steps
        assert step.kind == "batch"
    assert await play.all_runs() == []
    await submit(play, "job")
    with pytest.raises(Refused, match="1 of 1 executions of the day are used"):
        await play.client.preview(Batch(teamspace="acme", batch_job="job"))


async def test_the_day_is_that_of_the_teamspaces_zone(days: Days) -> None:
    play = await days.begin(executions_per_day=1)
    await play.client.call(Plans(teamspace="acme", key="zone", value="Asia/Tokyo"))
    await play.publish("job", Part(60))
    await play.at(MIDNIGHT + 14 * HOUR)
    await submit(play, "job")
    await play.at(MIDNIGHT + 15 * HOUR - timedelta(seconds=1))
    with pytest.raises(Refused, match="1 of 1 executions of the day are used") as refused:
        await submit(play, "job")
    assert refused.value.retry_after == 1
    await play.at(MIDNIGHT + 15 * HOUR)
    await submit(play, "job")
    assert await play.used() == (1, 0)


async def test_calls_may_come_closer_than_schedules(days: Days) -> None:
    play = await days.begin(gap_minutes=60)
    await play.publish("job", Part(1))
    await hourly(play, "job")
    await play.at(MIDNIGHT + HOUR)
    await play.fire("job")
    for _ in range(2):
        await play.at(MIDNIGHT + HOUR + timedelta(minutes=1))
        await submit(play, "job")
    await play.at(MIDNIGHT + HOUR + timedelta(minutes=2))
    assert [each.source for each in await play.all_runs()] == ["scheduler", "api", "api"]
    assert await play.tally() == {"completed": 3}


async def test_a_schedule_starts_uploads_too(days: Days) -> None:
    play = await days.begin()
    (play.place.state / "incoming" / "people.csv").write_text("email\na@b.example\n")
    submission = {"kind": "upload", "table": "people", "path": "people.csv"}
    timetable = Cron("0 * * * *", "UTC")
    await play.client.call(
        Schedules(action="add", teamspace="acme", name="fill", timetable=timetable, submission=submission)
    )
    await play.at(MIDNIGHT + HOUR)
    await play.fire("fill")
    asked = Schedules(action="describe", teamspace="acme", name="fill", count=0)
    ((past,),) = [each.past for each in (await play.client.call(asked)).schedules]
    assert past.verdict == "run"
    assert past.job is not None
    assert (await play.client.get(past.job)).kind == "upload"
