"""What leads cost: the ledger agrees with the providers' own logs, and a spend cap is never exceeded."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, openai, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour, Fault, Faulty, Now, Plan, Request, json_plan
from tests.world.log import Call
from tests.world.servers import Served

LEADS: Final = 20
KILLS: Final = 3
AT_ONCE: Final = 2
EMAILS: Final = [str(each["email"]) for each in people(LEADS)]
MISS: Final = json_plan({"error": "nobody of that name"}, status=404, outcome="miss")
UNKNOWN: Final = EMAILS[::4]
"""Leads of which the providers here know nothing."""
HANGING: Final = [EMAILS[n] for n in (1, 2, 5, 6, 9, 10)]
"""Leads that `killed` does not answer about at first: two at a time, so that nothing goes on before the next kill, and
a few that it answers about in between.
"""


class Says:
    """A model that answers like this, at first and then, and tells what it took."""

    def __init__(self, *contents: str) -> None:
        self._contents = list(contents)

    def respond(self, request: Request, now: Now) -> Plan:
        """The next answer."""
        content = self._contents.pop(0) if len(self._contents) > 1 else self._contents[0]
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choices = [{"message": {"role": "assistant", "content": content}}]
        return json_plan({"choices": choices, "usage": usage})


def knows_not_all(*faults: Fault) -> Behaviour:
    return Faulty(behaviours.Enrichment(), [*faults, *(Fault(MISS, email, times=1_000) for email in UNKNOWN)])


def slowly(behaviour: Behaviour) -> Behaviour:
    return behaviours.Delayed(behaviour, median_us=SECOND // 5, sigma=0.0)


BEHAVIOURS: Final[dict[str, Behaviour]] = {
    "by_result": knows_not_all(),
    "by_request": knows_not_all(
        Fault(json_plan({"error": "no"}, status=422), EMAILS[1]), Fault(behaviours.server_error(), EMAILS[2], times=3)
    ),
    "capped": slowly(knows_not_all()),
    "killed": knows_not_all(*(Fault(behaviours.hang(), email) for email in HANGING)),
    "lossy": Faulty(behaviours.Enrichment(), [Fault(behaviours.cut(), EMAILS[0], times=2)]),
    "again": knows_not_all(),
    "twice": Faulty(
        behaviours.Enrichment(),
        [
            Fault(json_plan({"error": "no"}, status=422, outcome="refused"), EMAILS[1]),
            Fault(behaviours.server_error(), EMAILS[2], times=3),
        ],
    ),
    "monthly": behaviours.Enrichment(),
    "this_month": Faulty(behaviours.Enrichment(), [Fault(behaviours.cut(), EMAILS[0], times=2)]),
    "resumed": behaviours.Enrichment(),
    "repaired": Says("I would say eight", "8"),
    "priced": slowly(Says("8")),
}
PRICES: Final = ["credits_per_1000_input_tokens = 0.15", "credits_per_1000_output_tokens = 0.6"]
ONE: Final = ["credits_per_lead = 1.0", 'secret = "key"']
FEW: Final = [f'limits = [{{ shape = "concurrent", amount = {AT_ONCE} }}]', "flight_seconds = 0.5"]
AS_REQUESTED: Final = {"by_request"}
MODELS: Final = {"repaired", "priced"}


@pytest.fixture(scope="module")
def served(world: World) -> dict[str, Served]:
    return {name: world.serve(each, name=name) for name, each in BEHAVIOURS.items()}


@pytest.fixture(scope="module")
def daemon(served: dict[str, Served]) -> Iterator[Stage]:
    parts = [
        openai(served[name], name=name, settings=PRICES)
        if name in MODELS
        else provider(name, served[name], module="billed", settings=['secret = "key"'])
        if name in AS_REQUESTED
        else provider(name, served[name], module="found", settings=[*ONE, *(FEW if name == "killed" else [])])
        for name in BEHAVIOURS
    ]
    with stage("".join(parts)) as running:
        yield running


def enrich(daemon: Stage, module: str, *, spend_cap: float | None = None) -> JobId:
    daemon.table(module, "people", people(LEADS))
    submission = wire.Enrich(
        teamspace=module, table="people", module=module, into={"company": "text"}, spend_cap=spend_cap
    )
    return daemon.submit(submission).job


def score(daemon: Stage, model: str, leads: int, *, spend_cap: float | None = None) -> JobId:
    daemon.table(model, "people", people(leads))
    params = {"prompt": "Score {{email}}", "provider": model}
    submission = wire.Enrich(
        teamspace=model,
        table="people",
        module="ai_prompt",
        into={"score": "number"},
        params=params,
        spend_cap=spend_cap,
    )
    return daemon.submit(submission).job


def spent(daemon: Stage, job: JobId) -> wire.Spent:
    """What the one account of a job is owed; the ledger's entries add up to it."""
    (only,) = daemon.ask(wire.Job(job=job)).spent
    ((entries, most),) = daemon.query(
        "SELECT sum(credits), max(count) FROM (SELECT sum(credits) AS credits, count(*) FROM charge WHERE job = $1"
        " GROUP BY lead) AS lead",
        job,
    )
    assert (entries or 0) == only.credits
    assert most in {None, 1}, "one entry for each lead"
    return only


