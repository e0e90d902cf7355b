"""Several providers for one column: the first result wins, and the books agree with the providers' own bills."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, openai, people, provider, stage
from tests.acceptance.test_crashes import STORED_AT_LAST_US, repeated_without_need
from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour, Fault, Faulty, Now, Plan, Request, Throttle
from tests.world.finders import Findymail, Hunter, Prospeo, address, knows
from tests.world.log import read_clocks
from tests.world.servers import Served

LEADS: Final = 60
ORDER: Final = ("hunter", "findymail", "prospeo")


def prospects(count: int = LEADS) -> list[dict[str, object]]:
    """People with all that the three finders ask for."""
    rows: list[dict[str, object]] = []
    for n in range(count):
        first, last, company = f"Ada{n}", f"Byron{n}", f"engines{n % 7}"
        rows.append(
            {
                "first_name": first,
                "last_name": last,
                "name": f"{first} {last}",
                "company": company,
                "domain": f"{company}.example",
            }
        )
    return rows


def emails(count: int = LEADS) -> list[str]:
    return [address(str(row["first_name"]), str(row["last_name"]), str(row["domain"])) for row in prospects(count)]


KNOWN: Final = {"hunter": knows("hunter", 40), "findymail": knows("findymail", 40), "prospeo": knows("prospeo", 50)}


def first_who_knows(email: str, order: Sequence[str] = ORDER) -> str:
    return next((name for name in order if KNOWN[name](email)), "")


class ThrottledOnce:
    """Throws the tenth call back, in Hunter's way."""

    def __init__(self, inner: Behaviour) -> None:
        self._inner = inner
        self._calls = 0

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer, or the refusal."""
        self._calls += 1
        if self._calls == 10:
            return Throttle("seconds", status=403).plan(SECOND, now)
        return self._inner.respond(request, now)


def slowly(inner: Behaviour) -> Behaviour:
    return behaviours.Delayed(inner, median_us=SECOND // 20, seed=4)


def configured(served: dict[str, Served], *, at_once: int = 20) -> str:
    parts = []
    for name, each in served.items():
        limits = f'limits = [{{ shape = "concurrent", amount = {at_once} }}]\nflight_seconds = 0.5'
        parts.append(f'[providers.{name}]\npreset = "{name}"\nbase_url = "{each.url}"\nsecret = "key"\n{limits}\n')
    return "\n".join(parts)


def waterfall(daemon: Stage, table: str = "people", **changes: object) -> JobId:
    submission: dict[str, object] = {
        "kind": "enrich",
        "teamspace": "acme",
        "table": table,
        "module": "waterfall",
        "into": {"email": "text", "found_by": "text"},
        "params": {"modules": list(ORDER), "answered_by": "found_by"},
    }
    return daemon.submit(submission | changes).job


def found_by(daemon: Stage) -> dict[str, str]:
    """Whom each address in the table came from."""
    return {row["email"]: row["found_by"] for row in daemon.rows("acme", "people") if row["email"]}


def books(daemon: Stage, job: JobId) -> dict[str, wire.Spent]:
    """What the accounts of a job are owed; the ledger adds up to it."""
    spent = {each.provider: each for each in daemon.ask(wire.Job(job=job)).spent}
    entries = dict(daemon.query("SELECT account, sum(credits) FROM charge WHERE job = $1 GROUP BY account", job))
    assert {name: amount for name, amount in entries.items() if amount} == {
        name: each.credits for name, each in spent.items() if each.credits
    }
    return spent


def billed(served: Served) -> int:
    return sum(int(call.notes.get("credits", 0)) for call in served.calls)


def asked(served: dict[str, Served]) -> dict[str, list[str]]:
    """Who was asked about each address, in order of time."""
    calls = sorted(
        ((call, name) for name, each in served.items() for call in each.calls), key=lambda c: c[0].arrived_us
    )
    by_lead: dict[str, list[str]] = defaultdict(list)
    for call, name in calls:
        if call.outcome not in {"throttled", "quota"}:
            by_lead[call.lead or ""].append(name)
    return by_lead


def test_the_first_who_knows_is_paid_once_and_nobody_behind_is_asked(world: World) -> None:
    served = {
        "hunter": world.serve(ThrottledOnce(slowly(Hunter(KNOWN["hunter"]))), name="hunter"),
        "findymail": world.serve(slowly(Findymail(KNOWN["findymail"])), name="findymail"),
        "prospeo": world.serve(slowly(Prospeo(KNOWN["prospeo"])), name="prospeo"),
    }
    with stage(configured(served)) as daemon:
        daemon.table("acme", "people", prospects())
        job = waterfall(daemon)
        view = daemon.ended(job)
        expected = {email: name for email in emails() if (name := first_who_knows(email))}
        assert found_by(daemon) == expected, "the one that throttled was waited for, too"
        assert (view.state, view.counts.done, view.counts.skipped) == (
            "completed",
            len(expected),
            LEADS - len(expected),
        )
        for email, names in asked(served).items():
            assert names == list(ORDER[: len(names)])
            assert names[-1] == (expected.get(email) or ORDER[-1])
        rows = Counter(expected.values())
        assert {name: each.credits for name, each in books(daemon, job).items()} == dict(rows)
        assert {name: billed(each) for name, each in served.items()} == dict(rows), "as the providers have billed it"
        kept = daemon.query("SELECT account, count(*) FROM charge WHERE job = $1 AND answer = 'result' GROUP BY 1", job)
        assert dict(kept) == dict(rows), "who had the result is kept for each lead"


def test_one_whose_credits_are_gone_is_passed_over_and_its_leads_are_asked_about_again_by_a_rerun(world: World) -> None:
    served = {
        "hunter": world.serve(slowly(Hunter(KNOWN["hunter"])), name="hunter"),
        "findymail": world.serve(slowly(Findymail(KNOWN["findymail"], credits_left=3)), name="findymail"),
        "prospeo": world.serve(slowly(Prospeo(KNOWN["prospeo"])), name="prospeo"),
    }
    with stage(configured(served)) as daemon:
        daemon.table("acme", "people", prospects())
        job = waterfall(daemon)
        view = daemon.ended(job)
        (account,) = daemon.ask(wire.Providers(name="findymail")).providers
        assert (account.state, account.reason) == ("parked", JobReason.CREDITS)
        spent = books(daemon, job)
        assert {name: spent[name].credits for name in ORDER} == {name: billed(each) for name, each in served.items()}
        assert spent["findymail"].credits == 3
        in_table = found_by(daemon)
        for email in emails():
            others = first_who_knows(email, ("hunter", "prospeo"))
            assert in_table.get(email) in {others or None, "findymail"}
        reasons = Counter(
            reason
            for (reason,) in daemon.query("SELECT reason FROM lead_result WHERE job = $1 AND state = 'failed'", job)
        )
        assert set(reasons) == {"passed_over"}
        assert view.counts.failed == reasons["passed_over"] > 0


def test_a_lead_waits_where_everybody_that_might_know_it_is_parked(world: World) -> None:
    broke = Findymail(KNOWN["findymail"], credits_left=0)
    served = {"findymail": world.serve(broke, name="findymail")}
    no_key = behaviours.Authorized(Prospeo(KNOWN["prospeo"]), "the right key")
    served["prospeo"] = world.serve(no_key, name="prospeo")
    with stage(configured(served, at_once=1)) as daemon:
        daemon.table("acme", "people", prospects(5))
        job = waterfall(daemon, params={"modules": ["findymail", "prospeo"]}, into={"email": "text"})
        view = daemon.until(job, lambda view: JobReason.CREDITS in [wait.reason for wait in view.waits])
        assert view.counts.pending == 5, "no lead has failed for what one payment mends"
        daemon.ask(wire.Cancel(job=job))
        assert daemon.ended(job).state == "cancelled"


def test_one_that_fails_has_the_next_one_asked(world: World) -> None:
    failing = Faulty(Hunter(lambda _: True), [Fault(behaviours.json_plan({}, status=422))])
    served = {"hunter": world.serve(failing, name="hunter")}
    served["findymail"] = world.serve(Findymail(lambda _: True), name="findymail")
    with stage(configured(served, at_once=1)) as daemon:
        daemon.table("acme", "people", prospects(4))
        job = waterfall(daemon, params={"modules": ["hunter", "findymail"], "answered_by": "found_by"})
        assert daemon.ended(job).counts.done == 4
        assert Counter(found_by(daemon).values()) == {"hunter": 3, "findymail": 1}


class Holds:
    """Does not answer about one person until it is told to, so that no job that needs the answer ends before."""

    def __init__(self, inner: Behaviour, lead: str) -> None:
        self._inner, self._lead = inner, lead
        self.let_go = False

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer, or silence."""
        plan = self._inner.respond(request, now)
        if self.let_go or plan.lead != self._lead:
            return plan
        return replace(behaviours.hang(), lead=plan.lead)


