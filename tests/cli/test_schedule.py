"""Schedules at the command line."""

from datetime import UTC, datetime
from pathlib import Path

from leadline_protocol.errors import ErrorCode, JobReason
from leadline_protocol.messages import ComingOccurrence, JobWarning, Schedules, SchedulesReply
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, refusal


def test_a_job_that_is_nested_too_deeply_to_be_read_is_told_in_words(leadline: Leadline, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("[" * 100_000)
    told = leadline(
        "schedule", "add", "deep", tmp_path / "job.json", "--teamspace", "acme", "--daily", "02:30", "--zone", "UTC"
    )
    assert told.status == 1
    assert "job.json is not JSON" in told.err


def test_who_names_a_schedule_that_is_not_there_is_not_sent_to_the_jobs(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Schedules, lambda _: refusal(ErrorCode.NOT_FOUND, "acme has no schedule nightly", at="name"))
    told = leadline("schedule", "pause", "nightly", "--teamspace", "acme")
    assert (told.status, told.err) == (1, "leadline: not_found: acme has no schedule nightly (at name)\n")


def test_a_preview_of_a_job_shows_what_its_quota_may_not_allow(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    at = datetime(2026, 12, 1, 2, 30, tzinfo=UTC)
    coming = [ComingOccurrence(at=at, local="2026-12-01T02:30Z", quota=JobReason.INVOCATIONS)]
    warnings = [JobWarning(code="overrun", message="the day has less")]
    daemon.on(Schedules, lambda _: SchedulesReply(line=1, schedules=[], coming=coming, warnings=warnings))
    (tmp_path / "job.json").write_text('{"kind": "batch", "batch_job": "nightly"}')
    when = ("--daily", "02:30", "--zone", "UTC")
    told = leadline("schedule", "preview", "--job", tmp_path / "job.json", "--teamspace", "acme", *when)
    assert "may be skipped: invocations" in told.out
    assert "Warning: the day has less." in told.out
    told = leadline("schedule", "preview", "--job", tmp_path / "job.json", *when)
    assert (told.status, "--job goes with --teamspace" in told.err) == (2, True)


def test_a_word_that_only_begins_like_a_day_is_no_day(leadline: Leadline) -> None:
    told = leadline("schedule", "preview", "--zone", "UTC", "--weekly", "mon,monster", "--at", "02:30")
    assert told.status == 2
    assert "--weekly names days such as mon,thu, not mon,monster" in told.err
