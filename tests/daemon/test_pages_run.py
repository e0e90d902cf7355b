"""How somebody who is no programmer runs a job or a chain: step by step, looked at first, and run once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leadline.adapters.http.pages import previews
from leadline.adapters.http.pages.run import choices
from leadline.adapters.http.pages.steps import Step, fingerprint, located, new_step, read_steps, submission
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import LeadId
from leadline_protocol.messages import Job, Jobs, JobView, LeadTrial, LimitNeed, ModuleView, StepPreview, Upload
from tests.daemon.pages import Element, Person, Shown, fields_of, signed_in
from tests.daemon.running import Place

MODULE = Path(__file__).parents[1] / "acceptance" / "modules" / "company.toml"
PROVIDERS = [
    "[providers.openai]",
    'preset = "openai"',
    "[providers.company]",
    f'module = "{MODULE}"',
    'base_url = "http://127.0.0.1:9"',
    "credits_per_lead = 0.7",
    'limits = [{ shape = "window", amount = 2, per_seconds = 60, unit = "lead" }]',
]
LEADS = "email,n,half\na@a.example,4,9\nb@a.example,0,9\nc@a.example,8,\n"


@asynccontextmanager
async def house(place: Place) -> AsyncIterator[tuple[Client, Person]]:
    place.configure(*PROVIDERS)
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        (place.state / "incoming" / "list.csv").write_text(LEADS)
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
        yield client, ann


def form_of(seen: Shown) -> Element:
    return seen.main.one("form", id="run")


async def press(ann: Person, seen: Shown, words: str, **filled: str) -> Shown:
    """A button of the form, by what stands on it."""
    form = form_of(seen)
    (button,) = [each for each in form.every("button") if each.text == words and "tabindex" not in each.attributes]
    return await ann.post(button.attributes["formaction"], {**fields_of(form), **named(filled)})


def named(filled: dict[str, str]) -> dict[str, str]:
    """`_0_where` is the field `0.where`."""
    return {f"{name[1]}.{name[3:]}" if name.startswith("_") else name: value for name, value in filled.items()}


async def add(ann: Person, seen: Shown | None, what: str, **filled: str) -> Shown:
    """One more step."""
    if seen is None:
        return await press(ann, await ann.get("/t/people/run"), "Go on", what=what)
    return await press(ann, seen, "Add this step", what=what, **filled)


async def jobs(client: Client) -> Sequence[JobView]:
    """The jobs but for the house's own upload."""
    return [job for job in (await client.call(Jobs())).jobs if job.kind != "upload"]


async def submitted(client: Client, job: JobView) -> dict[str, Any]:
    found = (await client.call(Job(job=job.job))).submission
    assert found is not None
    return {name: value for name, value in found.items() if name != "idempotency_key"}


async def test_a_formula_is_looked_at_first_and_then_run_once(place: Place) -> None:
    async with house(place) as (client, ann):
        filled = {"_0_expression": "8 / n", "_0_column": "Half", "_0_type": "number"}
        looked = await press(ann, await add(ann, None, "formula"), "See what it would take", **filled)
        takes = looked.main.one("section", id="takes")
        assert "3 leads match now." in takes.text
        rows = [
            [cell.text for cell in row.every() if cell.tag in {"th", "td"}] for row in takes.one("tbody").every("tr")
        ]
        assert rows == [
            ["Lead 1", "9", "2"],
            ["Lead 2", "9", "division by zero It keeps what it has."],
            ["Lead 3", "empty", "1"],
        ]
        assert await jobs(client) == [], "nothing has run"
        for _press in range(2):
            await press(ann, looked, "Run it")
        (job,) = await jobs(client)
        assert await submitted(client, job) == {
            "kind": "formula",
            "teamspace": "acme",
            "table": "people",
            "into": {"half": "number"},
            "expression": "8 / n",
            "select_leads": "on_start",
        }
        assert (await client.wait(job.job)).counts.done == 2


