"""Limits of providers that change while jobs run: what binds from when on, as the provider's own log has it."""

from collections.abc import Iterator
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.windows import worst_window

LIMITS: Final = (
    'limits = [{ shape = "window", amount = 5, per_seconds = 60, unit = "lead" }, { shape = "concurrent", amount = 9 }]'
)


@pytest.fixture(scope="module")
def limited(world: World) -> Iterator[Stage]:
    with stage(provider("x", world.serve(behaviours.Enrichment(), name="limited"), settings=[LIMITS])) as daemon:
        yield daemon


def submit(daemon: Stage, leads: int, teamspace: str = "acme") -> JobId:
    daemon.table(teamspace, "people", people(leads, domain=f"{teamspace}.example"))
    return daemon.submit(wire.Enrich(teamspace=teamspace, table="people", module="x", into={"company": "text"})).job


def in_force(daemon: Stage) -> dict[str, tuple[object, str]]:
    (view,) = daemon.ask(wire.Plans(provider="x")).plans
    return {limit.key: (limit.value, limit.source) for limit in view.limits}


def test_a_limit_set_in_the_middle_of_a_job_binds_from_the_next_call_and_outlives_a_crash(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="changing")
    with stage(provider("x", served, settings=[LIMITS])) as daemon:
        assert in_force(daemon) == {"lead/60s": (5, "toml"), "concurrent": (9, "toml")}
        job = submit(daemon, 40)
        daemon.until(job, lambda view: view.counts.done == 5 and bool(view.waits))
        daemon.ask(wire.Plans(provider="x", key="lead/60s", value=20))
        daemon.until(job, lambda view: view.counts.done == 20 and bool(view.waits))
        assert daemon.view(job).attempt == 1, "the job went on, it did not begin again"
        assert worst_window((call.arrived_us for call in served.calls), 60) == 20
        assert daemon.leadline("plans", "--provider", "x", "--set", "lead/60s=10").returncode == 0
        assert in_force(daemon)["lead/60s"] == (10, "override")
        (view,) = daemon.ask(wire.Providers(name="x")).providers
        assert (view.limits[0].amount, view.limits[0].charged) == (10, 20), "what was allowed stays counted"
        daemon.kill()
        daemon.start()
        assert in_force(daemon)["lead/60s"] == (10, "override")
        daemon.until(job, lambda view: bool(view.waits))
        assert len(served.calls) == 20, "nobody calls before there is room below the lower limit"
        daemon.ask(wire.Plans(provider="x", key="lead/60s", value=None))
        assert in_force(daemon)["lead/60s"] == (5, "toml")
        acts = daemon.query("SELECT target, detail FROM audit WHERE op = 'plans' ORDER BY n")
        assert acts == [("provider x", f"lead/60s = {value}") for value in ("20", "10", "null")]


def test_a_reload_changes_what_was_not_set_live(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="reloaded")
    with stage(provider("x", served, settings=[LIMITS])) as daemon:
        job = submit(daemon, 40)
        daemon.until(job, lambda view: view.counts.done == 5 and bool(view.waits))
        daemon.reconfigure(provider("x", served, settings=[LIMITS.replace("amount = 5", "amount = 15")]))
        daemon.ask(wire.Reload())
        daemon.until(job, lambda view: view.counts.done == 15 and bool(view.waits))
        assert worst_window((call.arrived_us for call in served.calls), 60) == 15


@pytest.mark.parametrize(
    ("operation", "code", "at"),
    [
        (wire.Plans(provider="y", key="lead/60s", value=1), ErrorCode.UNKNOWN_PROVIDER, "provider"),
        (wire.Plans(provider="x", key="lead/61s", value=1), ErrorCode.BAD_REQUEST, "key"),
        (wire.Plans(provider="x", key="lead/60s", value=0), ErrorCode.BAD_REQUEST, "value"),
        (wire.Plans(provider="x", key="lead/60s", value="many"), ErrorCode.BAD_REQUEST, "value"),
        (wire.Plans(provider="x", key="lead/60s", value=True), ErrorCode.BAD_REQUEST, "value"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    limited: Stage, operation: wire.Plans, code: ErrorCode, at: str
) -> None:
    with pytest.raises(Refused) as refused:
        limited.ask(operation)
    assert (refused.value.code, refused.value.at) == (code, at)
    assert in_force(limited)["lead/60s"] == (5, "toml")


def test_a_weight_set_in_the_middle_of_a_wait_counts_from_the_next_call(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="weighted")
    limit = 'limits = [{ shape = "window", amount = 8, per_seconds = 1 }]'
    with stage(provider("x", served, settings=[limit])) as daemon:
        daemon.ask(wire.Pause(scope="provider", name="x"))
        jobs = [submit(daemon, 120, teamspace) for teamspace in ("heavy", "light")]
        for job in jobs:
            daemon.until(job, lambda view: bool(view.waits))
        daemon.ask(wire.Plans(teamspace="heavy", key="weight", value=3))
        daemon.ask(wire.Resume(scope="provider", name="x"))
        world.until(served, lambda calls: len(calls) >= 80)
        heavy = sum("heavy.example" in str(call.lead) for call in served.calls[:80])
        assert abs(heavy / 3 - (80 - heavy)) <= 1 + 1 / 3 + 1, "a call each, and one whose order HTTP has changed"
        assert worst_window((call.arrived_us for call in served.calls), 1) <= 8
        for job in jobs:
            daemon.ask(wire.Cancel(job=job))
