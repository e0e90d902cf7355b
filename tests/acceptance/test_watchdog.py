"""A call that never ends stops nobody for long: its job is killed and resumed, and only its lead is asked again."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Fault, Now, Plan, Request, company_of
from tests.world.servers import Served

STALL_SECONDS: Final = 3
FREE_WITHIN_SECONDS: Final = 5
LEADS: Final = 10
STUCK: Final = str(people(LEADS)[4]["email"])

CONFIGURATION: Final = f"[queue]\nwarn_after_seconds = 1\nstall_after_seconds = {STALL_SECONDS}\n\n"


class AnswersLate:
    """Answers the first call about each lead late, with another company than it names at once to any later call."""

    def __init__(self, late: str) -> None:
        self._late = late
        self._asked: Counter[str | None] = Counter()

    def respond(self, request: Request, now: Now) -> Plan:
        """The company's data, late or at once."""
        self._asked[request.lead] += 1
        assert request.lead is not None
        company = company_of(request.lead)
        if request.lead == self._late and self._asked[request.lead] == 1:
            plan = behaviours.json_plan({"data": {**company, "company": "Late"}})
            return msgspec.structs.replace(plan, delay_us=(STALL_SECONDS + 3) * SECOND)
        return behaviours.json_plan({"data": company})


@pytest.fixture(scope="module")
def hangs_once(world: World) -> Served:
    return world.serve(behaviours.Faulty(behaviours.Enrichment(), [Fault(behaviours.hang(), STUCK)]))


@pytest.fixture(scope="module")
def hangs_always(world: World) -> Served:
    return world.serve(behaviours.Faulty(behaviours.Enrichment(), [Fault(behaviours.hang(), STUCK, times=1_000)]))


@pytest.fixture(scope="module")
def late(world: World) -> Served:
    return world.serve(AnswersLate(STUCK))


@pytest.fixture(scope="module")
def daemon(hangs_once: Served, hangs_always: Served, late: Served) -> Iterator[Stage]:
    providers = {"hangs_once": hangs_once, "hangs_always": hangs_always, "late": late}
    with stage(CONFIGURATION + "".join(provider(name, served) for name, served in providers.items())) as running:
        yield running


def enrich(teamspace: str, module: str) -> wire.Enrich:
    return wire.Enrich(teamspace=teamspace, table="people", module=module, into={"company": "text"})


def test_a_hung_call_is_killed_in_time_and_only_its_lead_is_asked_again(daemon: Stage, hangs_once: Served) -> None:
    daemon.table("once", "people", people(LEADS))
    job = daemon.submit(enrich("once", "hangs_once")).job
    behind = daemon.submit(wire.Formula(teamspace="once", table="people", into={"m": "number"}, expression="n")).job
    stuck = daemon.until(job, lambda view: view.stalled or view.attempt > 1)
    view = daemon.ended(job)
    assert (view.state, view.attempt) == ("completed", 2), stuck
    assert (view.counts.done, view.counts.total) == (LEADS, LEADS)
    assert daemon.ended(behind).state == "completed", "the slot went on to the next job"

    asked = Counter(call.lead for call in hangs_once.calls)
    assert asked == {**{str(each["email"]): 1 for each in people(LEADS)}, STUCK: 2}
    cut, again = (call for call in hangs_once.calls if call.lead == STUCK)
    assert cut.ended == "client_left"
    assert cut.ended_us is not None
    moved_us = max(call.body_sent_us or 0 for call in hangs_once.calls if call.lead != STUCK)
    still_seconds = (cut.ended_us - moved_us) / SECOND
    assert STALL_SECONDS <= still_seconds <= STALL_SECONDS + FREE_WITHIN_SECONDS
    assert again.arrived_us - moved_us <= (STALL_SECONDS + FREE_WITHIN_SECONDS) * SECOND, "the slot was free by then"

    events = [entry.event for entry in daemon.history(job)]
    assert "standing_still" in events[: events.index("stalled")], "people are warned first"
    told = [event for event in events if event != "standing_still"]  # a busy machine is warned of besides
    assert told == ["submitted", "started", "stalled", "stopped", "queued", "started", "completed"]
    (evidence,) = [entry.detail["message"] for entry in daemon.history(job) if entry.event == "stopped"]
    ((lead,),) = daemon.query("SELECT id FROM lead WHERE data->>'email' = $1 LIMIT 1", STUCK)
    assert f"lead {lead}, at " in evidence
    assert "_call:" in evidence.partition(" at ")[2], "and where it hung"


def test_a_lead_that_hangs_twice_is_failed_and_the_job_goes_on(daemon: Stage, hangs_always: Served) -> None:
    daemon.table("always", "people", people(LEADS))
    job = daemon.submit(enrich("always", "hangs_always")).job
    view = daemon.ended(job)
    assert (view.state, view.attempt) == ("partial", 3)
    assert (view.counts.done, view.counts.failed, view.counts.total) == (LEADS - 1, 1, LEADS)
    asked = Counter(call.lead for call in hangs_always.calls)
    assert asked == {**{str(each["email"]): 1 for each in people(LEADS)}, STUCK: 2}
    written = {row["email"]: row["company"] for row in daemon.rows("always", "people")}
    assert {email for email, company in written.items() if not company} == {STUCK}


def test_the_answer_to_a_killed_attempt_is_written_nowhere(daemon: Stage, world: World, late: Served) -> None:
    daemon.table("late", "people", people(LEADS))
    view = daemon.ended(daemon.submit(enrich("late", "late")).job)
    assert (view.state, view.attempt) == ("completed", 2)
    world.until(late, lambda calls: all(call.ended != "open" for call in calls))
    assert {row["company"] for row in daemon.rows("late", "people")} == {"Example"}
    assert view.reason is None or view.reason is JobReason.STALLED
