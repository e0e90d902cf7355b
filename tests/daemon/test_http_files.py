"""Files over HTTP: in and out by pieces, whole or not at all, and nowhere but where they belong."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leadline.adapters.http import files
from leadline_protocol.messages import Tables
from tests.daemon.http import Http, using
from tests.daemon.running import WITHIN_SECONDS, Place

PIECE = bytes(1024 * 1024)
SMALL_PIECES = 32
BIG_PIECES = 256
GROWTH_MAX = 48 * 1024 * 1024
"""By so much a process may be larger while a file of BIG_PIECES MiB goes through it than while a small one did: what
the tests before it have left counts for both."""


def incoming(place: Place) -> list[str]:
    return sorted(path.name for path in (place.state / "incoming").iterdir())


async def test_a_file_that_was_sent_is_uploaded_by_its_name(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        rows = "email,company\n" + "".join(f"lead{number}@x.example,Acme\n" for number in range(500))
        sent = await http.put("/v1/files/my%20leads.csv", data=rows.encode())
        assert (sent.status, sent.json) == (201, {"name": "my leads.csv", "size_bytes": len(rows)})
        submission = {"kind": "upload", "teamspace": "acme", "table": "leads", "path": "my leads.csv"}
        job = (await http.post("/v1/jobs", json=submission)).json["job"]
        assert (await client.wait(job)).state == "completed"
        (table,) = (await client.call(Tables(teamspace="acme"))).tables
        assert table.leads == 500
        assert incoming(place) == [], "it is taken over, and goes when it has been read"


async def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def through(place: Place, http: Http, count: int) -> int:
    """Send so many pieces in and fetch them again; the most bytes that this process had meanwhile."""
    most = await resident()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal most
        for _number in range(count):
            yield PIECE
            most = max(most, await resident())

    sent = await http.put("/v1/files/big.csv", data=pieces())
    assert sent.json["size_bytes"] == count * len(PIECE)
    (place.state / "incoming" / "big.csv").rename(place.state / "exports" / "big.csv")
    fetched = 0
    async with http.session.get("/v1/files/big.csv") as response:
        async for piece in response.content.iter_any():
            fetched += len(piece)
            most = max(most, await resident())
    assert fetched == count * len(PIECE)
    return most


async def test_a_large_file_goes_through_without_being_held(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        small, big = [await through(place, http, count) for count in (SMALL_PIECES, BIG_PIECES)]
        assert big - small < GROWTH_MAX


@pytest.mark.parametrize("name", ["..%2Fx", "%2E%2E", ".hidden", "a%2Fb", "a%00b", "x" * 151, "a%0Ab"])
async def test_no_name_leads_out_of_the_folder(place: Place, name: str) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        for answer in (
            await http.put(http.raw(f"/v1/files/{name}"), data=b"x"),
            await http.get(http.raw(f"/v1/files/{name}")),
        ):
            assert (answer.status, answer.code) == (400, "bad_request")
        assert incoming(place) == []


async def test_a_link_among_the_exports_is_not_followed(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        (place.folder / "outside").write_text("secret")
        (place.state / "exports" / "link.csv").symlink_to(place.folder / "outside")
        (place.state / "exports" / "folder").mkdir()
        os.mkfifo(place.state / "exports" / "pipe")
        for name in ("link.csv", "folder", "pipe", "absent"):
            assert (await http.get(f"/v1/files/{name}")).status == 404, name


async def test_a_file_that_comes_in_half_leaves_nothing(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        began = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield b"email\n"
            began.set()
            await asyncio.sleep(30)

        sending = asyncio.create_task(http.put("/v1/files/half.csv", data=half()))
        await began.wait()
        while not incoming(place):
            await asyncio.sleep(0.01)
        assert incoming(place)[0].startswith(".http-"), "it has no name yet that anybody could say"
        sending.cancel()
        async with asyncio.timeout(WITHIN_SECONDS):
            while incoming(place):
                await asyncio.sleep(0.01)


async def test_who_sends_nothing_more_of_a_file_is_hung_up_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SILENCE_SECONDS_MAX", 0.2)

    async def silent() -> AsyncIterator[bytes]:
        yield b"email\n"
        await asyncio.sleep(30)

    async with place.daemon() as (_, client), using(place, client, "a") as http:
        assert (await http.put("/v1/files/half.csv", data=silent())).status == 408
        assert incoming(place) == []


async def test_a_file_beyond_the_bound_is_refused(place: Place) -> None:
    place.configure("[http]", "upload_bytes_max = 1000")

    async def pieces() -> AsyncIterator[bytes]:
        for _number in range(20):
            yield bytes(100)

    async with place.daemon() as (_, client), using(place, client, "a") as http:
        for data in (bytes(1001), pieces()):
            answer = await http.put("/v1/files/long.csv", data=data)
            assert (answer.status, answer.code) == (413, "too_large")
        assert incoming(place) == []
        assert (await http.put("/v1/files/fits.csv", data=bytes(1000))).status == 201


async def test_a_client_that_asks_before_it_sends_is_told_to(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        sent = await http.put("/v1/files/asked.csv", data=b"email\n", expect100=True)
        assert (sent.status, incoming(place)) == (201, ["asked.csv"])
        taken = await http.post("/v1/jobs", json={"kind": "noop", "teamspace": "a"}, expect100=True)
        assert taken.status == 201


async def test_what_a_crash_left_of_a_file_is_gone_at_the_next_start(place: Place) -> None:
    async with place.daemon():
        pass
    (place.state / "incoming" / ".http-0123.part").write_text("half")
    (place.state / "incoming" / "whole.csv").write_text("email\n")
    async with place.daemon():
        assert incoming(place) == ["whole.csv"]
