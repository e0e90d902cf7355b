"""API tokens in Postgres: one present secret for each name, and the one before for as long as it is meant to be."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from leadline.adapters.postgres.api_tokens import PostgresApiTokens
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.api_tokens import StoredToken
from tests.contracts.stores import KINDS
from tests.postgres import database  # noqa: F401

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def tokens(database: str) -> AsyncIterator[PostgresApiTokens]:  # noqa: F811
    store = PostgresStore(database)
    await store.take_over(owner="test", kinds=KINDS)
    yield PostgresApiTokens(store)
    await store.close()


def token(number: int, name: str = "crm", *, created: datetime = NOON, expires: datetime | None = None) -> StoredToken:
    return StoredToken(bytes([number]) * 32, name, frozenset({"read", "submit"}), "acme", "admin", created, expires)


async def test_a_token_comes_back_as_it_was_kept(tokens: PostgresApiTokens) -> None:
    everywhere = StoredToken(b"z" * 32, "all", frozenset({"control"}), None, "member", NOON, NOON + HOUR)
    assert await tokens.add(everywhere)
    assert await tokens.add(token(1))
    assert await tokens.tokens() == [everywhere, token(1)]


async def test_a_name_has_one_present_secret(tokens: PostgresApiTokens) -> None:
    assert await tokens.add(token(1))
    assert not await tokens.add(token(2))
    assert [each.hash for each in await tokens.tokens()] == [token(1).hash]


async def test_a_rotation_leaves_the_one_before_until_it_expires_and_no_longer_than_it_had(
    tokens: PostgresApiTokens,
) -> None:
    await tokens.add(token(1, expires=NOON + 3 * HOUR))
    assert await tokens.rotate(token(2, created=NOON + HOUR), NOON + 2 * HOUR)
    assert await tokens.rotate(token(3, created=NOON + 1.5 * HOUR), NOON + 9 * HOUR)
    assert [(each.hash[0], each.expires, each.rotated) for each in await tokens.tokens()] == [
        (1, NOON + 2 * HOUR, NOON + HOUR),
        (2, NOON + 9 * HOUR, NOON + 1.5 * HOUR),
        (3, None, None),
    ]
    assert await tokens.rotate(token(4, created=NOON + 2 * HOUR), NOON + 10 * HOUR)
    assert [each.hash[0] for each in await tokens.tokens()] == [2, 3, 4], "what has expired is gone"


async def test_what_is_not_there_is_neither_rotated_nor_revoked(tokens: PostgresApiTokens) -> None:
    assert not await tokens.rotate(token(1), NOON + HOUR)
    assert not await tokens.revoke("crm")
    assert await tokens.tokens() == []


async def test_revoking_takes_every_secret_of_the_name(tokens: PostgresApiTokens) -> None:
    await tokens.add(token(1))
    await tokens.rotate(token(2), NOON + HOUR)
    await tokens.add(token(3, "other"))
    assert await tokens.revoke("crm")
    assert [each.name for each in await tokens.tokens()] == ["other"]
