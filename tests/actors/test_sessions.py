"""Sessions: begun once by each link, known by a hash alone, and ended when somebody leaves."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from leadline.actors import sessions as module
from leadline.actors.sessions import LINK_PREFIX, SESSION_PREFIX, Sessions
from leadline.ports.sessions import Session, StoredLink
from leadline.ports.store import Fenced, OutcomeUnknown, Unavailable
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import Links, LinksReply, Role

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
KEY = b"k" * 32


class Kept:
    """The store, in memory."""

    def __init__(self) -> None:
        self.links: dict[bytes, StoredLink] = {}
        self.sessions: dict[bytes, Session] = {}
        self.asked = 0
        self.ends = 0
        self.fault: Exception | None = None
        """Raised by everything, after it was done."""
        self.hold: asyncio.Event | None = None
        """Once set, what was read before goes back."""

    def _done(self) -> None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault

    async def add_link(self, link: StoredLink) -> None:
        self.links[link.hash] = link
        self._done()

    async def link(self, hash_: bytes) -> StoredLink | None:
        self._done()
        return self.links.get(hash_)

    async def take(self, link: bytes, session: bytes, now: datetime, expires: datetime) -> Session | None:
        found = self.links.pop(link, None)
        if found is None or now >= found.expires:
            self._done()
            return None
        begun = self.sessions[session] = Session(session, found.person, found.role, found.teamspace, expires)
        self._done()
        return begun

    async def session(self, hash_: bytes) -> Session | None:
        found = self.sessions.get(hash_)
        if self.hold is not None:
            await self.hold.wait()
        self._done()
        return found

    async def end(self, hash_: bytes) -> None:
        self.ends += 1
        self.sessions.pop(hash_, None)
        self._done()

    async def end_all(self, person: str | None, teamspace: str | None, now: datetime) -> int:
        gone = [
            each
            for each in self.sessions.values()
            if person in {None, each.person} and teamspace in {None, each.teamspace}
        ]
        for each in gone:
            del self.sessions[each.hash]
        self._done()
        return len(gone)


class House:
    """The actor, with all that is around it."""

    def __init__(self, base_url: str | None = None) -> None:
        self.kept = Kept()
        self.now = NOON
        self.acts: list[tuple[str, str]] = []
        self.sessions = Sessions(self.kept, KEY, lambda: base_url, lambda: self.now)

    async def record(self, target: str, detail: str) -> None:
        self.acts.append((target, detail))

    async def ask(self, **asked: object) -> LinksReply:
        return await self.sessions.perform(msgspec.convert({"op": "links", **asked}, Links), self.record, 1)

    async def link(self, person: str = "ann", **asked: object) -> str:
        reply = await self.ask(person=person, **{"teamspace": "acme", **asked})
        assert reply.path is not None
        return reply.path.removeprefix("/in/")

    async def signed_in(self, person: str = "ann", **asked: object) -> str:
        secret, _ = await self.sessions.begin(await self.link(person, **asked))
        return secret

    async def is_in(self, secret: str) -> bool:
        try:
            await self.sessions.find(secret)
        except Refused as no:
            if no.code is not ErrorCode.UNAUTHORIZED:
                raise
            return False
        return True


async def refusal_of(call: Any) -> Refused:
    with pytest.raises(Refused) as no:
        await call
    return no.value


async def test_a_link_becomes_a_session_of_the_person_that_it_was_made_for() -> None:
    house = House()
    secret, session = await house.sessions.begin(await house.link(role="admin"))
    assert (session.person, session.role, session.teamspace) == ("ann", "admin", "acme")
    assert session.expires == NOON + timedelta(hours=12)
    assert await house.sessions.find(secret) == session
    _, operator = await house.sessions.begin(await house.link("op", teamspace=None))
    assert operator.teamspace is None
    assert house.acts == [
        ("person ann", "create for acme, admin"),
        ("person op", "create for all teamspaces, member"),
    ]


async def test_a_link_can_be_looked_at_without_being_taken() -> None:
    house = House()
    ann = await house.sessions.find(await house.signed_in("ann", teamspace="acme"))
    for person, teamspace, own in (("ann", "acme", True), ("bob", "acme", False), ("ann", None, False)):
        link = await house.link(person, teamspace=teamspace)
        assert await house.sessions.is_for(link, ann) is own
        await house.sessions.begin(link)
        assert not await house.sessions.is_for(link, ann), "it was taken"
    assert not await house.sessions.is_for("made up", ann)


async def test_a_link_says_where_it_leads_as_far_as_the_daemon_knows() -> None:
    bare = await House().ask(person="ann")
    assert bare.url is None
    assert bare.path is not None
    assert bare.path.startswith(f"/in/{LINK_PREFIX}")
    assert bare.expires_at == NOON + timedelta(minutes=5)
    whole = await House("https://jobs.example.com").ask(person="ann")
    assert whole.url == f"https://jobs.example.com{whole.path}"


async def test_what_is_kept_of_a_secret_of_32_random_bytes_is_its_hash() -> None:
    house = House()
    link = await house.link()
    assert house.kept.links.keys() == {hashlib.sha256(link.encode()).digest()}
    session, _ = await house.sessions.begin(link)
    assert house.kept.sessions.keys() == {hashlib.sha256(session.encode()).digest()}
    for secret, prefix in ((link, LINK_PREFIX), (session, SESSION_PREFIX)):
        assert secret.startswith(prefix)
        assert len(secret) == len(prefix) + 43 + 22, "32 bytes and a mark, in base64"
        assert secret not in repr(house.acts)
    assert len({await house.link() for _ in range(100)}) == 100


async def test_a_link_that_is_no_good_is_refused_in_the_same_words_whatever_it_was() -> None:
    house = House()
    used, late = await house.link(), await house.link()
    await house.sessions.begin(used)
    house.now = NOON + timedelta(minutes=5)
    stranger = await House().link()
    refused = [
        await refusal_of(house.sessions.begin(secret)) for secret in (used, late, stranger, "", "ldi_x", "ä\udcff")
    ]
    assert {(no.code, no.message) for no in refused} == {(ErrorCode.UNAUTHORIZED, refused[0].message)}
    assert len(house.kept.sessions) == 1


async def test_a_session_lasts_until_it_expires() -> None:
    house = House()
    secret = await house.signed_in()
    house.now = NOON + timedelta(hours=11, minutes=59)
    session = await house.sessions.find(secret)
    assert house.sessions.is_good(session)
    house.now = NOON + timedelta(hours=12)
    assert not await house.is_in(secret)
    assert not house.sessions.is_good(session)


async def test_after_the_first_look_a_session_costs_no_query() -> None:
    house = House()
    secret = await house.signed_in()
    assert await house.is_in(secret)
    before = house.kept.asked
    for _ in range(100):
        assert await house.is_in(secret)
    assert house.kept.asked == before


async def test_what_a_stranger_makes_up_costs_no_query() -> None:
    house = House()
    secret = await house.signed_in()
    before = house.kept.asked
    forged = [f"{secret[:9]}{'A' if secret[9] != 'A' else 'B'}{secret[10:]}", f"{SESSION_PREFIX}{'x' * 65}", "", "ä"]
    for wrong in (*forged, secret[:-1], secret + "x"):
        assert not await house.is_in(wrong)
        await refusal_of(house.sessions.begin(wrong))
        await house.sessions.end(wrong)
    assert house.kept.asked == before
    assert await house.is_in(secret), "the negative control"


async def test_a_link_is_no_session_and_a_session_no_link() -> None:
    house = House()
    link = await house.link()
    before = house.kept.asked
    assert not await house.is_in(link)
    assert house.kept.asked == before, "nor is it looked for among them"
    secret, _ = await house.sessions.begin(link)
    before = house.kept.asked
    await refusal_of(house.sessions.begin(secret))
    assert house.kept.asked == before


async def test_no_more_than_so_many_sessions_are_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
    house = House()
    secrets = [await house.signed_in() for _ in range(5)]
    first = await house.sessions.find(secrets[0])
    for secret in secrets[1:]:
        assert await house.is_in(secret)
        assert house.sessions.is_good(first), "who is there all the time stays"
    before = house.kept.asked
    assert await house.is_in(secrets[0])
    assert house.kept.asked == before
    assert await house.is_in(secrets[1])
    assert house.kept.asked == before + 1, "it was put out, and is read again"


async def test_who_signs_out_is_out_and_nobody_else() -> None:
    house = House()
    mine, other = await house.signed_in(), await house.signed_in()
    session = await house.sessions.find(mine)
    await house.sessions.end(mine)
    assert (await house.is_in(mine), house.sessions.is_good(session)) == (False, False)
    assert await house.is_in(other)


async def test_when_somebody_leaves_all_sessions_end_at_once() -> None:
    house = House()
    gone = [await house.signed_in(), await house.signed_in(teamspace="globex")]
    stays = await house.signed_in("bob")
    seen = await house.sessions.find(gone[0])
    reply = await house.ask(action="end", person="ann")
    assert (reply.ended, reply.path, house.acts[-1]) == (2, None, ("person ann", "end in all teamspaces"))
    assert [await house.is_in(secret) for secret in (*gone, stays)] == [False, False, True]
    assert not house.sessions.is_good(seen)
    await house.ask(action="end", teamspace="acme")
    assert house.acts[-1] == ("teamspace acme", "end in acme")
    assert not await house.is_in(stays)


async def test_what_was_read_before_an_end_is_not_taken_for_what_is_after_it() -> None:
    house = House()
    secret = await house.signed_in()
    house.kept.hold = asyncio.Event()
    slow = asyncio.create_task(house.is_in(secret))
    await asyncio.sleep(0)
    hold, house.kept.hold = house.kept.hold, None
    await house.ask(action="end", person="ann")
    hold.set()
    assert await slow, "it was read while it was good"
    assert not await house.is_in(secret)


@pytest.mark.parametrize("all_", [False, True])
async def test_where_nobody_can_say_whether_it_ended_the_database_is_asked(all_: bool) -> None:
    house = House()
    secret = await house.signed_in()
    session = await house.sessions.find(secret)
    house.kept.fault = OutcomeUnknown("cut off")
    with pytest.raises(OutcomeUnknown):
        await (house.ask(action="end", person="ann") if all_ else house.sessions.end(secret))
    house.kept.fault = None
    assert not house.sessions.is_good(session)
    assert not await house.is_in(secret)


@pytest.mark.parametrize("fault", [Unavailable("gone"), Fenced("another")])
async def test_without_a_database_nobody_is_turned_away_for_good(fault: Exception) -> None:
    house = House()
    secret, link = await house.signed_in(), await house.link()
    house.kept.fault = fault
    for call in (house.sessions.find(secret), house.sessions.begin(link), house.sessions.end(secret)):
        assert (await refusal_of(call)).code is ErrorCode.UNAVAILABLE


async def test_a_link_whose_taking_nobody_knows_of_is_not_refused() -> None:
    house = House()
    link = await house.link()
    house.kept.fault = OutcomeUnknown("cut off")
    with pytest.raises(OutcomeUnknown):
        await house.sessions.begin(link)


@pytest.mark.parametrize(
    ("own", "role", "allowed"),
    [
        ("member", "member", True),
        ("member", "admin", False),
        ("admin", "member", True),
        ("admin", "admin", True),
        ("admin", "super_admin", False),
        ("super_admin", "super_admin", True),
    ],
)
async def test_nobody_makes_a_link_for_a_role_above_their_own(own: Role, role: Role, allowed: bool) -> None:
    house = House()
    asked = house.ask(person="ann", role=role, **{"as": {"person": "token crm", "role": own}})
    if allowed:
        await asked
    else:
        no = await refusal_of(asked)
        assert (no.code, no.at, house.kept.links, house.acts) == (ErrorCode.FORBIDDEN, "role", {}, [])


async def test_a_form_is_known_to_be_its_sessions_own() -> None:
    house = House()
    mine, other = [await house.sessions.find(await house.signed_in()) for _ in range(2)]
    token = house.sessions.csrf_of(mine)
    assert house.sessions.is_csrf_of(mine, token)
    for wrong in (house.sessions.csrf_of(other), "", token[:-1], token.upper(), "ä", "\ud800"):
        assert not house.sessions.is_csrf_of(mine, wrong)
    assert Sessions(house.kept, b"z" * 32).csrf_of(mine) != token, "another daemon's"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"person": ""},
        {"person": "x" * 201},
        {"person": "ann\n"},
        {"person": "\u202enna"},
        {"action": "end"},
        {"action": "end", "person": "ann", "role": "admin"},
        {"person": "ann", "role": "owner"},
    ],
)
def test_a_link_is_for_a_person_who_can_be_named(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"op": "links", **wrong}, Links)
    assert msgspec.convert({"op": "links", "person": "x" * 200}, Links).action == "create"


async def test_who_is_signed_out_already_costs_no_write() -> None:
    house = House()
    secret = await house.signed_in()
    for _ in range(3):
        await house.sessions.end(secret)
    assert house.kept.ends == 1
    assert not await house.is_in(secret)
