"""The files of deploy/, judged by systemd itself, by a machine and by the configuration they are a sample of."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from leadline.config import Config, describe, parse, reference, toml_text
from tests.acceptance.machine import DEPLOY, Machine, in_a_machine, wait_for

UNITS = ["leadline.service", "leadline-submit.socket", "leadline-control.socket", "leadline-http.socket"]
SOCKETS = ["/run/leadline/submit.sock", "/run/leadline/control.sock"]
NEWER_KEY = re.compile(r"Unknown key '?(name ')?DelegateSubgroup")
"""What systemd says before version 254, and goes on."""


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("drop_in", ["", "batch.conf"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, drop_in: str) -> None:
    units = unit_files(tmp_path, drop_in)
    service = tmp_path / "leadline.service"
    service.write_text(service.read_text().replace("/usr/local/bin/leadline", "/bin/true"))  # has to exist
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    faults = [fault for fault in ran.stderr.splitlines() if not NEWER_KEY.search(fault)]
    assert (ran.returncode, faults) == (0, []), "an unknown key is only a warning to systemd"


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(("drop_in", "exposure_max"), [("", 1.5), ("batch.conf", 3.5)])
def test_the_service_is_as_shut_in_as_promised(tmp_path: Path, drop_in: str, exposure_max: float) -> None:
    unit_files(tmp_path, drop_in)
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", tmp_path / "leadline.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    overall = re.search(r"Overall exposure level for leadline\.service: (\d+\.\d+)", ran.stdout)
    assert overall is not None
    assert float(overall[1]) <= exposure_max, ran.stdout


def unit_files(folder: Path, drop_in: str) -> list[Path]:
    """The units as an administrator installs them: systemd takes every drop-in that lies beside one."""
    for name in UNITS:
        shutil.copy(DEPLOY / name, folder)
    if drop_in:
        (folder / "leadline.service.d").mkdir()
        shutil.copy(DEPLOY / "leadline.service.d" / drop_in, folder / "leadline.service.d")
    return [folder / name for name in UNITS]


def uncommented(text: str) -> str:
    """The sample with every setting in force: what stands behind '#' without a single space is one."""
    return re.sub(r"(?m)^#(?! \S|$)", "", text)


def test_the_sample_configuration_changes_nothing_until_it_is_edited() -> None:
    sample = DEPLOY / "leadline.toml"
    config = parse(sample.read_text(), sample)
    assert {setting.source for setting in describe(config)} == {"built-in"}
    assert describe(config) == describe(Config())


ELSE_IN_SAMPLE = ("queue.capacity.batch", "plans.NAME.weight", "notices.teamspaces.NAME.mail")
"""Keys that the sample shows with another value than their default."""


def test_the_sample_configuration_holds_every_key_with_its_default(tmp_path: Path) -> None:
    for name in ("snov", "snov-acme", "phone", "smtp", "webhook-acme", "acme-etl", "outreach-smtp"):
        (tmp_path / name).write_text("key")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/scorer.toml").touch()
    full = parse(uncommented((DEPLOY / "leadline.toml").read_text()), tmp_path / "leadline.toml")
    named = re.compile(r"(^plans|^teamspaces|^providers|^modules|\.own|^notices\.teamspaces)\.\w+")
    set_there = {
        named.sub(r"\1.NAME", setting.key): setting.value
        for setting in reversed(describe(full))
        if setting.source == "toml"
    }
    for key in reference():
        if key.name in {"notices.smtp.secret", "outreach.smtp.secret"}:
            continue  # there is one mail server for each, and its secret stands in a file
        assert any(name == key.name or name.startswith(key.name + ".") for name in set_there), key.name
    for key in reference():
        if key.default and key.name in set_there and key.name not in ELSE_IN_SAMPLE:
            assert toml_text(set_there[key.name]) == key.default, key.name


@in_a_machine
def test_it_runs_after_the_six_lines_of_the_readme(machine: Machine) -> None:
    assert machine.service("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "leadline.service").stdout == "enabled\n"
    pid = machine.service("MainPID")
    assert machine.run("stat", "--format", "%U", f"/proc/{pid}").stdout == "leadline\n"
    assert machine.run("stat", "--format", "%G %a %n", *SOCKETS).stdout.splitlines() == [
        "leadline-submit 660 /run/leadline/submit.sock",
        "leadline-admin 660 /run/leadline/control.sock",
    ]
    assert machine.service("StatusText") != ""
    assert machine.run("systemctl", "--failed", "--quiet").stdout == ""


@in_a_machine
def test_the_first_connection_starts_it(machine: Machine) -> None:
    machine.run("systemctl", "stop", "leadline.service")
    job = machine.submit(kind="noop", teamspace="acme")
    assert machine.service("ActiveState") == "active"
    wait_for(lambda: machine.state_of(job) == "completed", 10)


@in_a_machine
def test_who_is_in_no_group_reaches_neither_socket(machine: Machine) -> None:
    line = '{"kind":"noop","teamspace":"acme"}\n'
    ran = machine.run("leadline", "submit", "-", user="mallory", text=line, check=False)
    assert ran.returncode == 3
    assert ran.stdout == ""
    assert "You may not open /run/leadline/" in ran.stderr
    assert machine.run("leadline", "status", user="alice", check=False).returncode == 3


@in_a_machine
def test_sigterm_drains_and_what_is_queued_is_there_after_the_next_start(machine: Machine) -> None:
    job = machine.submit(kind="noop", teamspace="acme", delay=3600)
    machine.run("systemctl", "stop", "leadline.service")
    assert machine.service("Result") == "success"
    assert machine.service("ExecMainStatus") == "0"
    said = machine.run("tail", "-1", "/var/lib/leadline/pg/server.log").stdout
    assert "database system is shut down" in said
    machine.run("systemctl", "start", "leadline.service")
    assert machine.state_of(job) == "delayed"


@in_a_machine
def test_a_reload_takes_a_sound_configuration_and_refuses_a_faulty_one(machine: Machine) -> None:
    pid = machine.service("MainPID")
    machine.run("tee", "/etc/leadline/leadline.toml", text="[queue]\nmax_stall_kills = 3\n")
    machine.run("systemctl", "reload", "leadline.service")
    wait_for(lambda: "event=reloaded" in machine.journal(), 10)
    machine.run("tee", "/etc/leadline/leadline.toml", text="[queue]\nno_such_key = 3\n")
    machine.run("systemctl", "reload", "leadline.service")
    wait_for(lambda: "queue.no_such_key" in machine.journal(), 10)
    machine.run("cp", "/clone/deploy/leadline.toml", "/etc/leadline/leadline.toml")
    assert machine.service("MainPID") == pid


@in_a_machine
def test_a_wrong_configuration_is_not_started_over_and_over(machine: Machine) -> None:
    machine.run("tee", "/etc/leadline/leadline.toml", text="[queue]\nx = 3\n")
    machine.run("systemctl", "restart", "leadline.service", check=False)
    wait_for(lambda: machine.service("ActiveState") == "failed", 10)
    assert machine.service("ExecMainStatus") == "2"
    assert machine.service("NRestarts") == "0"
    machine.run("cp", "/clone/deploy/leadline.toml", "/etc/leadline/leadline.toml")
    machine.run("systemctl", "reset-failed", "leadline.service")
    machine.run("systemctl", "start", "leadline.service")


@in_a_machine
def test_a_daemon_that_hangs_is_replaced_and_nothing_is_lost(machine: Machine) -> None:
    job = machine.submit(kind="noop", teamspace="acme", delay=3600)
    sooner = "/run/systemd/system/leadline.service.d/sooner.conf"
    machine.run("mkdir", "--parents", str(Path(sooner).parent))
    machine.run("tee", sooner, text="[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=0\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "leadline.service")
    pid = machine.service("MainPID")
    machine.run("sh", "-c", f"kill -STOP {pid}")
    wait_for(lambda: machine.service("MainPID") not in (pid, "0"), 20)
    wait_for(lambda: machine.service("ActiveState") == "active", 30)
    assert "Watchdog timeout" in machine.journal()
    assert machine.state_of(job) == "delayed"
    machine.run("rm", sooner)
    machine.run("systemctl", "daemon-reload")


@in_a_machine
def test_a_killed_daemon_is_replaced_and_nothing_is_lost(machine: Machine) -> None:
    job = machine.submit(kind="noop", teamspace="acme", delay=3600)
    pid = machine.service("MainPID")
    machine.run("sh", "-c", f"kill -KILL {pid}")
    wait_for(lambda: machine.service("MainPID") not in (pid, "0"), 20)
    wait_for(lambda: machine.service("ActiveState") == "active", 30)
    assert machine.state_of(job) == "delayed"
