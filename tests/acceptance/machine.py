"""A machine with nothing but systemd and Python, booted in a container, on which Leadline is a service.

It is one for all tests of a run, installed as deploy/README.md says, with alice, who may submit, and mallory, who may
not. What the service starts there makes namespaces of its own, as it would outside a container. For a sandbox's own
/proc the kernel asks that its maker sees a whole one: systemd-nspawn covers parts of the machine's, so it gets another,
and the host's, which nobody in the machine sees but the kernel, is covered so that it does not count.
"""

import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec

import pytest

from tests.system_tools import DEBIAN_PACKAGE

P = ParamSpec("P")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SYSTEM = ("systemd", "systemd-sysv", "dbus", "python3")
FOR_BATCH_JOBS = tuple(DEBIAN_PACKAGE[tool] for tool in ("bwrap", "slirp4netns", "ip"))
"""What deploy/README.md has an administrator install for them."""


def in_a_machine(test: Callable[P, None]) -> Callable[P, None]:
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


def commands(heading: str) -> str:
    """The shell commands below a heading of deploy/README.md, less those that bring what the machine comes with."""
    [block] = re.findall(rf"## {heading}\n.*?```sh\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    return re.sub(r"(?m)^(scripts/build && |apt-get install .*\n)", "", block)


@contextmanager
def installed() -> Iterator[Machine]:
    """A machine on which the service runs."""
    subprocess.run([ROOT / "scripts/build"], check=True, capture_output=True)
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    with tempfile.TemporaryDirectory(prefix="leadline-machine-") as folder, booted(Path(folder), suite) as machine:
        ran = machine.run("sh", "-euc", "cd /clone\n" + commands("Install"), check=False)
        assert ran.returncode == 0, ran.stderr + machine.journal()
        machine.run("useradd", "--create-home", "--groups", "leadline-submit", "alice")
        machine.run("useradd", "--create-home", "mallory")
        yield machine


def leader_of(container: int) -> int | None:
    """The systemd of a container, by the process that has started it; None as long as there is none."""
    for child in Path(f"/proc/{container}/task/{container}/children").read_text().split():
        with suppress(FileNotFoundError):  # it was there for a moment
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


@contextmanager
def booted(folder: Path, suite: str) -> Iterator[Machine]:
    """A machine of this release of Debian that has come up, with the clone at /clone."""
    included = "--include=" + ",".join(SYSTEM + FOR_BATCH_JOBS)
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", included, suite, folder / "root"], check=True)
    with (folder / "console").open("wb") as console:
        container = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-euc", 'mount --bind /dev/null /proc/kmsg; exec "$@"', "sh"),
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
                *("--directory", folder / "root", f"--machine=leadline-test-{os.getpid()}", f"--bind-ro={ROOT}:/clone"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: leader_of(container.pid) is not None, 30)
        leader = leader_of(container.pid)
        assert leader is not None
        machine = Machine(leader)
        wait_for(lambda: machine.run("systemctl", "is-system-running", check=False).stdout == "running\n", 60)
        machine.run("mount", "-t", "proc", "proc", "/proc")
        yield machine
        machine.run("systemctl", "poweroff")
        container.wait(60)
    finally:
        container.kill()
        container.wait()
