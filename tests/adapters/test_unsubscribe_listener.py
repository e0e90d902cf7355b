"""The listener by which contacts leave, asked by a real client over a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from leadline.adapters.unsubscribe_listener import BODY_BYTES_MAX, HEADER_BYTES_MAX, unsubscribe_listener
from leadline.features.outreach.model import FollowUpId
from leadline.features.outreach.unsubscribe import Wish, read, token, unsubscribe_key
from leadline.ports.store import Unavailable

KEY = unsubscribe_key(b"k" * 32)
WISH = Wish("acme", FollowUpId(41))
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


class Listened:
    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self.available = True
        self.url = ""
        self.client: aiohttp.ClientSession

    async def unsubscribed(self, wish: Wish) -> None:
        if not self.available:
            raise Unavailable("the database is away")
        self.wishes.append(wish)


@asynccontextmanager
async def listening() -> AsyncIterator[Listened]:
    listened = Listened()
    async with (
        unsubscribe_listener(port=0, read=lambda text: read(KEY, text), unsubscribed=listened.unsubscribed) as port,
        aiohttp.ClientSession() as client,
    ):
        listened.url, listened.client = f"http://127.0.0.1:{port}/u/{token(KEY, WISH)}", client
        yield listened


async def test_a_post_unsubscribes_as_often_as_it_comes_and_whatever_stands_before_the_token() -> None:
    async with listening() as listened:
        for url in (listened.url, listened.url, listened.url.replace("/u/", "/"), listened.url.replace("/u/", "/a/b/")):
            async with listened.client.post(url, data=ONE_CLICK) as answer:
                assert (answer.status, "no more mails" in await answer.text()) == (200, True)
        form = aiohttp.FormData(ONE_CLICK, default_to_multipart=True)
        async with listened.client.post(listened.url, data=form) as answer:
            assert answer.status == 200
    assert listened.wishes == [WISH] * 5


async def test_looking_at_the_page_changes_nothing_and_its_button_posts() -> None:
    async with listening() as listened:
        async with listened.client.get(listened.url) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert '<form method="post">' in page
            assert "acme" not in page
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        async with listened.client.head(listened.url) as answer:
            assert answer.status == 200
        for method in ("PUT", "DELETE", "OPTIONS"):
            async with listened.client.request(method, listened.url) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert listened.wishes == []


async def test_a_token_that_is_not_ours_is_not_found_whoever_asks() -> None:
    async with listening() as listened:
        told = set()
        for url in (listened.url[:-1], listened.url + "A", listened.url + "/", listened.url.rpartition("/u/")[0], "/"):
            for method in ("GET", "POST"):
                async with listened.client.request(method, url if url != "/" else listened.url + "/x") as answer:
                    assert answer.status == 404
                    told.add(await answer.text())
        assert len(told) == 1
    assert listened.wishes == []


async def test_where_the_wish_cannot_be_stored_the_mail_program_is_told_to_come_again() -> None:
    async with listening() as listened:
        listened.available = False
        async with listened.client.post(listened.url, data=ONE_CLICK) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
        listened.available = True
        async with listened.client.post(listened.url, data=ONE_CLICK) as answer:
            assert answer.status == 200
    assert listened.wishes == [WISH]


async def test_what_is_too_large_is_refused() -> None:
    async with listening() as listened:
        async with listened.client.post(listened.url, data=b"x" * (BODY_BYTES_MAX + 1)) as answer:
            assert answer.status == 413
        async with listened.client.post(listened.url, headers={"X": "x" * 2 * HEADER_BYTES_MAX}) as answer:
            assert answer.status == 400
        async with listened.client.post(listened.url + "?" + "x" * 2 * HEADER_BYTES_MAX) as answer:
            assert answer.status in (400, 414)
    assert listened.wishes == []


async def test_it_listens_on_the_loopback_address_and_ends_although_a_connection_is_open() -> None:
    async with listening() as listened:
        port = int(listened.url.split("/")[2].partition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
    writer.close()
