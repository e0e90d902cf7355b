"""What a job does while a provider takes its time, over hours of virtual time."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from leadline.core.events import CancelAsked
from leadline.core.model import SECOND
from leadline.core.rate_limit import WindowLimit
from leadline.features.tables.enrichment_plan import LEADS_AT_ONCE
from leadline.features.tables.provider_modules import ClientCredentials, ProviderModule, read_module
from leadline.ports.store import StoredJob
from leadline_protocol.errors import JobReason, LeadReason
from tests.features.tables.virtual import Running, Seen, daemon, run
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Fault, Now, Plan, Request

MODULES = Path(__file__).parents[2] / "acceptance" / "modules"

POLL = """
name = "poll"
base_url = "http://poll"
mode = "poll"
inputs = ["email"]
[request]
path = "/start"
body = { email = "{{email}}" }
[poll]
task = "task_hash"
pending = [{ select = "status", equals = "in_progress" }]
interval_seconds = 60
max_wait_seconds = 7200
[poll.request]
method = "GET"
path = "/result/{{task}}"
[response.columns]
company = { select = "data.company" }
"""

SYNC = """
name = "sync"
base_url = "http://sync"
inputs = ["email"]
[request]
path = "/company"
body = { email = "{{email}}" }
[response.columns]
company = { select = "data.company" }
"""


def poll() -> ProviderModule:
    return read_module(POLL, file="poll.toml")


def sync() -> ProviderModule:
    return read_module(SYNC, file="sync.toml")


def bulk(*, first_seconds: float = 0.0, max_wait_seconds: float = 7_200.0) -> ProviderModule:
    module = read_module((MODULES / "bulk.toml").read_text(), file="bulk.toml")
    assert module.poll is not None
    patient = replace(
        module.poll, interval_seconds=60.0, first_seconds=first_seconds, max_wait_seconds=max_wait_seconds
    )
    return replace(module, poll=patient)


def orders(running: Running, name: str) -> int:
    return sum(seen.method == "POST" for seen in running.log[name])


@pytest.mark.parametrize("seconds", [299, 301, 3_000])
def test_a_bulk_order_is_no_stall_however_long_it_takes(seconds: int) -> None:
    async def main() -> None:
        async with daemon({"bulk": (bulk(), behaviours.BulkJobs(seconds=seconds))}, leads=250) as running:
            job = await running.submit("bulk")
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done, ended.attempt) == ("completed", 250, 1)
            assert running.log["bulk"][-1].seconds > seconds
            assert await running.events(job) == ["started", "completed"]
            assert orders(running, "bulk") == 3
            assert running.leads.kept == {}

    run(main())


def test_a_polled_lead_is_no_stall_however_long_it_takes() -> None:
    async def main() -> None:
        async with daemon({"poll": (poll(), behaviours.Polling(seconds=3_000))}, leads=20) as running:
            job = await running.submit("poll")
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done, ended.attempt) == ("completed", 20, 1)
            assert orders(running, "poll") == 20

    run(main())


def test_a_call_without_an_answer_is_one_after_300_seconds() -> None:
    """What the tests above would see if waiting were a stall."""

    async def main() -> None:
        hanging = behaviours.Faulty(behaviours.BulkJobs(), [Fault(behaviours.hang())])
        async with daemon({"bulk": (bulk(), hanging)}, leads=250) as running:
            job = await running.submit("bulk")
            ended = await running.until(job, "completed", "partial", "failed")
            assert "stalled" in await running.events(job)
            assert (ended.state, ended.attempt) == ("completed", 2)

    run(main())


def test_after_a_stop_what_is_in_flight_ends_and_the_list_is_followed_no_further() -> None:
    """Nor are those settled who need no asking: on a long list of them, a stop would be waited for."""

    async def main() -> None:
        slow = behaviours.Delayed(behaviours.Enrichment(), median_us=60 * SECOND, sigma=0)
        async with daemon({"sync": (sync(), slow)}, leads=LEADS_AT_ONCE + 200) as running:
            for lead in list(running.leads.cells)[LEADS_AT_ONCE:-1]:
                running.leads.cells[lead] = {"name": "nobody"}
            job = await running.submit("sync")
            await running.rest(30)
            assert len(running.log["sync"]) == LEADS_AT_ONCE
            await running.supervisor.dispatcher.tell(CancelAsked(job))
            ended = await running.until(job, "cancelled")
            assert (ended.counts.done, ended.counts.skipped) == (LEADS_AT_ONCE, 0)

    run(main())


def test_an_order_that_is_known_to_take_long_gives_its_slot_to_the_next_job() -> None:
    async def main() -> None:
        modules: dict[str, tuple[ProviderModule, Behaviour]] = {
            "bulk": (bulk(first_seconds=3_600.0), behaviours.BulkJobs(seconds=3_500)),
            "sync": (sync(), behaviours.Enrichment()),
        }
        async with daemon(modules, leads=100) as running:
            first = await running.submit("bulk")
            second = await running.submit("sync")
            ended = await running.until(second, "completed")
            assert ended.counts.done == 100
            assert max(seen.seconds for seen in running.log["sync"]) < 60
            assert (await running.job(first)).state == "queued"
            ended = await running.until(first, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done, ended.attempt) == ("completed", 100, 2)
            asked = [seen for seen in running.log["bulk"] if seen.method == "GET"]
            assert 3_600 <= asked[0].seconds < 3_610, "not before it makes sense, over the pause as well"
            assert orders(running, "bulk") == 1

    run(main())


def test_an_order_that_does_not_come_fails_its_leads_when_the_modules_patience_ends() -> None:
    async def main() -> None:
        modules = {"bulk": (bulk(max_wait_seconds=1_800.0), behaviours.BulkJobs(seconds=10_000))}
        async with daemon(modules, leads=10) as running:
            job = await running.submit("bulk")
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.failed) == ("partial", 10)
            assert {result.reason for result in running.leads.results.values()} == {LeadReason.TIMED_OUT}
            assert 1_800 <= running.log["bulk"][-1].seconds <= 1_870

    run(main())


def test_a_paced_account_is_asked_in_even_steps_however_quick_it_is() -> None:
    async def main() -> None:
        async with daemon({"sync": (sync(), behaviours.Enrichment())}, leads=100, pace_per_second=0.5) as running:
            job = await running.submit("sync")
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done, ended.attempt) == ("completed", 100, 1)
            assert steps(running.log["sync"]) == [pytest.approx(2.0, abs=0.01)] * 99

    run(main())


def test_teamspaces_take_turns_at_a_paced_account_and_whoever_waits_for_his_is_not_stalled() -> None:
    async def main() -> None:
        async with daemon({"sync": (sync(), behaviours.Enrichment())}, leads=100, pace_per_second=0.1) as running:
            first = await running.submit("sync", "a")
            await running.rest(25)  # all its calls are in line by now
            second = await running.submit("sync", "b")
            ended = [await running.until(job, "completed", "partial", "failed") for job in (first, second)]
            assert [(job.state, job.counts.done, job.attempt) for job in ended] == [("completed", 100, 1)] * 2
            assert steps(running.log["sync"]) == [pytest.approx(10.0, abs=0.01)] * 199
            assert abs(took(ended[0]) - took(ended[1])) < 60, "one of each in turn"

    run(main())


def test_a_refused_key_lets_everybody_go_who_waits_for_a_permit() -> None:
    async def main() -> None:
        one_an_hour = replace(sync(), limits=[WindowLimit(1, 3_600.0)])
        locked = behaviours.Authorized(behaviours.Enrichment(), "another key")
        async with daemon({"sync": (one_an_hour, locked)}, leads=100) as running:
            jobs = [await running.submit("sync", teamspace) for teamspace in ("a", "b")]
            ended = [await running.until(job, "completed", "partial", "failed") for job in jobs]
            assert {(job.state, job.reason) for job in ended} == {("failed", JobReason.INVALID_KEY)}
            assert max(took(job) for job in ended) < 1
            assert len(running.log["sync"]) == 1

    run(main())


def test_a_refused_key_lets_everybody_go_who_is_being_paced() -> None:
    async def main() -> None:
        locked = behaviours.Authorized(behaviours.Enrichment(), "another key")
        async with daemon({"sync": (sync(), locked)}, leads=100, pace_per_second=0.1) as running:
            jobs = [await running.submit("sync", teamspace) for teamspace in ("a", "b")]
            together = [await running.until(job, "completed", "partial", "failed") for job in jobs]
            late = await running.until(await running.submit("sync"), "completed", "partial", "failed")
            assert {(job.state, job.reason) for job in (*together, late)} == {("failed", JobReason.INVALID_KEY)}
            assert max(took(job) for job in together) < 1
            assert took(late) <= 10, "only its first lead has waited for its turn, to hear that there is none"
            assert [seen.plan.status for seen in running.log["sync"]] == [401]

    run(main())


def test_a_stop_lets_those_go_who_are_being_paced_and_nobody_else() -> None:
    async def main() -> None:
        async with daemon({"sync": (sync(), behaviours.Enrichment())}, leads=100, pace_per_second=0.5) as running:
            stopped, other = [await running.submit("sync", teamspace) for teamspace in ("a", "b")]
            await running.rest(5)
            asked = len(running.log["sync"])
            await running.supervisor.dispatcher.tell(CancelAsked(stopped))
            ended = await running.until(stopped, "cancelled")
            assert ended.counts.done <= asked
            assert took(ended) < 6
            assert (await running.until(other, "completed", "partial", "failed")).counts.done == 100
            assert min(steps(running.log["sync"])) == pytest.approx(2.0, abs=0.01)

    run(main())


def steps(log: Sequence[Seen]) -> list[float]:
    """Seconds from each request to the next."""
    return [after.seconds - before.seconds for before, after in pairwise(log)]


def took(job: StoredJob) -> float:
    """Seconds from a job's submission to its end."""
    assert job.ended is not None
    return (job.ended - job.submitted) / SECOND


