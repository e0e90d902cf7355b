"""The first five minutes with Leadline, on any machine and as any user: it starts, takes work, answers and ends."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from leadline_protocol.messages import Noop
from leadline_protocol.testing import find_command
from tests.acceptance.stage import Stage, stage

NOOP = '{"kind":"noop","teamspace":"a"}\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Stage]:
    with stage() as running:
        yield running


def test_a_daemon_brings_its_own_database(daemon: Stage) -> None:
    ran = daemon.leadline("status", "--json")
    assert ran.returncode == 0, ran.stderr
    status = json.loads(ran.stdout)
    assert status["state"] == "ready"
    assert status["database"]["embedded"] is True
    assert status["pid"] == daemon.pid


def test_a_line_through_the_command_is_answered_by_a_receipt(daemon: Stage) -> None:
    ran = daemon.leadline("submit", "-", text=NOOP)
    assert ran.returncode == 0, ran.stderr
    receipt = json.loads(ran.stdout)
    assert receipt["ok"] is True
    assert daemon.ended(receipt["job"]).state == "completed"


@pytest.mark.needs("socat")
def test_a_line_through_socat_is_answered_by_a_receipt(daemon: Stage) -> None:
    ran = subprocess.run(
        ["socat", "-t", "10", "-", f"UNIX-CONNECT:{daemon.submit_socket}"],
        input=NOOP,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    receipt = json.loads(ran.stdout)
    assert receipt["ok"] is True
    assert receipt["line"] == 1
    assert daemon.ended(receipt["job"]).state == "completed"


def test_status_jobs_job_why_and_doctor_answer(daemon: Stage) -> None:
    job = daemon.submit(Noop(teamspace="asked")).job
    daemon.ended(job)
    for arguments in (["status"], ["jobs"], ["job", str(job), "--history"], ["why", str(job)], ["doctor"]):
        ran = daemon.leadline(*arguments)
        assert (ran.returncode, ran.stderr) == (0, ""), (arguments, ran.stdout)
        assert ran.stdout, arguments
    listed = [json.loads(line) for line in daemon.leadline("jobs", "--json").stdout.splitlines()]
    assert job in [view["job"] for view in listed]


def test_a_second_daemon_on_the_same_state_ends_with_1_and_names_the_owner(daemon: Stage, tmp_path: Path) -> None:
    ran = subprocess.run(
        [*find_command(), "serve", "--state-dir", str(daemon.state_dir), "--runtime-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 1
    assert f"pid {daemon.pid} on {socket.gethostname()}" in ran.stderr
    assert daemon.ended(daemon.submit(Noop(teamspace="a")).job).state == "completed", "the first one goes on"


def test_a_second_daemon_on_the_same_database_ends_with_1_and_names_the_owner(daemon: Stage, tmp_path: Path) -> None:
    config = tmp_path / "leadline.toml"
    folder = quote(str(daemon.state_dir / "pg" / "run"), safe="")
    config.write_text(f'[database]\nurl = "postgresql://leadline@/leadline?host={folder}"\n')
    places = ["--config", str(config), "--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path / "run")]
    ran = subprocess.run([*find_command(), "serve", *places], capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 1, ran.stderr
    assert f"{socket.gethostname()} pid {daemon.pid}" in ran.stderr
    assert daemon.ended(daemon.submit(Noop(teamspace="a")).job).state == "completed", "the first one goes on"


def test_a_daemon_that_is_told_to_end_does_so_within_seconds_and_forgets_nothing() -> None:
    with stage() as daemon:
        later = daemon.submit(Noop(teamspace="a", delay=3600)).job
        process = daemon._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not daemon.control_socket.exists() or not answers(daemon.control_socket)
        daemon.restart()
        assert daemon.view(later).state == "delayed"


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0
