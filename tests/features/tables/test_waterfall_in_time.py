"""A waterfall over providers of every mode, in hours of virtual time: who is asked about whom, and in which orders."""

from collections import Counter
from decimal import Decimal
from typing import Final

import pytest
from msgspec.structs import replace

from leadline.core.events import CancelAsked, PauseSet
from leadline.core.rate_limit import WindowLimit
from leadline.features.tables.enrichment_plan import LEADS_AT_ONCE
from leadline.features.tables.provider_modules import ProviderModule, Signal, preset
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import JobId
from tests.features.tables.test_enrichment_in_time import bulk, orders, sync
from tests.features.tables.virtual import Running, daemon, run
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Fault, Faulty, Now, Plan, Request

LEADS: Final = 300
PRICES: Final = {"sync": 1.0, "bulk": 0.25, "model": 0.125}
PROMPT: Final = {"module": "ai_prompt", "provider": "model", "prompt": "Which company is {{email}} of?"}
MISS: Final = behaviours.json_plan({}, status=404, outcome="miss")


class Model:
    """Answers with the company's name in a sentence of its own; of every fifth it knows nothing."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The completion."""
        (lead,) = request.leads
        number = int("".join(filter(str.isdigit, lead)))
        content = f"By the model: {lead}" if number % 5 else "null"
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        choices = [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
        return behaviours.json_plan({"choices": choices, "usage": usage}, lead=lead)


def knows_first(number: int) -> str:
    """Who of the three knows a lead first: a third each."""
    return ("sync", "bulk", "model")[number % 3]


def modules(**changes: Behaviour) -> dict[str, tuple[ProviderModule, Behaviour]]:
    """A provider that is asked lead by lead, one that takes orders, and a model."""
    strangers = [f"person{n}@a.example" for n in range(1, LEADS + 1) if knows_first(n) == "bulk"]
    strangers += [f"unknown{n}@a.example" for n in range(1, LEADS + 1) if knows_first(n) == "model"]
    played: dict[str, Behaviour] = {
        "sync": Faulty(behaviours.Enrichment(), [Fault(MISS, email, times=99) for email in strangers]),
        "bulk": behaviours.BulkJobs(seconds=600),
        "model": Model(),
        **changes,
    }
    asked = {
        "sync": replace(sync(), not_found=[Signal(status=404)], credits_per_lead=PRICES["sync"]),
        "bulk": replace(bulk(), credits_per_lead=PRICES["bulk"]),
        "model": replace(preset("openai"), auth=None, limits=[], credits_per_lead=PRICES["model"]),
    }
    return {name: (module, played[name]) for name, module in asked.items()}


def prepare(running: Running) -> None:
    """Some are unknown to the provider of orders."""
    for lead, cells in running.leads.cells.items():
        if knows_first(lead) == "model":
            cells["email"] = f"unknown{lead}@a.example"


def found(running: Running, job: JobId) -> dict[int, str]:
    """By whom leads have their result."""
    return {
        int(lead): str(account)
        for (of, lead, account), charge in running.leads.ledger.items()
        if of == job and charge.answer == "result"
    }


def expected(leads: int) -> dict[int, str]:
    return {n: knows_first(n) for n in range(1, leads + 1) if knows_first(n) != "model" or n % 5}


def asked_about(running: Running, name: str) -> Counter[str]:
    """How often a provider was asked about each lead; in orders, how often it was ordered."""
    return Counter(lead for seen in running.log[name] if seen.method == "POST" for lead in seen.who)


def test_a_lead_goes_from_a_provider_to_an_order_to_a_model_until_one_has_a_result() -> None:
    async def main() -> None:
        async with daemon(modules(), leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("sync", "bulk", PROMPT)
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.attempt) == ("completed", 1), ended
            assert found(running, job) == expected(LEADS)
            assert ended.counts.done == len(expected(LEADS))
            assert {each.reason for each in running.leads.results.values() if each.state != "done"} == {
                LeadReason.NOT_FOUND
            }
            assert set(asked_about(running, "sync").values()) == {1}
            assert len(asked_about(running, "sync")) == LEADS
            assert asked_about(running, "bulk") == Counter(dict.fromkeys(emails("bulk", "model"), 1))
            assert asked_about(running, "model") == Counter(dict.fromkeys(emails("model"), 1))
            assert orders(running, "bulk") == 2, "as few as there can be"
            owed = Counter(found(running, job).values())
            spent = Counter[str]()
            for (_, _, account), charge in running.leads.ledger.items():
                spent[account] += charge.credits  # type: ignore[assignment]  # an amount
            assert spent == {name: Decimal(str(PRICES[name])) * owed[name] for name in owed}
            for (_, lead), result in running.leads.results.items():
                if (by := found(running, job).get(lead)) is not None:
                    assert result.cells["found_by"] == by
                if by == "model":
                    assert result.cells["found"] == f"By the model: unknown{lead}@a.example"

    run(main())


def emails(*kinds: str) -> list[str]:
    return [
        f"{'unknown' if knows_first(n) == 'model' else 'person'}{n}@a.example"
        for n in range(1, LEADS + 1)
        if knows_first(n) in kinds
    ]


@pytest.mark.parametrize("seconds", [1, 300, 900])
def test_a_restart_orders_nothing_again_and_asks_nobody_twice_who_has_answered(seconds: int) -> None:
    async def main() -> None:
        async with daemon(modules(), leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("sync", "bulk", PROMPT)
            await running.rest(seconds)
            await running.restart()
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.settled) == ("completed", LEADS), ended
            assert found(running, job) == expected(LEADS)
            for name in running.log:
                again = [count for count in asked_about(running, name).values() if count > 1]
                assert len(again) <= LEADS_AT_ONCE * (seconds == 1), "only what was on its way"
            assert running.leads.kept == {}

    run(main())


def test_what_gathers_is_ordered_by_the_full_order_while_others_are_still_on_their_way() -> None:
    async def main() -> None:
        slow = dict(modules())
        module, behaviour = slow["sync"]
        slow["sync"] = (replace(module, limits=[WindowLimit(10, 60.0)]), behaviour)
        async with daemon(slow, leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("sync", "bulk")
            ended = await running.until(job, "completed", "partial", "failed")
            assert ended.attempt == 1, "no lead had its end for longer than a stall takes, and yet something went on"
            ordered = [seen for seen in running.log["bulk"] if seen.method == "POST"]
            assert [seen.leads for seen in ordered] == [100, 100]
            assert ordered[0].seconds < running.log["sync"][-1].seconds

    run(main())


def test_one_for_orders_may_be_the_only_one() -> None:
    async def main() -> None:
        async with daemon(modules(), leads=50) as running:
            prepare(running)
            ended = await running.until(await running.waterfall("bulk"), "completed", "partial", "failed")
            done = [result for result in running.leads.results.values() if result.state == "done"]
            assert ended.counts.done == len(done) > 0
            assert {result.cells["found_by"] for result in done} == {"bulk"}

    run(main())


def test_who_orders_first_hands_the_rest_on_together() -> None:
    async def main() -> None:
        async with daemon(modules(), leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("bulk", "sync")
            ended = await running.until(job, "completed", "partial", "failed")
            assert ended.counts.done == LEADS - len(emails("model"))
            assert orders(running, "bulk") == 3
            assert asked_about(running, "sync") == Counter(dict.fromkeys(emails("model"), 1))

    run(main())


def test_one_for_orders_that_is_parked_is_passed_over_and_forgets_what_it_has_not_ordered() -> None:
    async def main() -> None:
        gone = behaviours.Exhausted(behaviours.BulkJobs(), calls=0, plan=behaviours.json_plan({}, status=402))
        async with daemon(modules(bulk=gone), leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("sync", "bulk", PROMPT)
            ended = await running.until(job, "completed", "partial", "failed")
            assert ended.counts.settled == LEADS
            assert set(found(running, job).values()) == {"sync", "model"}
            assert {each.reason for each in running.leads.results.values() if each.state == "failed"} == {
                LeadReason.PASSED_OVER
            }
            assert running.leads.kept == {}

    run(main())


def test_leads_that_nobody_else_can_be_asked_about_wait_until_orders_are_taken_again() -> None:
    lacking = {"module": "sync", "inputs": {"email": "found"}, "outputs": {"found": "company"}}

    async def main() -> None:
        gone = Faulty(behaviours.BulkJobs(), [Fault(behaviours.json_plan({}, status=402))])
        async with daemon(modules(bulk=gone), leads=20) as running:
            job = await running.waterfall("bulk", lacking)
            await running.until_waiting(job, JobReason.CREDITS)
            await running.rest(3_600)
            assert (await running.job(job)).counts.settled == 0
            await running.supervisor.dispatcher.tell(PauseSet("provider", "bulk", paused=False))
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done) == ("completed", 20)

    run(main())


@pytest.mark.parametrize("seconds", [1, 30])
def test_a_cancel_ends_who_waits_for_others_and_who_is_ordered(seconds: int) -> None:
    async def main() -> None:
        slow = dict(modules())
        module, behaviour = slow["sync"]
        slow["sync"] = (replace(module, limits=[WindowLimit(100, 600.0)]), behaviour)
        async with daemon(slow, leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("sync", "bulk")
            await running.rest(seconds)
            await running.supervisor.dispatcher.tell(CancelAsked(job))
            await running.rest(70)
            ended = await running.job(job)
            assert ended.state == "cancelled"
            assert orders(running, "bulk") == 0

    run(main())


def test_a_cap_passes_over_orders_that_it_does_not_pay_and_is_not_exceeded() -> None:
    async def main() -> None:
        async with daemon(modules(), leads=LEADS) as running:
            prepare(running)
            job = await running.waterfall("bulk", PROMPT, spend_cap=20.0)
            ended = await running.until(job, "completed", "partial", "failed")
            spent = sum(charge.credits for charge in running.leads.ledger.values())
            assert Decimal(19) < spent <= Decimal(20)
            assert ended.reason is JobReason.SPEND_CAP
            assert ended.counts.settled == LEADS

    run(main())
