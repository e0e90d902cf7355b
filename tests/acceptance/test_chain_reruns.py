"""A chain that is run again, from a step: what was answered is never asked again, by the provider's own log."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.servers import Served

LEADS: Final = 20

STEADY: Final = 'limits = [{ shape = "window", amount = 1000, per_seconds = 3600, unit = "request" }]'


@pytest.fixture(scope="module")
def steady(world: World) -> Served:
    """A provider whose limit stops nobody, see `few_calls`."""
    return world.serve(behaviours.Enrichment())


@pytest.fixture(scope="module")
def quick(world: World) -> Served:
    return world.serve(behaviours.Enrichment())


@pytest.fixture(scope="module")
def daemon(steady: Served, quick: Served) -> Iterator[Stage]:
    with stage(provider("steady", steady, settings=[STEADY]) + provider("quick", quick)) as running:
        yield running


def enrich(module: str, column: str, where: str | None = None) -> wire.EnrichStep:
    return wire.EnrichStep(table="people", module=module, into={column: "text"}, where=where)


def run(daemon: Stage, teamspace: str, *steps: wire.Step) -> wire.Receipt:
    daemon.table(teamspace, "people", people(LEADS))
    return daemon.submit(wire.Chain(teamspace=teamspace, steps=[*steps]))


def states(daemon: Stage, receipt: wire.Receipt) -> list[str]:
    return [daemon.view(step).state for step in receipt.steps]


def totals(daemon: Stage, receipt: wire.Receipt) -> list[int]:
    return [daemon.view(step).counts.total for step in receipt.steps]


def asked(served: Served, since: int) -> dict[str | None, int]:
    """How often a provider was asked about each lead."""
    return dict(Counter(call.lead for call in served.calls[since:]))


ONCE: Final = {str(row["email"]): 1 for row in people(LEADS)}


@contextmanager
def few_calls(daemon: Stage, steady: Served) -> Iterator[None]:
    """A step that asks `steady` gets no further than four leads before the block ends."""
    daemon.ask(wire.Plans(provider="steady", key="request/3600s", value=len(steady.calls) + 4))
    try:
        yield
    finally:
        daemon.ask(wire.Plans(provider="steady", key="request/3600s", value=None))


def cancel_amid(daemon: Stage, step: JobId) -> None:
    """Cancel a step when it has asked about some leads, and cannot ask about the others."""
    daemon.until(step, lambda view: view.counts.done > 0)
    daemon.ask(wire.Cancel(job=step))
    assert daemon.ended(step).state == "cancelled"


def test_a_rerun_begins_with_the_first_step_that_is_not_finished_and_asks_about_no_lead_twice(
    daemon: Stage, steady: Served, quick: Served
) -> None:
    begun, begun_quick = len(steady.calls), len(quick.calls)
    first = wire.FormulaStep(table="people", into={"m": "number"}, expression="n + 1")
    with few_calls(daemon, steady):
        chain = run(daemon, "once", first, enrich("steady", "company"), enrich("quick", "industry"))
        cancel_amid(daemon, chain.steps[1])
    assert daemon.ended(chain.job).state == "failed"
    assert states(daemon, chain) == ["completed", "cancelled", "skipped"]

    again = daemon.ask(wire.Rerun(job=chain.job))
    assert len(again.steps) == 2
    assert daemon.ended(again.job).state == "completed"
    assert daemon.view(again.job).rerun_of == chain.job
    assert asked(steady, begun) == asked(quick, begun_quick) == ONCE
    assert all(row["company"] and row["industry"] for row in daemon.rows("once", "people"))

    with pytest.raises(Refused) as finished:
        daemon.ask(wire.Rerun(job=again.job))
    assert (finished.value.code, finished.value.at) == (ErrorCode.BAD_STATE, "from_step")
    nothing = daemon.ask(wire.Rerun(job=again.job, from_step=1))
    assert daemon.ended(nothing.job).state == "completed"
    assert totals(daemon, nothing) == [0, 0]
    assert asked(steady, begun) == asked(quick, begun_quick) == ONCE
    everyone = daemon.ask(wire.Rerun(job=again.job, from_step=2, leads="all"))
    assert daemon.ended(everyone.job).state == "completed"
    assert asked(steady, begun) == ONCE
    assert set(asked(quick, begun_quick).values()) == {2}, "all are asked about again where a person says all"


def test_a_later_step_leaves_out_what_any_run_before_was_answered_and_takes_in_what_matches_now(
    daemon: Stage, steady: Served
) -> None:
    begun = len(steady.calls)
    late = wire.FormulaStep(table="people", into={"m": "number"}, expression="n + 1")
    with few_calls(daemon, steady):
        chain = run(daemon, "often", late, enrich("steady", "company", where="n >= 0"))
        cancel_amid(daemon, chain.steps[1])
    with few_calls(daemon, steady):
        second = daemon.ask(wire.Rerun(job=chain.job, from_step=1))
        cancel_amid(daemon, second.steps[1])
    daemon.ended(second.job)
    third = daemon.ask(wire.Rerun(job=second.job, from_step=1))
    assert daemon.ended(third.job).state == "completed"
    assert 0 < totals(daemon, third)[1] < totals(daemon, second)[1] < LEADS
    assert asked(steady, begun) == ONCE
    more = daemon.put("more.csv", [{"email": "new@example.com", "n": 99}])
    daemon.ended(daemon.submit(wire.Upload(teamspace="often", table="people", path=more)).job)
    fourth = daemon.ask(wire.Rerun(job=third.job, from_step=1))
    assert daemon.ended(fourth.job).state == "completed"
    assert asked(steady, begun) == {**ONCE, "new@example.com": 1}, "what has come since is taken in"


def test_each_step_keeps_the_receipt_of_its_list(daemon: Stage) -> None:
    steps = (
        wire.FormulaStep(table="people", into={"a": "number"}, expression="n", where="n < 5"),
        wire.FormulaStep(table="people", into={"b": "number"}, expression="n", where="a < 5"),
        wire.FormulaStep(table="people", into={"c": "number"}, expression="n", where="n > 100", empty="skip"),
    )
    chain = run(daemon, "receipts", *steps)
    daemon.ended(chain.job)
    reply = daemon.ask(wire.Job(job=chain.job))
    assert [step.job for step in reply.steps] == chain.steps
    lists = [step.frozen_list for step in reply.steps]
    assert [each and (each.leads, each.where, each.select_leads) for each in lists] == [
        (5, "n < 5", "on_start"),
        (5, "a < 5", "on_start"),
        (0, "n > 100", "on_start"),
    ]
    one, two, three = ("" if each is None else each.hash for each in lists)
    assert one == two != three, "the same leads have the same hash, whatever they were found by"
    assert daemon.ask(wire.Get(job=chain.steps[0])).view.frozen_list == lists[0]
    shown = daemon.leadline("job", str(chain.job)).stdout
    assert [line.split()[:2] for line in shown.splitlines() if one[:8] in line] == [
        ["1", str(chain.steps[0])],
        ["2", str(chain.steps[1])],
    ]
    assert reply.steps[2].reason is JobReason.GUARD_EMPTY


def test_a_rerun_from_a_step_that_is_not_there_is_refused(daemon: Stage) -> None:
    chain = run(daemon, "nowhere", enrich("quick", "company"))
    daemon.ended(chain.job)
    for job, step, code in ((chain.job, 2, ErrorCode.BAD_REQUEST), (chain.steps[0], 1, ErrorCode.BAD_REQUEST)):
        with pytest.raises(Refused) as refused:
            daemon.ask(wire.Rerun(job=job, from_step=step))
        assert (refused.value.code, refused.value.at) == (code, "from_step")
