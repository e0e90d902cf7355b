"""What is due by the clock is submitted once, by a real daemon, whenever that dies."""

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.schedules import Cron, Daily
from tests.acceptance.stage import Stage, people, stage

EVERY_MINUTE = Cron("* * * * *", "UTC")
MINUTE_US = 60_000_000
KILLS = 3


@pytest.fixture(scope="module")
def daemon() -> Iterator[Stage]:
    with stage() as running:
        yield running


def add(daemon: Stage, name: str, submission: dict[str, object], *, overlap: bool = False) -> None:
    daemon.ask(
        wire.Schedules(
            action="add", teamspace="acme", name=name, timetable=EVERY_MINUTE, submission=submission, overlap=overlap
        )
    )


def described(daemon: Stage, name: str) -> wire.ScheduleView:
    (view,) = daemon.ask(wire.Schedules(action="describe", teamspace="acme", name=name, count=1)).schedules
    return view


def let_minutes_pass(daemon: Stage, name: str, minutes: int) -> None:
    """As far as the schedule knows, with all that it remembers; it is read when the daemon starts."""
    by = minutes * MINUTE_US
    os.kill(daemon.pid, signal.SIGSTOP)  # a minute that passes now is written over what is written here
    daemon.query("UPDATE schedule SET decided = decided - $2::bigint WHERE name = $1", name, by)
    daemon.query(
        "UPDATE occurrence SET at = at - $2::bigint WHERE schedule = (SELECT id FROM schedule WHERE name = $1)",
        name,
        by,
    )
    daemon.kill()
    daemon.restart()


def until_past(daemon: Stage, name: str, count: int) -> list[wire.PastOccurrence]:
    deadline = time.monotonic() + 30
    while len(past := described(daemon, name).past) < count:
        assert time.monotonic() < deadline, past
        time.sleep(0.02)
    return past


def test_each_time_has_one_job_however_often_the_daemon_is_killed(daemon: Stage) -> None:
    add(daemon, "minutely", {"kind": "noop"}, overlap=True)
    for kill in range(1, KILLS + 1):
        let_minutes_pass(daemon, "minutely", 2)
        until_past(daemon, "minutely", 2 * kill)
    daemon.ask(wire.Schedules(action="pause", teamspace="acme", name="minutely"))  # no minute passes from now on
    past = described(daemon, "minutely").past
    assert {each.verdict for each in past} == {"run"}
    jobs = [each.job for each in past]
    assert len(set(jobs)) == len(jobs)
    assert [view.state for view in map(daemon.ended, filter(None, jobs))] == ["completed"] * len(jobs)
    (stored,) = daemon.query("SELECT count(*) FROM job_ended")[0]
    (fired,) = daemon.query("SELECT count(*) FROM occurrence WHERE verdict = 'run'")[0]
    assert stored == fired, "no job without its time, and no time without its job"
    daemon.ask(wire.Schedules(action="delete", teamspace="acme", name="minutely"))


def test_a_chain_is_started_by_the_clock_and_what_is_refused_is_told(daemon: Stage) -> None:
    daemon.table("acme", "people", people(3))
    formula = {"kind": "formula", "table": "people", "into": {"twice": "number"}, "expression": "n * 2"}
    add(daemon, "chained", {"kind": "chain", "steps": [formula]})
    add(daemon, "hopeless", {**formula, "table": "nobody"})
    let_minutes_pass(daemon, "chained", 1)
    ran = next(each for each in until_past(daemon, "chained", 1) if each.verdict == "run")  # another may be due by now
    assert ran.job is not None
    assert daemon.ended(ran.job).state == "completed"
    assert {row["twice"] for row in daemon.rows("acme", "people")} == {"0", "2", "4"}
    let_minutes_pass(daemon, "hopeless", 1)
    (refused, *_) = until_past(daemon, "hopeless", 1)
    assert (refused.verdict, refused.job) == ("refused", None)
    assert refused.message is not None
    assert "nobody" in refused.message


def test_a_schedule_is_judged_when_it_is_added(daemon: Stage) -> None:
    def refused(submission: dict[str, object], at: str, code: ErrorCode, zone: str = "UTC") -> None:
        with pytest.raises(Refused) as caught:
            daemon.ask(
                wire.Schedules(
                    action="add", teamspace="acme", name="bad", timetable=Daily("02:30", zone), submission=submission
                )
            )
        assert (caught.value.at, caught.value.code) == (at, code)

    refused({"kind": "noop"}, "timetable.zone", ErrorCode.BAD_SCHEDULE, "Mars/Olympus")
    refused({"kind": "dance"}, "submission.kind", ErrorCode.UNKNOWN_KIND)
    refused({"kind": "noop", "teamspace": "beta"}, "submission.teamspace", ErrorCode.BAD_REQUEST)
    refused({"kind": "noop", "idempotency_key": "once"}, "submission.idempotency_key", ErrorCode.BAD_REQUEST)
    refused({"kind": "export", "table": 7}, "submission.table", ErrorCode.BAD_REQUEST)


def test_a_person_adds_tries_pauses_and_deletes_a_schedule_by_the_command_line(daemon: Stage) -> None:
    job = json.dumps({"kind": "noop"})
    berlin = ["--zone", "Europe/Berlin"]
    tried = daemon.leadline("schedule", "preview", *berlin, "--cron", "30 2 29 3 *", "--count", "20")
    assert "the time does not exist that day" in tried.stdout, "some 29 March is a last Sunday"
    added = daemon.leadline(
        "schedule", "add", "nightly", "-", "--teamspace", "acme", *berlin, "--daily", "02:30", text=job
    )
    assert "Schedule nightly of acme: daily at 02:30, Europe/Berlin." in added.stdout
    again = daemon.leadline(
        "schedule", "add", "nightly", "-", "--teamspace", "acme", *berlin, "--daily", "02:30", text=job
    )
    assert again.returncode == 1
    assert "acme has a schedule nightly already" in again.stderr
    both = daemon.leadline(
        "schedule", "add", "x", "-", "--teamspace", "acme", *berlin, "--daily", "02:30", "--at", "03:00", text=job
    )
    assert "--at goes with --weekly and --monthly" in both.stderr
    assert "is paused" in daemon.leadline("schedule", "pause", "nightly", "--teamspace", "acme").stdout
    (line,) = [each for each in daemon.leadline("schedule", "list").stdout.splitlines() if "nightly" in each]
    assert line.split()[-1] == "paused"
    assert "next at" in daemon.leadline("schedule", "resume", "nightly", "--teamspace", "acme").stdout
    described = daemon.leadline("schedule", "describe", "nightly", "--teamspace", "acme", "--json")
    assert json.loads(described.stdout)["timetable"] == {"repeat": "daily", "at": "02:30", "zone": "Europe/Berlin"}
    assert "is deleted" in daemon.leadline("schedule", "delete", "nightly", "--teamspace", "acme").stdout
    gone = daemon.leadline("schedule", "describe", "nightly", "--teamspace", "acme")
    assert "acme has no schedule nightly" in gone.stderr
