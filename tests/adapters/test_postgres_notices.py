"""The outbox: a notice is there exactly when what it tells of is, and what was being sent at a crash is known."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from leadline.adapters.postgres.notices import STATEMENTS, PostgresNotices
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import HistoryRow, Records, SlotRow
from leadline.core.events import Statement
from leadline.core.model import Family, JobState
from leadline.ports.notices import WISH_NOTICE
from leadline.ports.store import THIS_JOB, Contradiction
from leadline_protocol.ids import Instant, JobId
from tests.contracts.stores import ACME, KINDS, NAMES, NOOP, T, admission, end, row, start, submission, together
from tests.postgres import database, meddle  # noqa: F401


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:  # noqa: F811
    store = PostgresStore(database, queries=STATEMENTS)
    await store.take_over(owner="test", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    yield store
    await store.close()


def wish(target: str, *events: str, medium: str = "webhook") -> Statement:
    return Statement(WISH_NOTICE, (THIS_JOB, medium, target, list(events)))


async def told(outbox: PostgresNotices) -> Sequence[tuple[JobId, str, str]]:
    return sorted((each.job, each.event, each.target) for each in await outbox.due(100, []))


async def test_a_notice_is_there_when_the_end_is_and_not_where_that_could_not_be_stored(store: PostgresStore) -> None:
    outbox, woken = PostgresNotices(store), []
    store.noticed = lambda: woken.append(1)
    wishes = (wish("a", "completed", "failed"), wish("b", "failed"))
    await store.commit(together(admission(row(1, submission(statements=wishes)), row(2)), start(1), start(2, slot=1)))
    impossible = end(1, slot=0)
    impossible.slots_freed.append(SlotRow(ACME, Family.TABLES, 77, JobId(1)))
    with pytest.raises(Contradiction):
        await store.commit(impossible)
    assert (await told(outbox), woken) == ([], [])
    await store.commit(together(end(1, slot=0), end(2, slot=1)))
    assert (await told(outbox), woken) == ([(1, "completed", "a")], [1])


async def test_wishes_outlive_the_daemon_that_took_them(store: PostgresStore, database: str) -> None:  # noqa: F811
    await store.commit(together(admission(row(1, submission(statements=(wish("a", "failed"),)))), start(1)))
    await store.close()
    later = PostgresStore(database, queries=STATEMENTS)
    await later.take_over(owner="test", kinds=KINDS)
    await later.commit(end(1, JobState.FAILED, slot=0))
    assert await told(PostgresNotices(later)) == [(1, "failed", "a")]
    async with meddle(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM notice_wish") == 0
    await later.close()


async def test_a_job_that_begins_and_ends_in_one_decision_is_told_of(store: PostgresStore) -> None:
    admitted = row(1, submission(NOOP, statements=(wish("a", "completed"),)))
    await store.commit(together(admission(admitted), end(1, admitted=admitted)))
    assert await told(PostgresNotices(store)) == [(1, "completed", "a")]


async def test_a_stall_is_told_of_while_the_job_lives(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(statements=(wish("a", "stalled"),)))), start(1)))
    stalled = HistoryRow(JobId(1), Instant(T), "stalled", "no progress for 300 s")
    again = together()
    again.history.append(stalled)
    await store.commit(again)
    assert await told(PostgresNotices(store)) == [(1, "stalled", "a")]
    await store.commit(end(1, slot=0))
    assert await told(PostgresNotices(store)) == [(1, "stalled", "a")], "its end was not asked for"


async def test_what_was_being_sent_at_a_crash_is_posted_again_and_mailed_never(store: PostgresStore) -> None:
    outbox = PostgresNotices(store)
    wishes = (wish("hook", "completed"), wish("a@b.example", "completed", medium="mail"))
    await store.commit(together(admission(row(1, submission(statements=wishes))), start(1)))
    await store.commit(end(1, slot=0))
    both = await outbox.due(100, [])
    assert len(both) == 2
    for notice in both:
        assert await outbox.begin(notice.id)
        assert not await outbox.begin(notice.id), "somebody does already"
    assert await outbox.due(100, []) == []
    await outbox.recover([notice.id for notice in both])
    assert await outbox.due(100, []) == [], "that is our own doing"
    await outbox.recover([])
    (webhook,) = await outbox.due(100, [])
    assert (webhook.medium, webhook.tries) == ("webhook", 1)
    assert webhook.id in {notice.id for notice in both}
    (held,) = await outbox.notices(job=JobId(1), teamspace=None, states=["unknown"], limit=10)
    assert (held.medium, await outbox.undelivered()) == ("mail", 1)
    assert await outbox.again(held.id)
    assert not await outbox.again(UUID(int=7))
    assert len(await outbox.due(100, [])) == 2
