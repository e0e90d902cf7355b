"""The life of a table: made, described, its old leads dropped, deleted with what runs on it, its name free at once."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any

import asyncpg
import pytest

from leadline.adapters.postgres.tables import PostgresTables
from leadline.features.tables import life
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Cancel,
    Chain,
    Formula,
    FormulaStep,
    Jobs,
    Pause,
    Rerun,
    Resume,
    Tables,
    TablesReply,
    TableView,
    Upload,
    UploadStep,
)
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.postgres import meddle


async def upload(place: Place, client: Client, count: int, *, table: str = "people", teamspace: str = "acme") -> JobId:
    lines = ["email,n", *(f"p{n}@a.example,{n}" for n in range(count))]
    (place.state / "incoming" / "list.csv").write_text("\n".join(lines))
    job = (await client.submit(Upload(teamspace=teamspace, table=table, path="list.csv"))).job
    assert (await client.wait(job)).state in {"completed", "partial"}
    return job


async def act(client: Client, action: Any, table: str = "people", teamspace: str = "acme", **given: Any) -> TablesReply:
    return await client.call(Tables(action=action, teamspace=teamspace, table=table, **given))


async def view(client: Client, action: Any, table: str = "people", teamspace: str = "acme", **given: Any) -> TableView:
    (found,) = (await act(client, action, table, teamspace, **given)).tables
    return found


async def refused(client: Client, action: Any, table: str = "people", **given: Any) -> Refused:
    with pytest.raises(Refused) as raised:
        await act(client, action, table, **given)
    return raised.value


async def left_of(connection: "asyncpg.Connection[asyncpg.Record]", table: int) -> Sequence[int]:
    """Rows of a table's leads, keys and days."""
    counts = [
        await connection.fetchval(f"SELECT count(*) FROM {name} WHERE table_id = $1", table)
        for name in ("lead", "lead_key", "lead_day")
    ]
    return [int(count) for count in counts]