def hung(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.outcome == "hang"]


def answered(served: Served, outcomes: Sequence[str]) -> Counter[str]:
    return Counter(call.lead or "" for call in served.calls if call.outcome in outcomes)


def test_a_provider_that_is_paid_for_results_is_owed_for_what_it_found_and_for_nothing_else(
    daemon: Stage, served: dict[str, Served]
) -> None:
    job = enrich(daemon, "by_result")
    view = daemon.ended(job)
    assert (view.counts.done, view.counts.skipped) == (LEADS - len(UNKNOWN), len(UNKNOWN))
    found = answered(served["by_result"], ["ok"])
    assert spent(daemon, job) == wire.Spent(
        provider="by_result", calls=len(found), credits=Decimal(found.total()), perhaps=None
    )
    told = daemon.leadline("job", str(job)).stdout
    assert f"It has cost {LEADS - len(UNKNOWN)} credits at by_result." in told


def test_a_provider_that_is_paid_for_requests_is_owed_for_every_answer_but_not_for_its_own_failures(
    daemon: Stage, served: dict[str, Served]
) -> None:
    job = enrich(daemon, "by_request")
    view = daemon.ended(job)
    assert view.counts.failed == 2
    leads = answered(served["by_request"], ["ok", "miss", "bad_request"]).keys() | {EMAILS[1]}
    assert leads == set(EMAILS) - {EMAILS[2]}
    assert spent(daemon, job).credits == Decimal("0.3") * len(leads)


def test_a_cap_is_used_up_to_the_last_lead_that_it_pays_for_and_the_others_are_skipped(
    daemon: Stage, served: dict[str, Served]
) -> None:
    cap = 7
    job = enrich(daemon, "capped", spend_cap=cap + 0.5)
    view = daemon.ended(job)
    assert (view.state, view.reason) == ("completed", JobReason.SPEND_CAP)
    assert view.counts.done == cap == spent(daemon, job).credits
    found, missed = answered(served["capped"], ["ok"]), answered(served["capped"], ["miss"])
    assert found.total() == cap, "though all the leads could have been in flight at once"
    left_out = [email for email, reason in daemon.lead_reasons(job).items() if reason == "spend_cap"]
    assert len(left_out) == LEADS - cap - missed.total()
    assert not set(left_out) & (found.keys() | missed.keys())
    assert view.message == f"the spend cap of 7.5 credits was reached; {len(left_out)} leads were not asked about"


def test_a_cap_holds_over_kills_and_whatever_was_cut_off_is_counted_as_perhaps_owed(
    daemon: Stage, world: World, served: dict[str, Served]
) -> None:
    cap, log = 12, served["killed"]
    job = enrich(daemon, "killed", spend_cap=float(cap))
    for kill in range(1, KILLS + 1):
        world.until(log, lambda calls, out=kill * AT_ONCE: len(hung(calls)) == out)  # type: ignore[misc]
        daemon.kill()
        daemon.start()
    view = daemon.ended(job)
    owed = spent(daemon, job)
    assert owed.perhaps is not None, "calls were cut off"
    assert owed.perhaps == KILLS * AT_ONCE
    assert 0 < owed.credits == view.counts.done
    assert owed.credits + owed.perhaps == cap, "there were leads enough to use it up"
    assert owed.credits <= answered(log, ["ok"]).total() <= owed.credits + owed.perhaps
    assert max(answered(log, ["ok"]).values()) <= 1 + KILLS


