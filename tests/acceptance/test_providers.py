"""Whatever a provider does, in all the shapes that providers are known for, comes to the end that the rules say."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, openai, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour, Fault, Now, Plan, Request, Throttle, json_plan
from tests.world.log import Call
from tests.world.servers import Served

LEADS: Final = 10
BAD: Final = str(people(LEADS)[3]["email"])
RETRY_AFTER_SECONDS: Final = 2
ELSEWHERE: Final = "/elsewhere"


def faulty(plan: Plan, times: int = 1_000) -> Behaviour:
    """A provider with one thing wrong about one lead."""
    return behaviours.Faulty(behaviours.Enrichment(), [Fault(plan, BAD, times=times)])


class Says:
    """A model that answers with these texts, the last of them for ever."""

    def __init__(self, *texts: str) -> None:
        self._texts = itertools.chain(texts, itertools.repeat(texts[-1]))

    def respond(self, request: Request, now: Now) -> Plan:
        """The next answer."""
        return json_plan({"choices": [{"message": {"role": "assistant", "content": next(self._texts)}}]})


class ThrottledOnce:
    """Throws the fifth call back, and answers it late enough for others to be on their way."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._calls = 0

    def respond(self, request: Request, now: Now) -> Plan:
        """The data, or at the fifth call the refusal."""
        self._calls += 1
        if self._calls == 5:
            return self._throttle.plan(RETRY_AFTER_SECONDS * SECOND, now)
        return behaviours.Enrichment().respond(request, now)


THROTTLES: Final = {
    "seconds": Throttle("seconds"),
    "http_date": Throttle("http_date"),
    "garbage": Throttle("garbage"),
    "none": Throttle("none"),
}

BEHAVIOURS: Final[dict[str, Behaviour]] = {
    **{f"throttles_{name}": ThrottledOnce(throttle) for name, throttle in THROTTLES.items()},
    "locked": behaviours.Authorized(behaviours.Enrichment(), "the right key"),
    "locked_slowly": behaviours.Delayed(
        behaviours.Authorized(behaviours.Enrichment(), "the right key"), median_us=SECOND // 5, sigma=0.0
    ),
    "fails_always": faulty(behaviours.server_error()),
    "fails_twice": faulty(behaviours.server_error(500), times=2),
    "breaks_off": faulty(behaviours.invalid_json()),
    "huge": faulty(behaviours.huge_body(200 * 2**20)),
    "redirects": faulty(behaviours.redirect(ELSEWHERE)),
    "cuts_once": faulty(behaviours.cut(), times=1),
    "cuts_always": faulty(behaviours.cut()),
    "cuts_bodies": faulty(behaviours.cut(in_body=True)),
    "refuses_one": faulty(json_plan({"error": "no"}, status=422)),
}

MODELS: Final[dict[str, Behaviour]] = {
    "repaired": Says("I would say eight", "8"),
    "hopeless": Says("I would say eight"),
    "structured": Says('{"people": "Ada"}', '{"people": ["Ada", "Grace"]}'),
    "metered": behaviours.ChatCompletions(),
    "broke": behaviours.Exhausted(behaviours.ChatCompletions(), calls=3, plan=behaviours.OPENAI_QUOTA),
}

ON_ITS_WAY_US: Final = 900_000
AT_ONCE: Final = {"locked_slowly": 2, "throttles_seconds": 4, "throttles_http_date": 4}
"""Of these so few calls are on their way at a time; of the others any number."""


@pytest.fixture(scope="module")
def served(world: World) -> dict[str, Served]:
    return {name: world.serve(each, name=name) for name, each in (BEHAVIOURS | MODELS).items()}


@pytest.fixture(scope="module")
def daemon(served: dict[str, Served]) -> Iterator[Stage]:
    limits = {name: f'limits = [{{ shape = "concurrent", amount = {amount} }}]' for name, amount in AT_ONCE.items()}
    parts = [
        provider(name, served[name], settings=['secret = "a wrong key"', limits.get(name, "")]) for name in BEHAVIOURS
    ]
    parts += [openai(served[name], name=name) for name in MODELS]
    with stage("".join(parts)) as running:
        yield running


