"""Every shape of limit that providers are known for, played on virtual time and judged by the provider's own log.

Two things hold of each: no window that the provider counts ever holds more than it allows, wherever one begins to look;
and after it has said that there is nothing left, nobody calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from leadline.core.rate_limit import Unit, WindowLimit
from leadline.features.tables.provider_modules import ProviderModule, preset, read_module
from leadline_protocol.errors import JobReason
from tests.features.tables.virtual import START, Running, Seen, daemon, run
from tests.world import behaviours as world
from tests.world.behaviours import SECOND, Behaviour, Now, Plan, Request, Throttle, Window
from tests.world.windows import worst_window

MODULES: Final = Path(__file__).parent / "modules"
HOUR, DAY, MONTH = 3_600, 86_400, 30 * 86_400


def module(name: str, **changes: Any) -> ProviderModule:
    """A module of tests/world, without a key."""
    read = read_module((MODULES / f"{name}.toml").read_text(), file=f"{name}.toml")
    return replace(read, auth=None, **changes)


def shipped(name: str) -> ProviderModule:
    """A preset, without a key."""
    return replace(preset(name), auth=None)


async def enriched(
    running: Running, name: str, teamspaces: Sequence[str] = ("a", "b"), output: str = "company"
) -> None:
    """Every lead of every teamspace has its result in the end, by one attempt after the other."""
    jobs = [await running.submit(name, teamspace, output=output) for teamspace in teamspaces]
    for job in jobs:
        ended = await running.until(job, "completed", "partial", "failed")
        assert (ended.state, ended.counts.done) == ("completed", len(running.leads.cells)), ended


def outcomes(log: Iterable[Seen]) -> set[str]:
    return {seen.plan.outcome for seen in log}


def worst(log: Iterable[Seen], seconds: float, *, by_lead: bool = False) -> int:
    """What the worst window of the log holds, in requests or in leads."""
    times = [round(seen.seconds * SECOND) for seen in log for _ in range(seen.leads if by_lead else 1)]
    return worst_window(times, seconds)


class Explorium:
    """One call for up to fifty, counted by entities."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The data of each."""
        records: Any = request.document["records"]
        found = [{"id": each["id"], "data": world.company_of(each["email"])} for each in records]
        return world.json_plan({"data": found})