async def test_what_was_changed_since_it_was_looked_at_is_shown_again_before_it_runs(place: Place) -> None:
    async with house(place) as (client, ann):
        looked = await press(
            ann,
            await add(ann, None, "formula"),
            "See what it would take",
            _0_expression="n",
            _0_column="m",
            _0_type="number",
        )
        again = await press(ann, looked, "Run it", _0_where="n > 0")
        assert "You have changed something" in again.main.one("p", role="alert").text
        assert "2 leads match now." in again.main.one("section", id="takes").text
        assert await jobs(client) == []
        await press(ann, again, "Run it")
        (job,) = await jobs(client)
        assert (await submitted(client, job))["where"] == "n > 0"


async def test_a_chain_is_put_together_step_by_step(place: Place) -> None:
    async with house(place) as (client, ann):
        seen = await add(ann, None, "prompt")
        prompt = {"_0_prompt": "Is {{email}} a person?", "_0_column": "kind", "_0_type": "choice", "_0_words": "a, b"}
        seen = await add(ann, seen, "module company", **prompt)
        seen = await add(ann, seen, "export", _1_where="kind = 'a'", _1_empty="skip", **{"1.output.country": ""})
        titles = [each.text for each in form_of(seen).every("legend")]
        assert titles[:3] == [
            "Step 1: Ask an AI about each lead",
            "Step 2: Look up with company",
            "Step 3: Write a file",
        ]
        looked = await press(
            ann, seen, "See what it would take", _2_format="xlsx", _2_columns="email, kind", on_failure="continue"
        )
        takes = looked.main.one("section", id="takes").text
        assert "How many leads match is known when its turn comes." in takes
        assert "at most" in takes or "openai would be asked for 3 of them." in takes
        await press(ann, looked, "Run it")
        chain = next(job for job in await jobs(client) if job.kind == "chain")
        asked = await submitted(client, chain)
        assert asked["on_failure"] == "continue"
        ai, company, export = asked["steps"]
        assert ai["into"] == {"kind": ["a", "b"]}
        assert ai["params"] == {"prompt": "Is {{email}} a person?"}
        assert company["into"] == {"company": "text", "industry": "text", "employees": "number"}
        assert (company["where"], company["empty"]) == ("kind = 'a'", "skip")
        assert (export["format"], export["columns"]) == ("xlsx", ["email", "kind"])


async def test_a_step_can_be_taken_out_and_the_others_keep_what_was_typed(place: Place) -> None:
    async with house(place) as (_, ann):
        seen = await add(ann, await add(ann, None, "formula"), "export", _0_expression="n + 1")
        seen = await add(ann, seen, "formula", _1_columns="email")
        (first, *_rest) = [each for each in form_of(seen).every("button") if each.text == "Take this step out"]
        left = await ann.post(first.attributes["formaction"], {**fields_of(form_of(seen)), "2.expression": "n + 2"})
        fields = fields_of(form_of(left))
        assert (fields["0.what"], fields["0.columns"]) == ("export", "email")
        assert (fields["1.what"], fields["1.expression"]) == ("formula", "n + 2")
        assert "2.what" not in fields


async def test_a_fault_stands_at_its_step_its_field_and_its_character(place: Place) -> None:
    async with house(place) as (client, ann):
        seen = await add(ann, await add(ann, None, "formula"), "export", _0_expression="n", _0_column="m")
        no = await press(ann, seen, "See what it would take", **{"0.type": "number"}, _1_where="m > 3 and x")
        assert no.status == 422
        second = form_of(no).one("fieldset", id="step1")
        assert second.one("span", class_="fault").attributes["id"] == "step1-where-fault"
        assert second.one("mark").text == "x"
        assert second.one("input", name="1.where").attributes["value"] == "m > 3 and x"
        assert not list(form_of(no).one("fieldset", id="step0").every("span", class_="fault"))
        assert [button.text for button in form_of(no).every("button") if button.text == "Run it"] == []
        assert await jobs(client) == []


