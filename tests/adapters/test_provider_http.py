"""What may have reached a provider is told apart by how a request ended: nothing, perhaps all of it, surely all."""

import asyncio
import gzip
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from leadline.adapters import provider_http
from leadline.adapters.provider_http import ProviderHttp
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Unsent, Withdrawn
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Enrichment, Fault, Faulty, Plan
from tests.world.servers import Served, serving


@pytest.fixture
async def client() -> AsyncIterator[ProviderHttp]:
    async with provider_http.provider_http() as client:
        yield client


def post(url: str) -> Request:
    return Request("POST", url, {"Content-Type": "application/json"}, b'{"email":"a@b.example"}', 5.0)


def faulty(plan: Plan) -> Behaviour:
    return Faulty(Enrichment(), [Fault(plan, times=1_000)])


class Looks:
    """The last look before the first byte, and the moment when headers come."""

    def __init__(self, *, may_send: bool = True) -> None:
        self.answer = may_send
        self.asked = 0
        self.began = 0

    def may_send(self) -> bool:
        self.asked += 1
        return self.answer

    def begin(self) -> None:
        self.began += 1


async def send(client: ProviderHttp, request: Request, looks: Looks) -> bytes:
    response = await client.send(request, may_send=looks.may_send, began=looks.begin)
    return response.body


async def test_a_request_is_made_once_and_its_answer_read_whole(client: ProviderHttp) -> None:
    looks = Looks()
    async with serving(Enrichment()) as served:
        body = await send(client, post(f"{served.url}/enrich"), looks)
    assert b"company" in body
    assert (looks.asked, looks.began, len(served.calls)) == (1, 1, 1)


async def test_nothing_leaves_where_the_last_look_says_no(client: ProviderHttp) -> None:
    async with serving(Enrichment()) as served:
        with pytest.raises(Withdrawn):
            await send(client, post(f"{served.url}/enrich"), Looks(may_send=False))
        assert served.calls == []


@pytest.mark.parametrize("body", [b'{"email":"a@b.example"}', b""])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_the_last_look_lets_go_has_left_before_anything_else_happens(
    new_loop: Callable[[], asyncio.AbstractEventLoop], body: bytes
) -> None:
    """A process that is stopped after its look must not send when it wakes, so there is nothing between the two."""
    left: list[bytes] = []

    async def look() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def may_send() -> bool:
                loop.call_soon(peek)
                return True

            def peek() -> None:
                peer, _ = server.accept()
                with peer, suppress(BlockingIOError):
                    left.append(peer.recv(10_000, socket.MSG_DONTWAIT))

            async with provider_http.provider_http() as client:
                url = f"http://127.0.0.1:{server.getsockname()[1]}/"
                with pytest.raises(Ambiguous):
                    await client.send(Request("POST", url, {}, body, 5.0), may_send=may_send, began=lambda: None)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(look())
    assert left
    assert left[0].endswith(b"\r\n\r\n" + body)


async def test_a_refused_connection_is_unsent(client: ProviderHttp) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    looks = Looks()
    with pytest.raises(Unsent):
        await send(client, post(f"http://127.0.0.1:{port}/"), looks)
    assert looks.asked == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize("plan", [behaviours.hang(), behaviours.cut()])
async def test_without_headers_nobody_knows(client: ProviderHttp, plan: Plan, method: str) -> None:
    looks = Looks()
    async with serving(faulty(plan)) as served:
        request = replace(post(f"{served.url}/enrich"), method=method)
        if method == "GET":
            request = replace(request, headers={}, body=b"")
        with pytest.raises(Ambiguous):
            await send(client, request, looks)
        assert len(served.calls) == 1, "and it is not repeated by itself"
    assert (looks.asked, looks.began) == (1, 0)


@pytest.mark.parametrize("plan", [behaviours.hang_after_headers(), behaviours.cut(in_body=True)])
async def test_a_body_that_does_not_come_whole_is_a_broken_response(client: ProviderHttp, plan: Plan) -> None:
    looks = Looks()
    async with serving(faulty(plan)) as served:
        with pytest.raises(BrokenResponse):
            await send(client, post(f"{served.url}/enrich"), looks)
        assert len(served.calls) == 1
    assert looks.began == 1


async def test_a_huge_body_is_read_no_further_than_allowed(client: ProviderHttp) -> None:
    async with serving(faulty(behaviours.huge_body(4 * provider_http.BODY_BYTES_MAX))) as served:
        with pytest.raises(BrokenResponse):
            await send(client, post(f"{served.url}/enrich"), Looks())


async def test_a_redirect_is_an_answer_and_is_not_followed(client: ProviderHttp) -> None:
    async with serving(Enrichment()) as inside, redirecting_to(inside) as served:
        response = await client.send(post(f"{served.url}/enrich"), may_send=lambda: True, began=lambda: None)
        assert response.status == 302
        assert inside.calls == []


