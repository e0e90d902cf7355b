"""`leadline batch`: what a batch job is set to, and what is to be done until it runs."""

import io
import json
import os
import pty
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages import (
    Batch,
    BatchDay,
    BatchJobs,
    BatchReply,
    BatchVersion,
    BatchView,
    JobWarning,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon, batch_view, refusal

DAY = BatchDay(
    executions=7, executions_max=24, seconds=1860.0, seconds_max=14400.0, ends_at=NOON + timedelta(hours=6, minutes=30)
)
"""It ends at midnight in the zone of the tests."""

ADD_A_SCHEDULE = "leadline schedule add --help"


def answering(daemon: FakeDaemon, *views: BatchView, **more: Any) -> None:
    daemon.on(BatchJobs, lambda _: BatchReply(line=0, batch_jobs=list(views), **more))


def asked(daemon: FakeDaemon) -> BatchJobs:
    (request,) = daemon.requests
    assert isinstance(request, BatchJobs)
    return request


def test_a_new_batch_job_is_a_draft_and_wants_code(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view())
    ran = leadline("batch", "create", "nightly", "--teamspace", "acme", "--timeout", "1h30m", "--api")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "acme has a batch job nightly now: a draft.",
        "Next: leadline batch upload nightly FOLDER --teamspace acme",
    ]
    assert asked(daemon) == BatchJobs(
        action="create", teamspace="acme", name="nightly", api=True, timeout_seconds=90 * 60
    )


def test_one_more_than_the_plan_allows_is_refused(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(BatchJobs, lambda _: refusal(ErrorCode.QUOTA, "there are 5 batch jobs", retry_after=60.0))
    ran = leadline("batch", "create", "sixth", "--teamspace", "acme")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "leadline: quota: there are 5 batch jobs; try again in 60 s\n"


@pytest.mark.parametrize("arguments", [["batch", "create", "nightly"], ["batch", "invoke", "nightly"]])
def test_where_batch_jobs_are_off_the_way_to_have_them_is_told(
    leadline: Leadline, daemon: FakeDaemon, arguments: Sequence[str]
) -> None:
    for request in (BatchJobs, Batch):
        daemon.on(request, lambda _: refusal(ErrorCode.FORBIDDEN, "batch jobs are not enabled for acme"))
    ran = leadline(*arguments, "--teamspace", "acme")
    way = "`leadline plans --teamspace acme --set batch.enabled=true` enables them"
    assert (ran.status, ran.err) == (1, f"leadline: forbidden: batch jobs are not enabled for acme; {way}\n")


def test_all_that_can_be_set_is_said_at_once(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view())
    ran = leadline(
        *("batch", "set", "nightly", "--teamspace", "acme", "--no-api", "--timeout", "90s", "--retries", "1"),
        *("--retry-timeouts", "--stall-after", "5m", "--interpreter", "science", "--setting", "region=eu=1"),
        *("--setting", "empty=", "--unset", "old"),
    )
    assert ran.status == 0, ran.err
    assert asked(daemon) == BatchJobs(
        action="set",
        teamspace="acme",
        name="nightly",
        api=False,
        timeout_seconds=90,
        retries=1,
        retry_timeouts=True,
        stall_after_seconds=300,
        interpreter="science",
        settings={"region": "eu=1", "empty": "", "old": None},
    )


def test_what_is_not_said_stays_as_it_is_and_silence_can_be_allowed(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view())
    leadline("batch", "set", "nightly", "--teamspace", "acme", "--stall-after", "off", "--interpreter", "")
    assert asked(daemon) == BatchJobs(
        action="set", teamspace="acme", name="nightly", stall_after_seconds=0, interpreter=""
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "say what to set: --timeout, --api, --setting or another option"),
        (["--timeout", "10"], "--timeout takes a duration such as 90s, 10m or 1h30m, not 10"),
        (["--timeout", "10mm"], "--timeout takes a duration such as 90s, 10m or 1h30m, not 10mm"),
        (["--stall-after", "never"], "--stall-after takes a duration such as 90s, 10m or 1h30m, not never"),
        (["--setting", "region"], "--setting takes NAME=VALUE, not region"),
        (["--setting", "token=x", "--secret", "token"], "token is given twice"),
        (["--secret", "one", "--secret", "two"], "standard input holds one secret: give one --secret at a time"),
    ],
)
def test_what_cannot_be_set_is_refused_before_the_daemon_is_asked(
    leadline: Leadline, daemon: FakeDaemon, options: Sequence[str], fault: str
) -> None:
    ran = leadline("batch", "set", "nightly", "--teamspace", "acme", *options)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"leadline: {fault} (see `leadline batch --help`)\n"
    assert daemon.requests == []


