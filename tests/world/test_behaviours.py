"""Providers are tried on virtual time: an hour of calls costs nothing."""

import json
import math
from email.utils import parsedate_to_datetime

import pytest

from tests.world import behaviours as world
from tests.world.behaviours import SECOND, Behaviour, Fault, Now, Plan, Request, Throttle, Window
from tests.world.windows import worst_window

WALL = 1_800_000_007 * SECOND  # seven seconds into a clock minute


def at(seconds: float) -> Now:
    instant = round(seconds * SECOND)
    return Now(instant=instant, wall=WALL + instant)


def about(lead: str = "ada@north.example", **fields: str) -> Request:
    return Request("POST", "/find", body=json.dumps({"email": lead, **fields}).encode())


def document(plan: Plan) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(plan.body)
    return decoded


def prompt(text: str, path: str = "/v1/chat/completions") -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "user": "acme"}
    return Request("POST", path, headers={"authorization": "Bearer right"}, body=json.dumps(body).encode())


def answer(plan: Plan) -> str:
    content: str = json.loads(plan.body)["choices"][0]["message"]["content"]
    return content


# --- who is asked about -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        about("Ada@North.example"),
        Request("GET", "/find", query={"email": "ADA@north.example"}),
        Request("POST", "/find", body=b"email=ada%40north.example&x=1"),
        Request("POST", "/find", body=json.dumps({"text": "é\nada@north.example\n次"}).encode()),
    ],
)
def test_a_lead_is_found_wherever_its_address_stands(request_: Request) -> None:
    assert request_.leads == ("ada@north.example",)


def test_a_request_says_whom_it_is_for_by_header_or_by_body() -> None:
    assert Request("GET", "/", headers={"x-teamspace": "acme"}).teamspace == "acme"
    assert about(teamspace="beta").teamspace == "beta"
    assert prompt("hello").teamspace == "acme"
    assert about().teamspace is None


# --- limits -----------------------------------------------------------------------------------------------------------


def hammered(provider: Behaviour, *, every_seconds: float, until: int, request: Request | None = None) -> list[int]:
    """The instants of the calls that were let through when one comes every so often."""
    instants = (round(n * every_seconds * SECOND) for n in range(math.ceil(until / every_seconds)))
    nows = (Now(instant, WALL + instant) for instant in instants)
    return [now.instant for now in nows if provider.respond(request or about(), now).outcome != "throttled"]


def test_an_enforced_sliding_window_lets_exactly_its_amount_through_in_the_worst_window() -> None:
    accepted = hammered(world.Limited(world.Enrichment(), Window(15, 60)), every_seconds=0.7, until=600)
    assert worst_window(accepted, 60) == 15


