"""Between the last thing that a job does to a file and the end that is stored of it, the daemon may die."""

import os
from pathlib import Path

import pytest

from leadline.adapters.postgres import lead_lists
from leadline.adapters.upload_folder import UploadFolder
from leadline.features.tables import export
from leadline.ports.store import Unavailable
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Export, JobView, Upload
from tests.daemon.running import Place

LOST = Unavailable("the daemon dies here")


async def upload(place: Place, client: Client, text: str) -> JobId:
    (place.state / "incoming" / "list.csv").write_text(text)
    job = (await client.submit(Upload(teamspace="acme", table="prospects", path="list.csv"))).job
    await client.wait(job)
    return job


async def view(client: Client, job: JobId) -> JobView:
    found = await client.get(job)
    assert found.attempt == 2, "nothing happened in between"
    return found


@pytest.fixture
def dies_when_the_file_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    dispose = UploadFolder.dispose
    times = []

    async def once(self: UploadFolder, path: str, name: str) -> None:
        await dispose(self, path, name)
        times.append(name)
        if len(times) == 1:
            raise LOST

    monkeypatch.setattr(UploadFolder, "dispose", once)


@pytest.mark.usefixtures("dies_when_the_file_is_gone")
async def test_an_upload_that_was_read_to_its_end_needs_its_file_no_more(place: Place) -> None:
    async with place.daemon() as (_, client):
        found = await view(client, await upload(place, client, "email,n\na@a.example,1\nno address,2\n"))
        assert (found.state, found.counts.total, found.counts.done, found.counts.failed) == ("partial", 2, 1, 1)
        assert list((place.state / "uploads").iterdir()) == []


@pytest.mark.usefixtures("dies_when_the_file_is_gone")
async def test_an_upload_that_cannot_be_read_says_so_also_when_the_file_is_gone(place: Place) -> None:
    async with place.daemon() as (_, client):
        found = await view(client, await upload(place, client, ""))
        assert (found.state, found.reason, found.message) == ("failed", "bad_file", "the file is empty")


async def test_an_export_that_has_its_name_is_not_given_it_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = export._publish
    times = []

    def once(part: Path, final: Path, job: JobId) -> None:
        publish(part, final, job)
        times.append(final)
        if len(times) == 1:
            raise LOST

    monkeypatch.setattr(export, "_publish", once)
    async with place.daemon() as (_, client):
        await upload(place, client, "email\na@a.example\n")
        job = (await client.submit(Export(teamspace="acme", table="prospects", path="out.csv"))).job
        await client.wait(job)
        assert (await view(client, job)).state == "completed"
        assert (place.state / "exports" / "out.csv").read_text() == "email\na@a.example\n"


async def test_an_export_whose_daemon_was_replaced_is_not_touched_when_that_wakes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export._write_at
    opened: list[int] = []

    def asleep(path: Path, offset: int, piece: bytes) -> int:
        written = write(path, offset, piece)
        if len(opened) < 2:  # the heading, and the rows of the first attempt
            opened.append(os.open(path, os.O_RDWR))
            if len(opened) == 2:
                raise LOST
        return written

    monkeypatch.setattr(export, "_write_at", asleep)
    async with place.daemon() as (_, client):
        await upload(place, client, "email\na@a.example\n")
        job = (await client.submit(Export(teamspace="acme", table="prospects", path="out.csv"))).job
        await client.wait(job)
        assert (await view(client, job)).state == "completed"
        for descriptor in opened:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        assert (place.state / "exports" / "out.csv").read_text() == "email\na@a.example\n"
        assert [path.name for path in (place.state / "exports").iterdir()] == ["out.csv"]


async def test_an_export_goes_on_behind_what_an_earlier_attempt_has_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_lists, "CHUNK_LEADS", 1)
    write = export._write_at
    written = []

    def once(path: Path, offset: int, piece: bytes) -> int:
        written.append(piece)
        if len(written) == 3:
            raise LOST
        return write(path, offset, piece)

    monkeypatch.setattr(export, "_write_at", once)
    async with place.daemon() as (_, client):
        await upload(place, client, "email\na@a.example\nb@b.example\n")
        job = (await client.submit(Export(teamspace="acme", table="prospects", path="out.csv"))).job
        await client.wait(job)
        assert (await view(client, job)).state == "completed"
        assert (place.state / "exports" / "out.csv").read_text() == "email\na@a.example\nb@b.example\n"
        assert len(written) == 4, "heading, a row, a row that was lost, the same again"