def test_a_secret_comes_from_standard_input_and_is_printed_nowhere(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(daemon, batch_view(secrets=["token"], settings={"region": "eu"}))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"two\nlines\n")))
    ran = leadline("batch", "set", "nightly", "--teamspace", "acme", "--secret", "token")
    assert asked(daemon).secrets == {"token": "two\nlines"}
    assert "two" not in ran.out + ran.err
    assert [line.split() for line in ran.out.splitlines() if "token" in line or "region" in line] == [
        ["region", "eu"],
        ["token", "(secret)"],
    ]


def test_an_empty_secret_sets_nothing(leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    ran = leadline("batch", "set", "nightly", "--teamspace", "acme", "--secret", "token")
    assert (ran.status, ran.err) == (1, "leadline: The secret token is empty: nothing was set\n")
    assert daemon.requests == []


def on_a_terminal(script: str, *arguments: str, typed: bytes) -> tuple[int, str]:
    """Run a command on a terminal where somebody types an answer; its status, and all that is to be seen there."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [script, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as it:
        os.close(theirs)
        try:
            while data := os.read(ours, 65536):
                shown += data
                if typed and shown.endswith((b": ", b"] ")):
                    os.write(ours, typed)
                    typed = b""
        except OSError:
            pass  # it has ended
    os.close(ours)
    return it.returncode, shown.decode()


def test_a_secret_that_is_typed_is_not_shown(script: str, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view(secrets=["token"]))
    status, shown = on_a_terminal(
        *(script, "batch", "set", "nightly", "--teamspace", "acme", "--secret", "token"), typed=b"hush-7\n"
    )
    assert status == 0, shown
    assert asked(daemon).secrets == {"token": "hush-7"}
    assert shown.startswith("token: ")
    assert "hush" not in shown


@pytest.mark.parametrize(("typed", "status", "deleted"), [(b"y\n", 0, 1), (b"\n", 1, 0)])
def test_who_deletes_is_asked(script: str, daemon: FakeDaemon, typed: bytes, status: int, deleted: int) -> None:
    answering(daemon)
    ended, shown = on_a_terminal(script, "batch", "delete", "nightly", "--teamspace", "acme", typed=typed)
    assert (ended, len(daemon.requests)) == (status, deleted), shown
    question = "Delete the batch job nightly of acme with its code, settings and schedules? It cannot be had back."
    assert f"{question} [y/N]" in shown


def test_nothing_is_deleted_where_nobody_can_be_asked(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon)
    ran = leadline("batch", "delete", "nightly", "--teamspace", "acme")
    assert (ran.status, daemon.requests) == (2, [])
    assert "nobody can be asked here: say --yes" in ran.err
    ran = leadline("batch", "delete", "nightly", "--teamspace", "acme", "--yes")
    assert (ran.status, ran.out) == (0, "nightly is deleted.\n")
    assert asked(daemon) == BatchJobs(action="delete", teamspace="acme", name="nightly")


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, "leadline batch upload nightly FOLDER --teamspace acme"),
        ({"name": "every night"}, "leadline batch upload 'every night' FOLDER --teamspace acme"),
        (
            {"version": 1},
            f"leadline batch set nightly --api --teamspace acme, or a schedule that runs it: {ADD_A_SCHEDULE}",
        ),
        ({"version": 1, "api": True}, "leadline batch publish nightly --teamspace acme"),
        ({"version": 1, "schedules": ["s"]}, "leadline batch publish nightly --teamspace acme"),
        ({"version": 1, "api": True, "state": "unpublished"}, "leadline batch publish nightly --teamspace acme"),
        ({"version": 1, "api": True, "state": "published"}, "leadline batch invoke nightly --teamspace acme --wait"),
        ({"version": 1, "schedules": ["s"], "state": "published"}, None),
    ],
)
def test_what_is_to_be_done_next_is_told(
    leadline: Leadline, daemon: FakeDaemon, changes: dict[str, Any], step: str | None
) -> None:
    answering(daemon, batch_view(**changes))
    ran = leadline("batch", "describe", "nightly", "--teamspace", "acme")
    said = [line for line in ran.out.splitlines() if line.startswith("Next: ")]
    assert said == ([] if step is None else [f"Next: {step}"])


def test_publishing_tells_what_runs_it_and_of_what_to_beware(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(
        daemon,
        batch_view(state="published", version=3, schedules=["every-night"]),
        warnings=[JobWarning(code="day_overrun", message="its schedules may take 600 of 240 minutes")],
    )
    ran = leadline("batch", "publish", "nightly", "--teamspace", "acme")
    assert ran.out.splitlines() == [
        "nightly is published. It is run by: every-night.",
        "  Warning: its schedules may take 600 of 240 minutes",
    ]
    assert asked(daemon) == BatchJobs(action="publish", teamspace="acme", name="nightly")


def test_what_cannot_be_published_says_why(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(BatchJobs, lambda _: refusal(ErrorCode.BAD_STATE, "it has no code", at="name"))
    ran = leadline("batch", "publish", "nightly", "--teamspace", "acme")
    assert (ran.status, ran.err) == (1, "leadline: bad_state: it has no code (at name)\n")


def test_unpublishing_says_what_to_do_to_have_it_back(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view(state="unpublished", version=3, api=True))
    ran = leadline("batch", "unpublish", "nightly", "--teamspace", "acme")
    assert ran.out.splitlines() == [
        "nightly is unpublished: it does not start any more.",
        "Next: leadline batch publish nightly --teamspace acme",
    ]


def test_a_batch_job_is_described_with_its_settings_and_versions(leadline: Leadline, daemon: FakeDaemon) -> None:
    version = BatchVersion(
        version=3, size_bytes=12_000, sha256="ab12", files=4, requirements=True, uploaded_at=NOON - timedelta(days=400)
    )
    answering(
        daemon,
        batch_view(
            state="published",
            version=3,
            schedules=["every-night"],
            retries=1,
            retry_timeouts=True,
            stall_after_seconds=300,
            interpreter="science",
            settings={"region": "eu"},
            secrets=["token"],
            versions=[version],
        ),
        day=DAY,
    )
    ran = leadline("batch", "describe", "nightly", "--teamspace", "acme")
    assert ran.out.splitlines() == [
        "Batch job nightly of acme: published, version 3.",
        "  It is run by: every-night.",
        "  An attempt is ended after 10 min; it is tried 1 time more when it has failed or took too long.",
        "  It is ended when it has been silent for 5 min.",
        "  It is run by the Python science.",
        "  The batch jobs of acme today: 7 of 24 executions, 31 of 240 minutes used; the day ends at 00:00.",
        "",
        "SETTING  VALUE",
        "region   eu",
        "token    (secret)",
        "",
        "VERSION  UPLOADED           SIZE  FILES  SHA-256",
        "      3  2025-10-17 17:30  12 kB      4  ab12",
    ]
    told = json.loads(leadline("batch", "describe", "nightly", "--teamspace", "acme", "--json").out)
    assert told["day"]["ends_at"] == "2026-11-21T18:30:00Z"
    assert told["batch_jobs"][0]["versions"][0]["version"] == 3


def test_the_list_shows_all_pages_and_what_the_day_has_used(leadline: Leadline, daemon: FakeDaemon) -> None:
    def page(wanted: BatchJobs) -> BatchReply:
        if not wanted.after:
            return BatchReply(line=0, batch_jobs=[batch_view()], day=DAY, next=8)
        published = batch_view(name="sms", state="published", version=2, api=True, schedules=["hourly"], retries=1)
        return BatchReply(line=0, batch_jobs=[published], day=DAY)

    daemon.on(BatchJobs, page)
    ran = leadline("batch", "list", "--teamspace", "acme")
    assert ran.out.splitlines() == [
        "TEAMSPACE  BATCH JOB  STATE      VERSION  TIMEOUT  RETRIES  RUN BY",
        "acme       nightly    draft                10 min        0",
        "acme       sms        published        2   10 min        1  hourly, API",
        "7 of 24 executions, 31 of 240 minutes used; the day ends at 00:00.",
    ]
    assert [wanted.after for wanted in daemon.requests if isinstance(wanted, BatchJobs)] == [0, 8]
    lines = [json.loads(line) for line in leadline("batch", "list", "--json").out.splitlines()]
    assert [(line["name"], line["created_at"]) for line in lines] == [
        ("nightly", "2026-11-21T12:00:00Z"),
        ("sms", "2026-11-21T12:00:00Z"),
    ]


def test_what_acts_on_a_terminal_is_shown_as_what_it_is(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, batch_view(name="\x1b[2Jx", settings={"a\nb": "\x07"}, schedules=["\u202e"]))
    for arguments in (["list"], ["describe", "x", "--teamspace", "acme"]):
        ran = leadline("batch", *arguments)
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.out)
