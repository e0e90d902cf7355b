"""Leads of a table become files of every kind, with their types and all their digits."""

import csv
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import python_calamine

from leadline.features.tables import export
from leadline.ports.store import Unavailable
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Ended, Export, FileFormat, Job, Upload
from tests.daemon.running import Place

LEADS = [
    {"email": "a@a.example", "n": 7, "money": "12345678901234567890.25", "since": "2026-01-31", "note": "=1+1"},
    {"email": "b@b.example", "n": -0.5, "ok": True, "seen": "2026-01-31T10:30:00+01:00", "tags": ["x", 1]},
    {"email": "c@c.example", "n": 0, "ok": False, "note": "'=1"},
]
"""The money is written as a number."""

COLUMNS = ["email", "n", "money", "since", "note", "ok", "seen", "tags"]


async def stored(place: Place, client: Client, text: str) -> None:
    (place.state / "incoming" / "leads").write_text(text)
    await client.wait((await client.submit(Upload(teamspace="acme", table="prospects", path="leads"))).job)


async def exported(client: Client, **options: Any) -> tuple[JobId, Ended]:
    job = (await client.submit(Export(teamspace="acme", table="prospects", **options))).job
    return job, await client.wait(job)


def cells(path: Path) -> list[list[Any]]:
    book = python_calamine.CalamineWorkbook.from_path(path)
    return book.get_sheet_by_index(0).to_python(skip_empty_area=False)


async def test_cells_keep_their_types_and_numbers_their_digits(place: Place) -> None:
    lines = [json.dumps(lead).replace('"12345678901234567890.25"', "12345678901234567890.25") for lead in LEADS]
    async with place.daemon() as (_, client):
        await stored(place, client, "\n".join(lines))
        kinds: tuple[FileFormat, ...] = ("csv", "jsonl", "xlsx")
        for kind in kinds:
            _, ended = await exported(client, path=f"out.{kind}", format=kind)
            assert (ended.state, ended.counts.done) == ("completed", 3)
    folder = place.state / "exports"
    assert sorted(path.name for path in folder.iterdir()) == ["out.csv", "out.jsonl", "out.xlsx"]
    with (folder / "out.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            COLUMNS,
            ["a@a.example", "7", "12345678901234567890.25", "2026-01-31", "'=1+1", "", "", ""],
            ["b@b.example", "-0.5", "", "", "", "true", "2026-01-31T09:30:00Z", '["x",1]'],
            ["c@c.example", "0", "", "", "''=1", "false", "", ""],
        ]
    first, second, third = (folder / "out.jsonl").read_text().splitlines()
    assert '"money":12345678901234567890.25,' in first
    assert json.loads(second) == dict.fromkeys(COLUMNS) | LEADS[1] | {"seen": "2026-01-31T09:30:00Z"}
    assert json.loads(third) == dict.fromkeys(COLUMNS) | LEADS[2]
    moment = dt.datetime.fromisoformat("2026-01-31T09:30:00")
    assert cells(folder / "out.xlsx") == [
        COLUMNS,
        ["a@a.example", 7, "12345678901234567890.25", dt.date(2026, 1, 31), "=1+1", "", "", ""],
        ["b@b.example", -0.5, "", "", "", True, moment, '["x",1]'],
        ["c@c.example", 0, "", "", "'=1", False, "", ""],
    ]
    assert (folder / "out.xlsx").stat().st_mode & 0o777 == 0o640


async def test_an_export_has_the_leads_and_columns_that_were_asked_for(place: Place) -> None:
    """Of more leads than one transaction takes."""
    async with place.daemon() as (_, client):
        await stored(place, client, "n,name\n" + "".join(f"{n},Lead {n}\n" for n in range(12_000)))
        _, ended = await exported(client, format="xlsx", path="out.xlsx", where="n % 2 = 0", columns=["name", "n"])
        assert ended.counts.done == 6_000
    assert cells(place.state / "exports" / "out.xlsx") == [
        ["name", "n"],
        *([f"Lead {n}", n] for n in range(0, 12_000, 2)),
    ]


@pytest.mark.parametrize("dies", ["before", "behind"])
async def test_a_spreadsheet_that_was_packed_when_the_daemon_died_is_packed_again(
    dies: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = export._publish
    times = []

    def once(part: Path, final: Path, job: JobId) -> None:
        times.append(final)
        if len(times) == 1 and dies == "before":
            raise Unavailable("the daemon dies here")
        publish(part, final, job)
        if len(times) == 1:
            raise Unavailable("the daemon dies here")

    monkeypatch.setattr(export, "_publish", once)
    async with place.daemon() as (_, client):
        await stored(place, client, "n\n1\n2\n")
        job, ended = await exported(client, format="xlsx", path="out.xlsx")
        assert (ended.state, (await client.get(job)).attempt) == ("completed", 2)
    assert cells(place.state / "exports" / "out.xlsx") == [["n"], [1], [2]]
    assert [path.name for path in (place.state / "exports").iterdir()] == ["out.xlsx"]


@pytest.mark.parametrize("table", ["../incoming/x", "a/b", "{folder}/out", ".hidden", "x\ny", "𐍈" * 100])
async def test_the_name_of_a_table_leads_its_file_out_of_no_folder(place: Place, table: str) -> None:
    table = table.format(folder=place.folder)
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "leads").write_text("email\na@a.example\n")
        upload = Upload(teamspace="acme", table=table, path="leads")
        await client.wait((await client.submit(upload)).job)
        job = (await client.submit(Export(teamspace="acme", table=table))).job
        ended = await client.wait(job)
        assert ended.state == "completed"
        view = (await client.call(Job(job=job))).view
    (written,) = (place.state / "exports").iterdir()
    assert written.name == view.message
    assert not written.name.startswith(".")