def redirecting_to(inside: Served) -> AbstractAsyncContextManager[Served]:
    return serving(faulty(behaviours.redirect(f"{inside.url}/enrich")))


def user_timeout(port: int) -> int:
    """TCP_USER_TIMEOUT of the connection to that port, as the kernel has it."""
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            with socket.socket(fileno=os.dup(int(link.name))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername()[1] == port:
                    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        except OSError:
            continue
    raise AssertionError(f"nobody is connected to port {port}")


async def test_each_request_has_its_own_flight_time_on_a_connection_that_is_used_again(client: ProviderHttp) -> None:
    """What is not acknowledged in that time is given up: the kernel has been told so before the first byte."""
    async with serving(Enrichment()) as served:
        port = int(served.url.rpartition(":")[2])
        found = []

        def may_send() -> bool:
            found.append(user_timeout(port))
            return True

        for seconds in (5.0, 0.5):
            request = replace(post(f"{served.url}/enrich"), flight_seconds=seconds)
            await client.send(request, may_send=may_send, began=lambda: None)
        assert found == [5_000, 500]


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes], list[int]]]:
    """A server that gives these answers and the last of them from then on.

    Yields its URL, the heads of the requests that it has read, and the ports that they came from.
    """
    heads: list[bytes] = []
    ports: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                ports.append(writer.get_extra_info("peername")[1])
                writer.write(answers[min(len(heads), len(answers)) - 1])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads, ports
        for writer in writers:
            writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/size?email=a%40b.example&page=2", "/size?email=a%40b.example&page=2"),
        ("?q=1", "/?q=1"),
        ("/ä b", "/%C3%A4%20b"),
        ("/a/../b#part", "/b"),
        ("/100%", "/100%25"),
    ],
)
async def test_what_is_asked_for_is_encoded_where_it_is_not_yet(client: ProviderHttp, path: str, asked: str) -> None:
    async with answering(OK) as (url, heads, _):
        await send(client, Request("GET", url + path, {}), Looks())
    assert heads[0].startswith(f"GET {asked} HTTP/1.1\r\nHost: 127.0.0.1:".encode())
    assert b"content-length" not in heads[0].lower()


async def test_a_header_is_sent_once_and_a_requests_own_in_place_of_ours(client: ProviderHttp) -> None:
    async with answering(OK) as (url, heads, _):
        await send(
            client,
            Request("POST", url + "/", {"Host": "own.example", "User-Agent": "acme/1", "X-Name": "Zoë"}),
            Looks(),
        )
    names = [line.partition(b":")[0].lower() for line in heads[0].split(b"\r\n")[1:-2]]
    assert sorted(names) == [b"accept-encoding", b"content-length", b"host", b"user-agent", b"x-name"]
    assert "Host: own.example\r\nUser-Agent: acme/1\r\nX-Name: Zoë\r\n".encode() in heads[0]


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\rb", "a\0b"])
async def test_a_header_that_would_begin_another_line_is_never_sent(client: ProviderHttp, value: str) -> None:
    looks = Looks()
    async with answering(OK) as (url, heads, _):
        for headers in ({"X-Key": value}, {value: "x"}):
            with pytest.raises(Unsent, match="end of line"):
                await send(client, Request("GET", f"{url}/", headers), looks)
    assert (looks.asked, heads) == (0, [])


async def test_news_before_the_answer_are_not_the_answer(client: ProviderHttp) -> None:
    looks = Looks()
    async with answering(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK) as (url, _, _):
        assert await send(client, Request("GET", f"{url}/", {}), looks) == b"{}"
    assert looks.began == 1


async def test_a_packed_answer_is_unpacked(client: ProviderHttp) -> None:
    packed = gzip.compress(b'{"size": 17}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    async with answering(head.encode() + packed) as (url, _, _):
        assert await send(client, Request("GET", f"{url}/", {}), Looks()) == b'{"size": 17}'


async def test_a_connection_is_used_again_but_not_after_a_broken_answer(client: ProviderHttp) -> None:
    async with answering(OK, OK, b"nonsense\r\n\r\n", OK) as (url, _, ports):
        request = Request("GET", f"{url}/", {})
        for _ in range(2):
            await send(client, request, Looks())
        with pytest.raises(Ambiguous):
            await send(client, request, Looks())
        await send(client, request, Looks())
    assert ports[0] == ports[1] == ports[2] != ports[3]


async def test_what_comes_unasked_between_two_requests_answers_neither(client: ProviderHttp) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        request = Request("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {})
        assert await send(client, request, Looks()) == b"{}"
        ((kept, _),) = client._connector._conns[client._origins[request.url[:-1]].connection_key]
        writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanother")
        async with asyncio.timeout(10):
            while not kept.should_close:
                await asyncio.sleep(0)
        assert await send(client, request, Looks()) == b"{}"
        assert len(writers) == 2
        for writer in writers:
            writer.close()
