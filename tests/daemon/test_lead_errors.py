"""Why leads were not done is told by reason, with a count and the first few of them, however many there are."""

from collections.abc import Iterable

from leadline.adapters.postgres.lead_lists import CHUNK_LEADS
from leadline.adapters.postgres.lead_work import SAMPLES_MAX
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.messages import Chain, Formula, FormulaStep, Job, JobReply, LeadErrors, LeadSample, UploadStep
from tests.daemon.running import Place


def put(place: Place, rows: Iterable[str]) -> str:
    (place.state / "incoming" / "list.csv").write_text("\n".join(["email,n", *rows]))
    return "list.csv"


async def ended(client: Client, job: JobId) -> JobReply:
    await client.wait(job)
    return await client.call(Job(job=job))


async def test_the_errors_of_all_transactions_of_a_job_add_up_and_the_first_leads_are_the_samples(place: Place) -> None:
    zeros = {2, 5, CHUNK_LEADS - 1, CHUNK_LEADS + 1, CHUNK_LEADS + 2}
    rows = (f"p{n}@a.example,{0 if n in zeros else 1}" for n in range(1, CHUNK_LEADS + 10))
    async with place.daemon() as (_, client):
        upload = UploadStep(table="people", path=put(place, rows))
        formula = FormulaStep(table="people", into={"x": "number"}, expression="1 / n")
        chain = await client.submit(Chain(teamspace="acme", steps=[upload, formula]))
        whole = await ended(client, chain.job)
        reply = await client.call(Job(job=chain.steps[1]))
    assert reply.view.counts.failed == len(zeros)
    assert reply.errors == [
        LeadErrors(
            job=chain.steps[1],
            state="failed",
            reason=LeadReason.DIVISION_BY_ZERO,
            leads=len(zeros),
            samples=[LeadSample(lead=LeadId(lead)) for lead in sorted(zeros)[:SAMPLES_MAX]],
        )
    ]
    assert whole.errors == reply.errors, "a chain's are those of its steps"


async def test_of_an_upload_they_are_rows_and_the_most_frequent_reason_comes_first(place: Place) -> None:
    rows = ["a@a.example,1", "a@a.example,2", "x,3", "b@a.example,4", "y,5", "z,6", "w,7"]
    async with place.daemon() as (_, client):
        chain = Chain(teamspace="acme", steps=[UploadStep(table="people", path=put(place, rows))])
        (job,) = (await client.submit(chain)).steps
        reply = await ended(client, job)
    assert reply.view.counts.failed == 5
    assert [(each.state, each.reason, each.leads) for each in reply.errors] == [
        ("failed", LeadReason.INVALID_EMAIL, 4),
        ("failed", LeadReason.DUPLICATE, 1),
    ]
    assert [sample.row for sample in reply.errors[0].samples] == [3, 5, 6]
    assert [(sample.row, sample.lead) for sample in reply.errors[1].samples] == [(2, None)]
    assert "a@a.example" in reply.errors[1].samples[0].detail


async def test_a_job_without_errors_tells_of_none(place: Place) -> None:
    async with place.daemon() as (_, client):
        upload = UploadStep(table="people", path=put(place, ["a@a.example,1"]))
        await client.wait((await client.submit(Chain(teamspace="acme", steps=[upload]))).job)
        formula = Formula(teamspace="acme", table="people", into={"x": "number"}, expression="1 / n")
        assert (await ended(client, (await client.submit(formula)).job)).errors == []
