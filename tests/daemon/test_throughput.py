"""How far a job was at which time stays known: in few points, stored with its progress, after its end and a restart."""

from itertools import pairwise

from leadline_protocol.messages import Export, Formula, Job, Noop, Upload
from tests.daemon.running import Place
from tests.postgres import meddle

LEADS = 20_001
"""Five chunks of a formula, each of which stores how far it is."""


async def test_a_job_tells_how_far_it_was_from_its_start_to_its_end_also_after_a_restart(place: Place) -> None:
    async with place.daemon() as (_, client):
        rows = "\n".join(["email,n", *(f"p{n}@a.example,{n}" for n in range(LEADS))])
        (place.state / "incoming" / "list.csv").write_text(rows)
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
        formula = Formula(teamspace="acme", table="people", into={"x": "number"}, expression="1 / n")
        job = (await client.submit(formula)).job
        await client.wait(job)
        reply = await client.call(Job(job=job))
    view, points = reply.view, reply.throughput
    assert view.started_at is not None
    assert view.ended_at is not None
    assert (points[0].at, points[0].done) == (view.started_at, 0)
    assert (points[-1].at, points[-1].done) == (view.ended_at, LEADS), "the one that failed is at its end too"
    assert all(one.at < other.at and one.done <= other.done for one, other in pairwise(points))
    seconds = (view.ended_at - view.started_at).total_seconds()
    assert 2 < len(points) <= 3 + seconds, "a point for each second, however often it stored how far it was"
    async with place.daemon() as (_, client):
        assert (await client.call(Job(job=job))).throughput == points


async def test_each_point_is_stored_with_the_progress_that_it_tells_of(place: Place) -> None:
    async with place.daemon() as (_, client), meddle(place.url) as connection:
        (place.state / "incoming" / "list.csv").write_text("email\na@a.example\n")
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
        await connection.execute("ALTER TABLE throughput ADD CHECK (cardinality(at) < 1) NOT VALID")
        job = (await client.submit(Export(teamspace="acme", table="people"))).job
        assert (await client.wait(job)).state == "failed"
        assert await connection.fetchval("SELECT EXISTS (SELECT FROM job_list WHERE job = $1)", job) is False


async def test_a_job_without_leads_has_none(place: Place) -> None:
    async with place.daemon() as (_, client):
        job = (await client.submit(Noop(teamspace="acme"))).job
        await client.wait(job)
        assert (await client.call(Job(job=job))).throughput == []
