"""A dry run says what would happen, by the code that would have it happen, and leaves no trace."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from leadline.core.estimate import seconds_at_least
from leadline.core.rate_limit import BucketLimit, DailyLimit, Limit, Unit, WindowLimit
from leadline.features.tables import preview
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import LeadId
from leadline_protocol.messages import (
    Chain,
    Enrich,
    EnrichStep,
    ExportStep,
    Formula,
    FormulaStep,
    LeadTrial,
    MoreThan,
    Noop,
    Step,
    Upload,
    UploadStep,
)
from tests.daemon.running import Place
from tests.postgres import meddle

MODULE = Path(__file__).parents[1] / "acceptance" / "modules" / "company.toml"

PROVIDER = [
    "[providers.company]",
    f'module = "{MODULE}"',
    'base_url = "http://127.0.0.1:9"',
    'limits = [{ shape = "window", amount = 2, per_seconds = 60, unit = "lead" }]',
    "credits_per_lead = 0.7",
]


async def contents(place: Place) -> Mapping[str, str]:
    """What is in each table of the database, in a word."""
    async with meddle(place.url) as connection:
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
        digest = "SELECT md5(coalesce(string_agg(each::text, ',' ORDER BY each::text), '')) FROM {} AS each"
        return {row["relname"]: await connection.fetchval(digest.format(row["relname"])) for row in names}


def put(place: Place, *lines: str, name: str = "list.csv") -> str:
    (place.state / "incoming" / name).write_text("\n".join(lines))
    return name


async def people(place: Place, client: Client) -> None:
    path = put(place, "email,n,half", "a@a.example,4,9", "b@a.example,0,9", "c@a.example,8,", "d@a.example,,9")
    await client.wait((await client.submit(Upload(teamspace="acme", table="people", path=path))).job)


def share(**given: object) -> Formula:
    return Formula(teamspace="acme", table="people", into={"half": "number"}, expression="8 / n", **given)  # type: ignore[arg-type]


async def test_a_formula_is_shown_on_leads_as_it_would_leave_them_and_leaves_no_trace(place: Place) -> None:
    async with place.daemon() as (_, client):
        await people(place, client)
        before = await contents(place)
        (step,) = (await client.preview(share())).steps
        assert step.leads == 4
        assert step.trials == [
            LeadTrial(lead=LeadId(1), before=9, after=2),
            LeadTrial(lead=LeadId(2), before=9, after=9, reason=LeadReason.DIVISION_BY_ZERO),
            LeadTrial(lead=LeadId(3), before=None, after=1),
            LeadTrial(lead=LeadId(4), before=9, after=None),
        ]
        (few,) = (await client.preview(share(where="n > 0"), leads=1)).steps
        assert (few.leads, [each.lead for each in few.trials]) == (2, [1])
        assert await contents(place) == before
        ended = await client.wait((await client.submit(share())).job)
        assert (ended.counts.total, ended.counts.failed) == (step.leads, 1), "it comes as it was foretold"


async def test_what_would_be_refused_is_refused_at_the_same_place(place: Place) -> None:
    async with place.daemon() as (_, client):
        await people(place, client)
        steps: list[Step] = [
            FormulaStep(table="people", into={"x": "number"}, expression="n"),
            ExportStep(table="people", where="x >"),
        ]
        told = []
        for attempt in (client.preview, client.submit):
            with pytest.raises(Refused) as refused:
                await attempt(Chain(teamspace="acme", steps=steps))
            told.append((refused.value.code, refused.value.at))
        assert told[0] == told[1] == (ErrorCode.BAD_EXPRESSION, "steps[1].where:3")
        with pytest.raises(Refused) as no_file:
            await client.preview(Upload(teamspace="acme", table="people", path="none.csv"))
        assert no_file.value.code is ErrorCode.BAD_ARCHIVE


async def test_steps_of_a_chain_are_known_as_far_as_earlier_ones_leave_it_open(place: Place) -> None:
    async with place.daemon() as (_, client):
        await people(place, client)
        path = put(place, "email,n", "e@a.example,1", name="more.csv")
        before = await contents(place)
        steps: list[Step] = [
            FormulaStep(table="people", into={"x": "number"}, expression="n * 2", where="n > 0"),
            ExportStep(table="people"),
            ExportStep(table="people", where="x > 0"),
            FormulaStep(table="people", into={"y": "number"}, expression="x + 1"),
            UploadStep(table="people", path=path),
            ExportStep(table="people"),
            UploadStep(table="others", path=path),
            ExportStep(table="others", where="n > 0"),
        ]
        found = (await client.preview(Chain(teamspace="acme", steps=steps))).steps
        assert [step.leads for step in found] == [2, 4, None, 4, None, None, None, None]
        assert [len(step.trials) for step in found[:4]] == [2, 0, 0, 0], "what an earlier step fills has no value yet"
        assert found[4].size_bytes == len("email,n\ne@a.example,1")
        assert await contents(place) == before
        assert (place.state / "incoming" / path).exists()
        assert list((place.state / "uploads").iterdir()) == []


async def test_an_enrichment_says_whom_it_would_ask_how_often_and_for_how_long_at_least(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure(*PROVIDER)
    async with place.daemon() as (_, client):
        emails = [f"p{n}@a.example" for n in range(9)]
        path = put(place, "id,email,n", *(f"{n},{email},{n}" for n, email in enumerate(emails)), "9,,9")
        upload = Upload(teamspace="acme", table="people", path=path, key=["id"])
        await client.wait((await client.submit(upload)).job)
        ask = Enrich(teamspace="acme", table="people", module="company", into={"company": "text"})
        (step,) = (await client.preview(ask)).steps
        assert (step.leads, step.provider, step.asked) == (10, "company", 9), "one has no address"
        assert step.units == {"request": 9, "lead": 9}
        assert step.seconds_at_least == 4 * 60, "two, two, two, two, and one more"
        assert step.credits == Decimal("6.3")
        some = Enrich(
            teamspace="acme", table="people", module="company", into={"company": "text"}, run_if="n < 3", first=5
        )
        (few,) = (await client.preview(some)).steps
        assert (few.leads, few.asked, few.seconds_at_least) == (5, 3, 60)
        monkeypatch.setattr(preview, "SAMPLED_LEADS", 5)
        (about,) = (await client.preview(ask)).steps
        assert (about.leads, about.sampled, about.asked) == (10, 5, 10)
        late: list[Step] = [
            FormulaStep(table="people", into={"n": "number"}, expression="n + 1"),
            EnrichStep(table="people", module="company", into={"company": "text"}, run_if="n < 3"),
        ]
        (_, unknown) = (await client.preview(Chain(teamspace="acme", steps=late))).steps
        assert (unknown.leads, unknown.asked) == (10, None)


@pytest.mark.parametrize("cost", ["{ request = 1, lead = 1 }", "{ request = 3 }", "{ lead = 1 }"])
async def test_calls_that_are_spread_evenly_take_a_step_each_at_least_whatever_they_cost(
    place: Place, cost: str
) -> None:
    module = place.folder / "company.toml"
    module.write_text(MODULE.read_text().replace("cost = { request = 1, lead = 1 }", f"cost = {cost}"))
    place.configure(
        "[providers.company]", f'module = "{module}"', 'base_url = "http://127.0.0.1:9"', "pace_per_second = 0.01"
    )
    async with place.daemon() as (_, client):
        path = put(place, "email", *(f"p{n}@a.example" for n in range(9)))
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path=path))).job)
        ask = Enrich(teamspace="acme", table="people", module="company", into={"company": "text"})
        (step,) = (await client.preview(ask)).steps
        assert step.seconds_at_least == 800, "nobody waits for the first"


async def test_leads_that_are_ordered_together_are_foretold_as_so_many_orders(place: Place) -> None:
    bulk = ["[providers.bulk]", f'module = "{MODULE.with_name("bulk.toml")}"', 'base_url = "http://127.0.0.1:9"']
    place.configure(*bulk, 'limits = [{ shape = "window", amount = 1, per_seconds = 60, unit = "job" }]')
    async with place.daemon() as (_, client):
        path = put(place, "email", *(f"p{n}@a.example" for n in range(150)))
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path=path))).job)
        ask = Enrich(teamspace="acme", table="people", module="bulk", into={"company": "text"})
        (step,) = (await client.preview(ask)).steps
        assert step.units == {"request": 2, "job": 2, "record": 150, "lead": 150}
        assert step.seconds_at_least == 60


async def test_guards_and_warnings_are_foretold(place: Place) -> None:
    async with place.daemon() as (_, client):
        await people(place, client)
        (many,) = (await client.preview(share(more_than=MoreThan(count=3, then="hold")))).steps
        assert (many.guard, many.leads) == ("hold", 4)
        (none,) = (await client.preview(share(where="n > 100", empty="skip"))).steps
        assert (none.guard, none.leads, none.trials) == ("skip", 0, [])
        (early,) = (await client.preview(share(where="n > 100", select_leads="on_submit"))).steps
        assert [warning.code for warning in early.warnings] == ["no_leads_matched"]
        assert [step.kind for step in (await client.preview(Noop(teamspace="acme"))).steps] == ["noop"]


@pytest.mark.parametrize(
    ("limit", "needed", "seconds"),
    [
        (WindowLimit(15, 60, Unit.LEAD), 15, 0),
        (WindowLimit(15, 60, Unit.LEAD), 16, 60),
        (WindowLimit(15, 60, Unit.LEAD), 300, 19 * 60),
        (WindowLimit(15, 60, Unit.REQUEST), 300, 0),
        (DailyLimit(2_000, Unit.LEAD), 4_001, 86_400),
        (DailyLimit(2_000, Unit.LEAD), 2_001, 0),
        (BucketLimit(3_600, 3_600, 60, Unit.LEAD), 100, 40),
    ],
)
def test_the_least_time_follows_from_the_limit(limit: Limit, needed: int, seconds: float) -> None:
    assert seconds_at_least(limit, {Unit.LEAD: needed}) == seconds
