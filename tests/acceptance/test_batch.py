"""Tenants' own Python, run by a real daemon in a real sandbox."""

import signal
import time
from collections.abc import Iterator

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from tests.acceptance.batch_jobs import (
    ENABLED,
    invoke,
    lines_of,
    published,
    run_of,
    until_printed,
    upload,
    zipped,
)
from tests.acceptance.stage import Stage, stage

ROOMY = f"""{ENABLED}
executions_per_day = 1000
invocations_per_day = 1000
jobs_max = 100
retries_max = 3
reaches = []
"""

ROUNDS = 5
"""A round in which the machine itself stood still is measured again: the promise is about the daemon."""

UNTIL_TOLD = """
import os, time
def main():
    print("begun", flush=True)
    while not os.path.exists("/code/go-on"):
        time.sleep(0.1)
    print("done", flush=True)
    return "whole"
"""
"""The same code lies in the same folder, so each run that is to be told for itself has its own."""


def tell(daemon: Stage) -> None:
    """Have runs come to their end: they see their code's folder, and what is put into it."""
    for code in (daemon.state_dir / "code").iterdir():
        if code.is_dir():
            (code / "go-on").touch()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Stage]:
    with stage(ROOMY) as running:
        yield running


def test_a_run_is_given_its_event_and_its_lines_and_result_are_kept(daemon: Stage) -> None:
    published(
        daemon,
        "greeting",
        """
        def main(event):
            print("hello", event["body"]["name"])
            print(event["job_name"], event["source"], event["retry_attempt"])
            return {"instance": event["job_instance_id"], "query": event["query_string_parameters"]}
        """,
    )
    job = invoke(daemon, "greeting", body={"name": "Ada"}, query_string_parameters={"dry": "1"})
    assert daemon.ended(job).state == "completed"
    assert lines_of(daemon, job) == ["hello Ada", "greeting api 0"]
    run = run_of(daemon, job)
    assert (run.state, run.version, run.result) == ("completed", 1, {"instance": job, "query": {"dry": "1"}})
    (attempt,) = run.attempts
    assert attempt.seconds is not None
    assert attempt.cap_seconds == 600


def test_a_failed_attempt_is_tried_again_from_the_beginning(daemon: Stage) -> None:
    published(
        daemon,
        "second-time",
        """
        def main(event):
            print("attempt", event["retry_attempt"])
            if event["retry_attempt"] == 0:
                raise ValueError("not yet")
        """,
        retries=1,
    )
    job = invoke(daemon, "second-time")
    assert daemon.ended(job).state == "completed"
    assert [lines_of(daemon, job, retry) for retry in (0, 1)] == [["attempt 0"], ["attempt 1"]]
    first, second = run_of(daemon, job).attempts
    assert first.end == "ValueError: not yet"
    assert second.end == "it returned"


def test_without_a_retry_left_the_run_fails_and_says_what_the_code_raised(daemon: Stage) -> None:
    published(daemon, "hopeless", "def main():\n    raise KeyError('no such lead')\n", retries=2)
    view = daemon.ended(invoke(daemon, "hopeless"))
    assert (view.state, view.reason, view.message) == ("failed", JobReason.ERROR, "KeyError: 'no such lead'")
    assert len(run_of(daemon, view.job).attempts) == 3


def test_what_takes_longer_than_its_timeout_is_ended_and_not_tried_again(daemon: Stage) -> None:
    published(daemon, "endless", "import time\ndef main():\n    time.sleep(600)\n", timeout_seconds=1, retries=3)
    view = daemon.ended(invoke(daemon, "endless"))
    assert (view.state, view.reason) == ("failed", JobReason.TIMED_OUT)
    (attempt,) = run_of(daemon, view.job).attempts
    assert attempt.seconds == attempt.cap_seconds == 1


def test_a_cancel_ends_the_code_within_a_second(daemon: Stage) -> None:
    published(daemon, "patient", "import time\ndef main():\n    print('here', flush=True)\n    time.sleep(600)\n")
    took = []
    for _ in range(ROUNDS):
        job = invoke(daemon, "patient")
        until_printed(daemon, job, "here")
        began = time.monotonic()
        daemon.ask(wire.Cancel(job=job))
        assert daemon.ended(job).state == "cancelled"
        took.append(time.monotonic() - began)
        (attempt,) = run_of(daemon, job).attempts
        assert attempt.end == "it was cancelled"
        assert attempt.seconds is not None
        if took[-1] < 1:
            return
    pytest.fail(f"it took {took} s")


def test_a_run_outlives_the_daemon_and_is_booked_once(daemon: Stage) -> None:
    published(daemon, "survivor", UNTIL_TOLD)
    began = time.monotonic()
    job = invoke(daemon, "survivor")
    until_printed(daemon, job, "begun")
    daemon.kill()
    daemon.start()
    tell(daemon)
    view = daemon.ended(job)
    assert (view.state, view.attempt) == ("completed", 2)
    run = run_of(daemon, job)
    assert run.result == "whole"
    (attempt,) = run.attempts
    assert attempt.seconds is not None
    assert 0 < attempt.seconds <= time.monotonic() - began
    assert lines_of(daemon, job) == ["begun", "done"]


def test_a_drain_lets_the_code_run_on(daemon: Stage) -> None:
    published(daemon, "unbothered", f"{UNTIL_TOLD}# unbothered\n")
    job = invoke(daemon, "unbothered")
    until_printed(daemon, job, "begun")
    daemon.restart()
    tell(daemon)
    assert daemon.ended(job).state == "completed"
    assert len(run_of(daemon, job).attempts) == 1