async def test_what_a_single_job_lacks_is_said_at_the_field(place: Place) -> None:
    async with house(place) as (_, ann):
        seen = await add(ann, None, "formula")
        see = "See what it would take"
        for filled, field in (
            ({"_0_expression": "n"}, "column"),
            ({"_0_column": "m"}, "expression"),
            ({"_0_column": "m", "_0_expression": "n", "_0_type": "choice"}, "words"),
            ({"_0_column": "m", "_0_expression": "lower(n)", "_0_type": "text"}, "expression"),
        ):
            no = await press(ann, seen, see, **filled)
            assert no.status in {400, 422}, field
            assert form_of(no).one("span", class_="fault").attributes["id"] == f"step0-{field}-fault"
        seen = await add(ann, None, "module company")
        no = await press(ann, seen, see, **{"0.input.email": ""})
        assert form_of(no).one("span", class_="fault").attributes["id"] == "step0-input.email-fault"
        for few in ("few", "9" * 5000):
            no = await press(ann, seen, see, _0_first=few)
            assert form_of(no).one("span", class_="fault").attributes["id"] == "step0-first-fault"
        for endless in ("1e999", "inf", "nan", "-1"):
            no = await press(ann, seen, see, _0_spend_cap=endless)
            assert form_of(no).one("span", class_="fault").attributes["id"] == "step0-spend_cap-fault"
        nothing = await ann.post("/t/people/run?do=see", {"csrf": fields_of(form_of(seen))["csrf"]})
        assert "Choose" in nothing.main.text or "Add a step first" in nothing.main.text


async def test_modules_are_offered_with_their_inputs_read_from_the_columns_of_the_table(place: Place) -> None:
    async with house(place) as (_, ann):
        begun = await ann.get("/t/people/run")
        offered = [each.attributes["value"] for each in form_of(begun).one("select", name="what").every("option")]
        assert offered == ["prompt", "formula", "module company", "export"]
        seen = await add(ann, None, "module company")
        fields = fields_of(form_of(seen))
        assert fields["0.input.email"] == "email", "its namesake"
        assert fields["0.output.employees"] == "employees"
        looked = await press(ann, seen, "See what it would take")
        takes = looked.main.one("section", id="takes").text
        assert "company would be asked for 3 of them." in takes
        assert "at most 2.1 credits" in takes
        assert "company allows 2 leads in any 1 min." in takes


async def test_only_what_there_is_can_be_run_and_only_on_ones_own_table(place: Place) -> None:
    async with house(place) as (client, ann):
        csrf = fields_of(form_of(await ann.get("/t/people/run")))["csrf"]
        unknown = await ann.post("/t/people/run?do=add", {"csrf": csrf, "what": "module nothing"})
        assert unknown.status == 422
        (place.state / "incoming" / "list.csv").write_text(LEADS)
        done = await client.submit(Upload(teamspace="globex", table="canary-7f3a", path="list.csv"))
        await client.wait(done.job)
        for path in ("/t/canary-7f3a/run", "/t/canary-7f3a/run?teamspace=globex"):
            assert (await ann.get(path)).status == 404
        body = {"csrf": csrf, "0.what": "export", "seen": ""}
        foreign = await ann.post("/t/canary-7f3a/run?do=run", body)
        assert (foreign.status, "canary" in foreign.html.replace("canary-7f3a/run", "")) == (404, True)
        assert (await ann.post("/t/people/run?do=see", {**body, "csrf": "guessed"})).status == 403
        evil = await ann.post("/t/people/run?do=see", body, headers={"Origin": "https://evil.example"})
        assert evil.status == 403
        assert (await ann.post("/t/people/run?do=see", body)).status == 200, "the negative control"


COMPANY = ModuleView(module="company", inputs=["email"], outputs={"size": "number", "city": "text"})
CHAT = ModuleView(module="ai_prompt", inputs=["prompt"], providers=["openai"])


def test_what_is_offered_is_what_is_configured() -> None:
    assert [each for each, _ in choices([CHAT, COMPANY])] == ["prompt", "formula", "module company", "export"]
    assert [each for each, _ in choices([])] == ["formula", "export"]
    with pytest.raises(Refused):
        new_step("prompt", [COMPANY])
    with pytest.raises(Refused):
        new_step("module ai_prompt", [CHAT])


def test_a_form_has_at_most_five_steps() -> None:
    form = {f"{number}.what": "export" for number in range(9)}
    assert len(read_steps(form, [])) == 5


