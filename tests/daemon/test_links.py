"""Links by which people sign in: who makes one for whom, what becomes of it, and who learns of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import structlog

from leadline.actors.sessions import Sessions
from leadline.adapters.http.reach import Desk, Reach
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import Links, Person
from tests.daemon.http import using
from tests.daemon.running import Place

ANN = "ann@acme.example"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Sessions]:
    """The sessions of each daemon that is opened, as its pages have them."""
    found: list[Sessions] = []
    whole = Reach.open

    def watched(self: Reach, desk: Desk) -> None:
        found.append(desk.sessions)
        whole(self, desk)

    monkeypatch.setattr(Reach, "open", watched)
    return found


@asynccontextmanager
async def database(place: Place) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(place.url)
    try:
        yield connection
    finally:
        await connection.close()


def secret_of(path: str | None) -> str:
    assert path is not None
    return path.removeprefix("/in/")


async def test_a_link_of_a_token_signs_one_person_in_and_the_session_outlives_the_daemon(
    place: Place, opened: list[Sessions]
) -> None:
    async with place.daemon() as (_, client), using(place, client, "crm", teamspace="acme", role="admin") as http:
        answer = await http.post("/v1/links", json={"person": ANN, "role": "admin"})
        assert (answer.status, answer.json.keys()) == (200, {"path", "expires_at"}), "nobody said where it is reached"
        secret, session = await opened[0].begin(secret_of(answer.json["path"]))
        assert (session.person, session.teamspace, session.role) == (ANN, "acme", "admin")
        with pytest.raises(Refused):
            await opened[0].begin(secret_of(answer.json["path"]))
    async with place.daemon() as (_, client):
        assert await opened[1].find(secret) == session
        assert (await client.call(Links(action="end", person=ANN))).ended == 1
        with pytest.raises(Refused):
            await opened[1].find(secret)


async def test_a_token_makes_links_for_nobody_whom_it_is_not(place: Place) -> None:
    async with place.daemon() as (_, client):
        async with using(place, client, "own", teamspace="acme", role="admin") as http:
            foreign = await http.post("/v1/links", json={"person": ANN, "teamspace": "globex"})
            assert (foreign.status, foreign.code) == (404, "not_found")
            higher = await http.post("/v1/links", json={"person": ANN, "role": "super_admin"})
            assert (higher.status, higher.code, higher.json["at"]) == (403, "forbidden", "role")
            claimed = await http.post(
                "/v1/links", json={"person": ANN, "as": {"person": "root", "role": "super_admin"}}
            )
            assert claimed.status == 400
        async with using(place, client, "operator") as http:
            for teamspace in ({}, {"teamspace": "acme"}, {"teamspace": "globex"}):
                answer = await http.post("/v1/links", json={"person": ANN, "role": "super_admin", **teamspace})
                assert answer.status == 200


async def test_a_token_of_one_teamspace_signs_nobody_out_elsewhere(place: Place, opened: list[Sessions]) -> None:
    async with place.daemon() as (_, client), using(place, client, "own", teamspace="acme") as http:
        signed_in = {}
        for teamspace in ("acme", "globex", None):
            link = await client.call(Links(person=ANN, teamspace=teamspace))
            signed_in[teamspace], _ = await opened[0].begin(secret_of(link.path))
        assert (await http("DELETE", f"/v1/links?person={ANN}&teamspace=globex")).status == 404
        assert (await http("DELETE", f"/v1/links?person={ANN}")).json == {"ended": 1}
        with pytest.raises(Refused):
            await opened[0].find(signed_in["acme"])
        assert (await opened[0].find(signed_in["globex"])).teamspace == "globex"
        assert (await opened[0].find(signed_in[None])).teamspace is None


async def test_the_audit_trail_tells_who_made_a_link_for_whom(place: Place) -> None:
    async with place.daemon() as (running, client), using(place, client, "crm", teamspace="acme", role="admin") as http:
        await http.post("/v1/links", json={"person": ANN})
        await client.call(Links(action="end", person=ANN))
        made, ended = await running.acts(f"person {ANN}")
        assert (made.op, made.person, made.role) == ("links", "token crm", "admin")
        assert made.detail == "create for acme, member"
        assert (ended.person, ended.detail) == (None, "end in all teamspaces")


async def test_a_secret_is_in_no_log_and_nowhere_in_the_database(place: Place, opened: list[Sessions]) -> None:
    async with place.daemon() as (_, client), using(place, client, "crm") as http:
        with structlog.testing.capture_logs() as logs:
            answer = await http.post("/v1/links", json={"person": "canary-person"})
            link = secret_of(answer.json["path"])
            await opened[0].begin(link)
            unused = secret_of((await http.post("/v1/links", json={"person": "canary-person"})).json["path"])
            session, _ = await opened[0].begin(secret_of((await client.call(Links(person="canary-person"))).path))
        async with database(place) as connection:
            tables = [row["name"] for row in await connection.fetch(TABLES)]
            rows = [str(row) for name in tables for row in await connection.fetch(f'SELECT t::text FROM "{name}" t')]
        told = "\n".join([*rows, repr(logs)])
        assert told.count("canary-person") >= 6, "the negative control: three acts, two sessions, one link"
        for secret in (link, unused, session):
            assert secret not in told
            assert secret.encode().hex() not in told


TABLES = (
    "SELECT relname AS name FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace"
)


@pytest.mark.parametrize(
    ("lines", "begins"),
    [
        ((), "http://127.0.0.1:{port}/in/"),
        (('public_url = "https://jobs.acme.example"',), "https://jobs.acme.example/in/"),
    ],
)
async def test_a_link_is_a_whole_address_where_one_is_known(
    place: Place, unused_tcp_port: int, lines: tuple[str, ...], begins: str
) -> None:
    place.configure("[http]", f'listen = "127.0.0.1:{unused_tcp_port}"', *lines)
    async with place.daemon() as (_, client):
        reply = await client.call(Links(person=ANN))
        assert reply.url is not None
        assert reply.url.startswith(begins.format(port=unused_tcp_port))
        assert reply.url.endswith(f"{reply.path}")


async def test_where_it_listens_on_every_address_none_of_them_is_told(place: Place, unused_tcp_port: int) -> None:
    place.configure("[http]", f'listen = "0.0.0.0:{unused_tcp_port}"')
    async with place.daemon() as (_, client):
        assert (await client.call(Links(person=ANN))).url is None


async def test_on_the_control_socket_somebody_makes_links_up_to_their_role(place: Place) -> None:
    jo = Person(person="jo", role="member")
    async with place.daemon() as (_, client):
        await client.call(Links(person=ANN, as_=jo))
        with pytest.raises(Refused) as no:
            await client.call(Links(person=ANN, role="admin", as_=jo))
        assert no.value.code is ErrorCode.FORBIDDEN
