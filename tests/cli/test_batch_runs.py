"""`leadline batch invoke`, `runs` and `logs`: what is sent, what comes back while it runs, and how it ends."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leadline_protocol.errors import ErrorCode, JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Batch,
    BatchAttempt,
    BatchJobs,
    BatchLine,
    BatchReply,
    BatchRun,
    Done,
    Ended,
    Follow,
    Get,
    JobReply,
    Watch,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, Answer, FakeDaemon, counts, refusal, view

LONG_AGO = NOON - timedelta(days=400)
"""A day of a year before the present one: 2025-10-17, 17:30 in the zone of the tests."""


def line(number: int, text: str, *, retry_attempt: int = 0) -> BatchLine:
    return BatchLine(retry_attempt=retry_attempt, number=number, at=LONG_AGO, text=text)


def attempt(number: int, **changes: Any) -> BatchAttempt:
    return BatchAttempt(retry_attempt=number, began_at=LONG_AGO, cap_seconds=600.0, **changes)


def run(state: str = "completed", *attempts: BatchAttempt, **changes: Any) -> BatchRun:
    values: dict[str, Any] = {
        "instance": JobId(1),
        "teamspace": "acme",
        "batch_job": "nightly",
        "source": "api",
        **changes,
    }
    return BatchRun(state=state, attempts=list(attempts), **values)


class Running:
    """A daemon with one run. What it is asked is answered from a script, to its end the run with how that ended."""

    def __init__(self, daemon: FakeDaemon, *script: BatchReply | BatchRun) -> None:
        self._script: Iterator[BatchReply | BatchRun] = iter(script)
        self._end = script[-1]
        self.asked: list[tuple[int, int, float]] = []
        """The attempt, the line and the seconds of each question about lines."""
        daemon.on(BatchJobs, self.answer)
        daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running")))
        daemon.on(Watch, lambda asked: [Done(line=0), Ended(job=JobId(asked.job), state="completed", counts=counts())])

    def answer(self, wanted: BatchJobs) -> Answer:
        found = next(self._script, self._end)
        assert wanted.instance == 1
        if wanted.action == "runs":
            assert isinstance(found, BatchRun), f"it asked for the run, and not for {found}"
            return BatchReply(line=0, runs=[found])
        assert isinstance(found, BatchReply), f"it asked for lines, and not for {found}"
        self.asked.append((wanted.retry_attempt, wanted.after, wanted.wait_seconds))
        return found


def lines(*found: BatchLine, ended: bool = False, more: int | None = None) -> BatchReply:
    return BatchReply(line=0, lines=list(found), ended=ended, next=more)


def test_a_run_is_submitted_with_its_body_and_parameters_once(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "body.json"
    file.write_text('{"leads":[1,2]}')
    told = leadline(
        *("batch", "invoke", "nightly", "--teamspace", "acme", "--body", f"@{file}", "--query", "day=mon=1"),
        *("--query", "empty="),
    )
    assert (told.status, told.out) == (0, "Job 1 is queued.\n")
    (batch,) = daemon.requests
    assert isinstance(batch, Batch)
    assert batch.idempotency_key is not None, "a lost receipt must not run it twice"
    assert (batch.teamspace, batch.batch_job) == ("acme", "nightly")
    assert batch.body == {"leads": [1, 2]}
    assert batch.query_string_parameters == {"day": "mon=1", "empty": ""}
    leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--body", "[7]")
    again = daemon.requests[-1]
    assert isinstance(again, Batch)
    assert (again.body, again.query_string_parameters) == ([7], {})
    assert again.idempotency_key != batch.idempotency_key


@pytest.mark.parametrize(
    ("options", "status", "fault"),
    [
        (["--body", "{"], 1, "--body is not JSON: "),
        (["--body", "[" * 100_000], 1, "--body is not JSON: "),
        (["--body", "@/nowhere/body.json"], 1, "/nowhere/body.json: No such file"),
        (["--query", "day"], 2, "--query takes KEY=VALUE, not day"),
    ],
)
def test_an_event_that_cannot_be_is_not_submitted(
    leadline: Leadline, daemon: FakeDaemon, options: list[str], status: int, fault: str
) -> None:
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", *options)
    assert told.status == status
    assert fault in told.err
    assert daemon.requests == []


def test_a_day_that_is_used_up_says_when_the_next_one_begins(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Batch, lambda _: refusal(ErrorCode.QUOTA, "24 of 24 executions of the day are used", retry_after=3600.0))
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait")
    assert (told.status, told.err) == (
        1,
        "leadline: quota: 24 of 24 executions of the day are used; try again in 3600 s\n",
    )


def test_who_waits_sees_the_lines_as_they_come_and_then_the_end(leadline: Leadline, daemon: FakeDaemon) -> None:
    running = Running(
        daemon,
        lines(),
        lines(line(1, "INFO 300 leads"), line(2, "\x1b[2Jdone")),
        lines(ended=True),
        run("completed", attempt(0, seconds=12.4), result={"sent": 300}),
    )
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait")
    assert told.status == 0
    assert told.out.splitlines() == [
        "Job 1 is queued.",
        "2025-10-17 17:30 INFO 300 leads",
        "2025-10-17 17:30 \\x1b[2Jdone",
        "Run 1 completed after 12 s.",
        'It returned {"sent":300}',
    ]
    assert running.asked == [(0, 0, 20.0), (0, 0, 20.0), (0, 2, 20.0)]


@pytest.mark.parametrize(("state", "status"), [("partial", 0), ("failed", 1), ("cancelled", 1), ("skipped", 1)])
def test_who_waits_for_a_run_that_does_not_come_to_its_end_is_told_by_the_status(
    leadline: Leadline, daemon: FakeDaemon, state: str, status: int
) -> None:
    Running(daemon, lines(ended=True), run(state, reason=JobReason.UNPUBLISHED))
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait")
    assert told.status == status
    assert told.out.splitlines()[-1] == (f"Run 1 {state}: The batch job was unpublished or deleted before it started.")


def test_a_retry_is_followed_like_the_attempt_before_it(leadline: Leadline, daemon: FakeDaemon) -> None:
    failed, done = attempt(0, seconds=3.0, end="it raised"), attempt(1, seconds=4.0)
    running = Running(
        daemon,
        lines(line(1, "first"), ended=True),
        run("running", failed),
        lines(),
        lines(line(1, "second", retry_attempt=1), ended=True),
        run("completed", failed, done),
    )
    told = leadline("batch", "logs", 1, "--follow")
    assert told.status == 0
    assert told.out.splitlines() == ["2025-10-17 17:30 first", "2025-10-17 17:30 second"]
    assert told.err == "Attempt 2:\n"
    assert [asked[:2] for asked in running.asked] == [(0, 0), (1, 0), (1, 0)]


def test_a_run_that_is_over_and_not_yet_ended_is_not_asked_for_one_attempt_after_the_other(
    leadline: Leadline, daemon: FakeDaemon
) -> None:
    running = Running(
        daemon,
        lines(line(1, "hello"), ended=True),
        run("running", attempt(0, seconds=3.0)),
        lines(ended=True),
        run("running", attempt(0, seconds=3.0)),
        run("completed", attempt(0, seconds=3.0)),
    )
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait")
    assert told.out.splitlines()[-1] == "Run 1 completed after 3 s."
    assert [asked[0] for asked in running.asked] == [0, 1]


def test_who_waits_in_a_pipe_gets_the_receipt_the_lines_and_the_run(leadline: Leadline, daemon: FakeDaemon) -> None:
    Running(daemon, lines(line(1, "hello"), ended=True), run("failed", attempt(0, seconds=3.0, end="it raised")))
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait", "--json")
    receipt, printed, ended = map(json.loads, told.out.splitlines())
    assert told.status == 1
    assert (receipt["job"], printed["text"], printed["at"]) == (1, "hello", "2025-10-17T12:00:00Z")
    assert (ended["state"], ended["attempts"][0]["end"]) == ("failed", "it raised")


def test_a_daemon_that_only_starts_is_waited_for(leadline: Leadline, daemon: FakeDaemon) -> None:
    answers: Iterator[Answer] = iter(
        [
            refusal(ErrorCode.UNAVAILABLE, "it is starting", retry_after=0.01),
            lines(line(1, "hello"), ended=True),
            BatchReply(line=0, runs=[run("completed", attempt(0, seconds=1.0))]),
        ]
    )
    daemon.on(BatchJobs, lambda _: next(answers))
    assert leadline("batch", "logs", 1, "--follow").out == "2025-10-17 17:30 hello\n"


def test_who_may_only_submit_waits_for_the_end_without_lines(leadline: Leadline, submit_only: FakeDaemon) -> None:
    submit_only.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running")))
    submit_only.on(
        Follow, lambda asked: [Done(line=0), Ended(job=JobId(asked.job), state="completed", counts=counts())]
    )
    told = leadline("batch", "invoke", "nightly", "--teamspace", "acme", "--wait")
    assert told.status == 0
    assert told.out.startswith("Job 1 is queued.\nJob 1 completed")


def test_all_lines_of_all_attempts_are_read_page_by_page(leadline: Leadline, daemon: FakeDaemon) -> None:
    running = Running(
        daemon,
        run("completed", attempt(0, seconds=3.0), attempt(1, seconds=4.0)),
        lines(line(1, "a"), line(2, "b"), more=2),
        lines(line(3, "c"), ended=True),
        lines(line(1, "d", retry_attempt=1), ended=True),
    )
    told = leadline("batch", "logs", 1, "--json")
    assert [json.loads(each)["text"] for each in told.out.splitlines()] == ["a", "b", "c", "d"]
    assert running.asked == [(0, 0, 0.0), (0, 2, 0.0), (1, 0, 0.0)]


def test_one_attempt_can_be_chosen_and_what_runs_is_not_waited_for(leadline: Leadline, daemon: FakeDaemon) -> None:
    running = Running(daemon, lines(line(1, "so far", retry_attempt=1)))
    told = leadline("batch", "logs", 1, "--attempt", 2)
    assert told.out == "2025-10-17 17:30 so far\n"
    assert running.asked == [(1, 0, 0.0)]
    assert leadline("batch", "logs", 1, "--attempt", 0).status == 2


def test_a_run_that_is_not_there_is_told(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(BatchJobs, lambda _: refusal(ErrorCode.NOT_FOUND, "there is no run 9", at="instance"))
    told = leadline("batch", "logs", 9)
    assert (told.status, told.err) == (1, "leadline: not_found: there is no run 9 (at instance)\n")


def test_runs_are_listed_with_what_they_took_and_why_they_did_not_run(leadline: Leadline, daemon: FakeDaemon) -> None:
    why = "The day had less time left for batch jobs than it needed."
    skipped = run("skipped", instance=JobId(3), source="scheduler", due_at=LONG_AGO, reason=JobReason.LEFT_DURATION)
    retried = run("completed", attempt(0, seconds=25.0, end="it raised"), attempt(1, seconds=30.0), instance=JobId(2))
    begun = run("running", attempt(0), batch_job="")
    pages: Iterator[BatchReply] = iter(
        [BatchReply(line=0, runs=[skipped, retried], next=2), BatchReply(line=0, runs=[begun])]
    )
    daemon.on(BatchJobs, lambda _: next(pages))
    told = leadline("batch", "runs", "nightly", "--teamspace", "acme", "-n", 10)
    assert told.out.splitlines() == [
        "RUN  TEAMSPACE  BATCH JOB  STATE      BY         WHEN              TOOK  NOTE",
        f"  3  acme       nightly    skipped    scheduler  2025-10-17 17:30        {why}",
        "  2  acme       nightly    completed  api        2025-10-17 17:30  55 s  2 attempts",
        "  1  acme       (deleted)  running    api        2025-10-17 17:30",
    ]
    assert daemon.requests == [
        BatchJobs(action="runs", teamspace="acme", name="nightly", limit=10),
        BatchJobs(action="runs", teamspace="acme", name="nightly", limit=8, after=2),
    ]


def test_runs_in_a_pipe_are_a_line_each_and_no_more_than_wanted(leadline: Leadline, daemon: FakeDaemon) -> None:
    found = [run("completed", attempt(0, seconds=1.0), instance=JobId(number)) for number in (3, 2, 1)]
    daemon.on(BatchJobs, lambda _: BatchReply(line=0, runs=found, next=1))
    told = [json.loads(each) for each in leadline("batch", "runs", "--json", "-n", 2).out.splitlines()]
    assert [each["instance"] for each in told] == [3, 2]
    assert told[0]["attempts"][0]["began_at"] == "2025-10-17T12:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nightly"], "Say with --teamspace whose batch job that is"),
        (["-n", "0"], "--limit must be at least 1"),
    ],
)
def test_runs_that_nobody_could_mean_are_not_asked_for(
    leadline: Leadline, daemon: FakeDaemon, arguments: list[str], fault: str
) -> None:
    told = leadline("batch", "runs", *arguments)
    assert told.status == 2
    assert fault in told.err
    assert daemon.requests == []