def test_calls_that_were_lost_are_perhaps_owed(daemon: Stage) -> None:
    job = enrich(daemon, "lossy")
    view = daemon.ended(job)
    assert (view.counts.done, view.counts.unknown) == (LEADS - 1, 1)
    owed = spent(daemon, job)
    assert owed.credits == LEADS - 1
    assert owed.perhaps == 2
    assert "perhaps 2 more" in daemon.leadline("job", str(job)).stdout


def test_a_model_is_owed_for_the_tokens_of_every_answer_also_of_the_one_that_was_repaired(daemon: Stage) -> None:
    job = score(daemon, "repaired", 1)
    assert daemon.ended(job).counts.done == 1
    assert spent(daemon, job) == wire.Spent(
        provider="repaired", calls=2, credits=2 * (100 * Decimal("0.00015") + 10 * Decimal("0.0006"))
    )


def test_a_cap_holds_for_tokens_of_which_nobody_knows_beforehand(daemon: Stage, served: dict[str, Served]) -> None:
    each, cap = Decimal("0.021"), Decimal(1)
    job = score(daemon, "priced", 60, spend_cap=float(cap))
    view = daemon.ended(job)
    owed = spent(daemon, job).credits
    assert view.reason is JobReason.SPEND_CAP
    assert owed == each * view.counts.done == each * len(served["priced"].calls)
    most = Decimal("0.35")  # 500 tokens of an answer, and the prompt
    assert cap - most < owed <= cap, "what was set aside for one lead and not used is there for the next"


def test_a_rerun_of_all_leads_pays_for_none_a_second_time(daemon: Stage, served: dict[str, Served]) -> None:
    job = enrich(daemon, "again")
    daemon.ended(job)
    found = len(EMAILS) - len(UNKNOWN)
    rerun = daemon.ask(wire.Rerun(job=job, leads="all")).job
    view = daemon.ended(rerun)
    assert (view.counts.total, view.counts.skipped) == (LEADS, LEADS)
    reasons = daemon.lead_reasons(rerun)
    assert {email for email, reason in reasons.items() if reason == "not_found"} == set(UNKNOWN)
    assert Counter(reasons.values())["paid_before"] == found
    assert set(answered(served["again"], ["ok"]).values()) == {1}
    assert daemon.ask(wire.Job(job=rerun)).spent == []


def test_of_two_reruns_of_one_job_the_second_pays_for_nothing_that_the_first_got(
    daemon: Stage, served: dict[str, Served]
) -> None:
    job = enrich(daemon, "twice")
    assert daemon.ended(job).counts.failed == 2
    reruns = [daemon.ask(wire.Rerun(job=job, leads="failed")).job for _ in range(2)]
    first, second = (daemon.ended(rerun) for rerun in reruns)
    assert (first.counts.done, second.counts.skipped) == (2, 2)
    assert set(daemon.lead_reasons(second.job).values()) == {"paid_before"}
    third = daemon.ended(daemon.ask(wire.Rerun(job=second.job, leads="all")).job)
    assert third.counts.skipped == 2, "nor does a rerun of the rerun"
    assert max(answered(served["twice"], ["ok"]).values()) == 1


def test_a_rerun_takes_up_the_leads_for_which_no_credits_were_left(daemon: Stage, served: dict[str, Served]) -> None:
    job = enrich(daemon, "resumed", spend_cap=10)
    assert daemon.ended(job).counts.skipped == LEADS - 10
    view = daemon.ended(daemon.ask(wire.Rerun(job=job)).job)
    assert (view.state, view.reason) == ("completed", None)
    assert view.counts.done == LEADS - 10
    assert answered(served["resumed"], ["ok"]) == dict.fromkeys(EMAILS, 1)


