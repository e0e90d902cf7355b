"""API tokens: known by their hash alone, for as long as they are meant to be, and by nobody after that."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from leadline.actors.api_tokens import PREFIX, ApiTokens, new_secret
from leadline.ports.api_tokens import StoredToken
from leadline.ports.store import OutcomeUnknown, Unavailable
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import Tokens, TokensReply

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class Kept:
    """The store, in memory."""

    def __init__(self) -> None:
        self.rows: list[StoredToken] = []
        self.reads = 0
        self.fault: Exception | None = None
        self.hold: asyncio.Event | None = None
        """Once set, what was read before goes back."""

    async def tokens(self) -> Sequence[StoredToken]:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        rows = list(self.rows)
        if self.hold is not None:
            await self.hold.wait()
        return rows

    async def add(self, token: StoredToken) -> bool:
        self.rows.append(token)
        return True

    async def rotate(self, token: StoredToken, older_until: datetime) -> bool:
        self.rows = [
            msgspec.structs.replace(each, rotated=token.created, expires=min(each.expires or older_until, older_until))
            if each.name == token.name and each.rotated is None
            else each
            for each in self.rows
        ]
        self.rows.append(token)
        return True

    async def revoke(self, name: str) -> bool:
        self.rows = [each for each in self.rows if each.name != name]
        return True


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Office:
    def __init__(self) -> None:
        self.kept = Kept()
        self.clock = Clock()
        self.acts: list[tuple[str, str]] = []
        self.tokens = ApiTokens(self.kept, self.clock)

    async def record(self, target: str, detail: str) -> None:
        self.acts.append((target, detail))

    async def ask(self, **asked: object) -> TokensReply:
        return await self.tokens.perform(msgspec.convert({"op": "tokens", **asked}, Tokens), self.record, 1)

    async def made(self, name: str = "crm", **asked: object) -> str:
        reply = await self.ask(action="create", name=name, **{"scopes": ["read"], **asked})
        assert reply.secret is not None
        return reply.secret

    async def is_taken(self, secret: str) -> bool:
        try:
            await self.tokens.find(secret)
        except Refused as no:
            if no.code is not ErrorCode.UNAUTHORIZED:
                raise
            return False
        return True


async def test_a_secret_stands_for_what_its_token_may_do() -> None:
    office = Office()
    secret = await office.made(scopes=["read", "submit"], teamspace="acme", role="admin")
    token = await office.tokens.find(secret)
    assert (token.name, token.scopes, token.teamspace, token.role) == (
        "crm",
        frozenset({"read", "submit"}),
        "acme",
        "admin",
    )
    assert office.acts == [("token crm", "create for acme, admin: read, submit")]


async def test_what_is_kept_is_the_hash_of_a_secret_of_32_random_bytes() -> None:
    office = Office()
    secret = await office.made()
    assert secret.startswith(PREFIX)
    assert len(secret) - len(PREFIX) == 43, "32 bytes in base64"
    assert secret not in repr(office.kept.rows)
    assert office.kept.rows[0].hash == hashlib.sha256(secret.encode()).digest()
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "x", str.upper, lambda s: "", lambda s: s[4:]])
async def test_nothing_but_the_secret_itself_is_taken(change: "object") -> None:
    office = Office()
    secret = await office.made()
    assert await office.is_taken(secret)
    assert callable(change)
    assert not await office.is_taken(change(secret))


async def test_a_token_is_taken_until_it_expires() -> None:
    office = Office()
    secret = await office.made(expires_at="2026-11-21T13:00:00Z")
    office.clock.now = NOON + timedelta(minutes=59, seconds=59)
    token = await office.tokens.find(secret)
    office.clock.now = NOON + timedelta(hours=1)
    assert not await office.is_taken(secret)
    assert not office.tokens.is_good(token), "nor does a stream of it go on"


async def test_after_a_rotation_both_secrets_are_taken_for_a_while_and_then_the_new_one() -> None:
    office = Office()
    old = await office.made(scopes=["control"], teamspace="acme", role="admin")
    reply = await office.ask(action="rotate", name="crm", overlap_seconds=3600)
    assert reply.secret is not None
    (view,) = reply.tokens
    assert view.older_until == NOON + timedelta(hours=1)
    new = await office.tokens.find(reply.secret)
    assert (new.scopes, new.teamspace, new.role) == (frozenset({"control"}), "acme", "admin")
    assert await office.is_taken(old)
    office.clock.now = NOON + timedelta(hours=1)
    assert (await office.is_taken(old), await office.is_taken(reply.secret)) == (False, True)
    assert (await office.ask()).tokens[0].older_until is None


async def test_a_rotation_never_lets_an_old_secret_live_longer() -> None:
    office = Office()
    old = await office.made(expires_at="2026-11-21T12:10:00Z")
    await office.ask(action="rotate", name="crm", overlap_seconds=3600, expires_at="2026-12-21T12:00:00Z")
    office.clock.now = NOON + timedelta(minutes=10)
    assert not await office.is_taken(old)


async def test_a_revoked_token_is_gone_with_all_its_secrets() -> None:
    office = Office()
    old = await office.made()
    found = await office.tokens.find(old)
    reply = await office.ask(action="rotate", name="crm")
    assert reply.secret is not None
    await office.ask(action="revoke", name="crm")
    assert (await office.is_taken(old), await office.is_taken(reply.secret)) == (False, False)
    assert not office.tokens.is_good(found)
    assert (await office.ask()).tokens == []


async def test_finding_a_token_costs_the_database_nothing() -> None:
    office = Office()
    secret = await office.made()
    before = office.kept.reads
    for _ in range(100):
        assert await office.is_taken(secret)
        assert not await office.is_taken("ldl_unknown")
    assert office.kept.reads == before


async def test_what_was_read_before_a_change_is_not_taken_for_what_is_after_it() -> None:
    office = Office()
    secret = await office.made()
    office.tokens._known = None
    office.kept.hold = asyncio.Event()
    slow = asyncio.create_task(office.is_taken(secret))
    await asyncio.sleep(0)
    hold, office.kept.hold = office.kept.hold, None
    await office.ask(action="revoke", name="crm")
    hold.set()
    assert await slow, "it was read while the token was good"
    assert not await office.is_taken(secret)


async def test_where_nobody_can_say_whether_it_is_stored_the_database_is_asked() -> None:
    office = Office()
    secret = await office.made()

    async def lost(name: str) -> bool:
        office.kept.rows.clear()
        raise OutcomeUnknown("cut off")

    office.kept.revoke = lost  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await office.ask(action="revoke", name="crm")
    assert not await office.is_taken(secret)


async def test_without_a_database_nobody_is_turned_away_for_good() -> None:
    office = Office()
    office.kept.fault = Unavailable("gone")
    with pytest.raises(Refused) as no:
        await office.tokens.find("ldl_anything")
    assert no.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"action": "create", "name": "crm", "scopes": ["read"]}, ErrorCode.BAD_STATE),
        ({"action": "rotate", "name": "other"}, ErrorCode.NOT_FOUND),
        ({"action": "revoke", "name": "other"}, ErrorCode.NOT_FOUND),
    ],
)
async def test_what_cannot_be_done_changes_nothing_and_is_not_recorded(
    asked: dict[str, object], code: ErrorCode
) -> None:
    office = Office()
    await office.made()
    before, acts = list(office.kept.rows), list(office.acts)
    with pytest.raises(Refused) as no:
        await office.ask(**asked)
    assert (no.value.code, office.kept.rows, office.acts) == (code, before, acts)
