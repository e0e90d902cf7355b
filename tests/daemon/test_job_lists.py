"""Lists of jobs for people: chains in place of their steps, and why each job waits, by one question."""

from leadline_protocol.client import Client
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Chain,
    Export,
    ExportStep,
    Formula,
    FormulaStep,
    Jobs,
    Noop,
    Pause,
    Upload,
    Why,
)
from tests.daemon.http import using
from tests.daemon.running import Place


async def upload(place: Place, client: Client) -> JobId:
    (place.state / "incoming" / "people.csv").write_text("email,n\nada@a.example,1\nbob@b.example,2\n")
    job = (await client.submit(Upload(teamspace="acme", table="people", path="people.csv"))).job
    await client.wait(job)
    return job


def formula(**given: object) -> Formula:
    fields = {"teamspace": "acme", "table": "people", "into": {"half": "number"}, "expression": "n / 2"}
    return Formula(**{**fields, **given})  # type: ignore[arg-type]  # fields of a formula


def chain(delay: float | None = None) -> Chain:
    step = FormulaStep(table="people", into={"half": "number"}, expression="n / 2")
    return Chain(teamspace="acme", steps=[step, ExportStep(table="people")], delay=delay)


async def test_a_chain_stands_for_its_steps_in_the_lists_of_its_teamspace_and_of_its_table(place: Place) -> None:
    async with place.daemon() as (_, client):
        first = await upload(place, client)
        done = await client.submit(chain())
        await client.wait(done.job)
        await client.wait((await client.submit(Noop(teamspace="acme"))).job)
        for which in (Jobs(teamspace="acme", nested=True), Jobs(teamspace="acme", table="people", nested=True)):
            listed = await client.call(which)
            assert [(view.job, view.kind) for view in listed.jobs] == [(done.job, "chain"), (first, "upload")]
            assert [(view.job, view.chain) for view in listed.steps] == [(step, done.job) for step in done.steps]
            assert listed.jobs[0].summary == "2 steps on people: formula and export"
        flat = await client.call(Jobs(teamspace="acme"))
        assert (len(flat.jobs), flat.steps) == (5, [])


async def test_a_chain_that_goes_on_is_none_of_the_ended_ones_though_steps_of_it_have_ended(place: Place) -> None:
    async with place.daemon() as (_, client):
        first = await upload(place, client)
        waits = (await client.submit(chain(delay=3600))).job
        assert [view.job for view in (await client.call(Jobs(states=["delayed"], nested=True))).jobs] == [waits]
        ended = await client.call(Jobs(states=["completed", "failed"], nested=True))
        assert [view.job for view in ended.jobs] == [first]
        both = await client.call(Jobs(state="completed", states=["delayed"], nested=True))
        assert [view.job for view in both.jobs] == [waits, first]


async def test_the_first_jobs_that_wait_are_explained_as_why_explains_each(place: Place) -> None:
    async with place.daemon() as (_, client):
        await upload(place, client)
        await client.call(Pause(scope="teamspace", name="acme"))
        waiting = [(await client.submit(Export(teamspace="acme", table="people"))).job for _ in range(4)]
        listed = (await client.call(Jobs(teamspace="acme", states=["queued"], explained=3))).jobs
        assert [view.job for view in listed] == waiting[::-1]
        for view in listed[:3]:
            told = await client.call(Why(job=view.job))
            assert (view.waits, view.jobs_ahead, view.eta) == (told.blockers, told.jobs_ahead, told.eta)
            assert JobReason.PAUSED in {wait.reason for wait in view.waits}
        assert [view.jobs_ahead for view in listed] == [3, 2, 1, None]


async def test_programs_ask_for_the_same_lists(place: Place) -> None:
    async with place.daemon() as (_, client):
        first = await upload(place, client)
        later = (await client.submit(formula(delay=3600))).job
        async with using(place, client, "host", teamspace="acme") as http:
            answer = await http.get("/v1/jobs?states=completed&states=delayed&nested=true&explained=5")
            assert [view["job"] for view in answer.json["jobs"]] == [later, first]
            assert answer.json["jobs"][0]["waits"][0]["reason"] == "delayed"
            assert answer.json["jobs"][0]["summary"] == "Fill half of the leads of people by a formula"
