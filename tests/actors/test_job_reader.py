"""Jobs that start together are read by one question."""

import asyncio
from collections.abc import Mapping, Sequence

import anyio
import pytest

from leadline.actors.job_reader import JobReader
from leadline.core.effects import AdmittedJob, Records
from leadline.core.events import NewJob
from leadline.core.model import JobState
from leadline.ports.store import StoredJob, Unavailable
from leadline_protocol.ids import Instant, JobId, TeamspaceId
from tests.fakes.store import Disk, FakeStore

JOBS = 20


class Library(FakeStore):
    """A store that notes what it is asked for, and answers when the test says so."""

    def __init__(self) -> None:
        super().__init__(Disk())
        self.questions: list[Sequence[JobId]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def jobs_by_id(self, jobs: Sequence[JobId]) -> Mapping[JobId, StoredJob]:
        self.questions.append(jobs)
        await self.free.wait()
        return await super().jobs_by_id(jobs)


@pytest.fixture
async def library() -> Library:
    store = Library()
    await store.take_over(owner="test", kinds={"noop": 0})
    teamspace = TeamspaceId(1)
    rows = [
        AdmittedJob(JobId(number), number, teamspace, JobState.QUEUED, Instant(number), NewJob("acme", 0, b"{}"))
        for number in range(1, JOBS + 1)
    ]
    await store.commit(Records(teamspaces=[(teamspace, "acme")], admitted=rows))
    return store


async def numbers(*asked: "asyncio.Task[StoredJob | None]") -> list[int | None]:
    return [None if job is None else job.id for job in await asyncio.gather(*asked)]


def ask(reader: JobReader, *jobs: int) -> "list[asyncio.Task[StoredJob | None]]":
    return [asyncio.ensure_future(reader.job(JobId(job))) for job in jobs]


async def test_those_who_ask_together_are_answered_by_one_question(library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        asked = ask(JobReader(library, tasks), *range(1, JOBS + 1))
        assert await numbers(*asked) == list(range(1, JOBS + 1))
    assert library.questions == [list(range(1, JOBS + 1))]


async def test_who_asks_while_a_question_is_under_way_shares_the_next(library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        reader = JobReader(library, tasks)
        library.free.clear()
        first = ask(reader, 1)
        while not library.questions:
            await asyncio.sleep(0)
        later = ask(reader, 2, 3)
        await asyncio.sleep(0)
        library.free.set()
        assert await numbers(*first, *later) == [1, 2, 3]
    assert library.questions == [[1], [2, 3]]


async def test_a_job_that_nobody_knows_is_none(library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        assert await numbers(*ask(JobReader(library, tasks), 1, JOBS + 1)) == [1, None]


async def test_a_question_that_fails_fails_for_those_who_asked_and_for_nobody_later(library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        reader = JobReader(library, tasks)
        library.away = True
        for failed in await asyncio.gather(*ask(reader, 1, 2), return_exceptions=True):
            assert isinstance(failed, Unavailable)
        library.away = False
        assert await numbers(*ask(reader, 3)) == [3]


async def test_one_who_asks_no_more_is_no_trouble_for_the_others(library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        reader = JobReader(library, tasks)
        library.free.clear()
        gone, stays = ask(reader, 1, 2)
        while not library.questions:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        library.free.set()
        assert await numbers(stays) == [2]
