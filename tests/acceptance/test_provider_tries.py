"""One real call to a provider, asked for at the control socket: charged like any other, and the key shows nowhere."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, LeadlineError, Refused
from tests.acceptance.stage import HERE, Stage, World, openai, provider, stage
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Fault, Faulty, Now, Plan, Request, json_plan
from tests.world.servers import Served

KEY: Final = "canary-key-0815"
CLIENT, SECRET = "canary-client-4711", "canary-secret-4711"
LEAD: Final = {"email": "ada@analytical.example"}
ONE_CALL: Final = 'limits = [{ shape = "window", amount = 1, per_seconds = 600 }]'

SLOW: Final = """
name = "slow"
base_url = "http://127.0.0.1"
mode = "poll"
inputs = ["email"]
auth = { kind = "query", name = "api_key" }
[request]
path = "/start"
body = { email = "{{email}}" }
[poll]
task = "task_hash"
pending = [{ select = "status", equals = "in_progress" }]
interval_seconds = 0.2
[poll.request]
method = "GET"
path = "/result/{{task}}"
[response.columns]
company = { select = "data.company" }
employees = { select = "data.employees", type = "number" }
"""

MISS: Final = json_plan({"error": "nobody of that name"}, status=404, outcome="miss")
REFUSAL: Final = json_plan({"error": "no"}, status=422, outcome="refused")


class Quotes:
    """Refuses, and quotes the key back."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal."""
        return json_plan({"error": f"{request.credential} is no key of ours"}, status=422)


@pytest.fixture(scope="module")
def served(world: World) -> dict[str, Served]:
    plans: dict[str, Behaviour] = {
        "company": behaviours.Enrichment(),
        "slow": behaviours.Polling(polls=2),
        "quotes": Quotes(),
        "token": behaviours.Tokens(behaviours.Enrichment(), client=CLIENT, secret=SECRET),
        "wrong": behaviours.Tokens(behaviours.Enrichment(), client=CLIENT, secret="another"),
        "bulk": behaviours.BulkJobs(seconds=0.5),
        "once": behaviours.Enrichment(),
        "openai": behaviours.ChatCompletions(),
        "throttled": behaviours.Limited(behaviours.Enrichment(), behaviours.Window(0, 60)),
    }
    return {name: world.serve(plan, name=name) for name, plan in plans.items()}