def test_no_provider_that_has_answered_is_asked_again_whenever_the_daemon_is_killed(world: World) -> None:
    hunter = Holds(slowly(Hunter(KNOWN["hunter"])), emails()[0])
    served = {
        "hunter": world.serve(hunter, name="hunter"),
        "findymail": world.serve(slowly(Findymail(KNOWN["findymail"])), name="findymail"),
        "prospeo": world.serve(slowly(Prospeo(KNOWN["prospeo"])), name="prospeo"),
    }
    with stage(configured(served, at_once=3)) as daemon:
        daemon.table("acme", "people", prospects())
        job = waterfall(daemon)
        kills_us = []
        for name in ORDER:
            world.until(served[name], lambda calls: len(calls) >= 5)
            daemon.kill()
            kills_us.append(read_clocks().instant)
            hunter.let_go = name == ORDER[-1]
            daemon.start()
        view = daemon.ended(job)
        expected = {email: name for email in emails() if (name := first_who_knows(email))}
        assert view.counts.done == len(expected)
        assert found_by(daemon) == expected
        spent, rows = books(daemon, job), Counter(expected.values())
        assert {name: spent[name].credits for name in ORDER} == dict(rows)
        for name, each in served.items():
            assert repeated_without_need(each.calls, kills_us, stored_within_us=STORED_AT_LAST_US) == []
            assert rows[name] <= billed(each) <= rows[name] + (spent[name].perhaps or Decimal(0))