async def until_swept(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """The sweeper goes on beside the queue, and nobody is told when it is done."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while await connection.fetchval("SELECT EXISTS (SELECT FROM deleted_table WHERE NOT swept)"):
            await asyncio.sleep(0.01)


def slow(**given: Any) -> Formula:
    """A job that stays in the queue."""
    return Formula(teamspace="acme", table="people", into={"x": "number"}, expression="n", delay=3600, **given)


async def test_a_table_is_made_with_its_columns_and_key_and_an_upload_goes_by_them(place: Place) -> None:
    async with place.daemon() as (_, client):
        made = await view(client, "create", columns={"email": "text", "n": "text", "size": ["s", "m"]}, key=["email"])
        assert [(column.name, column.type) for column in made.columns] == [
            ("email", "text"),
            ("n", "text"),
            ("size", ["s", "m"]),
        ]
        assert (made.leads, made.key) == (0, ["email"])
        await upload(place, client, 3)
        found = await view(client, "describe")
        assert [(column.name, column.type, column.filled) for column in found.columns] == [
            ("email", "text", 3),
            ("n", "text", 3),
            ("size", ["s", "m"], 0),
        ]
        assert (await refused(client, "create")).code is ErrorCode.BAD_STATE
        nonsense = await refused(client, "create", "other", columns={"a": "text"}, key=["b"])
        assert (nonsense.code, nonsense.at) == (ErrorCode.UNKNOWN_COLUMN, "key")
        assert (await refused(client, "describe", "other")).code is ErrorCode.UNKNOWN_TABLE


async def test_a_description_says_how_full_a_table_is_and_what_was_done_to_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.daemon() as (_, client):
        uploaded = await upload(place, client, 100)
        formula = Formula(
            teamspace="acme", table="people", into={"half": "number"}, expression="n / 2", where="n >= 50"
        )
        filled = (await client.submit(formula)).job
        await client.wait(filled)
        reply = await act(client, "describe")
        (found,) = reply.tables
        assert {column.name: column.filled for column in found.columns} == {"email": 100, "n": 100, "half": 50}
        assert [job.job for job in reply.jobs] == [filled, uploaded]
        assert found.sampled is None
        assert found.size_bytes is not None
        monkeypatch.setattr(life, "SAMPLED_LEADS", 10)
        about = await view(client, "describe")
        assert {column.name: column.filled for column in about.columns} == {"email": 100, "n": 100, "half": 50}
        assert (about.leads, about.sampled) == (100, 10)


async def test_tables_come_in_pages_and_each_once(place: Place) -> None:
    async with place.daemon() as (_, client):
        names = [(teamspace, f"t{n}") for teamspace in ("acme", "beta") for n in range(4)]
        for teamspace, name in names:
            await act(client, "create", name, teamspace)
        seen, after = [], None
        while True:
            page = await client.call(Tables(limit=3, after=after))
            assert len(page.tables) <= 3
            seen += [(each.teamspace, each.table) for each in page.tables]
            if page.next is None:
                break
            after = page.next
        assert seen == names


async def test_a_deleted_table_is_gone_at_once_its_name_is_free_and_its_leads_follow(place: Place) -> None:
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await upload(place, client, 50)
        await upload(place, client, 50, table="others")
        number, other = [row["id"] for row in await connection.fetch("SELECT id FROM lead_table ORDER BY id")]
        assert (await view(client, "delete")).leads == 50
        assert (await refused(client, "describe")).code is ErrorCode.UNKNOWN_TABLE
        await upload(place, client, 7)
        assert (await view(client, "describe")).leads == 7
        await until_swept(connection)
        assert await left_of(connection, number) == [0, 0, 0]
        assert await left_of(connection, other) == [50, 50, 1]
        acts = await connection.fetch("SELECT target, detail FROM audit WHERE op = 'tables'")
        assert [tuple(row) for row in acts] == [("table acme/people", "delete")]


async def test_a_table_that_jobs_are_on_is_only_deleted_with_them(place: Place) -> None:
    async with place.daemon() as (_, client):
        await upload(place, client, 5)
        one = (await client.submit(slow())).job
        two = (await client.submit(slow())).job
        no = await refused(client, "delete")
        assert (no.code, no.at) == (ErrorCode.BAD_STATE, "table")
        assert no.message == f"2 jobs on people have not ended: {two}, {one}"
        trial = await act(client, "delete", dry_run=True)
        assert [job.job for job in trial.jobs] == [two, one]
        assert (await view(client, "describe")).jobs == 2, "nothing has happened"
        await act(client, "delete", cancel=True)
        assert [(await client.get(job)).state for job in (one, two)] == ["cancelled", "cancelled"]
        assert (await client.call(Tables(teamspace="acme"))).tables == []


async def test_the_running_step_of_a_chain_is_cancelled_and_waited_for(place: Place) -> None:
    place.configure("database.records_per_hour = 60")  # one at a time: the upload is not over before it is cancelled
    async with place.daemon() as (_, client):
        await act(client, "create", columns={"n": "number"})
        (place.state / "incoming" / "more.csv").write_text("n\n1\n2\n3\n")
        step = FormulaStep(table="people", into={"x": "number"}, expression="n")
        chain = await client.submit(Chain(teamspace="acme", steps=[UploadStep(table="people", path="more.csv"), step]))
        async with asyncio.timeout(WITHIN_SECONDS):
            while (await client.get(chain.steps[0])).state != "running":
                await asyncio.sleep(0.01)
        await act(client, "delete", cancel=True)
        assert (await client.get(chain.steps[0])).state == "cancelled"
        assert (await client.get(chain.steps[1])).state in {"skipped", "cancelled"}
        assert (await client.get(chain.job)).state in {"failed", "cancelled"}


async def test_a_job_that_was_on_its_way_fails_with_the_reason_and_leaves_the_new_table_alone(place: Place) -> None:
    """It was checked before the table was deleted, and admitted after: here the deletion is done under its hands."""
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await upload(place, client, 5)
        await client.call(Pause(scope="teamspace", name="acme"))
        late = (
            await client.submit(Formula(teamspace="acme", table="people", into={"x": "number"}, expression="n"))
        ).job
        await connection.execute(
            "WITH gone AS (DELETE FROM lead_table RETURNING *) INSERT INTO deleted_table (id, teamspace, name,"
            " first_lead, next_lead) SELECT id, teamspace, name, first_lead, next_lead FROM gone"
        )
        await act(client, "create", columns={"n": "number"})
        await client.call(Resume(scope="teamspace", name="acme"))
        ended = await client.wait(late)
        assert (ended.state, ended.reason) == ("failed", JobReason.TABLE_DELETED)
        assert [column.name for column in (await view(client, "describe")).columns] == ["n"]


async def test_a_sweep_that_was_cut_off_goes_on_after_a_restart(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "SWEPT_AT_ONCE", 10)
    stuck = asyncio.Event()
    sweep = PostgresTables.sweep_leads

    async def cut_off(self: PostgresTables, what: life.Outlived, first: Any, end: Any) -> None:
        if first > 20:
            stuck.set()
            await asyncio.Event().wait()
        await sweep(self, what, first, end)

    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await upload(place, client, 50)
        number = await connection.fetchval("SELECT id FROM lead_table")
        monkeypatch.setattr(PostgresTables, "sweep_leads", cut_off)
        await act(client, "delete")
        async with asyncio.timeout(WITHIN_SECONDS):
            await stuck.wait()
        assert await left_of(connection, number) == [30, 0, 1]
        monkeypatch.undo()
    async with place.daemon(), meddle(place.url) as connection:
        await until_swept(connection)
        assert await left_of(connection, number) == [0, 0, 0]


async def today(connection: "asyncpg.Connection[asyncpg.Record]") -> date:
    """By the clock that days are counted by: a day more may have gone by at midnight."""
    found: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return found


async def age(connection: "asyncpg.Connection[asyncpg.Record]", days: int) -> None:
    """Let so many days go by."""
    await connection.execute("UPDATE lead_day SET day = day - $1::integer", days)


async def until_leads(client: Client, leads: int) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while (await view(client, "describe")).leads != leads:
            await asyncio.sleep(0.01)


async def test_leads_go_when_they_have_outlived_the_retention_of_their_table_and_may_come_again(place: Place) -> None:
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await upload(place, client, 20)
        day = await today(connection)
        await age(connection, 10)
        (place.state / "incoming" / "more.csv").write_text(
            "email,n\n" + "\n".join(f"q{n}@b.example,{n}" for n in range(5))
        )
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="more.csv"))).job)
        assert (await view(client, "retain", days=10)).retention_days == 10
        await upload(place, client, 1, table="another")  # a sweep is over when the next one has been
        kept = (await view(client, "describe")).leads
        assert kept == 25 or await today(connection) > day, "ten days are not more than ten days"
        await act(client, "retain", days=9)
        await until_leads(client, 5)
        number = await connection.fetchval("SELECT id FROM lead_table WHERE name = 'people'")
        async with asyncio.timeout(WITHIN_SECONDS):
            while await left_of(connection, number) != [5, 5, 1]:
                await asyncio.sleep(0.01)
        await upload(place, client, 20)
        assert (await view(client, "describe")).leads == 25, "what is gone is no duplicate"
        await act(client, "retain")
        assert (await view(client, "describe")).retention_days is None


async def test_a_plan_says_it_for_tables_that_say_nothing(place: Place) -> None:
    place.configure("[plans.default]", "retention_days = 30")
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await upload(place, client, 20)
        assert (await view(client, "describe")).retention_days == 30
        await age(connection, 31)
    async with place.daemon() as (_, client):
        await until_leads(client, 0)


async def test_another_teamspaces_table_is_none(place: Place) -> None:
    async with place.daemon() as (_, client):
        await upload(place, client, 2)
        for action in ("describe", "retain", "delete"):
            with pytest.raises(Refused) as no:
                await act(client, action, teamspace="beta")
            assert no.value.code is ErrorCode.UNKNOWN_TABLE
        assert (await client.call(Tables(teamspace="beta"))).tables == []
        assert (await view(client, "describe")).leads == 2
        jobs = (await client.call(Jobs(teamspace="acme"))).jobs
        assert [job.state for job in jobs] == ["completed"]
        with pytest.raises(Refused):
            await client.call(Cancel(job=jobs[0].job))


REMAINS = ("refused_row", "lead_result", "lead_done", "lead_list", "job_list", "lead_error", "throughput")
"""Of refused rows a file's own heading is one."""


async def until_remains(connection: "asyncpg.Connection[asyncpg.Record]", *expected: int) -> None:
    """Wait until so many rows are left of what jobs leave, in the order of REMAINS."""
    found: list[int] = []
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while found != [*expected]:
                found = [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in REMAINS]
    except TimeoutError:
        raise AssertionError(f"{found} are left, not {expected}") from None


async def with_remains(place: Place, client: Client) -> JobId:
    """Three leads and two refused rows, and a formula that fails on one lead."""
    lines = ["email,n", "a@a.example,1", "b@a.example,0", "c@a.example,2", "nobody,1", "a@a.example,1"]
    (place.state / "incoming" / "list.csv").write_text("\n".join(lines))
    await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
    formula = Formula(teamspace="acme", table="people", into={"x": "number"}, expression="1 / n")
    job = (await client.submit(formula)).job
    await client.wait(job)
    return job


async def let_jobs_age(connection: "asyncpg.Connection[asyncpg.Record]", days: int) -> None:
    await connection.execute("UPDATE job_ended SET ended = ended - $1::bigint * 86400 * 1000000", days)


async def test_what_ended_jobs_have_left_goes_with_what_is_known_of_them_and_no_rerun_guesses(place: Place) -> None:
    place.configure("queue.history_days = 7")
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        job = await with_remains(place, client)
        await connection.execute(
            "INSERT INTO charge (job, lead, run, at, credits, account, answer)"
            " SELECT $1, lead, $1, 0, 1, 'hunter', 'none' FROM generate_series(1, 3) AS lead",
            job,
        )
        await connection.execute(
            "INSERT INTO lead_done SELECT $1, block, B'1'::bit(1024) FROM generate_series(0, 4) AS block", job
        )
        await connection.execute("INSERT INTO spending VALUES ('2026-11-01', $1, 3, 3, 'hunter', 'acme')", job)
        await let_jobs_age(connection, 6)
        await act(client, "retain")  # so that it is swept
        again = (await client.call(Rerun(job=job, leads="failed"))).job
        await client.wait(again)
        await until_remains(connection, 3, 2, 5, 2, 2, 4, 3)
        await connection.execute("UPDATE job_ended SET ended = ended - 86400000000 WHERE id <> $1", again)
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await until_remains(connection, 0, 1, 0, 1, 1, 1, 1)
        assert await connection.fetchval("SELECT count(*) FROM charge") == 0
        assert await connection.fetchval("SELECT sum(credits) FROM spending") == 3, "a month's usage is told for ever"
        with pytest.raises(Refused) as gone:
            await client.call(Rerun(job=job))
        assert gone.value.code is ErrorCode.BAD_STATE
        assert (await client.call(Rerun(job=again))).job, "the list of the one that ended now is there"


async def test_refused_rows_go_with_the_leads_of_their_table(place: Place) -> None:
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        await with_remains(place, client)
        await let_jobs_age(connection, 10)
        await act(client, "retain", days=11)
        await until_remains(connection, 3, 1, 0, 1, 1, 3, 2)
        await act(client, "retain", days=10)
        await until_remains(connection, 0, 1, 0, 1, 1, 1, 2)
        await with_remains(place, client)
        await act(client, "delete")
        await until_remains(connection, 0, 2, 0, 2, 2, 2, 4)
