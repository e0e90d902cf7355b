"""The API over HTTP as a program with a token uses it, on the Unix socket of a daemon in this process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from leadline.config import HTTP_SOCKET
from leadline_protocol.client import Client
from leadline_protocol.messages import Role, Tokens, TokenScope
from tests.daemon.running import Place

EVERY_SCOPE: tuple[TokenScope, ...] = ("submit", "read", "control")


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        return str(self.json["code"])


class Http:
    """A program with a token, or without one."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    @staticmethod
    def raw(path: str) -> URL:
        """An address that is sent as it stands here."""
        return URL(f"http://leadline{path}", encoded=True)

    async def __call__(self, method: str, path: str | URL, **request: Any) -> Answer:
        async with self.session.request(method, path, allow_redirects=False, **request) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str | URL, **request: Any) -> Answer:
        return await self("GET", path, **request)

    async def post(self, path: str | URL, **request: Any) -> Answer:
        return await self("POST", path, **request)

    async def put(self, path: str | URL, **request: Any) -> Answer:
        return await self("PUT", path, **request)


async def token(
    client: Client, name: str, *scopes: TokenScope, teamspace: str | None = None, role: Role = "super_admin"
) -> str:
    """A new token's secret; without scopes it has all."""
    wanted = list(scopes or EVERY_SCOPE)
    reply = await client.call(Tokens(action="create", name=name, scopes=wanted, teamspace=teamspace, role=role))
    assert reply.secret is not None
    return reply.secret


@asynccontextmanager
async def program(place: Place, secret: str | None) -> AsyncIterator[Http]:
    """Somebody who sends this secret with every request."""
    connector = aiohttp.UnixConnector(path=str(place.folder / "run" / HTTP_SOCKET))
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(connector=connector, base_url="http://leadline", headers=headers) as session:
        yield Http(session)


@asynccontextmanager
async def using(place: Place, client: Client, name: str, *scopes: TokenScope, **token_: Any) -> AsyncIterator[Http]:
    """A program with a new token."""
    async with program(place, await token(client, name, *scopes, **token_)) as http:
        yield http