class KnowsHalf:
    """A model that knows every second company by an address in it."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The completion."""
        (email,) = request.leads
        content = f"Known as {email}" if known_to_model(email) else "null"
        return behaviours.json_plan({"choices": [{"message": {"role": "assistant", "content": content}}]}, lead=email)


def known_to_model(email: str) -> bool:
    return behaviours.number_of("model", email) % 2 == 0


class NotesOrdered:
    """Notes who was ordered, in all the orders that were taken."""

    def __init__(self, inner: Behaviour) -> None:
        self._inner = inner
        self.ordered: list[str] = []

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer."""
        plan = self._inner.respond(request, now)
        if plan.outcome == "taken":
            self.ordered += request.leads
        return plan


def test_orders_and_a_model_in_turn_are_asked_and_paid_once_whenever_the_daemon_is_killed(world: World) -> None:
    rows = people(120)
    for row in rows[::3]:
        row["email"] = f"unknown-{row['email']}"
    everybody = [str(row["email"]) for row in rows]
    strangers = [email for n, email in enumerate(everybody) if n % 4]
    orders = behaviours.BulkJobs(seconds=3_600, page=30)
    ordering = NotesOrdered(orders)
    model = Holds(slowly(KnowsHalf()), next(email for email in strangers if email.startswith("unknown")))
    misses = [Fault(behaviours.json_plan({}, status=404), email, times=99) for email in strangers]
    served = {
        "found": world.serve(slowly(Faulty(behaviours.Enrichment(), misses)), name="found"),
        "bulk": world.serve(slowly(ordering), name="bulk"),
        "model": world.serve(model, name="model"),
    }
    prices = {"found": Decimal(1), "bulk": Decimal("0.25"), "model": Decimal("0.125")}
    settings = {name: [f"credits_per_lead = {price}", "flight_seconds = 0.5"] for name, price in prices.items()}
    few = 'limits = [{ shape = "concurrent", amount = 3 }]'
    parts = [
        provider("found", served["found"], module="found", settings=[*settings["found"], 'secret = "key"', few]),
        provider("bulk", served["bulk"], module="bulk", settings=settings["bulk"]),
        openai(served["model"], name="model", settings=[*settings["model"], few]),
    ]
    with stage("".join(parts)) as daemon:
        daemon.table("acme", "people", rows)
        prompt = {"module": "ai_prompt", "provider": "model", "prompt": "Which company is {{email}} of?"}
        params = {"modules": ["found", "bulk", prompt], "answered_by": "found_by"}
        job = waterfall(daemon, params=params, into={"company": "text", "found_by": "text"})
        kills_us = []
        moments = [("found", "ok", "answered"), ("bulk", "running", "answered")]
        moments += [("bulk", "results", "answered"), ("model", "hang", "open")]
        before = dict.fromkeys(served, 0)
        for name, *moment in moments:
            world.until(
                served[name],
                lambda calls, since=before[name], moment=moment: any(  # type: ignore[misc]
                    [call.outcome, call.ended] == moment for call in calls[since:]
                ),
            )
            daemon.kill()
            kills_us.append(read_clocks().instant)
            before = {name: len(each.calls) for name, each in served.items()}
            if moment[0] == "running":
                orders.finish()
            model.let_go = moment[0] == "hang"
            daemon.start()
        view = daemon.ended(job)
        expected = {
            email: name
            for email in everybody
            if (
                name := "found"
                if email not in strangers
                else "bulk"
                if not email.startswith("unknown")
                else "model"
                if known_to_model(email)
                else ""
            )
        }
        assert {row["email"]: row["found_by"] for row in daemon.rows("acme", "people") if row["found_by"]} == expected
        assert (view.counts.done, view.counts.skipped) == (len(expected), len(rows) - len(expected))
        spent, rows_of = books(daemon, job), Counter(expected.values())
        assert {name: spent[name].credits for name in prices} == {name: prices[name] * rows_of[name] for name in prices}
        assert sorted(ordering.ordered) == sorted(strangers), "each is ordered once"
        for name in ("found", "model"):
            calls = served[name].calls
            assert repeated_without_need(calls, kills_us, stored_within_us=STORED_AT_LAST_US) == []


@pytest.mark.parametrize(
    ("params", "into", "code", "at"),
    [
        ({"modules": []}, {"email": "text"}, ErrorCode.BAD_REQUEST, "params.modules"),
        ({"modules": ["hunter", "hunter"]}, {"email": "text"}, ErrorCode.BAD_REQUEST, "params.modules[1]"),
        ({"modules": ["hunter", "nobody"]}, {"email": "text"}, ErrorCode.UNKNOWN_MODULE, "params.modules[1]"),
        ({"modules": ["hunter", "ai_prompt"]}, {"email": "text"}, ErrorCode.BAD_REQUEST, "params.modules[1].prompt"),
        (
            {"modules": ["hunter", {"module": "ai_prompt", "prompt": "Who is {{nobody}}?"}]},
            {"email": "text"},
            ErrorCode.UNKNOWN_COLUMN,
            "params.modules[1].prompt:8",
        ),
        (
            {"modules": [{"module": "hunter", "prompt": "Who is {{name}}?"}]},
            {"email": "text"},
            ErrorCode.BAD_REQUEST,
            "params.modules[0]",
        ),
        ({"modules": ["hunter"]}, {"shoe_size": "number"}, ErrorCode.BAD_REQUEST, "into.shoe_size"),
        ({"modules": ["hunter"], "answered_by": "who"}, {"email": "text"}, ErrorCode.BAD_REQUEST, "params.answered_by"),
        ({"modules": ["hunter"], "answered_by": "who"}, {"who": "text"}, ErrorCode.BAD_REQUEST, "into"),
        (
            {"modules": ["findymail", {"module": "hunter", "inputs": {"domain": "web"}}]},
            {"email": "text"},
            ErrorCode.UNKNOWN_COLUMN,
            "params.modules[1].inputs.domain",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(
    refusing: Stage, params: dict[str, object], into: dict[str, str], code: ErrorCode, at: str
) -> None:
    with pytest.raises(Refused) as refused:
        waterfall(refusing, params=params, into=into)
    assert (refused.value.code, refused.value.at) == (code, at)


@pytest.fixture(scope="module")
def refusing(world: World) -> Iterator[Stage]:
    served = {"hunter": world.serve(Hunter(lambda _: True)), "findymail": world.serve(Findymail(lambda _: True))}
    with stage(configured(served)) as daemon:
        daemon.table("acme", "people", prospects(1))
        yield daemon


def test_an_order_that_was_placed_while_another_was_parked_is_asked_for_before_that_one_is_asked_again(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "slow.toml").write_text(ORDERS, encoding="utf-8")
    served = {"findymail": world.serve(Findymail(lambda _: True, credits_left=0), name="findymail")}
    slow = world.serve(behaviours.Polling(seconds=5.0), name="slow")
    parts = f'[providers.slow]\nmodule = "{tmp_path / "slow.toml"}"\nbase_url = "{slow.url}"\n'
    with stage(configured(served) + parts) as daemon:
        daemon.table(
            "acme", "people", [{**row, "email": email} for row, email in zip(prospects(1), emails(1), strict=True)]
        )
        params = {"modules": [{"module": "findymail", "outputs": {"company_found": "email"}}, "slow"]}
        job = waterfall(daemon, params=params, into={"company_found": "text"})
        world.until(slow, lambda calls: any(call.outcome == "in_progress" for call in calls))
        daemon.ask(wire.Resume(scope="provider", name="findymail"))
        asked_before = len(served["findymail"].calls)
        daemon.kill()
        daemon.start()
        assert daemon.ended(job).counts.done == 1
        assert len(served["findymail"].calls) == asked_before
        assert Counter(call.outcome for call in slow.calls)["started"] == 1


ORDERS: Final = """
name = "slow"
base_url = "http://127.0.0.1"
mode = "poll"
inputs = ["email"]
limits = []

[request]
path = "/orders"
body = { email = "{{email}}" }

[poll]
task = "task_hash"
pending = [{ select = "status", equals = "in_progress" }]
interval_seconds = 0.5

[poll.request]
method = "GET"
path = "/orders/{{task}}"

[response.columns]
company_found = { select = "data.company" }
"""


def test_a_dry_run_tells_what_it_may_cost(refusing: Stage) -> None:
    with refusing.blocking_client() as client:
        submission = wire.Enrich(
            teamspace="acme",
            table="people",
            module="waterfall",
            into={"email": "text"},
            params={"modules": ["hunter", "findymail"]},
        )
        (step,) = client.preview(submission).steps
    assert (step.provider, step.asked) == ("hunter, findymail", 1)
    assert step.credits == 1, "one of them has the result, and is paid"