class Crowded:
    """Refuses every fifth call, in turn with each of these refusals, as if others used the account too."""

    def __init__(self, inner: Behaviour, *refusals: Plan) -> None:
        self._inner, self._refusals = inner, refusals
        self._calls = 0
        self.until: list[tuple[int, int]] = []
        """When it refused, and until when it wants to be left alone; microseconds."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal, or the inner answer."""
        self._calls += 1
        if self._calls % 5:
            return self._inner.respond(request, now)
        plan = self._refusals[len(self.until) % len(self._refusals)]
        seconds = int(plan.notes["seconds"])
        self.until.append((now.instant, now.instant + seconds * SECOND))
        if "x-ratelimit-reset" in plan.headers:
            reset = str(-(-now.wall // SECOND) + seconds)
            return replace(plan, headers={**plan.headers, "x-ratelimit-reset": reset})
        return plan


def refusal(body: Mapping[str, object], seconds: int, **headers: str) -> Plan:
    plan = world.json_plan(body, status=429, outcome="throttled", notes={"seconds": seconds})
    return replace(plan, headers={**plan.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})


def test_explorium_counts_entities_however_they_are_batched() -> None:
    async def main() -> None:
        limited = world.Limited(Explorium(), Window(200, 60, "lead"))
        async with daemon({"explorium": (module("explorium"), limited)}, leads=625) as running:
            await enriched(running, "explorium")
            log = running.log["explorium"]
            assert outcomes(log) == {"ok"}
            assert worst(log, 60, by_lead=True) == 200
            assert max(seen.leads for seen in log) == 50
            assert log[-1].seconds < 8 * 60, "as fast as is allowed"

    run(main())


def test_explorium_says_in_two_ways_how_long_to_wait_and_both_are_heard() -> None:
    async def main() -> None:
        crowded = Crowded(
            Explorium(),
            refusal({"error": "rate_limit_exceeded", "retry_after": 20}, 20),
            refusal({"detail": {"message": "Too Many Requests", "retry_after": 45}}, 45),
        )
        async with daemon({"explorium": (module("explorium"), crowded)}, leads=500) as running:
            await enriched(running, "explorium")
            left_alone(running.log["explorium"], crowded)

    run(main())


def left_alone(log: Sequence[Seen], crowded: Crowded) -> None:
    """After each refusal nobody came before the time that it named, but for what was on its way."""
    assert len(crowded.until) >= 4
    times = [START + seen.seconds * SECOND for seen in log]
    for refused, until in crowded.until:
        assert not [at for at in times if refused + SECOND / 2 < at < until]


def test_explorium_without_credits_is_asked_no_more() -> None:
    async def main() -> None:
        spent = world.Exhausted(Explorium(), calls=4, plan=world.json_plan({}, status=403, outcome="credits"))
        async with daemon({"explorium": (module("explorium"), spent)}, leads=600) as running:
            jobs = [await running.submit("explorium", each) for each in ("a", "b")]
            for job in jobs:
                await running.until_waiting(job, JobReason.CREDITS)
            await running.rest(DAY)
            log = running.log["explorium"]
            refused = [seen.seconds for seen in log if seen.plan.outcome == "credits"]
            assert log[-1].seconds - refused[0] < 0.5, "what was on its way, and nothing after that for a day"

    run(main())


def test_icypeas_is_read_no_faster_than_it_allows_whatever_it_takes_in() -> None:
    async def main() -> None:
        jobs = world.BulkJobs(seconds=30, page=10)
        split = world.ByMethod(POST=world.Limited(jobs, Window(1, 1)), GET=world.Limited(jobs, Window(30, 60)))
        async with daemon({"icypeas": (module("icypeas"), split)}, leads=400) as running:
            await enriched(running, "icypeas")
            log = running.log["icypeas"]
            assert "throttled" not in outcomes(log)
            assert worst((seen for seen in log if seen.method == "POST"), 1) == 1
            assert worst((seen for seen in log if seen.method == "GET"), 60) == 30

    run(main())


def test_kickbox_has_so_many_calls_in_flight_and_no_more() -> None:
    async def main() -> None:
        slow = world.Delayed(world.Enrichment(), median_us=2 * SECOND, seed=1)
        flying = world.InFlight(slow, 25)
        async with daemon({"kickbox": (module("kickbox"), flying)}, leads=300) as running:
            await enriched(running, "kickbox")
            assert (outcomes(running.log["kickbox"]), flying.worst) == ({"ok"}, 25)

    run(main())


def test_kickbox_turns_some_away_because_of_a_neighbour_and_all_are_done_all_the_same() -> None:
    async def main() -> None:
        slow = world.Delayed(world.Enrichment(), median_us=2 * SECOND, seed=1)
        async with daemon({"kickbox": (module("kickbox"), world.InFlight(slow, 20))}, leads=100) as running:
            await enriched(running, "kickbox")

    run(main())


@pytest.mark.parametrize("seconds", [0, 30, 59])
def test_a_minute_of_the_clock_is_kept_wherever_in_it_one_begins(seconds: int) -> None:
    async def main() -> None:
        limits = [WindowLimit(80, 60.0)]
        limited = world.Limited(world.Enrichment(), Window(80, 60, aligned=True))
        async with daemon({"kickbox": (module("kickbox", limits=limits), limited)}, leads=150) as running:
            await running.rest(seconds)
            await enriched(running, "kickbox")
            log = running.log["kickbox"]
            assert outcomes(log) == {"ok"}
            assert worst(log, 60) == 80

    run(main())


def test_rocketreach_binds_the_second_the_minute_the_hour_the_day_and_the_month() -> None:
    async def main() -> None:
        windows = [Window(10, 1), Window(15, 60), Window(50, HOUR), Window(100, DAY), Window(250, MONTH)]
        limited = world.Limited(world.Enrichment(), *windows)
        async with daemon({"rocketreach": (module("rocketreach"), limited)}, leads=140) as running:
            await enriched(running, "rocketreach")
            log = running.log["rocketreach"]
            assert outcomes(log) == {"ok"}
            assert [worst(log, each.seconds) for each in windows] == [10, 15, 50, 100, 250]
            assert MONTH < log[-1].seconds < MONTH + DAY

    run(main())


def test_dropcontact_takes_250_at_a_time_and_answers_in_their_order() -> None:
    async def main() -> None:
        def words(request: Request, document: dict[str, Any]) -> object:
            if request.method == "POST":
                return {"request_id": document["id"], "success": True}
            if "results" not in document:
                return {"success": False, "reason": "Request not ready yet"}
            return {"success": True, "data": [{"data": each["data"]} for each in document["results"]]}

        spoken = world.Spoken(world.BulkJobs(seconds=100), words)
        limited = world.Limited(spoken, Window(60, 1))
        async with daemon({"dropcontact": (module("dropcontact"), limited)}, leads=600) as running:
            await enriched(running, "dropcontact")
            log = running.log["dropcontact"]
            assert sorted(seen.leads for seen in log if seen.method == "POST") == [100, 100, 250, 250, 250, 250]
            polls: dict[object, list[float]] = {}
            for seen in log:
                if seen.method == "GET":
                    polls.setdefault(seen.plan.notes["job"], []).append(seen.seconds)
            assert all(later - before >= 30 for times in polls.values() for before, later in pairwise(times))
            assert worst(log, 1) <= 60
            for (_, lead), result in running.leads.results.items():
                assert result.cells["found"] == world.company_of(str(running.leads.cells[lead]["email"]))["company"]

    run(main())


def test_smartlead_binds_three_windows_at_once() -> None:
    async def main() -> None:
        windows = [Window(10, 1), Window(60, 60), Window(1_000, HOUR)]
        limited = world.Limited(world.Enrichment(), *windows)
        async with daemon({"smartlead": (module("smartlead"), limited)}, leads=700) as running:
            await enriched(running, "smartlead")
            log = running.log["smartlead"]
            assert outcomes(log) == {"ok"}
            assert [worst(log, each.seconds) for each in windows] == [10, 60, 1_000]

    run(main())


def test_smartlead_names_the_wait_in_the_body_or_its_end_in_a_header() -> None:
    async def main() -> None:
        crowded = Crowded(
            world.Enrichment(),
            refusal({"error": {"code": "RATE_LIMIT", "retry_after": 12}}, 12),
            refusal({"error": {"code": "RATE_LIMIT"}}, 30, x_ratelimit_reset="0"),
        )
        async with daemon({"smartlead": (module("smartlead"), crowded)}, leads=60) as running:
            await enriched(running, "smartlead")
            left_alone(running.log["smartlead"], crowded)

    run(main())


def test_leadsquared_binds_calls_and_of_them_bulk_calls() -> None:
    async def main() -> None:
        jobs = world.BulkJobs(seconds=3)
        limited = world.Limited(world.ByMethod(POST=world.Limited(jobs, Window(5, 5)), GET=jobs), Window(10, 5))
        async with daemon({"leadsquared": (module("leadsquared"), limited)}, leads=500) as running:
            await enriched(running, "leadsquared")
            log = running.log["leadsquared"]
            assert "throttled" not in outcomes(log)
            assert worst(log, 5) == 10
            assert worst((seen for seen in log if seen.method == "POST"), 5) == 5

    run(main())


# The presets, as they are shipped.


class FullEnrich:
    """Takes contacts, and has their addresses half a minute later."""

    def __init__(self) -> None:
        self._orders: dict[str, tuple[list[Any], int]] = {}

    def respond(self, request: Request, now: Now) -> Plan:
        """A new order for a POST, the state of a known one, with its results, for a GET."""
        if request.method == "POST":
            contacts: Any = request.document["data"]
            name = f"order-{len(self._orders)}"
            self._orders[name] = (contacts, now.instant + 30 * SECOND)
            return world.json_plan({"enrichment_id": name})
        contacts, ready = self._orders[request.path.rpartition("/")[2]]
        if now.instant < ready:
            return world.json_plan({"status": "IN_PROGRESS"})
        found = [
            {
                "custom": each["custom"],
                "contact_info": {"most_probable_work_email": {"email": each["last_name"], "status": "DELIVERABLE"}},
            }
            for each in contacts
        ]
        return world.json_plan({"status": "FINISHED", "data": found})


class NeverBounce:
    """Verifies lists, ten at a time, and says in the body of a 200 that it was asked too fast."""

    def __init__(self) -> None:
        self._jobs: list[tuple[list[Any], int]] = []
        self.open_worst = 0

    def respond(self, request: Request, now: Now) -> Plan:
        """A new job, its state, or a page of its results."""
        if request.method == "POST":
            addresses: Any = request.document["input"]
            self._jobs.append((addresses, now.instant + 600 * SECOND))
            self.open_worst = max(self.open_worst, sum(ready > now.instant for _, ready in self._jobs))
            return world.json_plan({"status": "success", "job_id": len(self._jobs) - 1}, outcome="job")
        addresses, ready = self._jobs[int(request.query["job_id"])]
        if request.path.endswith("status"):
            state = "running" if now.instant < ready else "complete"
            return world.json_plan({"status": "success", "job_status": state})
        size = int(request.query["items_per_page"])
        page = addresses[(int(request.query["page"]) - 1) * size :][:size]
        results = [{"data": each, "verification": {"result": "valid"}} for each in page]
        pages = -(-len(addresses) // size)
        return world.json_plan({"status": "success", "total_pages": pages, "results": results})


def hunter(_: Request, document: dict[str, Any]) -> object:
    return {"data": {"email": document["email"], "score": 90}}


def apollo(_: Request, document: dict[str, Any]) -> object:
    return {"person": {"first_name": "Ada", "organization": {"name": document["data"]["company"]}}}


def prospeo(_: Request, document: dict[str, Any]) -> object:
    return {"error": False, "person": {"email": {"email": document["email"]}}}


def findymail(_: Request, document: dict[str, Any]) -> object:
    return {"contact": {"email": document["email"]}}


def leadmagic(_: Request, document: dict[str, Any]) -> object:
    return {"email": document["email"], "status": "valid"}


def peopledatalabs(_: Request, document: dict[str, Any]) -> object:
    return {"data": {"full_name": document["email"]}}


SYNC: Final[Mapping[str, tuple[Any, str, int, Sequence[Window]]]] = {
    "hunter": (hunter, "email", 900, [Window(15, 1), Window(500, 60)]),
    "apollo": (apollo, "company", 450, [Window(50, 60), Window(200, HOUR), Window(600, DAY)]),
    "prospeo": (prospeo, "email", 1_100, [Window(5, 1), Window(300, 60), Window(2_000, DAY)]),
    "leadmagic": (leadmagic, "email", 400, [Window(300, 60)]),
    "peopledatalabs": (peopledatalabs, "full_name", 160, [Window(100, 60, aligned=True)]),
}
"""How it answers, what is wanted of that, leads for each of two teamspaces, and its windows."""


@pytest.mark.parametrize("name", SYNC)
def test_a_preset_keeps_every_window_of_its_provider_and_uses_it_up(name: str) -> None:
    words, output, leads, windows = SYNC[name]

    async def main() -> None:
        slow = world.Delayed(world.Spoken(world.Enrichment(), words), median_us=SECOND // 4, seed=1)
        limited = world.Limited(slow, *windows, enforce=name != "leadmagic")
        async with daemon({name: (shipped(name), limited)}, leads=leads) as running:
            await enriched(running, name, output=output)
            log = running.log[name]
            assert outcomes(log) == {"ok"}
            assert all("over_limit" not in seen.plan.notes for seen in log)
            used = [worst(log, each.seconds) for each in windows]
            assert all(most <= each.amount for most, each in zip(used, windows, strict=True))
            assert (used[0], used[-1]) == (windows[0].amount, min(windows[-1].amount, 2 * leads))

    run(main())


SPENT: Final[Mapping[str, tuple[Behaviour, Plan]]] = {
    "hunter": (
        world.Spoken(world.Enrichment(), hunter),
        world.json_plan({"errors": [{"id": "usage_limit"}]}, status=429, outcome="spent"),
    ),
    "findymail": (
        world.Spoken(world.Enrichment(), findymail),
        world.json_plan({"error": "Not enough credits"}, outcome="spent"),
    ),
    "prospeo": (
        world.Spoken(world.Enrichment(), prospeo),
        world.json_plan({"error": True, "error_code": "INSUFFICIENT_CREDITS"}, status=400, outcome="spent"),
    ),
    "leadmagic": (world.Spoken(world.Enrichment(), leadmagic), world.json_plan({}, status=402, outcome="spent")),
    "apollo": (world.Spoken(world.Enrichment(), apollo), world.json_plan({}, status=402, outcome="spent")),
    "peopledatalabs": (
        world.Spoken(world.Enrichment(), peopledatalabs),
        world.json_plan({}, status=402, outcome="spent"),
    ),
    "snov": (world.Polling(seconds=12), world.json_plan({}, status=402, outcome="spent")),
    "fullenrich": (FullEnrich(), world.json_plan({"status": "CREDITS_INSUFFICIENT"}, outcome="spent")),
    "neverbounce": (NeverBounce(), world.json_plan({}, status=402, outcome="spent")),
    "openai": (
        world.ChatCompletions(),
        world.json_plan({"error": {"code": "insufficient_quota"}}, status=429, outcome="spent"),
    ),
}
"""Each preset's provider, and how it says that nothing is left."""


@pytest.mark.parametrize("name", SPENT)
def test_after_a_provider_has_said_that_nothing_is_left_nobody_calls(name: str) -> None:
    behaviour, plan = SPENT[name]

    async def main() -> None:
        spent = world.Exhausted(behaviour, calls=2 if name in {"fullenrich", "neverbounce"} else 20, plan=plan)
        async with daemon({name: (shipped(name), spent)}, leads=300) as running:
            output = {"apollo": "company", "peopledatalabs": "full_name", "neverbounce": "email_status"}.get(
                name, "email"
            )
            jobs = [
                await (
                    running.prompt(name, "Say {{email}}", each)
                    if name == "openai"
                    else running.submit(name, each, output=output)
                )
                for each in ("a", "b")
            ]
            for job in jobs:
                await running.until_waiting(job, JobReason.CREDITS)
            await running.rest(HOUR)
            log = running.log[name]
            said = [seen.seconds for seen in log if seen.plan.outcome == "spent"]
            assert log[-1].seconds - said[0] < 0.5, "what was on its way, and nothing after that"

    run(main())


def test_hunter_means_too_fast_by_403_and_is_asked_again() -> None:
    async def main() -> None:
        busy = Crowded(
            world.Spoken(world.Enrichment(), hunter),
            world.json_plan({}, status=403, outcome="throttled", notes={"seconds": 0}),
        )
        async with daemon({"hunter": (shipped("hunter"), busy)}, leads=60) as running:
            await enriched(running, "hunter", output="email")

    run(main())


@pytest.mark.parametrize("hours", [1, 12, 23])
def test_prospeos_last_24_hours_hold_2000_leads_though_the_daemon_dies_while_it_waits(hours: int) -> None:
    words, output, leads, windows = SYNC["prospeo"]

    async def main() -> None:
        limited = world.Limited(world.Spoken(world.Enrichment(), words), *windows)
        async with daemon({"prospeo": (shipped("prospeo"), limited)}, leads=leads) as running:
            jobs = [await running.submit("prospeo", each, output=output) for each in ("a", "b")]
            log = running.log["prospeo"]
            await running.rest(HOUR)
            waits = [await running.until_waiting(job, JobReason.LIMIT) for job in jobs]
            assert len(log) == 2_000
            await running.rest((hours - 1) * HOUR)
            await running.restart()
            jobs.append(await running.submit("prospeo", "c", output=output))
            await running.rest(HOUR / 2)
            assert len(log) == 2_000, "who comes after the restart finds the day as full as it was"
            assert [await running.until_waiting(job, JobReason.LIMIT) for job in jobs[:2]] == waits
            for job in jobs:
                ended = await running.until(job, "completed", "partial", "failed")
                assert (ended.state, ended.counts.done, ended.attempt) == ("completed", leads, 2)
            assert outcomes(log) == {"ok"}
            assert len(log) == 3 * leads, "one call for each lead"
            assert worst(log, DAY) == 2_000
            late = log[2_000].seconds - log[0].seconds - DAY
            assert 0 <= late <= DAY / 1_024 + 1, "charges so many are kept by the minute and a half"

    run(main())


def test_snov_is_silent_about_both_of_its_limits_and_neither_is_passed() -> None:
    def words(request: Request, document: dict[str, Any]) -> object:
        if document.get("status") != "completed":
            return document
        return {"status": "completed", "data": [{"result": [{"email": "ada@a.example", "smtp_status": "valid"}]}]}

    async def main() -> None:
        polling = world.Spoken(world.Polling(seconds=12), words)
        tokens = world.Tokens(polling, path="/v1/oauth/access_token")
        windows = [Window(60, 60), Window(15, 60, "lead")]
        silent = world.Limited(tokens, *windows, enforce=False)
        async with daemon({"snov": (preset("snov"), silent)}, leads=100) as running:
            await enriched(running, "snov", output="email")
            log = running.log["snov"]
            assert all("over_limit" not in seen.plan.notes for seen in log)
            assert worst(log, 60, by_lead=True) == 15
            assert worst(log, 60) <= 60, "polls and tokens included"

    run(main())


def test_findymail_has_three_hundred_calls_at_a_time_over_all_teamspaces() -> None:
    async def main() -> None:
        slow = world.Delayed(world.Spoken(world.Enrichment(), findymail), median_us=3 * SECOND, sigma=0.0)
        flying = world.InFlight(slow, 300)
        async with daemon({"findymail": (shipped("findymail"), flying)}, leads=100) as running:
            await enriched(running, "findymail", list("abcdef"), output="email")
            assert (outcomes(running.log["findymail"]), flying.worst) == ({"ok"}, 300)

    run(main())


def test_fullenrich_is_ordered_by_the_hundred_within_its_minute() -> None:
    async def main() -> None:
        limited = world.Limited(FullEnrich(), Window(60, 60, aligned=True))
        async with daemon({"fullenrich": (shipped("fullenrich"), limited)}, leads=450) as running:
            await enriched(running, "fullenrich", output="email")
            log = running.log["fullenrich"]
            assert outcomes(log) == {"ok"}
            assert sum(seen.method == "POST" for seen in log) == 2 * 5
            assert worst(log, 60) <= 60

    run(main())


def test_neverbounce_counts_jobs_and_not_addresses() -> None:
    async def main() -> None:
        small = shipped("neverbounce")
        assert small.bulk is not None
        small = replace(small, bulk=replace(small.bulk, records_max=20))
        jobs = NeverBounce()
        refusal = Throttle("none", status=200, body={"status": "throttle_triggered"})
        posts = world.Limited(jobs, Window(10, HOUR), Window(50, DAY), throttle=refusal)
        behaviour = world.ByMethod(POST=posts, GET=jobs)
        async with daemon({"neverbounce": (small, behaviour)}, leads=600) as running:
            await enriched(running, "neverbounce", output="email_status")
            ordered = [seen for seen in running.log["neverbounce"] if seen.method == "POST"]
            assert outcomes(ordered) == {"job"}
            assert len(ordered) == 2 * 30
            assert (worst(ordered, HOUR), worst(ordered, DAY), jobs.open_worst) == (10, 50, 10)

    run(main())


def test_openai_counts_requests_and_tokens_and_neither_is_passed() -> None:
    async def main() -> None:
        limits = [WindowLimit(500, 60.0), WindowLimit(20_000, 60.0, Unit.TOKEN)]
        slow = world.Delayed(world.ChatCompletions(), median_us=SECOND, seed=1)
        async with daemon({"openai": (replace(shipped("openai"), limits=limits), slow)}, leads=500) as running:
            prompt = "Say it again: {{email}} " + "and again " * 20
            jobs = [await running.prompt("openai", prompt, each) for each in ("a", "b")]
            for job in jobs:
                ended = await running.until(job, "completed", "partial", "failed")
                assert (ended.state, ended.counts.done) == ("completed", 500)
            used = [
                round(seen.seconds * SECOND)
                for seen in running.log["openai"]
                for _ in range(msgspec.json.decode(seen.plan.body)["usage"]["total_tokens"])
            ]
            assert len(used) > 40_000, "they would not fit into two minutes"
            assert worst_window(used, 60) <= 20_000
            assert worst(running.log["openai"], 60) <= 500

    run(main())