def test_only_what_is_published_can_be_run(daemon: Stage) -> None:
    daemon.ask(wire.BatchJobs(action="create", teamspace="acme", name="draft", api=True))
    for act, code in (("draft", ErrorCode.BAD_STATE), ("nothing", ErrorCode.NOT_FOUND)):
        with pytest.raises(Refused) as refused:
            invoke(daemon, act)
        assert refused.value.code is code
    with pytest.raises(Refused, match="has no code"):
        daemon.ask(wire.BatchJobs(action="publish", teamspace="acme", name="draft"))
    upload(daemon, "draft", "def main(): pass")
    daemon.ask(wire.BatchJobs(action="publish", teamspace="acme", name="draft"))
    assert daemon.ended(invoke(daemon, "draft")).state == "completed"
    daemon.ask(wire.BatchJobs(action="unpublish", teamspace="acme", name="draft"))
    with pytest.raises(Refused, match="publish it first"):
        invoke(daemon, "draft")


def test_what_no_job_will_come_for_any_more_is_ended_and_booked(daemon: Stage) -> None:
    published(daemon, "orphan", "import time\ndef main():\n    print('here', flush=True)\n    time.sleep(600)\n")
    job = invoke(daemon, "orphan")
    until_printed(daemon, job, "here")
    daemon.ask(wire.Pause(scope="family", name="batch"))
    daemon.kill()
    daemon.start()
    assert daemon.view(job).state == "queued"
    daemon.ask(wire.Cancel(job=job))
    assert daemon.view(job).state == "cancelled"
    runs = daemon.state_dir / "runs"
    deadline = time.monotonic() + 30
    while (attempt := run_of(daemon, job).attempts[0]).seconds is None or list(runs.iterdir()):
        assert time.monotonic() < deadline, (attempt, list(runs.iterdir()))
        time.sleep(0.02)
    assert attempt.end == "it was cancelled"
    daemon.ask(wire.Resume(scope="family", name="batch"))


def test_a_pause_lets_the_code_end_and_starts_none(daemon: Stage) -> None:
    published(
        daemon,
        "paused",
        "import time\ndef main():\n    print('here', flush=True)\n    time.sleep(1.5)\n    return 1\n",
    )
    job = invoke(daemon, "paused")
    until_printed(daemon, job, "here")
    daemon.ask(wire.Pause(scope="family", name="batch"))
    later = invoke(daemon, "paused")
    assert daemon.ended(job).state == "completed"
    assert daemon.view(later).state == "queued"
    daemon.ask(wire.Resume(scope="family", name="batch"))
    assert daemon.ended(later).state == "completed"


def test_what_falls_silent_is_ended_where_that_is_asked_for(daemon: Stage) -> None:
    published(
        daemon,
        "silent",
        "import time\ndef main():\n    for n in range(4):\n        print(n, flush=True)\n        time.sleep(2)\n"
        "    time.sleep(600)\n",
        stall_after_seconds=5,
    )
    view = daemon.ended(invoke(daemon, "silent"))
    assert (view.state, view.reason) == ("failed", JobReason.STALLED)
    assert lines_of(daemon, view.job) == ["0", "1", "2", "3"], "what it says counts"


def test_what_it_printed_while_the_daemon_stood_still_was_no_silence(daemon: Stage) -> None:
    published(
        daemon,
        "talkative",
        "import time\ndef main():\n    for n in range(20):\n        print(n, flush=True)\n        time.sleep(0.4)\n",
        stall_after_seconds=4,
    )
    job = invoke(daemon, "talkative")
    until_printed(daemon, job, "0")
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(5)  # a machine that is asleep cannot tell when that is over
    daemon.process.send_signal(signal.SIGCONT)
    assert daemon.ended(job).state == "completed"
    assert lines_of(daemon, job) == [str(n) for n in range(20)]


def test_slots_of_a_teamspace_hold_and_each_is_given_back_once(daemon: Stage) -> None:
    published(daemon, "short", "import time\ndef main():\n    time.sleep(0.5)\n")
    jobs = [invoke(daemon, "short") for _ in range(12)]
    most = 0
    while any(daemon.view(job).state not in wire.ENDED_STATES for job in jobs):
        most = max(most, len(daemon.query("SELECT 1 FROM running_slot WHERE family = 2")))
    assert 1 <= most <= 5
    assert daemon.query("SELECT 1 FROM running_slot") == []


def test_packages_that_cannot_be_had_fail_the_run_with_the_reason(daemon: Stage) -> None:
    archive = zipped({"main.py": "def main(): pass\n", "requirements.txt": "somewhere-else==1.0\n"})
    published(daemon, "needs", archive)
    view = daemon.ended(invoke(daemon, "needs"))
    assert (view.state, view.reason) == ("failed", JobReason.ERROR)
    assert "the plan lets code reach nothing outside" in str(view.message)
    (attempt,) = run_of(daemon, view.job).attempts
    assert attempt.seconds == 0, "what was never started took no time of the day"


def test_what_a_requirements_txt_may_not_ask_for_is_refused_at_its_line(daemon: Stage) -> None:
    daemon.ask(wire.BatchJobs(action="create", teamspace="acme", name="editable"))
    archive = zipped({"main.py": "def main(): pass\n", "requirements.txt": "requests\n-e ../../etc\n"})
    with pytest.raises(Refused) as refused:
        upload(daemon, "editable", archive)
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_ARCHIVE, "path:requirements.txt:2")
