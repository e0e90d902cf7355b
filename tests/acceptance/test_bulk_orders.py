"""Bulk orders, as the provider's own log has them: what was ordered, how often, and what came of it."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from tests.acceptance.stage import HERE, Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour, Fault, Now, Plan, Request
from tests.world.log import Call
from tests.world.servers import Served

LEADS: Final = 250
BATCH: Final = 100


class NotesRecords:
    """Notes the leads of each order, and the id that it came under."""

    def __init__(self, inner: Behaviour) -> None:
        self._inner = inner
        self.ordered: list[list[str]] = []
        self.ids: list[str | None] = []

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer."""
        if request.method == "POST":
            self.ordered.append([record["email"] for record in json.loads(request.body)["records"]])
            self.ids.append(request.headers.get("idempotency-key"))
        return self._inner.respond(request, now)


def submit(daemon: Stage, module: str, rows: list[dict[str, object]], teamspace: str = "acme") -> JobId:
    daemon.table(teamspace, "people", rows)
    into: dict[str, wire.ColumnSpec] = {"company": "text", "employees": "number"}
    return daemon.submit(wire.Enrich(teamspace=teamspace, table="people", module=module, into=into)).job


def outcomes(served: Served) -> Counter[str]:
    return Counter(call.outcome for call in served.calls)


def taken(served: Served) -> list[Call]:
    return [call for call in served.calls if call.outcome == "taken"]


def polled(calls: list[Call]) -> set[object]:
    """The orders that were asked for."""
    return {call.notes["job"] for call in calls if call.outcome == "running"}


Modules = Callable[..., str]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    """The module of the tests with other lines."""

    def made(*changes: tuple[str, str]) -> str:
        text = (HERE / "modules" / "bulk.toml").read_text(encoding="utf-8")
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        path = tmp_path_factory.mktemp("module") / "bulk.toml"
        path.write_text(text, encoding="utf-8")
        return str(path.with_suffix(""))

    return made


def test_many_leads_are_ordered_together_and_each_result_finds_its_lead(world: World) -> None:
    noting = NotesRecords(behaviours.BulkJobs(seconds=0.5, page=40))
    served = world.serve(noting, name="bulk")
    rows = people(LEADS)
    rows[3]["email"], rows[4]["email"] = "unknown@a.example", "forgotten@a.example"
    with stage(provider("bulk", served, module="bulk")) as daemon:
        view = daemon.ended(submit(daemon, "bulk", rows))
        assert (view.state, view.counts.done, view.counts.skipped, view.counts.failed) == ("partial", 248, 1, 1)
        assert daemon.lead_reasons(view.job) == {
            "unknown@a.example": "not_found",
            "forgotten@a.example": "bad_response",
        }
        sizes = sorted(len(order) for order in noting.ordered)
        assert sizes == [50, BATCH, BATCH], "whichever of them the provider reads first"
        assert sorted(chain.from_iterable(noting.ordered)) == sorted(str(row["email"]) for row in rows)
        for row in daemon.rows("acme", "people"):
            company = behaviours.company_of(row["email"])
            if row["email"][:5] not in ("unkno", "forgo"):
                assert (row["company"], row["employees"]) == (company["company"], str(company["employees"]))
            else:
                assert row["company"] == ""
        assert outcomes(served)["results"] == 3 + 3 + 2, "every page once"
        assert daemon.query("SELECT * FROM bulk_order") == []


def test_a_crash_while_the_provider_works_orders_nothing_again(world: World) -> None:
    jobs = behaviours.BulkJobs(seconds=3_600)
    noting = NotesRecords(jobs)
    served = world.serve(noting, name="bulk")
    with stage(provider("bulk", served, module="bulk")) as daemon:
        job = submit(daemon, "bulk", people(LEADS))
        for _ in range(2):
            before = len(served.calls)
            world.until(served, lambda calls, before=before: len(polled(calls[before:])) == 3)  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        jobs.finish()
        view = daemon.ended(job)
        assert (view.state, view.counts.done) == ("completed", LEADS)
        assert view.attempt > 1
        assert sorted(chain.from_iterable(noting.ordered)) == sorted(str(row["email"]) for row in people(LEADS))