def with_token(module: ProviderModule) -> ProviderModule:
    return replace(module, auth=ClientCredentials("/oauth/token"))


def fetched(running: Running, name: str) -> list[float]:
    return [seen.seconds for seen in running.log[name] if seen.path == "/oauth/token"]


def test_one_token_serves_all_leads_of_all_teamspaces_until_shortly_before_it_expires() -> None:
    async def main() -> None:
        module = replace(with_token(sync()), limits=[WindowLimit(10, 60.0)])
        behaviour = behaviours.Limited(
            behaviours.Tokens(behaviours.Enrichment(), seconds=600), behaviours.Window(10, 60)
        )
        async with daemon({"sync": (module, behaviour)}, leads=100) as running:
            jobs = [await running.submit("sync", teamspace) for teamspace in ("a", "b")]
            for job in jobs:
                assert (await running.until(job, "completed", "partial", "failed")).counts.done == 100
            assert {seen.plan.outcome for seen in running.log["sync"]} == {"ok", "token"}, "and nobody went too fast"
            times = fetched(running, "sync")
            assert times[0] < 1
            assert all(540 <= later - earlier < 605 for earlier, later in pairwise(times))

    run(main())


def test_a_token_that_is_forgotten_before_its_time_is_fetched_again_once_for_everybody() -> None:
    async def main() -> None:
        tokens = behaviours.Tokens(behaviours.Enrichment(), forgets=30)
        async with daemon({"sync": (with_token(sync()), tokens)}, leads=100) as running:
            ended = await running.until(await running.submit("sync"), "completed", "partial", "failed")
            assert (ended.state, ended.counts.done) == ("completed", 100)
            assert len(fetched(running, "sync")) == 4, "one for each thirty requests"

    run(main())


