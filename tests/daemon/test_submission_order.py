"""Jobs enter the queue in the order of their lines, however long it takes to look at one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from leadline.config import parse
from leadline.core.model import Counts, Family, JobState
from leadline.main import daemon
from leadline.ports.work import Attempt, Finished, Prepared
from leadline_protocol.messages import Submission
from tests.daemon.running import WITHIN_SECONDS, Place


class SlowSubmission(Submission, tag="slow", frozen=True, kw_only=True):
    """Nothing; but to look at it takes as long as the test likes."""


class Slow:
    """The kind of job."""

    name = "slow"
    family = Family.TABLES

    def __init__(self) -> None:
        self.looking = asyncio.Event()
        self.seen = asyncio.Event()

    async def prepare(self, *_: Any, **__: Any) -> Prepared:
        self.looking.set()
        await self.seen.wait()
        return Prepared()

    async def run(self, attempt: Attempt) -> Finished:
        return Finished(JobState.COMPLETED, Counts())


@asynccontextmanager
async def dialled(place: Place, slow: Slow) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    place.configure()
    async with daemon(
        parse(place.config.read_text(), place.config),
        config_path=place.config,
        state_dir=place.state,
        runtime_dir=place.folder / "run",
        extra_kinds=lambda _: [slow],
        extra_submissions=[SlowSubmission],
    ):
        reader, writer = await asyncio.open_unix_connection(str(place.control))
        try:
            yield reader, writer
        finally:
            writer.close()


async def test_a_line_that_takes_long_to_look_at_is_not_passed_by_the_next_one(place: Place) -> None:
    slow = Slow()
    async with asyncio.timeout(WITHIN_SECONDS), dialled(place, slow) as (reader, writer):
        writer.write(b'{"kind":"slow","teamspace":"a"}\n')
        await slow.looking.wait()
        writer.write(b'{"kind":"noop","teamspace":"a"}\n')
        other = await asyncio.open_unix_connection(str(place.control))
        other[1].write(b'{"kind":"noop","teamspace":"b"}\n')
        assert b'"job":1,' in await other[0].readline(), "whoever else submits does not wait for it"
        other[1].close()
        slow.seen.set()
        first, second = await reader.readline(), await reader.readline()
    assert b'"job":2,' in first
    assert b'"job":3,' in second