def test_columns_of_a_module_may_be_called_otherwise() -> None:
    step = Step("module company", {"input.email": "mail", "output.size": "How many", "output.city": ""}, COMPANY)
    assert submission("acme", "t", ["mail"], [step], {}) == {
        "kind": "enrich",
        "teamspace": "acme",
        "table": "t",
        "module": "company",
        "into": {"how_many": "number"},
        "params": {"inputs": {"email": "mail"}, "outputs": {"how_many": "size"}},
        "select_leads": "on_start",
    }


def test_a_step_reads_what_the_steps_before_it_fill() -> None:
    found = Step("formula", {"expression": "x", "column": "email", "type": "text"})
    chain = submission("acme", "t", [], [found, Step("module company", {}, COMPANY)], {})
    assert chain["steps"][1]["params"] == {}
    with pytest.raises(Refused) as no:
        submission("acme", "t", [], [Step("module company", {}, COMPANY)], {})
    assert no.value.at == "params.inputs.email"


@pytest.mark.parametrize(
    ("at", "place", "field"),
    [
        ("steps[1].where:9", 1, "where:9"),
        ("steps[0].into.score", 0, "column"),
        ("steps[1].into.how_many", 1, "output.size"),
        ("steps[1].params.inputs.email", 1, "input.email"),
        ("steps[0].params.prompt:12", 0, "prompt:12"),
        ("steps[1]", 1, ""),
        ("steps[7].where", None, "steps[7].where"),
        ("on_failure", None, "on_failure"),
        (None, None, None),
    ],
)
def test_a_place_in_what_was_submitted_is_found_in_the_form(
    at: str | None, place: int | None, field: str | None
) -> None:
    steps = [Step("prompt", {"column": "score"}), Step("module company", {"output.size": "How many"}, COMPANY)]
    number, fault = located(steps, Refused(ErrorCode.BAD_REQUEST, "no", at=at))
    assert (number, fault.at) == (place, field)


def test_of_a_single_job_the_place_is_in_its_only_step() -> None:
    step = [Step("formula")]
    assert located(step, Refused(ErrorCode.BAD_EXPRESSION, "no", at="expression:3"))[0] == 0
    assert located(step, Refused(ErrorCode.UNKNOWN_TABLE, "no", at="table"))[0] is None


def test_the_same_form_has_the_same_fingerprint_and_another_another() -> None:
    one = {"kind": "formula", "where": "a", "table": "t"}
    assert fingerprint(one) == fingerprint(dict(reversed(one.items())))
    assert fingerprint(one) != fingerprint({**one, "where": "b"})


def test_what_a_step_would_take_is_said_in_sentences() -> None:
    step = StepPreview(
        kind="enrich",
        leads=1200,
        provider="snov",
        asked=900,
        sampled=500,
        units={"request": 900.0, "lead": 900.0},
        credits=Decimal("630.0"),
        limits=[
            LimitNeed(shape="window", unit="lead", amount=15, per_seconds=60, needed=900),
            LimitNeed(shape="daily", unit="request", amount=5000, needed=900),
        ],
        seconds_at_least=3540,
    )
    assert list(previews.sentences(step)) == [
        "1,200 leads match now.",
        "snov would be asked for about 900 of them; the others lack what it needs, or are left out.",
        "That takes about 900 requests, 900 leads.",
        "It costs about 630 credits.",
        "snov allows 15 leads in any 1 min.",
        "By the limits it takes at least 59 min.",
    ]
    assert next(iter(previews.sentences(StepPreview(kind="export", leads=1, guard="hold")))) == (
        "1 lead matches now: the step would wait for you."
    )


def test_a_lead_that_a_formula_fails_on_is_shown_with_the_reason() -> None:
    failed = previews.trial(LeadTrial(lead=LeadId(2), before=9, reason=LeadReason.DIVISION_BY_ZERO))
    assert failed == previews.Trial(2, "9", None, "division by zero")
    long = previews.trial(LeadTrial(lead=LeadId(1), after=["x" * 500])).after
    assert long is not None
    assert (len(long), long[:3], long[-1]) == (120, '["x', "…")