def enrich(daemon: Stage, module: str, leads: int = LEADS) -> wire.JobView:
    daemon.table(module, "people", people(leads))
    job = daemon.submit(wire.Enrich(teamspace=module, table="people", module=module, into={"company": "text"})).job
    return daemon.ended(job)


def prompt(daemon: Stage, model: str, leads: int) -> JobId:
    daemon.table(model, "people", people(leads))
    params = {"prompt": "Score {{email}}", "provider": model}
    submission = wire.Enrich(
        teamspace=model, table="people", module="ai_prompt", into={"score": "number"}, params=params
    )
    return daemon.submit(submission).job


def about(served: Served, lead: str = BAD) -> list[Call]:
    return [call for call in served.calls if call.lead == lead]


@pytest.mark.parametrize("hint", ["seconds", "http_date"])
def test_a_provider_that_says_wait_is_left_alone_by_everyone_until_then(
    daemon: Stage, served: dict[str, Served], hint: str
) -> None:
    name = f"throttles_{hint}"
    teamspaces = [f"{hint}-a", f"{hint}-b"]
    for teamspace in teamspaces:
        daemon.table(teamspace, "people", people(LEADS))
    jobs = [
        daemon.submit(wire.Enrich(teamspace=each, table="people", module=name, into={"company": "text"})).job
        for each in teamspaces
    ]
    for job in jobs:
        view = daemon.ended(job)
        assert (view.state, view.counts.done) == ("completed", LEADS)
    calls = served[name].calls
    (refused,) = [call for call in calls if call.outcome == "throttled"]
    until_us = refused.arrived_us + (RETRY_AFTER_SECONDS - (hint == "http_date")) * SECOND
    early = [call for call in calls if refused.arrived_us <= call.arrived_us < until_us]
    assert len(early) <= AT_ONCE[name], "those that were out when the refusal came home"
    assert early[-1].arrived_us <= refused.arrived_us + ON_ITS_WAY_US
    later = sorted(call.arrived_us for call in calls if call.arrived_us >= until_us)
    assert later, "there was something left to wait"
    assert len(calls) == 2 * LEADS + 1, "being thrown back is no try, and nobody else is asked twice"


@pytest.mark.parametrize("hint", ["garbage", "none"])
def test_a_provider_that_says_wait_and_not_how_long_is_tried_again_soon(
    daemon: Stage, served: dict[str, Served], hint: str
) -> None:
    view = enrich(daemon, f"throttles_{hint}")
    assert (view.state, view.counts.done) == ("completed", LEADS)
    assert len(served[f"throttles_{hint}"].calls) == LEADS + 1


def test_a_refused_key_fails_the_job_and_no_call_follows_the_refusal(daemon: Stage, served: dict[str, Served]) -> None:
    view = enrich(daemon, "locked_slowly")
    assert (view.state, view.reason) == ("failed", JobReason.INVALID_KEY)
    assert view.counts.done == 0
    calls = served["locked_slowly"].calls
    assert 1 <= len(calls) <= AT_ONCE["locked_slowly"]
    (account,) = daemon.ask(wire.Providers(name="locked_slowly")).providers
    assert (account.state, account.reason) == ("parked", JobReason.INVALID_KEY)
    again = daemon.submit(
        wire.Enrich(teamspace="locked_slowly", table="people", module="locked_slowly", into={"company": "text"})
    ).job
    assert daemon.ended(again).reason is JobReason.INVALID_KEY
    assert len(served["locked_slowly"].calls) == len(calls), "nobody calls with a key that is known to be refused"


