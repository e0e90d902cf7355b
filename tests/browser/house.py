"""A daemon that people reach with a browser, and how they come in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from msgspec import Struct
from playwright.async_api import Page

from leadline.daemon import Daemon
from leadline_protocol.client import Client
from leadline_protocol.messages import Role
from tests.daemon.http import Http, using
from tests.daemon.running import Place

T = TypeVar("T")


class House(Struct, frozen=True):
    """A daemon in this process, and the product that sends people to it."""

    place: Place
    origin: str
    daemon: Daemon
    client: Client
    product: Http

    async def link(self, person: str, teamspace: str | None, role: Role) -> str:
        """A path by which this person signs in once; without a teamspace as somebody who sees all of them."""
        asked = {"person": person, "role": role, **({} if teamspace is None else {"teamspace": teamspace})}
        answer = await self.product.post("/v1/links", json=asked)
        assert answer.status == 200, answer
        return str(answer.json["path"])

    async def sign_in(
        self, page: Page, teamspace: str | None, *, person: str = "ann", role: Role = "admin", scripts: bool = True
    ) -> None:
        """Follow a new link to the first page that there is for this person."""
        await page.goto(await self.link(person, teamspace, role))
        if not scripts:
            await page.get_by_role("button", name="Go on").click()
        await page.wait_for_url(lambda url: "/in/" not in url)


@asynccontextmanager
async def house(place: Place, port: int, *lines: str) -> AsyncIterator[House]:
    """A daemon that listens on a port of the loopback, with these lines in its configuration."""
    place.configure(*lines, "[http]", f'listen = "127.0.0.1:{port}"')
    async with place.daemon() as (daemon, client), using(place, client, "product") as product:
        yield House(place, f"http://127.0.0.1:{port}", daemon, client, product)


@asynccontextmanager
async def apart(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a context and leave it in one task: a fixture does so in two, which a cancel scope cannot bear."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def stay() -> None:
        async with context as value:
            entered.set_result(value)
            await over.wait()

    staying = asyncio.create_task(stay())
    staying.add_done_callback(lambda _: entered.done() or entered.cancel())
    try:
        yield await entered
    finally:
        over.set()
        await staying
