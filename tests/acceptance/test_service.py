"""The files of deploy/, judged by systemd itself and by the configuration they are a sample of."""

import json
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leadline.config import Config, describe, parse, reference, toml_text

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ["leadline.service", "leadline-submit.socket", "leadline-control.socket"]
SOCKETS = ["/run/leadline/submit.sock", "/run/leadline/control.sock"]
EXPOSURE_MAX = 1.5


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        shutil.copy(DEPLOY / name, tmp_path)
    service = tmp_path / "leadline.service"
    service.write_text(service.read_text().replace("/usr/local/bin/leadline", "/bin/true"))  # has to exist
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), "an unknown key is only a warning to systemd"


@pytest.mark.needs("systemd-analyze")
def test_the_service_is_as_shut_in_as_promised() -> None:
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", DEPLOY / "leadline.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    overall = re.search(r"Overall exposure level for leadline\.service: (\d+\.\d+)", ran.stdout)
    assert overall is not None
    assert float(overall[1]) <= EXPOSURE_MAX, ran.stdout


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
    for name in ("snov", "snov-acme", "phone", "smtp", "webhook-acme", "acme-etl"):
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
        if key.name == "notices.smtp.secret":
            continue  # there is one mail server, and its secret stands in a file
        assert any(name == key.name or name.startswith(key.name + ".") for name in set_there), key.name
    for key in reference():
        if key.default and key.name in set_there and key.name not in ELSE_IN_SAMPLE:
            assert toml_text(set_there[key.name]) == key.default, key.name


# A machine with nothing but systemd and Python, booted in a container -------------------------------------------------


def in_a_machine(test: Callable[["Machine"], None]) -> Callable[["Machine"], None]:
    """Marks a test that is run in the container, which the first of them makes."""
    for mark in (
        pytest.mark.needs("systemd-nspawn", "mmdebstrap"),
        pytest.mark.root,
        pytest.mark.timeout(900),
    ):
        test = mark(test)
    return test


class Machine:
    """Runs programs inside; `leader` is the pid of its systemd as seen from here."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(
        self, *command: str, user: str = "root", text: str = "", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        home = "/root" if user == "root" else f"/home/{user}"
        ran = subprocess.run(
            [
                *("nsenter", "--target", str(self.leader), "--all", "--"),
                *("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"),
                *("runuser", "-u", user, "--", "env", "--chdir=/", f"HOME={home}"),
                *command,
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert not check or ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def submit(self, **submission: object) -> int:
        """The number of a job that an ordinary member of the group submits, as often as a starting daemon says to."""
        while True:
            ran = self.run("leadline", "submit", "-", user="alice", text=json.dumps(submission) + "\n", check=False)
            receipt = json.loads(ran.stdout)
            if receipt["ok"]:
                return int(receipt["job"])
            assert receipt["error"]["code"] == "unavailable", receipt
            time.sleep(receipt["error"]["retry_after"])

    def state_of(self, job: int) -> str:
        """What an operator sees of a job."""
        return str(json.loads(self.run("leadline", "job", str(job), "--json").stdout)["state"])

    def service(self, name: str) -> str:
        """A property of the unit."""
        return self.run("systemctl", "show", "--property", name, "--value", "leadline.service").stdout.strip()

    def journal(self) -> str:
        return self.run("journalctl", "--unit", "leadline.service", "--output", "cat", "--no-pager").stdout


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Waits for what another machine does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Installed as deploy/README.md says, with alice, who may submit, and mallory, who may not."""
    subprocess.run([ROOT / "scripts/build"], check=True, capture_output=True)
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    with tempfile.TemporaryDirectory(prefix="leadline-machine-") as folder, booted(Path(folder), suite) as machine:
        [install] = re.findall(r"## Install\n.*?```sh\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
        installed = machine.run("sh", "-euc", "cd /clone\n" + install.replace("scripts/build && ", ""), check=False)
        assert installed.returncode == 0, installed.stderr + machine.journal()
        machine.run("useradd", "--create-home", "--groups", "leadline-submit", "alice")
        machine.run("useradd", "--create-home", "mallory")
        yield machine


@contextmanager
def booted(folder: Path, suite: str) -> Iterator[Machine]:
    """A machine of this release of Debian that has come up, with the clone at /clone."""
    included = "--include=systemd,systemd-sysv,dbus,python3"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", included, suite, folder / "root"], check=True)
    with (folder / "console").open("wb") as console:
        container = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
                *("--directory", folder / "root", "--machine=leadline-test", f"--bind-ro={ROOT}:/clone"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    try:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
        wait_for(lambda: bool(children.read_text()), 30)
        machine = Machine(int(children.read_text()))
        wait_for(lambda: machine.run("systemctl", "is-system-running", check=False).stdout == "running\n", 60)
        yield machine
        machine.run("systemctl", "poweroff")
        container.wait(60)
    finally:
        container.kill()
        container.wait()


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