def test_an_aligned_window_allows_twice_its_amount_over_a_clock_minutes_edge() -> None:
    provider = world.Limited(world.Enrichment(), Window(60, 60, aligned=True))
    edge = 60 - (WALL // SECOND) % 60
    before, after = (
        [provider.respond(about(), at(edge - 1)) for _ in range(61)],
        [provider.respond(about(), at(edge)) for _ in range(61)],
    )
    assert [plan.status for plan in before + after].count(200) == 120
    assert before[-1].status == after[-1].status == 429


def test_a_refused_request_is_welcome_exactly_when_its_hint_says() -> None:
    provider = world.Limited(world.Enrichment(), Window(1, 60))
    assert provider.respond(about(), at(0.5)).status == 200
    refused = provider.respond(about(), at(20.5))
    assert (refused.status, refused.headers["retry-after"]) == (429, "40")
    assert provider.respond(about(), at(60.4)).status == 429
    assert provider.respond(about(), at(60.5)).status == 200


def test_several_windows_bind_at_once_and_a_refusal_charges_none_of_them() -> None:
    provider = world.Limited(world.Enrichment(), Window(2, 1), Window(3, 60))
    statuses = [provider.respond(about(), at(seconds)).status for seconds in (0, 0, 0, 1, 2)]
    assert statuses == [200, 200, 429, 200, 429]


def test_a_window_in_leads_charges_the_first_request_and_never_a_poll() -> None:
    provider = world.Limited(world.Polling(seconds=5), Window(15, 60, "lead"), Window(60, 60))
    started = [provider.respond(about(f"l{n}@x.example"), at(n / 100)) for n in range(16)]
    assert [plan.outcome for plan in started] == ["started"] * 15 + ["throttled"]
    polls = [Request("GET", "/result", query={"task_hash": str(started[0].notes["task_hash"])}) for _ in range(46)]
    assert [provider.respond(poll, at(1)).outcome for poll in polls] == ["in_progress"] * 45 + ["throttled"]


def test_a_silent_limit_lets_all_through_and_notes_what_was_too_much() -> None:
    provider = world.Limited(world.Enrichment(), Window(15, 60), enforce=False)
    plans = [provider.respond(about(), at(n)) for n in range(20)]
    assert {plan.status for plan in plans} == {200}
    assert [n for n, plan in enumerate(plans) if "over_limit" in plan.notes] == [15, 16, 17, 18, 19]


def test_every_shape_of_hint_says_the_same_moment() -> None:
    def refused(hint: world.Hint) -> Plan:
        return Throttle(hint).plan(61 * SECOND + 1, at(0))

    assert refused("seconds").headers["retry-after"] == "62"
    date = parsedate_to_datetime(refused("http_date").headers["retry-after"])
    assert date.timestamp() == WALL // SECOND + 62
    assert refused("epoch").headers["x-ratelimit-reset"] == str(WALL // SECOND + 62)
    assert refused("duration").headers["x-ratelimit-reset-requests"] == "1m2s"
    assert document(refused("body_field"))["retry_after"] == 62
    assert set(refused("none").headers) == {"content-type"}
    assert not refused("garbage").headers["retry-after"].isdigit()
    assert int(refused("absurd").headers["retry-after"]) > 10**9


def test_too_fast_can_be_a_403_or_a_success_that_says_no() -> None:
    hunter = Throttle("none", status=403, body={"errors": [{"id": "too_many_requests"}]})
    neverbounce = Throttle("none", status=200, body={"status": "throttle_triggered"})
    for throttle in (hunter, neverbounce):
        provider = world.Limited(world.Enrichment(), Window(1, 1), throttle=throttle)
        provider.respond(about(), at(0))
        plan = provider.respond(about(), at(0))
        assert (plan.status, plan.outcome, document(plan)) == (throttle.status, "throttled", throttle.body)


def test_a_spent_balance_is_the_end_and_failures_cost_nothing() -> None:
    broken_once = world.Faulty(world.Enrichment(), [Fault(world.server_error(500))])
    provider = world.Exhausted(broken_once, calls=2, plan=world.OPENAI_QUOTA)
    assert [provider.respond(about(), at(n)).status for n in range(5)] == [500, 200, 200, 429, 429]


# --- what is sold -----------------------------------------------------------------------------------------------------


def test_the_same_lead_has_the_same_company_whatever_the_case_of_its_address() -> None:
    one, other = (document(world.Enrichment().respond(about(lead), at(0))) for lead in ("A@X.example", "a@x.EXAMPLE"))
    assert one == other
    assert world.Enrichment().respond(Request("POST", "/find", body=b"{}"), at(0)).status == 400


def test_a_task_is_in_progress_until_its_time_has_come() -> None:
    provider = world.Polling(seconds=2.0)
    task_hash = str(document(provider.respond(about(), at(0)))["task_hash"])
    early = provider.respond(Request("GET", f"/result/{task_hash}"), at(1.999_999))
    late = provider.respond(Request("GET", "/result", query={"task_hash": task_hash}), at(2))
    assert (early.outcome, late.outcome) == ("in_progress", "completed")
    assert early.lead == late.lead == "ada@north.example"
    assert document(late)["data"] == world.company_of("ada@north.example")


def test_a_task_is_in_progress_for_its_number_of_polls() -> None:
    provider = world.Polling(polls=2)
    poll = Request("GET", "/result", query={"task_hash": str(provider.respond(about(), at(0)).notes["task_hash"])})
    assert [provider.respond(poll, at(0)).outcome for _ in range(3)] == ["in_progress", "in_progress", "completed"]
    assert provider.respond(Request("GET", "/result/none"), at(0)).status == 404


def test_every_start_is_a_task_of_its_own() -> None:
    provider = world.Polling()
    hashes = {provider.respond(about(), at(0)).notes["task_hash"] for _ in range(100)}
    assert len(hashes) == 100


def test_a_score_is_a_whole_number_that_depends_on_the_lead_alone() -> None:
    ai = world.ChatCompletions()
    one = ai.respond(prompt("Score this lead 1-10: Ada <ada@north.example>"), at(0))
    other = ai.respond(prompt("Which score, from 1 to 10, has ADA@north.example?"), at(9))
    assert answer(one) == answer(other) == str(world.score_of("ada@north.example"))
    assert (one.lead, one.notes) == ("ada@north.example", {"task": "score", "score": int(answer(one))})


def test_scores_are_spread_over_one_to_ten() -> None:
    scores = [world.score_of(f"lead{n}@x.example") for n in range(10_000)]
    assert set(scores) == set(range(1, 11))
    assert 3_800 <= sum(score >= 7 for score in scores) <= 4_200


def test_a_prompt_to_personalise_gets_a_line_even_if_it_mentions_the_score() -> None:
    plan = world.ChatCompletions().respond(prompt("Personalise a line for ada@north.example (score 9)"), at(0))
    assert answer(plan) == world.line_of("ada@north.example") == plan.notes["line"]
    assert json.loads(plan.body)["usage"]["total_tokens"] > 2


def test_a_wrong_key_is_refused_before_anything_else() -> None:
    ai = world.Authorized(world.Exhausted(world.ChatCompletions(), calls=1, plan=world.OPENAI_QUOTA), "right")
    wrong = Request("POST", "/v1/chat/completions", headers={"authorization": "Bearer wrong"})
    assert [ai.respond(wrong, at(0)).outcome for _ in range(2)] == ["invalid_api_key"] * 2
    assert ai.respond(prompt("Score a@x.example"), at(0)).status == 200
    assert Request("GET", "/", headers={"x-api-key": "k"}).credential == "k"


def test_slow_down_and_pay_first_are_both_429_and_differ_in_their_code() -> None:
    limited = world.Limited(world.ChatCompletions(), Window(1, 60), throttle=world.OPENAI_THROTTLE)
    limited.respond(prompt("Score"), at(0))
    slow_down, pay_first = limited.respond(prompt("Score"), at(0)), world.OPENAI_QUOTA
    codes = [json.loads(plan.body)["error"]["code"] for plan in (slow_down, pay_first)]
    assert codes == ["rate_limit_exceeded", "insufficient_quota"]
    assert slow_down.status == pay_first.status == 429


def test_completions_are_sold_at_one_address_only() -> None:
    assert world.ChatCompletions().respond(prompt("Score", path="/v1/completions"), at(0)).status == 404
    assert world.ChatCompletions().respond(Request("POST", "/v1/chat/completions"), at(0)).status == 400


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_fault_strikes_its_lead_the_first_times_and_nobody_else() -> None:
    provider = world.Faulty(world.Enrichment(), [Fault(world.hang(), "Stuck@x.example", times=2)])
    leads = ["a@x.example", "stuck@x.example", "b@x.example", "stuck@x.example", "stuck@x.example"]
    assert [provider.respond(about(lead), at(0)).outcome for lead in leads] == ["ok", "hang", "ok", "hang", "ok"]


def test_faults_for_anyone_strike_the_first_calls_in_their_order() -> None:
    faults = [Fault(world.server_error(), times=3), Fault(world.invalid_json()), Fault(world.redirect("http://[::1]/"))]
    provider = world.Faulty(world.Enrichment(), faults)
    outcomes = [provider.respond(about(), at(0)).outcome for _ in range(6)]
    assert outcomes == ["server_error"] * 3 + ["invalid_json", "redirect", "ok"]


def test_the_broken_answers_are_broken_as_they_say() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(world.invalid_json().body)
    huge = world.huge_body(10_000_000_000)
    assert 9_999_900_000 < len(huge.body) * huge.repeat <= 10_000_000_000
    assert world.redirect("http://10.0.0.1/").headers["location"] == "http://10.0.0.1/"
    assert world.cut(in_body=True).stop == "cut_in_body"
    assert world.dripping(Plan(body=b"slow"), gap_seconds=10).drip == world.Drip(1, 10 * SECOND)


def test_latency_is_drawn_from_its_seed_and_not_from_what_else_goes_on() -> None:
    def delays(leads: list[str], seed: int) -> dict[str, int]:
        provider = world.Delayed(world.Enrichment(), median_us=50_000, seed=seed)
        return {lead: provider.respond(about(lead), at(0)).delay_us for lead in leads}

    leads = [f"l{n}@x.example" for n in range(1_000)]
    assert delays(leads, 1) == delays(leads[::-1], 1) != delays(leads, 2)
    drawn = sorted(delays(leads, 1).values())
    assert 45_000 < drawn[500] < 55_000
    assert 80_000 < drawn[900] < 110_000  # e ** (1.28 * 0.5) = 1.9 times the median


def test_a_repeated_question_takes_another_time_and_never_more_than_the_bound() -> None:
    provider = world.Delayed(world.Enrichment(), median_us=SECOND, sigma=3.0, max_us=2 * SECOND)
    drawn = [provider.respond(about(), at(0)).delay_us for _ in range(100)]
    assert len(set(drawn)) > 10
    assert max(drawn) == 2 * SECOND
    assert world.Delayed(world.Enrichment(), median_us=7, sigma=0).respond(about(), at(0)).delay_us == 7