@pytest.mark.parametrize(
    ("name", "tries", "state", "reason"),
    [
        ("fails_always", 3, "failed", "server_error"),
        ("fails_twice", 3, "done", None),
        ("breaks_off", 1, "failed", "bad_response"),
        ("huge", 3, "failed", "bad_response"),
        ("redirects", 1, "failed", "bad_response"),
        ("cuts_once", 2, "done", None),
        ("cuts_always", 2, "unknown", "unknown_outcome"),
        ("refuses_one", 1, "failed", "refused_by_provider"),
    ],
)
def test_what_goes_wrong_with_one_lead_is_its_end_alone(
    daemon: Stage, served: dict[str, Served], name: str, tries: int, state: str, reason: str | None
) -> None:
    memory_bytes = daemon.ask(wire.Status()).memory_bytes
    view = enrich(daemon, name)
    assert view.state == ("completed" if state == "done" else "partial")
    counted = {"done": view.counts.done, "failed": view.counts.failed, "unknown": view.counts.unknown}
    assert counted == {"done": LEADS - 1, "failed": 0, "unknown": 0} | Counter({state: LEADS if state == "done" else 1})
    calls = Counter(call.lead for call in served[name].calls)
    assert calls == {**{str(each["email"]): 1 for each in people(LEADS)}, BAD: tries}
    assert not any(call.path == ELSEWHERE for call in served[name].calls)
    assert daemon.lead_reasons(view.job) == ({BAD: reason} if reason else {})
    assert daemon.ask(wire.Status()).memory_bytes < memory_bytes + 100 * 2**20


def test_an_answer_that_is_cut_in_its_body_is_asked_for_again(daemon: Stage, served: dict[str, Served]) -> None:
    view = enrich(daemon, "cuts_bodies")
    assert view.state == "partial"
    assert view.counts.done == LEADS - 1
    assert 2 <= len(about(served["cuts_bodies"])) <= 3


def test_an_answer_of_another_type_is_repaired_once(daemon: Stage, served: dict[str, Served]) -> None:
    view = daemon.ended(prompt(daemon, "repaired", 1))
    assert (view.state, view.counts.done) == ("completed", 1)
    assert len(served["repaired"].calls) == 2
    assert [row["score"] for row in daemon.rows("repaired", "people")] == ["8"]


def test_a_document_that_its_schema_does_not_take_is_repaired_once(daemon: Stage, served: dict[str, Served]) -> None:
    daemon.table("structured", "people", people(1))
    schema = {"type": "object", "properties": {"people": {"type": "array"}}, "required": ["people"]}
    submission = wire.Enrich(
        teamspace="structured",
        table="people",
        module="ai_prompt",
        into={"facts": "json"},
        params={"prompt": "Who works with {{email}}?", "provider": "structured", "schemas": {"facts": schema}},
    )
    view = daemon.ended(daemon.submit(submission).job)
    assert (view.state, view.counts.done) == ("completed", 1)
    assert len(served["structured"].calls) == 2
    assert [row["facts"] for row in daemon.rows("structured", "people")] == ['{"people":["Ada","Grace"]}']
    with pytest.raises(Refused) as refused:
        daemon.submit(msgspec.structs.replace(submission, into={"facts": "text"}))
    assert refused.value.at == "params.schemas.facts"


def test_an_answer_that_stays_of_another_type_fails_its_lead(daemon: Stage, served: dict[str, Served]) -> None:
    job = prompt(daemon, "hopeless", 1)
    view = daemon.ended(job)
    assert (view.state, view.counts.failed) == ("partial", 1)
    assert len(served["hopeless"].calls) == 2
    assert list(daemon.lead_reasons(job).values()) == ["bad_output"]


def test_a_call_whose_answer_says_what_it_took_is_done_in_the_books(daemon: Stage, served: dict[str, Served]) -> None:
    job = prompt(daemon, "metered", LEADS)
    assert daemon.ended(job).state == "completed"
    assert len(served["metered"].calls) == LEADS
    assert daemon.query("SELECT state, count(*) FROM call WHERE job = $1 GROUP BY state", job) == [("done", LEADS)]


def test_a_used_up_balance_parks_the_account_and_fails_nobody(
    daemon: Stage, world: World, served: dict[str, Served]
) -> None:
    job = prompt(daemon, "broke", LEADS)
    view = daemon.until(job, lambda view: JobReason.CREDITS in [wait.reason for wait in view.waits])
    assert view.state in {"running", "queued"}
    (account,) = daemon.ask(wire.Providers(name="broke")).providers
    assert (account.state, account.reason) == ("parked", JobReason.CREDITS)
    refused = [call for call in served["broke"].calls if call.status == 429]
    assert len(served["broke"].calls) <= LEADS
    assert len(refused) >= 1
    daemon.ask(wire.Cancel(job=job))
    assert daemon.ended(job).state == "cancelled"