def test_a_crash_while_results_are_read_settles_no_lead_twice(world: World) -> None:
    """The pages come slowly, so that the daemon is killed between two of them."""
    jobs = NotesRecords(behaviours.BulkJobs(page=10))
    served = world.serve(behaviours.Delayed(jobs, median_us=SECOND // 5, sigma=0.0), name="bulk")
    with stage(provider("bulk", served, module="bulk")) as daemon:
        job = submit(daemon, "bulk", people(BATCH))
        daemon.until(job, lambda view: view.counts.done >= 30)
        daemon.kill()
        daemon.start()
        view = daemon.ended(job)
        assert (view.state, view.counts.done, view.counts.total) == ("completed", BATCH, BATCH)
        assert len(jobs.ordered) == 1


def test_an_order_on_its_way_at_a_crash_is_repeated_as_it_was_under_the_id_that_it_had(
    world: World, modules: Modules
) -> None:
    noting = NotesRecords(behaviours.Faulty(behaviours.BulkJobs(), [Fault(behaviours.hang())]))
    served = world.serve(noting, name="bulk")
    module = modules(("inputs", 'ambiguous = "reuse_id"\nid_header = "Idempotency-Key"\ninputs'))
    with stage(provider("bulk", served, module=module)) as daemon:
        job = submit(daemon, "bulk", people(10))
        world.until(served, lambda calls: len(calls) == 1)
        daemon.kill()
        daemon.start()
        assert daemon.ended(job).counts.done == 10
        first, second = noting.ordered
        assert first == second
        assert noting.ids[0] is not None
        assert noting.ids[0] == noting.ids[1]


@pytest.mark.parametrize(("policy", "orders"), [("hold", 1), ("retry_once", 2)])
def test_a_lost_order_follows_the_policy_with_all_its_leads(
    world: World, modules: Modules, policy: str, orders: int
) -> None:
    noting = NotesRecords(behaviours.Faulty(behaviours.BulkJobs(), [Fault(behaviours.cut(), times=9)]))
    served = world.serve(noting, name="bulk")
    module = modules(("inputs", f'ambiguous = "{policy}"\ninputs'))
    with stage(provider("bulk", served, module=module)) as daemon:
        view = daemon.ended(submit(daemon, "bulk", people(20)))
        assert (view.state, view.counts.unknown) == ("partial", 20)
        assert set(daemon.lead_reasons(view.job).values()) == {"unknown_outcome"}
        assert len(noting.ordered) == orders


def test_after_a_cancel_nobody_asks_for_the_order_any_more(world: World) -> None:
    served = world.serve(behaviours.BulkJobs(seconds=60), name="bulk")
    with stage(provider("bulk", served, module="bulk")) as daemon:
        job = submit(daemon, "bulk", people(LEADS))
        daemon.until(job, lambda view: {wait.reason for wait in view.waits} == {JobReason.BULK_RESULT})
        daemon.ask(wire.Cancel(job=job))
        view = daemon.ended(job)
        assert (view.state, view.counts.pending) == ("cancelled", LEADS)
        before = len(served.calls)
        daemon.submit(wire.Noop(teamspace="acme"))
        rerun = daemon.ask(wire.Rerun(job=job))
        daemon.until(rerun.job, lambda view: bool(view.waits))
        new = {str(call.notes["job"]) for call in served.calls[before:]}
        old = {str(call.notes["job"]) for call in served.calls[:before]}
        assert not new & old
        daemon.ask(wire.Cancel(job=rerun.job, force=True))


def test_however_long_the_provider_works_it_is_no_stall(world: World, modules: Modules) -> None:
    """Three times as long as a stall takes here."""
    served = world.serve(behaviours.BulkJobs(seconds=15), name="bulk")
    configuration = "[queue]\nwarn_after_seconds = 4\nstall_after_seconds = 5\n\n"
    with stage(configuration + provider("bulk", served, module="bulk")) as daemon:
        view = daemon.ended(submit(daemon, "bulk", people(LEADS)))
        assert (view.state, view.attempt, view.counts.done) == ("completed", 1, LEADS)
        assert {entry.event for entry in daemon.history(view.job)} == {"submitted", "started", "completed"}


def test_the_slot_is_given_back_while_an_order_is_known_to_take_long(world: World, modules: Modules) -> None:
    noting = NotesRecords(behaviours.BulkJobs(seconds=9))
    served = world.serve(noting, name="bulk")
    module = modules(("interval_seconds = 0.3", "interval_seconds = 0.3\nfirst_seconds = 10"))
    with stage("[queue]\nyield_slot_after_seconds = 2\n\n" + provider("bulk", served, module=module)) as daemon:
        job = submit(daemon, "bulk", people(BATCH))
        behind = daemon.submit(wire.Formula(teamspace="acme", table="people", into={"m": "number"}, expression="n")).job
        assert daemon.ended(behind).state == "completed"
        waiting = daemon.view(job)
        assert (waiting.state, {wait.reason for wait in waiting.waits}) == ("queued", {JobReason.BULK_RESULT})
        view = daemon.ended(job)
        assert (view.state, view.counts.done, view.attempt) == ("completed", BATCH, 2)
        assert len(noting.ordered) == 1
        assert outcomes(served)["running"] == 0, "nobody asks before it makes sense"


def test_no_more_orders_than_the_provider_works_on_are_open_over_all_teamspaces(world: World, modules: Modules) -> None:
    served = world.serve(behaviours.BulkJobs(seconds=1, open_max=2), name="bulk")
    module = modules(("records_max = 100", "records_max = 10\norders_max = 2"))
    with stage(provider("bulk", served, module=module)) as daemon:
        jobs = [submit(daemon, "bulk", people(40), teamspace) for teamspace in ("a", "b")]
        daemon.until(
            jobs[0],
            lambda _: any(
                "orders at a time" in (wait.message or "") for job in jobs for wait in daemon.view(job).waits
            ),
        )
        for job in jobs:
            assert daemon.ended(job).counts.done == 40
        assert outcomes(served)["too_many"] == 0
        assert len(taken(served)) == 8


def test_an_order_is_one_job_and_as_many_records_as_it_has_leads(world: World, modules: Modules) -> None:
    noting = NotesRecords(behaviours.BulkJobs())
    served = world.serve(noting, name="bulk")
    limits = [
        '{ shape = "window", amount = 3, per_seconds = 600, unit = "job" }',
        '{ shape = "window", amount = 60, per_seconds = 600, unit = "record" }',
    ]
    settings = [f"limits = [{', '.join(limits)}]"]
    with stage(provider("bulk", served, module="bulk", settings=settings)) as daemon:
        job = submit(daemon, "bulk", people(BATCH))
        view = daemon.until(job, lambda view: view.counts.done == 50 and bool(view.waits))
        assert {wait.reason for wait in view.waits} == {JobReason.LIMIT}
        assert [len(order) for order in noting.ordered] == [50], "in halves, because 100 never fit"
        (shown,) = daemon.ask(wire.Providers(name="bulk")).providers
        assert [limit.charged for limit in shown.limits] == [1, 50]
        daemon.ask(wire.Cancel(job=job, force=True))


def test_a_refused_key_ends_the_job_and_a_throttle_holds_every_order(world: World, modules: Modules) -> None:
    locked = world.serve(behaviours.Authorized(behaviours.BulkJobs(), "the right key"), name="locked")
    throttled = NotesRecords(behaviours.Limited(behaviours.BulkJobs(), behaviours.Window(2, 2)))
    limited = world.serve(throttled, name="limited")
    parts = [provider("locked", locked, module="bulk"), provider("limited", limited, module="bulk")]
    with stage("".join(parts)) as daemon:
        view = daemon.ended(submit(daemon, "locked", people(LEADS), "a"))
        assert (view.state, view.reason) == ("failed", JobReason.INVALID_KEY)
        view = daemon.ended(submit(daemon, "limited", people(LEADS), "b"))
        assert (view.state, view.counts.done) == ("completed", LEADS)
        assert len(taken(limited)) == 3, "being thrown back is no try, and nothing is ordered twice"
