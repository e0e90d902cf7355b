"""One real call to a provider, asked for at the control socket: charged like any other, and the key shows nowhere."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, LeadlineError, Refused
from tests.acceptance.stage import HERE, Stage, World, openai, provider, stage
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Now, Plan, Request, json_plan
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
