"""Every way in which a provider says no, played over real HTTP: who calls afterwards, and when, is in its own log.

Four calls are on their way at a time, so some may arrive while the first no is on its way back: however long that
takes, no more than were out when it came home. From the first no on all are refused, so none of them makes room for
another.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from tests.acceptance.stage import ENDS_WITHIN_SECONDS, POLL_SECONDS, Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Now, Plan, Request, Throttle, json_plan
from tests.world.log import Call, read_clocks
from tests.world.servers import Served

LEADS: Final = 24
ON_ITS_WAY_US: Final = 900_000
"""Nor does one of them arrive later than this, on a machine however busy: no canary is due so soon."""
AT_ONCE: Final = 4
FEW: Final = f'limits = [{{ shape = "concurrent", amount = {AT_ONCE} }}]'
HINT_SECONDS: Final = 2
BLIND_SECONDS: Final = 6.9
"""A provider that names no time refuses the canaries after 1 s and 2 s more, not that after 4 s more."""
BUSY_SECONDS: Final = 5.0
"""By so much may waits come to an end too late on a busy machine, all in all: if each were twice as long, by more."""


class Refuses:
    """Answers `good` calls, then refuses until `seconds` have passed since its first no, and answers again."""

    def __init__(self, plan: Plan | Throttle, *, good: int = 6, seconds: float = HINT_SECONDS) -> None:
        self._plan = plan
        self._left = good
        self._width_us = round(seconds * SECOND)
        self._until: int | None = None

    def respond(self, request: Request, now: Now) -> Plan:
        """The data, or the no."""
        if self._left > 0:
            self._left -= 1
            return behaviours.Enrichment().respond(request, now)
        if self._until is None:
            self._until = now.instant + self._width_us
        if now.instant >= self._until:
            return behaviours.Enrichment().respond(request, now)
        if isinstance(self._plan, Throttle):
            return self._plan.plan(self._until - now.instant, now)
        return self._plan


def header(name: str, value: str, status: int = 429) -> Plan:
    return Plan(status=status, headers={name: value}, body=b"{}", outcome="throttled")


HINTS: Final[Mapping[str, tuple[Plan | Throttle, str]]] = {
    "seconds": (Throttle("seconds"), ""),
    "http_date": (Throttle("http_date"), ""),
    "epoch": (Throttle("epoch"), '[{ header = "x-ratelimit-reset", form = "epoch" }]'),
    "duration": (Throttle("duration"), '[{ header = "x-ratelimit-reset-requests" }]'),
    "duration_long": (header("x-ratelimit-reset-tokens", "0m2s"), '[{ header = "x-ratelimit-reset-tokens" }]'),
    "milliseconds": (header("retry-after-ms", "2000"), '[{ header = "retry-after-ms", form = "milliseconds" }]'),
    "body_field": (Throttle("body_field"), '[{ select = "retry_after" }]'),
    "by_403": (Throttle("seconds", status=403), ""),
    "by_200": (
        Throttle("body_field", status=200, body={"status": "throttle_triggered"}),
        '[{ select = "retry_after" }]',
    ),
}
"""How it names the time, and how its module reads that."""

SIGNALS: Final = {
    "by_403": "throttled = [{ status = 403 }]",
    "by_200": 'throttled = [{ select = "status", equals = "throttle_triggered" }]',
    "hunter": "throttled = [{ status = 403 }]\nquota_gone = [{ status = 429 }]",
    "findymail": 'quota_gone = [{ select = "error", equals = "Not enough credits" }]',
    "openai": 'quota_gone = [{ status = 429, select = "error.code", equals = "insufficient_quota" }]',
    "neverbounce": 'invalid_key = [{ select = "status", equals = "auth_failure" }]',
    "explorium": "quota_gone = [{ status = 403 }]",
}

UNREADABLE: Final[Mapping[str, Plan | Throttle]] = {
    "none": Throttle("none"),
    "garbage": Throttle("garbage"),
    "negative": header("retry-after", "-5"),
    "past": header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
    "zero": header("retry-after", "0"),
}

QUOTAS: Final[Mapping[str, Plan]] = {
    "payment": json_plan({}, status=402, outcome="quota"),
    "hunter": json_plan({}, status=429, outcome="quota"),
    "findymail": json_plan({"error": "Not enough credits"}, outcome="quota"),
    "openai": behaviours.OPENAI_QUOTA,
    "explorium": json_plan({}, status=403, outcome="quota"),
}

KEYS: Final[Mapping[str, Plan]] = {
    "unauthorized": json_plan({}, status=401, outcome="key"),
    "neverbounce": json_plan({"status": "auth_failure"}, outcome="key"),
}

MODULE: Final = """
name = "{name}"
base_url = "http://127.0.0.1"
inputs = ["email"]
{signals}
{hints}
[request]
path = "/company"
body = {{ email = "{{{{email}}}}" }}
[response.columns]
company = {{ select = "data.company" }}
"""


@pytest.fixture(scope="module")
def served(world: World) -> dict[str, Served]:
    plans = {
        **{f"hint_{name}": Refuses(plan) for name, (plan, _) in HINTS.items()},
        **{f"blind_{name}": Refuses(plan, seconds=BLIND_SECONDS) for name, plan in UNREADABLE.items()},
        **{f"quota_{name}": Refuses(plan, seconds=10**6) for name, plan in QUOTAS.items()},
        **{f"key_{name}": Refuses(plan, seconds=10**6) for name, plan in KEYS.items()},
        "absurd": Refuses(Throttle("absurd"), seconds=10**6),
    }
    return {name: world.serve(plan, name=name) for name, plan in plans.items()}


@pytest.fixture(scope="module")
def daemon(served: dict[str, Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("modules")
    parts = []
    for name, each in served.items():
        kind = name.partition("_")[2]
        hints = HINTS[kind][1] if name.startswith("hint_") else ""
        text = MODULE.format(name=name, signals=SIGNALS.get(kind, ""), hints=f"hints = {hints}" if hints else "")
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        parts.append(provider(name, each, module=str(folder / name), settings=[FEW]))
    with stage("".join(parts)) as running:
        yield running


def submit(daemon: Stage, name: str, *teamspaces: str) -> list[JobId]:
    for teamspace in teamspaces:
        daemon.table(f"{name}-{teamspace}", "people", people(LEADS // len(teamspaces)))
    submissions = [
        wire.Enrich(teamspace=f"{name}-{each}", table="people", module=name, into={"company": "text"})
        for each in teamspaces
    ]
    return [daemon.submit(submission).job for submission in submissions]


def until_none_is_out(daemon: Stage, name: str) -> None:
    """Wait until a provider owes nobody an answer."""
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while daemon.ask(wire.Providers(name=name)).providers[0].in_flight:
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def refused(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.outcome not in ("ok", "open")]


@pytest.mark.parametrize("name", HINTS)
def test_nobody_calls_before_the_hint_and_then_exactly_one_canary(
    daemon: Stage, served: dict[str, Served], name: str
) -> None:
    jobs = submit(daemon, f"hint_{name}", "a", "b")
    for job in jobs:
        assert daemon.ended(job).counts.done == LEADS // 2
    calls = served[f"hint_{name}"].calls
    first = refused(calls)[0]
    until_us = first.arrived_us + (HINT_SECONDS - (name == "http_date")) * SECOND  # a date has whole seconds
    between = [call for call in calls if first.arrived_us <= call.arrived_us < until_us]
    assert len(between) <= AT_ONCE
    assert between[-1].arrived_us <= first.arrived_us + ON_ITS_WAY_US
    after = sorted((call for call in calls if call.arrived_us >= until_us), key=lambda call: call.arrived_us)
    canary = after[0]
    assert canary.body_sent_us is not None
    assert [call for call in after[1:] if call.arrived_us < canary.body_sent_us] == []
    assert len(calls) - len(refused(calls)) == LEADS, "being thrown back is no try, and nobody is asked twice"


@pytest.mark.parametrize("name", UNREADABLE)
def test_without_a_hint_that_makes_sense_each_canary_is_one_call_after_twice_as_long(
    daemon: Stage, served: dict[str, Served], name: str
) -> None:
    provider_name = f"blind_{name}"
    jobs = submit(daemon, provider_name, "a", "b")
    calls = served[provider_name].calls
    seen: list[wire.ProviderView] = []
    while not all(daemon.view(job).state in wire.ENDED_STATES for job in jobs):
        seen += daemon.ask(wire.Providers(name=provider_name)).providers
    *together, second, third = refused(calls)
    last = next(call for call in calls if call.arrived_us > third.arrived_us)
    assert 1 <= len(together) <= AT_ONCE
    assert together[-1].arrived_us <= together[0].arrived_us + ON_ITS_WAY_US, "the canary comes alone"
    turns = [together[0], second, third, last]
    waits = [(after.arrived_us - before.arrived_us) / SECOND for before, after in pairwise(turns)]
    assert all(wait >= least - 0.01 for wait, least in zip(waits, (1, 2, 4), strict=True)), waits
    assert sum(waits) <= 1 + 2 + 4 + BUSY_SECONDS, waits
    assert max(view.refusals for view in seen) == 3
    assert {view.reason for view in seen if view.refusals > 1} == {JobReason.CIRCUIT}
    assert any("though its limits were kept" in (view.message or "") for view in seen)
    assert all(daemon.view(job).counts.done == LEADS // 2 for job in jobs)


def test_a_hint_beyond_all_reason_is_cut_and_shown(daemon: Stage, served: dict[str, Served]) -> None:
    (job,) = submit(daemon, "absurd", "a")
    back = daemon.until(  # in the queue again, so none of its calls is out
        job, lambda view: view.state == "queued" and [wait.reason for wait in view.waits] == [JobReason.RETRY_AFTER]
    )
    (view,) = daemon.ask(wire.Providers(name="absurd")).providers
    (wait,) = back.waits
    assert wait.until == view.throttled_until
    assert view.throttled_until is not None
    first = refused(served["absurd"].calls)[0]
    assert 3_590 <= view.throttled_until.timestamp() - first.arrived_wall_us / SECOND <= 3_610
    daemon.ask(wire.Cancel(job=job))


@pytest.mark.parametrize("name", QUOTAS)
def test_after_a_used_up_quota_nobody_calls_and_nobody_fails(
    daemon: Stage, served: dict[str, Served], name: str
) -> None:
    provider_name = f"quota_{name}"
    jobs = submit(daemon, provider_name, "a", "b")
    for job in jobs:
        daemon.until(job, lambda view: JobReason.CREDITS in {wait.reason for wait in view.waits})
    until_none_is_out(daemon, provider_name)
    calls = served[provider_name].calls
    assert len(refused(calls)) <= AT_ONCE
    assert all(daemon.view(job).counts.failed == 0 for job in jobs)
    (view,) = daemon.ask(wire.Providers(name=provider_name)).providers
    assert (view.state, view.reason) == ("parked", JobReason.CREDITS)
    before = len(calls)
    daemon.ask(wire.Resume(scope="provider", name=provider_name))
    daemon.until(jobs[0], lambda _: len(calls) > before)
    until_none_is_out(daemon, provider_name)
    daemon.until(jobs[0], lambda view: JobReason.CREDITS in {wait.reason for wait in view.waits})
    assert len(calls) == before + 1, "exactly one canary after a person has resumed it"
    for job in jobs:
        daemon.ask(wire.Cancel(job=job))


@pytest.mark.parametrize("name", KEYS)
def test_after_a_refused_key_the_job_fails_and_nobody_calls(
    daemon: Stage, served: dict[str, Served], name: str
) -> None:
    provider_name = f"key_{name}"
    jobs = submit(daemon, provider_name, "a", "b")
    for job in jobs:
        view = daemon.ended(job)
        assert (view.state, view.reason) == ("failed", JobReason.INVALID_KEY)
    assert 1 <= len(refused(served[provider_name].calls)) <= AT_ONCE


def test_what_is_shown_of_a_provider_says_who_waits_for_what_and_whose_turn_it_is(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="shown")
    limit = 'limits = [{ shape = "window", amount = 3, per_seconds = 600 }]'
    with stage(provider("shown", served, settings=[limit])) as daemon:
        for teamspace, leads in (("a", 5), ("b", 4)):
            daemon.table(teamspace, "people", people(leads))
            daemon.submit(wire.Enrich(teamspace=teamspace, table="people", module="shown", into={"company": "text"}))
        daemon.until(JobId(2), lambda view: view.counts.done == 3 and bool(view.waits))
        daemon.until(JobId(4), lambda view: bool(view.waits))
        (view,) = daemon.ask(wire.Providers(name="shown")).providers
        seen_wall = read_clocks().wall
        (shown,) = view.limits
        assert (shown.amount, shown.charged, view.in_flight) == (3, 3, 0)
        assert (view.waiting, view.waiting_teamspaces) == (6, 2)
        assert sum(view.waiting_by.values()) == 6
        assert view.next in view.waiting_by
        first = min(call.arrived_wall_us for call in served.calls)
        assert shown.frees_at is not None
        frees = shown.frees_at.timestamp() - 600
        assert first / SECOND - 0.1 <= frees <= seen_wall / SECOND, "but for what two clocks differ"
        text = daemon.leadline("providers", "shown").stdout
        assert "3 of 3 requests in any 600 s, the next frees" in text or "3 of 3 requests in any 10 min" in text
        assert f"6 calls of 2 teamspaces, next {view.next}" in text
