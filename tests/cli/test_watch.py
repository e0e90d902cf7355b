"""What happens to jobs, as it happens: in lines for a pipe, in bars on a terminal."""

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from leadline.cli import terminal
from leadline_protocol.errors import ErrorCode, JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    DatabaseStatus,
    Done,
    Ended,
    FamilyStatus,
    Get,
    JobList,
    JobReply,
    Jobs,
    Progress,
    Queued,
    Started,
    Status,
    StatusReply,
    Wait,
    Watch,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, Answer, FakeDaemon, counts, refusal, view

JOB = JobId(41)


def in_a_terminal(
    arguments: Sequence[str], *, variables: Mapping[str, str] | None = None, typed: bytes = b""
) -> tuple[int, str]:
    """Run a command on a terminal of its own; its status and everything it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **(variables or {})}
    written = b""
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while select.select([ours], [], [], 30)[0]:
            try:
                written += os.read(ours, 65536)
            except OSError:
                break
            if typed and b"FAMILY" in written:
                os.write(ours, typed)
                typed = b""
    os.close(ours)
    return process.returncode, written.decode()


def script_of_a_job(daemon: FakeDaemon, state: str = "completed") -> None:
    daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running", counts=counts(10))))
    wait = Wait(reason=JobReason.LIMIT, message="Waiting for snov.", until=NOON + timedelta(seconds=12))
    daemon.on(
        Watch,
        lambda asked: [
            Done(line=0),
            Queued(at=NOON, job=JOB, kind="enrich", teamspace="acme"),
            Started(at=NOON, job=JOB, teamspace="acme", attempt=1),
            Progress(at=NOON, job=JOB, state="running", shown="running", counts=counts(10, 4), leads_per_second=2.0),
            Progress(at=NOON, job=JOB, state="running", shown="waiting", counts=counts(10, 4), waits=[wait]),
            Ended(at=NOON, job=JOB, state=state, counts=counts(10, 9, failed=1)),
        ],
    )


def test_in_a_pipe_each_thing_that_happens_is_a_line(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = (NOON + timedelta(minutes=1)).astimezone()
    monkeypatch.setattr(terminal, "now", lambda: now)
    script_of_a_job(daemon)
    ran = leadline("watch", 41)
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "17:30:00  job 41  queued: enrich for acme",
        "17:30:00  job 41  started for acme",
        "17:30:00  job 41  running, 4 of 10 (40 %), 2/s",
        "17:30:00  job 41  waiting, 4 of 10 (40 %), Waiting for snov; that is over now.",
        "17:30:00  job 41  completed: 9 of 10 done, 1 failed.",
    ]


def test_the_same_as_json_are_the_notices(leadline: Leadline, daemon: FakeDaemon) -> None:
    script_of_a_job(daemon)
    lines = [json.loads(line) for line in leadline("watch", 41, "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["queued", "started", "progress", "progress", "ended"]
    assert lines[0]["at"] == "2026-11-21T12:00:00Z"


def test_watching_a_job_that_fails_ends_with_1(leadline: Leadline, daemon: FakeDaemon) -> None:
    script_of_a_job(daemon, "failed")
    assert leadline("watch", 41).status == 1


def test_a_daemon_that_starts_again_is_waited_for(leadline: Leadline, daemon: FakeDaemon) -> None:
    """It takes connections before it knows its jobs; whoever waited for one goes on waiting."""
    script_of_a_job(daemon)
    answers = [refusal(ErrorCode.UNAVAILABLE, "the daemon is starting", retry_after=0.01)]

    def watch(asked: Watch) -> Answer:
        assert asked.job is not None
        return answers.pop() if answers else [Done(line=0), Ended(job=asked.job, state="completed", counts=counts())]

    daemon.on(Watch, watch)
    assert leadline("watch", 41).status == 0
    assert answers == []


def test_a_job_that_there_is_not_is_not_waited_for(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Get, lambda _: refusal(ErrorCode.NOT_FOUND, "there is no job 41", at="job"))
    assert leadline("watch", 41).status == 1


def test_on_a_terminal_a_job_is_a_bar(daemon: FakeDaemon, script: str) -> None:
    script_of_a_job(daemon)
    status, screen = in_a_terminal([script, "watch", "41"])
    assert status == 0
    assert "enrich prospects" in screen
    assert "━" in screen
    assert "\x1b[32mcompleted\x1b[0m: 9 of 10 done, 1 failed." in screen


def test_no_color_leaves_the_bar_and_takes_the_colours(daemon: FakeDaemon, script: str) -> None:
    script_of_a_job(daemon)
    _, screen = in_a_terminal([script, "watch", "41"], variables={"NO_COLOR": "1"})
    assert "enrich prospects" in screen
    assert not re.search(r"\x1b\[[\d;]*3[0-7][\d;]*m", screen)
    assert "Job 41 completed: 9 of 10 done, 1 failed." in screen


def test_a_listing_fits_the_terminal_and_has_colours_there(daemon: FakeDaemon, script: str) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[view(41, state="failed", message="x" * 300, ended_at=NOON)]))
    _, screen = in_a_terminal([script, "jobs"])
    assert "\x1b[31mfailed\x1b[0m" in screen
    assert "xx…" in screen
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 120 for line in screen.splitlines())


def test_top_on_a_terminal_shows_gauges_until_q(daemon: FakeDaemon, script: str) -> None:
    families = [FamilyStatus(family="tables", delayed=0, queued=1, running=1, stopping=0, in_hand=1, capacity=8)]
    daemon.on(
        Status,
        lambda _: StatusReply(
            line=0,
            version="0.1.0",
            pid=7,
            epoch=1,
            started_at=NOON,
            uptime_seconds=5,
            state="ready",
            families=families,
            teamspaces=1,
            database=DatabaseStatus(reachable=True, embedded=True),
        ),
    )
    daemon.on(Jobs, lambda asked: JobList(line=0, jobs=[view(41, state=asked.state, counts=counts(10, 5))]))
    status, screen = in_a_terminal([script, "top"], typed=b"q")
    assert status == 0
    for part in ("1 of 8", "Running: 1", "Waiting for their turn: 1", "enrich of prospects for acme", "━", "50 %"):
        assert part in screen
