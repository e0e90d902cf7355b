"""The daemon's folders are open to whom they are for, and what nobody needs any more goes."""

import asyncio
import grp
import os
import time
from collections.abc import Callable, Iterator

import pytest

from leadline import main
from leadline.adapters import folders
from leadline_protocol.messages import Export, Noop, Upload
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.postgres import meddle

DAY = 86_400


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """That of the service."""
    before = os.umask(0o077)
    yield
    os.umask(before)


async def until(condition: Callable[[], bool]) -> None:
    """House is kept beside the queue, and nobody is told when it is done."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_group_of_submitters_hands_files_in_and_takes_exports(
    place: Place, monkeypatch: pytest.MonkeyPatch, strict_umask: None
) -> None:
    group = grp.getgrgid(os.getgid())
    monkeypatch.setattr(folders, "SUBMIT_GROUP", group.gr_name)
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "list.csv").write_text("email\nada@a.example\n")
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
        await client.wait((await client.submit(Export(teamspace="acme", table="people", path="out.csv"))).job)
    modes = {name: (place.state / name).stat().st_mode & 0o7777 for name in ("incoming", "exports", "exports/out.csv")}
    assert modes == {"incoming": 0o3770, "exports": 0o2750, "exports/out.csv": 0o640}
    assert (place.state / "exports" / "out.csv").stat().st_gid == group.gr_gid


async def test_without_such_a_group_the_folders_are_our_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "SUBMIT_GROUP", "no such group")
    async with place.daemon():
        modes = {name: (place.state / name).stat().st_mode & 0o7777 for name in ("incoming", "exports", "uploads")}
    assert modes == {"incoming": 0o1770, "exports": 0o750, "uploads": 0o700}


async def test_a_start_removes_copies_that_no_live_job_reads(place: Place) -> None:
    copies = place.state / "uploads"
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "list.csv").write_text("email\nada@a.example\n")
        await client.submit(Upload(teamspace="acme", table="people", path="list.csv", delay=3600))
        (read,) = copies.iterdir()
    orphan = copies / "0123456789abcdef"
    orphan.write_text("left by a daemon that crashed before it stored the job")
    async with place.daemon():
        await until(lambda: not orphan.exists())
        assert read.exists()


async def test_what_is_older_than_the_history_is_kept_goes(place: Place) -> None:
    place.configure("[queue]", "history_days = 7")
    async with place.daemon() as (_, client):
        await client.submit(Noop(teamspace="acme"))
    now = time.time_ns() // 1_000
    async with meddle(place.url) as connection:
        for days in (8, 6):
            await connection.execute(
                "INSERT INTO audit (at, uid, pid, op, target, detail) VALUES ($1, 0, 0, 'pause', $2, '')",
                now - days * DAY * 1_000_000,
                f"{days} days ago",
            )
        left: list[str] = []

        async def look() -> None:
            while len(left) != 1:
                left[:] = [row["target"] for row in await connection.fetch("SELECT target FROM audit ORDER BY n")]

        async with place.daemon(), asyncio.timeout(WITHIN_SECONDS):
            await look()
    assert left == ["6 days ago"]