def test_an_order_of_many_leads_is_paid_by_its_results_and_made_no_larger_than_the_cap_allows(world: World) -> None:
    served = world.serve(behaviours.BulkJobs(seconds=0.2), name="bulk")
    rows = people(LEADS)
    rows[3]["email"] = "unknown@a.example"
    with stage(provider("bulk", served, module="bulk", settings=["credits_per_lead = 0.5"])) as daemon:
        daemon.table("acme", "people", rows)
        jobs = [
            daemon.submit(
                wire.Enrich(
                    teamspace="acme", table="people", module="bulk", into={"company": "text"}, spend_cap=spend_cap
                )
            ).job
            for spend_cap in (6.2, None)
        ]
        capped, whole = (daemon.ended(job) for job in jobs)
        assert (capped.counts.done, capped.reason) == (11, JobReason.SPEND_CAP)
        assert capped.counts.skipped == LEADS - 11
        assert spent(daemon, capped.job) == wire.Spent(provider="bulk", calls=11, credits=Decimal("5.5"))
        assert whole.counts.done == LEADS - 1
        assert spent(daemon, whole.job).credits == Decimal("9.5")


def usage(daemon: Stage, **asked: object) -> list[wire.UsageRow]:
    month = f"{datetime.now(UTC):%Y-%m}"
    return daemon.ask(msgspec.convert({"op": "usage", "month": month, **asked}, wire.Usage)).usage


def test_what_a_month_has_cost_is_the_sum_of_the_ledger_however_it_is_told_apart(
    daemon: Stage, served: dict[str, Served]
) -> None:
    for module in ("monthly", "this_month"):
        daemon.ended(enrich(daemon, module))
    daemon.query("UPDATE spending SET month = '2026-02-01' WHERE account = 'monthly'")
    daemon.query("UPDATE charge SET at = 1772150399999999 WHERE account = 'monthly'")
    ((ledger,),) = daemon.query("SELECT sum(credits) FROM charge WHERE account <> 'monthly'")
    ((perhaps,),) = daemon.query("SELECT coalesce(sum(credits), 0) FROM call WHERE state = 'unknown'")
    assert ledger >= LEADS - 1
    assert perhaps >= 2
    for by in (["teamspace"], ["provider"], ["teamspace", "provider"]):
        rows = usage(daemon, by=by)
        assert sum(row.credits for row in rows) == ledger
        assert sum(row.perhaps or 0 for row in rows) == perhaps
        names = [(row.teamspace or "", row.provider or "") for row in rows]
        assert names == sorted(set(names))
    (only,) = usage(daemon, month="2026-02", by=["provider"], teamspace="monthly")
    assert only == wire.UsageRow(provider="monthly", calls=LEADS, credits=Decimal(LEADS))
    assert usage(daemon, month="2026-01") == []
    told = daemon.leadline("usage", "--month", "2026-02", "--by", "teamspace,provider", "--csv").stdout
    assert told.splitlines() == [
        "teamspace,provider,calls,credits,perhaps",
        f"monthly,monthly,{LEADS},{LEADS},0",
    ]
    assert "2026-02 (UTC): 20 credits." in daemon.leadline("usage", "--month", "2026-02").stderr


def test_usage_comes_in_pages_and_looks_at_no_other_month(daemon: Stage) -> None:
    daemon.query(
        "INSERT INTO spending (month, job, calls, credits, account, teamspace)"
        " SELECT '2025-01-01'::date + n % 500, 1000000 + n, 1, 0.5, 'old', 'team ' || n"
        " FROM generate_series(1, 50000) AS n"
    )
    daemon.query("ANALYZE spending")
    month = {"month": "2025-01", "by": ["teamspace"]}
    whole = usage(daemon, **month)
    seen: list[wire.UsageRow] = []
    after = None
    while True:
        page = daemon.ask(msgspec.convert({"op": "usage", "limit": 7, "after": after, **month}, wire.Usage))
        seen += page.usage
        if (after := page.next) is None:
            break
    assert seen == whole
    assert len(whole) == 100
    plan = daemon.query(
        "EXPLAIN SELECT teamspace, sum(credits) FROM spending WHERE month = '2025-01-01' GROUP BY teamspace"
    )
    assert any("spending_by_month" in line for (line,) in plan)


@pytest.mark.parametrize(("month", "after"), [("2026-13", None), ("November", None), ("2026-11", "nonsense")])
def test_a_month_that_is_none_is_refused(daemon: Stage, month: str, after: str | None) -> None:
    with pytest.raises(Refused) as refused, daemon.blocking_client() as client:
        client.call(wire.Usage(month=month, after=after))
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert refused.value.at == ("after" if after else "month")
