"""A job that really takes the process down is stopped at the third time, by name, and nobody else is."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason, LeadlineError
from leadline_protocol.ids import JobId
from leadline_protocol.testing import CannotStart
from tests.acceptance.stage import ENDS_WITHIN_SECONDS, POLL_SECONDS, Stage, World, openai, people
from tests.acceptance.test_crashes import slow_ai

DEADLY: Final = [sys.executable, "-m", "tests.acceptance.deadly_daemon"]
LEADS: Final = 40
FEW: Final = ['limits = [{ shape = "window", amount = 5, per_seconds = 1, unit = "request" }]', "flight_seconds = 0.5"]
STARTS_MAX: Final = 10


def deadly(how: str, teamspace: str) -> Mapping[str, Any]:
    return {"kind": "deadly", "teamspace": teamspace, "how": how}


def score(teamspace: str) -> wire.Enrich:
    return wire.Enrich(
        teamspace=teamspace,
        table="people",
        module="ai_prompt",
        into={"score": "number"},
        params={"prompt": "Score this lead, only the number: {{email}}"},
    )


def submit(daemon: Stage, submission: Mapping[str, Any]) -> None:
    """Hand in what may end the daemon before it has answered; it is stored before it is started."""
    with suppress(LeadlineError):
        daemon.submit(submission)


def until_it_stays_up(daemon: Stage) -> int:
    """Start it as a service manager would, until it lives; how often it had ended by then."""
    for ends in range(1, STARTS_MAX):
        daemon.process.wait(60)
        try:
            daemon.start()
        except CannotStart:
            continue
        if is_quarantined_before_it_ends(daemon):
            return ends
    raise AssertionError(f"it ended {STARTS_MAX} times")


def is_quarantined_before_it_ends(daemon: Stage) -> bool:
    """Whether the daemon puts the job aside; it may end of the job, and take its time for either."""
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while daemon.process.poll() is None:
        with suppress(LeadlineError), daemon.blocking_client(timeout_seconds=1.0) as client:
            jobs = client.call(wire.Jobs(teamspace="gamma")).jobs
            if any(wait.reason is JobReason.QUARANTINED for view in jobs for wait in view.waits):
                return True
        assert time.monotonic() < deadline, "it neither ends nor puts the job aside"
        time.sleep(POLL_SECONDS)
    return False


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["exit", "abort", "kill"])
def test_a_job_that_takes_the_daemon_down_three_times_is_quarantined_and_the_others_go_on(
    world: World, how: str
) -> None:
    ai = slow_ai(world)
    daemon = Stage(openai(ai, settings=FEW), command=DEADLY)
    try:
        others: list[JobId] = []
        for teamspace in ("acme", "beta"):
            daemon.table(teamspace, "people", people(LEADS))
            others.append(daemon.submit(score(teamspace)).job)
        submit(daemon, deadly(how, "gamma"))
        assert until_it_stays_up(daemon) == 3
        (job,) = [view for view in daemon.ask(wire.Jobs(teamspace="gamma")).jobs if view.kind == "deadly"]
        assert job.state == "queued"
        told = json.loads(daemon.leadline("why", str(job.job), "--json").stdout.splitlines()[0])
        assert "quarantined" in json.dumps(told)
        assert [entry.event for entry in daemon.history(job.job)][-1] == "quarantined"
        for other in others:
            view = daemon.ended(other, seconds=120)
            assert (view.state, view.counts.done) == ("completed", LEADS)
        daemon.restart()
        assert daemon.view(job.job).state == "queued", "also after a restart"
        daemon.leadline("cancel", str(job.job))
        assert daemon.ended(job.job).state == "cancelled"
    finally:
        daemon.remove()


@pytest.mark.timeout(240)
def test_a_quarantined_job_that_is_let_go_has_three_tries_again(world: World) -> None:
    daemon = Stage(command=DEADLY)
    try:
        submit(daemon, deadly("exit", "gamma"))
        assert until_it_stays_up(daemon) == 3
        (job,) = daemon.ask(wire.Jobs(teamspace="gamma")).jobs
        with suppress(LeadlineError):  # it may go down before it can say so
            daemon.ask(wire.Resume(scope="job", name=job.job))
        assert until_it_stays_up(daemon) == 3
        assert [entry.event for entry in daemon.history(job.job)].count("quarantined") == 2
    finally:
        daemon.remove()