def test_a_token_that_is_refused_though_it_is_new_ends_the_job_after_one_more() -> None:
    async def main() -> None:
        tokens = behaviours.Tokens(behaviours.Enrichment(), forgets=0)
        async with daemon({"sync": (with_token(sync()), tokens)}, leads=100) as running:
            ended = await running.until(await running.submit("sync"), "completed", "partial", "failed")
            assert (ended.state, ended.reason) == ("failed", JobReason.INVALID_KEY)
            assert len(fetched(running, "sync")) == 2

    run(main())


def test_an_id_and_secret_that_are_refused_end_the_job_without_a_call() -> None:
    async def main() -> None:
        tokens = behaviours.Tokens(behaviours.Enrichment(), secret="another")
        async with daemon({"sync": (with_token(sync()), tokens)}, leads=100) as running:
            ended = await running.until(await running.submit("sync"), "completed", "partial", "failed")
            assert (ended.state, ended.reason) == ("failed", JobReason.INVALID_KEY)
            assert [seen.path for seen in running.log["sync"]] == ["/oauth/token"]

    run(main())


def test_while_no_token_can_be_had_nobody_hammers_for_one() -> None:
    async def main() -> None:
        down = behaviours.Faulty(
            behaviours.Tokens(behaviours.Enrichment()), [Fault(behaviours.server_error(), times=10_000)]
        )
        async with daemon({"sync": (with_token(sync()), down)}, leads=100) as running:
            ended = await running.until(await running.submit("sync"), "completed", "partial", "failed")
            assert (ended.state, ended.counts.failed) == ("partial", 100)
            assert {result.reason for result in running.leads.results.values()} == {LeadReason.SERVER_ERROR}
            assert len(running.log["sync"]) <= 8, "not one for each try of each lead"

    run(main())


