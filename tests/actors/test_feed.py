"""One who looks on and does not read in time is told how much it has missed, and holds nobody up."""

import asyncio

from leadline.actors import feed
from leadline.actors.feed import Reader
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Missed, Started


def started(job: int) -> Started:
    return Started(job=JobId(job), teamspace="acme", attempt=1)


def test_what_waits_for_a_reader_is_bounded_and_what_goes_beyond_is_counted() -> None:
    reader = Reader(None)
    for job in range(feed.BACKLOG_MAX + 7):
        reader.put(f"x-{job}", started(job))
    *told, last = reader.take()
    assert [number for number, _ in told] == [f"x-{job}" for job in range(feed.BACKLOG_MAX)]
    assert last == ("", Missed(count=7))
    assert reader.take() == []


def test_after_something_was_missed_nothing_is_told_before_that_is() -> None:
    reader = Reader(None)
    for job in range(feed.BACKLOG_MAX + 1):
        reader.put(f"x-{job}", started(job))
    reader._waiting.clear()
    reader.put("x-late", started(4711))
    assert reader.take() == [("", Missed(count=2))]
    reader.put("x-next", started(4712))
    assert reader.take() == [("x-next", started(4712))]


async def test_a_reader_is_woken_by_news_and_by_the_end() -> None:
    reader = Reader(None)
    for ends in (False, True):
        waiting = asyncio.ensure_future(reader.wait(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        if ends:
            reader.close()
        else:
            reader.put("x-1", started(1))
        await asyncio.wait_for(waiting, 30)
        reader.take()
    assert reader.closed


async def test_a_wait_without_news_ends_by_itself() -> None:
    await Reader(None).wait(0.01)
