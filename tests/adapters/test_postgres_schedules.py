"""A time of a schedule is stored with the job that it submits: both or none, and never two."""

from collections.abc import AsyncIterator

import pytest

from leadline.adapters.postgres.schedules import STATEMENTS, PostgresSchedules
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import Records, SlotRow
from leadline.core.events import Statement
from leadline.core.model import Family
from leadline.ports.schedules import FIRE, NewSchedule, ScheduleId, StoredOccurrence
from leadline.ports.store import THIS_JOB
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.schedules import Daily, Monthly, Schedule
from tests.contracts.stores import ACME, KINDS, NAMES, T, admission, row, start, submission, together
from tests.postgres import database  # noqa: F401

SINCE = Instant(T)
DAILY = Daily("02:30", "Europe/Berlin")


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:  # noqa: F811
    store = PostgresStore(database, queries=STATEMENTS)
    await store.take_over(owner="test", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    yield store
    await store.close()


def new(name: str, timetable: Schedule = DAILY, teamspace: str = "acme") -> NewSchedule:
    return NewSchedule(teamspace, name, timetable, b'{"kind":"noop"}', "once", True, 1000)


async def added(schedules: PostgresSchedules, name: str = "nightly") -> ScheduleId:
    assert await schedules.add(new(name), SINCE)
    (stored,) = await schedules.page("acme", name, None, 1)
    return stored.id


def fire(schedule: ScheduleId, at: int) -> Statement:
    return Statement(FIRE, (schedule, at, THIS_JOB))


async def test_a_schedule_comes_back_as_it_was_stored(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    assert await schedules.add(new("monthly", Monthly("last", "09:00", "Asia/Tokyo")), SINCE)
    assert not await schedules.add(new("monthly"), SINCE), "a name is taken once"
    (stored,) = await schedules.active()
    assert (stored.teamspace, stored.name, stored.submission) == ("acme", "monthly", b'{"kind":"noop"}')
    assert stored.timetable == Monthly("last", "09:00", "Asia/Tokyo")
    assert (stored.missed, stored.overlap, stored.paused, stored.uid) == ("once", True, False, 1000)
    assert (stored.decided, stored.job) == (SINCE, None)


async def test_a_time_that_ran_is_there_when_its_job_is_and_not_where_that_could_not_be_stored(
    store: PostgresStore,
) -> None:
    schedules = PostgresSchedules(store)
    key = await added(schedules)
    admitted = admission(row(1, submission(statements=(fire(key, SINCE + 1),))))
    impossible = together(admitted, start(1))
    impossible.slots_freed.append(SlotRow(ACME, Family.TABLES, 77, JobId(9)))
    with pytest.raises(Exception, match="end_few_jobs"):
        await store.commit(impossible)
    assert await schedules.occurrences(key, 10) == []
    await store.commit(admitted)
    assert await schedules.occurrences(key, 10) == [StoredOccurrence(Instant(SINCE + 1), "run", JobId(1))]
    (stored,) = await schedules.active()
    assert (stored.decided, stored.job) == (SINCE + 1, 1)


async def test_a_second_job_for_the_same_time_cannot_be_stored(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    key = await added(schedules)
    await store.commit(admission(row(1, submission(statements=(fire(key, SINCE + 1),)))))
    with pytest.raises(Exception, match="occurrence_pkey"):
        await store.commit(admission(row(2, submission(statements=(fire(key, SINCE + 1),)))))
    assert await store.job(JobId(2)) is None


async def test_times_that_were_skipped_are_told_newest_first_and_not_decided_again(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    key = await added(schedules)
    skipped = [
        StoredOccurrence(Instant(SINCE + 1), "missed"),
        StoredOccurrence(Instant(SINCE + 2), "refused", message="no table\0"),
    ]
    await schedules.skip(key, skipped)
    newest, oldest = await schedules.occurrences(key, 10)
    assert oldest == skipped[0]
    assert newest.message == "no table\ufffd"
    (stored,) = await schedules.active()
    assert stored.decided == SINCE + 2


async def test_what_was_due_while_it_was_paused_was_not_missed(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    await added(schedules)
    assert await schedules.pause("acme", "nightly")
    assert await schedules.active() == []
    assert await schedules.resume("acme", "nightly", Instant(SINCE + 500))
    assert await schedules.resume("acme", "nightly", Instant(SINCE + 900)), "one that is not paused is left alone"
    (stored,) = await schedules.active()
    assert stored.decided == SINCE + 500
    assert not await schedules.pause("acme", "other")
    assert not await schedules.resume("acme", "other", SINCE)


async def test_a_schedule_that_was_deleted_has_no_history_and_what_it_fires_last_is_a_job_all_the_same(
    store: PostgresStore,
) -> None:
    schedules = PostgresSchedules(store)
    key = await added(schedules)
    await schedules.skip(key, [StoredOccurrence(Instant(SINCE + 1), "missed")])
    assert await schedules.delete("acme", "nightly")
    assert not await schedules.delete("acme", "nightly")
    await store.commit(admission(row(1, submission(statements=(fire(key, SINCE + 2),)))))
    assert await store.job(JobId(1)) is not None
    assert await schedules.occurrences(key, 10) == []


async def test_pages_follow_one_another_by_teamspace_and_name(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    for teamspace, name in (("beta", "a"), ("acme", "c"), ("acme", "b")):
        assert await schedules.add(new(name, teamspace=teamspace), SINCE)
    first = await schedules.page(None, None, None, 2)
    rest = await schedules.page(None, None, ("acme", "c"), 2)
    assert [(each.teamspace, each.name) for each in (*first, *rest)] == [("acme", "b"), ("acme", "c"), ("beta", "a")]


async def test_old_times_are_forgotten_but_the_last_job_is_known(store: PostgresStore) -> None:
    schedules = PostgresSchedules(store)
    key = await added(schedules)
    await schedules.skip(key, [StoredOccurrence(Instant(SINCE + 1), "missed")])
    await store.commit(admission(row(1, submission(statements=(fire(key, SINCE + 2),)))))
    await schedules.skip(key, [StoredOccurrence(Instant(SINCE + 3), "still_running")])
    hopeless = ScheduleId(key + 1)
    assert await schedules.add(new("hopeless"), SINCE)
    await schedules.skip(hopeless, [StoredOccurrence(Instant(SINCE + 1), "refused", message="no such table")])
    await schedules.forget(Instant(SINCE + 100))
    assert [each.at - SINCE for each in await schedules.occurrences(key, 10)] == [2]
    assert await schedules.occurrences(hopeless, 10) == [], "also of one that has never submitted anything"
