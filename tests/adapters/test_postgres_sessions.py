"""Links and sessions in Postgres: a link is taken once, and what has expired goes when something comes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from leadline.adapters.postgres.sessions import PostgresSessions
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.sessions import Session, StoredLink
from tests.contracts.stores import KINDS
from tests.postgres import database  # noqa: F401

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:  # noqa: F811
    store = PostgresStore(database)
    await store.take_over(owner="test", kinds=KINDS)
    yield store
    await store.close()


@pytest.fixture
def sessions(store: PostgresStore) -> PostgresSessions:
    return PostgresSessions(store)


def link(number: int, person: str = "ann", teamspace: str | None = "acme", *, created: datetime = NOON) -> StoredLink:
    return StoredLink(bytes([number]) * 32, person, "admin", teamspace, created, created + 5 * MINUTE)


def hash_of(number: int) -> bytes:
    """Of the session that is begun with a link."""
    return bytes([100 + number]) * 32


async def begin(sessions: PostgresSessions, number: int, now: datetime = NOON, **of: Any) -> Session:
    await sessions.add_link(link(number, **of))
    session = await sessions.take(link(number).hash, hash_of(number), now, now + 12 * HOUR)
    assert session is not None
    return session


async def kept(store: PostgresStore, table: str) -> list[int]:
    async with store.read() as connection:
        rows = await connection.fetch(f"SELECT hash FROM {table} ORDER BY hash")
    return [row["hash"][0] for row in rows]


async def test_a_session_is_whose_its_link_was(sessions: PostgresSessions) -> None:
    begun = await begin(sessions, 1)
    assert begun == Session(hash_of(1), "ann", "admin", "acme", NOON + 12 * HOUR)
    assert await sessions.session(hash_of(1)) == begun
    everywhere = await begin(sessions, 2, teamspace=None)
    assert everywhere.teamspace is None
    assert await sessions.session(hash_of(3)) is None


async def test_a_link_is_taken_once(sessions: PostgresSessions) -> None:
    await begin(sessions, 1)
    assert await sessions.take(link(1).hash, hash_of(2), NOON, NOON + HOUR) is None
    assert await sessions.session(hash_of(2)) is None


async def test_of_many_who_take_it_at_once_one_is_given_a_session(sessions: PostgresSessions) -> None:
    for number in range(10):
        await sessions.add_link(link(number))
        taken = await asyncio.gather(
            *[
                sessions.take(link(number).hash, bytes([100 + number, taker]) * 16, NOON, NOON + HOUR)
                for taker in (1, 2)
            ]
        )
        assert sum(each is not None for each in taken) == 1


async def test_a_link_is_good_until_it_expires(sessions: PostgresSessions) -> None:
    await sessions.add_link(link(1))
    await sessions.add_link(link(2))
    late = NOON + 5 * MINUTE
    assert await sessions.take(link(1).hash, hash_of(1), late, late + HOUR) is None
    just_in_time = late - timedelta(microseconds=1)
    assert await sessions.take(link(2).hash, hash_of(2), just_in_time, late + HOUR) is not None


async def test_what_has_expired_goes_when_something_comes(sessions: PostgresSessions, store: PostgresStore) -> None:
    await begin(sessions, 1)
    await begin(sessions, 2, NOON + HOUR, created=NOON + HOUR)
    await sessions.add_link(link(3))
    await sessions.add_link(link(4, created=NOON + 5 * MINUTE))
    assert await kept(store, "sign_in_link") == [4]
    await begin(sessions, 5, NOON + 12 * HOUR, created=NOON + 12 * HOUR)
    assert await kept(store, "sign_in_link") == []
    assert await kept(store, "sign_in_session") == [102, 105]


async def test_a_session_that_was_ended_is_gone_and_no_other(sessions: PostgresSessions) -> None:
    await begin(sessions, 1)
    other = await begin(sessions, 2)
    await sessions.end(hash_of(1))
    await sessions.end(hash_of(1))
    assert [await sessions.session(hash_of(number)) for number in (1, 2)] == [None, other]


@pytest.mark.parametrize(
    ("person", "teamspace", "left"),
    [("ann", None, [3]), (None, "acme", [2, 4]), ("ann", "acme", [2, 3, 4]), ("bob", "globex", [1, 2, 3, 4])],
)
async def test_links_and_sessions_end_by_person_and_teamspace(
    sessions: PostgresSessions, store: PostgresStore, person: str | None, teamspace: str | None, left: list[int]
) -> None:
    whose: list[tuple[str, str | None]] = [("ann", "acme"), ("ann", "globex"), ("bob", "acme"), ("ann", None)]
    for number, (who, where) in enumerate(whose, 1):
        await begin(sessions, number, person=who, teamspace=where)
        await sessions.add_link(link(number, who, where))
    assert await sessions.end_all(person, teamspace, NOON) == 4 - len(left)
    assert await kept(store, "sign_in_session") == [100 + number for number in left]
    assert await kept(store, "sign_in_link") == left


async def test_a_session_that_had_expired_is_not_counted_as_ended(sessions: PostgresSessions) -> None:
    await begin(sessions, 1)
    assert await sessions.end_all("ann", None, NOON + 12 * HOUR) == 0
    assert await sessions.session(hash_of(1)) is None


async def test_sessions_outlive_the_daemon(sessions: PostgresSessions, store: PostgresStore, database: str) -> None:  # noqa: F811
    begun = await begin(sessions, 1)
    await store.close()
    again = PostgresStore(database)
    await again.take_over(owner="test", kinds=KINDS)
    assert await PostgresSessions(again).session(hash_of(1)) == begun
    await again.close()
