"""Whose jobs have ended is asked once for everybody, and for many jobs at a time."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from leadline.actors.submitters import Submitters
from leadline_protocol.ids import JobId


class Database:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Sequence[int]] = []
        self.gate = asyncio.Semaphore(0)
        self.fault: Exception | None = None

    async def ask(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        self.asked.append(jobs)
        await self.gate.acquire()
        if self.fault is not None:
            raise self.fault
        return {job: 1000 + job for job in jobs if job != 99}


async def test_what_is_asked_while_a_question_is_under_way_is_one_question() -> None:
    database = Database()
    submitters = Submitters(database.ask)
    first = [submitters.of(JobId(1)), submitters.of(JobId(2)), submitters.of(JobId(1))]
    while not database.asked:
        await asyncio.sleep(0)
    later = [submitters.of(JobId(job)) for job in (3, 4, 99)]
    database.gate.release()
    database.gate.release()
    assert await asyncio.gather(*first, *later) == [1001, 1002, 1001, 1003, 1004, None]
    assert database.asked == [(1, 2), (3, 4, 99)]


async def test_a_question_that_fails_fails_for_those_who_asked_and_the_next_is_asked_anew() -> None:
    database = Database()
    database.fault = OSError("gone")
    submitters = Submitters(database.ask)
    lost = submitters.of(JobId(1))
    submitters.of(JobId(2))  # nobody looks
    database.gate.release()
    with pytest.raises(OSError, match="gone"):
        await lost
    database.fault = None
    database.gate.release()
    assert await submitters.of(JobId(1)) == 1001
