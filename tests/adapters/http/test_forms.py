"""Forms as browsers send them, and as nobody should: read in bounds, and a file is never held."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from leadline.adapters.http.files import PIECE_BYTES
from leadline.adapters.http.pages import forms
from leadline_protocol.errors import ErrorCode, Refused

Take = Callable[[forms.Form], Awaitable[None]]


async def nothing(form: forms.Form) -> None:
    """Leave the file where it is."""


@asynccontextmanager
async def server(take: Take = nothing) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Somewhere to send forms to: what came of the last one, a Form or a Refused."""
    came: list[Any] = []

    async def answer(http: web.BaseRequest) -> web.Response:
        try:
            form = await forms.read(http)
            await take(form)
            came.append(form)
        except Refused as no:
            came.append(no)
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        async with aiohttp.ClientSession() as session:

            async def send(**request: Any) -> Any:
                async with session.post(f"http://{host}:{port}/", **request):
                    return came[-1]

            yield send
    finally:
        await runner.cleanup()


def multipart(*parts: tuple[str, str | bytes | io.BytesIO, str | None]) -> aiohttp.FormData:
    """Fields and files (with a file name) in this order."""
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value, filename in parts:
        data.add_field(name, value, filename=filename)
    return data


async def test_fields_are_read_in_either_encoding() -> None:
    fields = {"csrf": "t", "name": "Ünï & cö=", "empty": ""}
    async with server() as send:
        assert (await send(data=fields)).fields == fields
        assert (await send(data=multipart(*((*pair, None) for pair in fields.items())))).fields == fields


async def test_the_file_at_the_end_is_taken_by_pieces_of_its_own() -> None:
    sizes: list[int] = []
    body = bytes(3_000_000)

    async def take(form: forms.Form) -> None:
        assert form.file is not None
        assert (form.file.name, form.fields) == ("leads.csv", {"csrf": "t"})
        while piece := await form.file.next():
            sizes.append(len(piece))

    async with server(take) as send:
        await send(data=multipart(("csrf", "t", None), ("file", io.BytesIO(body), "leads.csv")))
    assert sum(sizes) == len(body)
    assert max(sizes) <= PIECE_BYTES


async def test_what_stands_behind_the_file_is_not_looked_at() -> None:
    async with server() as send:
        form = await send(data=multipart(("file", b"x", "a.csv"), ("csrf", "t", None)))
        assert form.fields == {}, "so a form without its token in front of the file is refused"


MULTIPART = "multipart/form-data; boundary=x"
ENCODED = "application/x-www-form-urlencoded"


def raw(data: bytes, kind: str = MULTIPART) -> dict[str, Any]:
    """A body as it stands here."""
    return {"data": data, "headers": {"Content-Type": kind}}


@pytest.mark.parametrize(
    "sent",
    [
        raw(b"a=%ff", ENCODED),
        raw(b"\xff", ENCODED),
        raw(b"&".join(b"f%d=1" % n for n in range(forms.FIELDS_MAX + 1)), ENCODED),
        raw(b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % n for n in range(201))),
        raw(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\xfe\r\n--x--\r\n'),
        raw(b"--x\r\n\r\n\r\n--x--\r\n"),
        raw(b"--y--\r\n"),
        raw(b"", "multipart/form-data"),
        raw(b"--x\r\nContent-Type: multipart/mixed; boundary=z\r\n\r\n--z--\r\n--x--\r\n"),
        raw(b'{"csrf":"t"}', "application/json"),
        raw(b"csrf=t", "text/plain"),
    ],
)
async def test_what_is_no_form_is_refused(sent: dict[str, Any]) -> None:
    async with server() as send:
        no = await send(**sent)
        assert isinstance(no, Refused)
        assert no.code is ErrorCode.BAD_REQUEST


async def test_fields_have_a_bound_in_either_encoding() -> None:
    long = "x" * (forms.FORM_BYTES_MAX // 2)
    async with server() as send:
        too_long = f"a={long}&b={long}".encode()
        for data in (
            io.BytesIO(too_long),
            multipart(("a", long, None), ("b", long + "x", None)),
            multipart(*((f"{number}{'x' * 4_000}", "", None) for number in range(300))),
            multipart(("a", long, None), ("b", long + "x", None), ("file", b"x", "a.csv")),
        ):
            no = await send(data=data, headers={"Content-Type": ENCODED} if isinstance(data, io.BytesIO) else {})
            assert isinstance(no, Refused)
            assert no.code is ErrorCode.TOO_LARGE