@pytest.fixture(scope="module")
def daemon(served: dict[str, Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    module = tmp_path_factory.mktemp("modules") / "slow"
    module.with_suffix(".toml").write_text(SLOW, encoding="utf-8")
    secret = f'secret = "{KEY}"'
    both = f'secret = "{CLIENT}:{SECRET}"'
    with_token = tmp_path_factory.mktemp("token") / "token"
    text = (HERE / "modules" / "company.toml").read_text(encoding="utf-8")
    text = text.replace('{ kind = "bearer" }', '{ kind = "client_credentials", path = "/oauth/token" }')
    with_token.with_suffix(".toml").write_text(text, encoding="utf-8")
    parts = [
        *(provider(name, served[name], module=str(with_token), settings=[both]) for name in ("token", "wrong")),
        provider("slow", served["slow"], module=str(module), settings=[secret]),
        provider("once", served["once"], settings=[secret, ONE_CALL]),
        openai(served["openai"]),
        provider("bulk", served["bulk"], module="bulk"),
        *(provider(name, served[name], settings=[secret]) for name in ("company", "quotes", "throttled")),
    ]
    with stage("".join(parts)) as running:
        yield running


def tried(daemon: Stage, name: str, **rest: object) -> wire.Tried:
    asked = wire.Providers(name=name, action="try", lead=LEAD, **rest)  # type: ignore[arg-type]  # the test's
    found = daemon.ask(asked).tried
    assert found is not None
    return found


def test_a_try_shows_the_request_the_answer_the_verdict_and_the_values(
    daemon: Stage, served: dict[str, Served]
) -> None:
    found = tried(daemon, "company", teamspace="acme")
    (call,) = found.calls
    company = behaviours.company_of(LEAD["email"])
    assert (found.outcome, found.provider, call.status, call.verdict) == ("done", "company", 200, "found")
    assert found.values == {name: company[name] for name in ("company", "industry", "country", "employees")}
    assert (call.method, json.loads(call.body or "")) == ("POST", LEAD)
    assert call.url == f"{served['company'].url}/company"
    assert call.headers["Authorization"] == "Bearer ***"
    assert [each.lead for each in served["company"].calls] == [LEAD["email"]]
    view = daemon.view(found.job)
    assert (view.kind, view.teamspace, view.state, view.message) == ("try", "acme", "completed", "done")


def test_a_try_of_a_provider_that_takes_its_time_asks_for_the_result(daemon: Stage, served: dict[str, Served]) -> None:
    found = tried(daemon, "slow")
    assert [call.verdict.split(",")[0] for call in found.calls] == [
        "the provider works on it",
        "the provider still works on it",
        "the provider still works on it",
        "found",
    ]
    assert found.values["company"] == behaviours.company_of(LEAD["email"])["company"]
    assert all("api_key=***" in call.url for call in found.calls)
    assert len(served["slow"].calls) == 4


def test_a_module_for_bulk_orders_is_tried_with_an_order_for_one_lead(daemon: Stage, served: dict[str, Served]) -> None:
    found = tried(daemon, "bulk")
    assert found.outcome == "done"
    assert found.values["company"] == behaviours.company_of(LEAD["email"])["company"]
    outcomes = [call.outcome for call in served["bulk"].calls]
    assert (outcomes[0], outcomes[-2:]) == ("taken", ["done", "results"])


def test_the_key_shows_nowhere_though_the_provider_quotes_it(daemon: Stage) -> None:
    ran = daemon.leadline("providers", "try", "quotes", "--lead", json.dumps(LEAD))
    assert ran.returncode == 1
    assert "*** is no key of ours" in ran.stdout
    assert KEY not in ran.stdout + ran.stderr + daemon.log.read_text()
    seen = tried(daemon, "quotes")
    assert KEY not in str(seen)
    assert KEY not in str(daemon.query("SELECT payload, message FROM job_ended"))


def test_a_token_is_fetched_for_id_and_secret_and_neither_shows_anywhere(
    daemon: Stage, served: dict[str, Served]
) -> None:
    ran = daemon.leadline("providers", "try", "token", "--lead", json.dumps(LEAD))
    assert (ran.returncode, "Bearer ***" in ran.stdout) == (0, True), ran
    again = tried(daemon, "token")
    assert [call.outcome for call in served["token"].calls] == ["token", "ok", "ok"]
    (view,) = daemon.ask(wire.Providers(name="token")).providers
    assert view.limits == []
    refused = daemon.leadline("providers", "try", "wrong", "--lead", json.dumps(LEAD))
    assert refused.returncode == 1
    assert "refused the id or the secret" in refused.stderr
    seen = ran.stdout + ran.stderr + refused.stdout + refused.stderr + str(again) + daemon.log.read_text()
    stored = str(daemon.query("SELECT payload, message FROM job_ended")) + str(daemon.query("SELECT * FROM call"))
    for secret in (CLIENT, SECRET, "token-"):
        assert secret not in seen
        assert secret not in stored


def test_a_try_is_charged_and_waits_for_a_permit_like_any_call(daemon: Stage, served: dict[str, Served]) -> None:
    tried(daemon, "once")
    (view,) = daemon.ask(wire.Providers(name="once")).providers
    assert view.limits[0].charged == 1
    with pytest.raises(Refused) as refused:
        tried(daemon, "once")
    assert refused.value.code is ErrorCode.BUSY
    assert "once" in refused.value.message
    assert len(served["once"].calls) == 1
    jobs = [view for view in daemon.ask(wire.Jobs(family="noop")).jobs if view.kind == "try"]
    assert daemon.ended(jobs[0].job).state == "cancelled", "it calls nobody later"


def test_a_model_is_tried_by_a_prompt(daemon: Stage) -> None:
    asked = wire.Providers(name="openai", action="try", lead={"prompt": "Say it again"})
    found = daemon.ask(asked).tried
    assert found is not None
    assert str(found.values["content"]).endswith("Say it again")


def test_a_throttle_that_a_try_meets_binds_everybody(daemon: Stage) -> None:
    found = tried(daemon, "throttled")
    assert found.outcome == "throttled"
    (view,) = daemon.ask(wire.Providers(name="throttled")).providers
    assert view.state == "throttled"


@pytest.mark.parametrize(
    ("asked", "code", "at"),
    [
        (wire.Providers(name="nobody", action="try", lead={}), ErrorCode.UNKNOWN_PROVIDER, "name"),
        (wire.Providers(name="company", action="try", lead={}), ErrorCode.BAD_REQUEST, "lead"),
        (wire.Providers(name="company", action="try", lead={"mail": "x"}), ErrorCode.BAD_REQUEST, "lead.mail"),
        (wire.Providers(name="openai", action="try", lead={}), ErrorCode.BAD_EXPRESSION, "lead.prompt:1"),
    ],
)
def test_what_cannot_be_tried_is_refused_at_its_place(
    daemon: Stage, asked: wire.Providers, code: ErrorCode, at: str
) -> None:
    before = len(daemon.ask(wire.Jobs(family="noop")).jobs)
    with pytest.raises(Refused) as refused:
        daemon.ask(asked)
    assert (refused.value.code, refused.value.at) == (code, at)
    assert len(daemon.ask(wire.Jobs(family="noop")).jobs) == before


def test_nobody_can_submit_a_try(daemon: Stage) -> None:
    with pytest.raises(Refused) as refused:
        daemon.submit({"kind": "try", "teamspace": "acme", "provider": "company", "lead": LEAD, "token": "x"})
    assert refused.value.code is ErrorCode.UNKNOWN_KIND


def test_a_try_whose_daemon_was_killed_calls_nobody_later(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="killed")
    with stage(provider("killed", served)) as daemon, ThreadPoolExecutor() as threads:
        daemon.ask(wire.Pause(scope="family", name="noop"))
        asking = threads.submit(tried, daemon, "killed")
        while not daemon.ask(wire.Jobs(family="noop")).jobs:
            assert not asking.done()
        daemon.kill()
        assert isinstance(asking.exception(), LeadlineError)
        daemon.start()
        daemon.ask(wire.Resume(scope="family", name="noop"))
        (job,) = daemon.ask(wire.Jobs(family="noop")).jobs
        view = daemon.ended(job.job)
        assert (view.state, view.reason) == ("failed", JobReason.ERROR)
        assert served.calls == []


class Bills:
    """Notes in its log what it charges for an answer, in credits."""

    def __init__(self, inner: Behaviour, price: Callable[[Plan], str]) -> None:
        self._inner = inner
        self._price = price

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer."""
        plan = self._inner.respond(request, now)
        return msgspec.structs.replace(plan, notes={**plan.notes, "credits": self._price(plan)})


def by_outcome(**prices: str) -> Callable[[Plan], str]:
    return lambda plan: prices.get(plan.outcome, "0")


def by_token(plan: Plan) -> str:
    used = json.loads(plan.body)["usage"]
    return str(used["prompt_tokens"] * Decimal("0.00015") + used["completion_tokens"] * Decimal("0.0006"))


ANSWERED: Final = by_outcome(ok="0.3", miss="0.3", refused="0.3")
BILLING: Final[dict[str, Behaviour]] = {
    "found": Bills(behaviours.Enrichment(), by_outcome(ok="1.5")),
    "missed": Bills(Faulty(behaviours.Enrichment(), [Fault(MISS)]), by_outcome(ok="1.5")),
    "broken": Bills(Faulty(behaviours.Enrichment(), [Fault(behaviours.server_error())]), by_outcome(ok="1.5")),
    "billed": Bills(Faulty(behaviours.Enrichment(), [Fault(MISS), Fault(REFUSAL)]), ANSWERED),
    "slow": Bills(behaviours.Polling(polls=2), by_outcome(completed="0.7")),
    "ordered": Bills(behaviours.Polling(polls=1), by_outcome(started="0.9")),
    "bulk": Bills(behaviours.BulkJobs(seconds=0.3), by_outcome(results="0.25")),
    "model": Bills(behaviours.ChatCompletions(), by_token),
}
CREDITS: Final = {
    "found": ["credits_per_lead = 1.5"],
    "missed": ["credits_per_lead = 1.5"],
    "broken": ["credits_per_lead = 1.5"],
    "slow": ["credits_per_lead = 0.7"],
    "ordered": ["credits_per_lead = 0.9"],
    "bulk": ["credits_per_lead = 0.25"],
    "model": ["credits_per_1000_input_tokens = 0.15", "credits_per_1000_output_tokens = 0.6"],
}


def test_what_tries_cost_is_in_the_ledger_as_the_providers_have_billed_it(world: World, tmp_path: Path) -> None:
    served = {name: world.serve(each, name=name) for name, each in BILLING.items()}
    lossy = world.serve(Faulty(behaviours.Enrichment(), [Fault(behaviours.cut())]), name="lossy")
    (tmp_path / "slow.toml").write_text(SLOW, encoding="utf-8")
    (tmp_path / "ordered.toml").write_text('charge_on = "request"\n' + SLOW, encoding="utf-8")
    modules = {"billed": "billed", "bulk": "bulk", **{name: str(tmp_path / name) for name in ("slow", "ordered")}}
    key = 'secret = "key"'
    parts = [
        openai(each, name=name, settings=CREDITS[name])
        if name == "model"
        else provider(name, each, module=modules.get(name, "found"), settings=[key, *CREDITS.get(name, [])])
        for name, each in served.items()
    ]
    parts.append(provider("lossy", lossy, module="found", settings=[key, "credits_per_lead = 2.0"]))
    with stage("".join(parts)) as daemon:
        for name in (*served, *served, *served, "lossy"):
            lead = {"prompt": "Score ada@analytical.example"} if name == "model" else LEAD
            daemon.ask(wire.Providers(name=name, action="try", lead=lead, teamspace="acme"))
        month = f"{datetime.now(UTC):%Y-%m}"
        told = daemon.leadline("usage", "--month", month, "--by", "teamspace,provider", "--csv").stdout
        usage = {row["provider"]: row for row in csv.DictReader(io.StringIO(told)) if row["teamspace"] == "acme"}
        billed = {name: sum(Decimal(call.notes["credits"]) for call in each.calls) for name, each in served.items()}
        assert {name: Decimal(usage[name]["credits"]) for name in served} == billed
        assert min(billed.values()) > 0
        ((ledger,),) = daemon.query("SELECT sum(credits) FROM charge")
        assert ledger == sum(billed.values())
        assert usage["lossy"]["perhaps"] == "2", "nobody knows whether that call was charged"
