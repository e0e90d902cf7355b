"""The doctor finds what is wrong and what to do about it, and ends with 1 for what keeps the daemon from work."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leadline.cli import doctor, doctor_batch
from leadline_protocol.messages import DatabaseStatus, FollowUps, OutreachReply, Ping, Pong, Status, StatusReply
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon


def findings(leadline: Leadline, *arguments: str | Path) -> tuple[int, Mapping[str, list[tuple[str, str]]]]:
    ran = leadline("doctor", "--json", *arguments)
    found: dict[str, list[tuple[str, str]]] = {}
    for line in map(json.loads, ran.out.splitlines()):
        found.setdefault(line["check"], []).append((line["finding"], line["message"]))
    return ran.status, found


def healthy(daemon: FakeDaemon, **changes: Any) -> None:
    daemon.on(Ping, lambda _: Pong(line=0, version="0.1.0"))
    values: dict[str, Any] = {
        "line": 0,
        "version": "0.1.0",
        "pid": 7,
        "epoch": 1,
        "started_at": NOON,
        "uptime_seconds": 5,
        "state": "ready",
        "families": [],
        "teamspaces": 0,
        "database": DatabaseStatus(reachable=True, embedded=True),
    }
    daemon.on(Status, lambda _: StatusReply(**{**values, **changes}))
    daemon.on(FollowUps, lambda _: OutreachReply(line=0))


def test_where_nothing_is_wrong_it_says_so(leadline: Leadline, daemon: FakeDaemon) -> None:
    healthy(daemon)
    (daemon.state_dir / "incoming").chmod(0o3770)
    status, found = findings(leadline)
    assert status == 0
    assert "fault" not in [finding for each in found.values() for finding, _ in each]
    assert found["daemon"][0][1].startswith(f"It answers at {daemon.runtime_dir}/control.sock, in ")
    assert leadline("doctor").out.endswith("\nNothing is wrong.\n")


def test_that_no_daemon_runs_is_worth_knowing_but_no_fault(leadline: Leadline, tmp_path: Path) -> None:
    status, found = findings(leadline)
    assert status == 0
    ((finding, message),) = found["daemon"]
    assert finding == "note"
    assert "start one with `leadline serve`" in message


def test_every_fault_of_the_configuration_is_found(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text("[queue]\nmax_stall_kills = 0\nbeat_seconds_max = 1\n")
    status, found = findings(leadline, "--config", file)
    assert status == 1
    assert [finding for finding, _ in found["configuration"]] == ["fault", "fault"]
    assert leadline("doctor", "--config", file).out.endswith("\n2 things must be put right.\n")


def test_a_secret_that_everybody_can_read_is_noted(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text("[providers.x]\npreset = 'hunter'\nsecret = 'canary'\n")
    file.chmod(0o644)
    status, found = findings(leadline, "--config", file)
    assert status == 0
    assert found["secrets"][0] == (
        "note",
        f"Everybody on this machine can read {file}, which holds a secret: chmod o-r {file}",
    )
    file.chmod(0o640)
    assert findings(leadline, "--config", file)[1]["secrets"] == [("fine", "1 file holds secrets.")]


def test_an_incoming_folder_that_nobody_else_can_write_to_is_a_fault(leadline: Leadline, daemon: FakeDaemon) -> None:
    healthy(daemon)
    (daemon.state_dir / "incoming").chmod(0o700)
    status, found = findings(leadline)
    assert status == 1
    incoming = daemon.state_dir / "incoming"
    says = f"{incoming} must be writable for its group and sticky: chmod 3770 {incoming}"
    assert ("fault", says) in found["state"]


def test_a_full_disk_is_a_fault(leadline: Leadline, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    status, found = findings(leadline)
    assert status == 1
    assert found["disk"][0][1].startswith("Only 1 MB are free where")


def test_a_daemon_without_its_database_is_a_fault(leadline: Leadline, daemon: FakeDaemon) -> None:
    healthy(daemon, database=DatabaseStatus(reachable=False, embedded=False))
    status, found = findings(leadline)
    assert status == 1
    assert ("fault", "It cannot reach its database; it takes no work until it can.") in found["daemon"]


def test_another_version_of_the_daemon_is_noted(leadline: Leadline, daemon: FakeDaemon) -> None:
    healthy(daemon)
    daemon.on(Ping, lambda _: Pong(line=0, version="0.0.9"))
    _, found = findings(leadline)
    assert ("note", "It is Leadline 0.0.9 and this command 0.1.0: restart it to upgrade.") in found["daemon"]


def test_a_database_that_does_not_answer_is_a_fault_that_keeps_the_password(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text("[database]\nurl = 'postgres://u:canary@127.0.0.1:1/x'\n")
    file.chmod(0o600)
    status, found = findings(leadline, "--config", file)
    assert status == 1
    ((finding, message),) = found["database"]
    assert finding == "fault"
    assert message.startswith("The Postgres of database.url cannot be reached: ")
    assert "canary" not in message


FACTS: Mapping[str, Any] = {
    "version": "16.2",
    "version_number": 160_002,
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "read_only": "off",
    "encoding": "UTF8",
    "seconds_ahead": 0.01,
}


@pytest.mark.parametrize(
    ("changes", "finding", "says"),
    [
        ({"fsync": "off"}, "fault", "fsync is off"),
        ({"full_page_writes": "off"}, "fault", "full_page_writes is off"),
        ({"version_number": 130_011, "version": "13.11"}, "fault", "Postgres 13.11 is too old; Leadline needs 14"),
        ({"read_only": "on"}, "fault", "takes no writes"),
        ({"encoding": "SQL_ASCII"}, "fault", "is in SQL_ASCII"),
        ({"synchronous_commit": "off"}, "note", "synchronous_commit is off"),
        ({"seconds_ahead": -90.0}, "note", "clock is 1 min 30 s behind this machine's"),
    ],
)
def test_a_database_that_would_lose_jobs_is_found_out(changes: Mapping[str, Any], finding: str, says: str) -> None:
    found = list(doctor.judged(doctor.DatabaseFacts(**{**FACTS, **changes})))
    assert len(found) == 2
    assert found[1][0] == finding
    assert says in found[1][1]


def test_a_sound_database_is_fine() -> None:
    assert list(doctor.judged(doctor.DatabaseFacts(**FACTS))) == [("fine", "Postgres 16.2 answers.")]


BATCH_JOBS = "[plans.default.batch]\nenabled = true\n"


@pytest.mark.needs("bwrap", "slirp4netns", "ip")
def test_where_a_plan_has_batch_jobs_their_sandbox_is_tried(leadline: Leadline, tmp_path: Path) -> None:
    assert "batch jobs" not in findings(leadline)[1]
    file = tmp_path / "leadline.toml"
    file.write_text(BATCH_JOBS)
    status, found = findings(leadline, "--config", file)
    assert status == 0
    assert found["batch jobs"][1:] == [("fine", "A sandbox can be made."), ("fine", "It can reach the internet.")]


def test_a_python_that_code_cannot_have_is_a_fault(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text(f"{BATCH_JOBS}[batch.interpreters]\nold = '/bin/true'\n")
    status, found = findings(leadline, "--config", file)
    assert status == 1
    assert [finding for finding, _ in found["batch jobs"]] == ["fault", "fault"]
    assert found["batch jobs"][0][1].startswith("old: /bin/true is no Python that can be run")


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize(
    ("bound", "finding"), [("cgroup v2", "fine"), ("a look at it ten times a second", "note"), (None, None)]
)
def test_what_holds_a_run_to_its_memory_is_the_daemons_word(
    leadline: Leadline, daemon: FakeDaemon, bound: str | None, finding: str | None
) -> None:
    healthy(daemon, memory_bound=bound)
    told = findings(leadline)[1].get("batch jobs", [])
    expected = [] if bound is None else [(finding, f"What holds a run to its memory: {bound}.")]
    assert [each for each in told if "memory" in each[1]] == expected


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/leadline.service/daemon\n", "leadline.service"),
        (
            "4:memory:/system.slice/other.service\n1:name=systemd:/system.slice/leadline.service\n0::/\n",
            "leadline.service",
        ),
        ("0::/user.slice/user-1000.slice/session-1.scope\n", None),
    ],
)
def test_the_unit_of_a_daemon_is_known_by_its_cgroup(tmp_path: Path, text: str, unit: str | None) -> None:
    (tmp_path / "cgroup").write_text(text)
    assert doctor_batch.service_of(tmp_path / "cgroup") == unit