def test_bulk_orders_use_the_same_token() -> None:
    async def main() -> None:
        tokens = behaviours.Tokens(behaviours.BulkJobs(seconds=3_000), seconds=1_000)
        async with daemon({"bulk": (with_token(bulk()), tokens)}, leads=250) as running:
            ended = await running.until(await running.submit("bulk"), "completed", "partial", "failed")
            assert (ended.state, ended.counts.done) == ("completed", 250)
            assert 3 <= len(fetched(running, "bulk")) <= 5
            assert all(seen.plan.status == 200 for seen in running.log["bulk"])

    run(main())


PAGED = """
name = "paged"
base_url = "http://paged"
inputs = ["domain"]
limits = [{ shape = "window", amount = 30, per_seconds = 60 }]
[request]
method = "GET"
path = "/people"
query = { domain = "{{domain}}", cursor = "{{page}}" }
[response.paging]
items = "people"
next = "next"
pages_max = 5
[response.columns]
company = { select = "join(' ', items[].name)" }
total = { select = "first.total", type = "number" }
"""


class Pages:
    """People of a domain, two a page; `endless` has ever the same next page."""

    def __init__(self, people: int, *, endless: bool = False) -> None:
        self._people, self._endless = people, endless

    def respond(self, request: Request, now: Now) -> Plan:
        """A page."""
        start = int(request.query.get("cursor", "0"))
        names = [{"name": f"p{n}"} for n in range(start, min(start + 2, self._people))]
        more = start + 2 if start + 2 < self._people else None
        return behaviours.json_plan({"people": names, "total": self._people, "next": start if self._endless else more})


@pytest.mark.parametrize(("people", "pages"), [(1, 1), (2, 1), (7, 4)])
def test_an_answer_in_pages_is_read_to_its_end_within_the_limits(people: int, pages: int) -> None:
    async def main() -> None:
        limited = behaviours.Limited(Pages(people), behaviours.Window(30, 60))
        async with daemon({"paged": (read_module(PAGED, file="paged.toml"), limited)}, leads=20) as running:
            job = await running.submit("paged")
            ended = await running.until(job, "completed", "partial", "failed")
            assert (ended.state, ended.counts.done) == ("completed", 20)
            assert {seen.plan.outcome for seen in running.log["paged"]} == {"ok"}
            assert len(running.log["paged"]) == 20 * pages
            names = " ".join(f"p{n}" for n in range(people))
            assert {result.cells["found"] for result in running.leads.results.values()} == {names}

    run(main())


def test_pages_without_an_end_are_read_so_far_and_no_further() -> None:
    async def main() -> None:
        async with daemon(
            {"paged": (read_module(PAGED, file="paged.toml"), Pages(9, endless=True))}, leads=2
        ) as running:
            ended = await running.until(await running.submit("paged"), "completed", "partial", "failed")
            assert (ended.state, ended.counts.done) == ("completed", 2)
            assert len(running.log["paged"]) == 2 * 5

    run(main())
