"""Batch jobs in the service: a sandbox within what the unit allows, and runs that go on over its restarts."""

import json
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest

from tests.acceptance.machine import Machine, commands, in_a_machine, wait_for

ENABLED = """
[plans.default.batch]
enabled = true
jobs_max = 100
memory_bytes_max = 120_000_000
"""
CONFIGURATION = "/etc/leadline/leadline.toml"
DROP_IN = "/etc/systemd/system/leadline.service.d/batch.conf"
CODE = "/var/lib/leadline/code"
RUNS = "/var/lib/leadline/runs"

UNTIL_TOLD = """
    import os, time
    def main():
        print("begun", flush=True)
        while not os.path.exists("/code/go-on"):
            time.sleep(0.1)
        print("done")
"""


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Machine]:
    """The machine with batch jobs, as deploy/README.md says."""
    machine.run("tee", CONFIGURATION, text=ENABLED)
    machine.run("sh", "-euc", "cd /clone\n" + commands("Batch jobs"))
    yield machine
    machine.run("rm", DROP_IN)
    machine.run("cp", "/clone/deploy/leadline.toml", CONFIGURATION)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "leadline.service")


def published(machine: Machine, name: str, program: str) -> None:
    """A batch job that can be run by submission."""
    folder = f"/root/{name}"
    machine.run("mkdir", folder)
    machine.run("tee", f"{folder}/main.py", text=dedent(program))
    for action in (["create", name, "--api"], ["upload", name, folder], ["publish", name]):
        machine.run("leadline", "batch", *action, "--teamspace", "acme")


def invoke(machine: Machine, name: str) -> int:
    """Submit a run."""
    receipt = machine.run("leadline", "batch", "invoke", name, "--teamspace", "acme", "--json").stdout
    return int(json.loads(receipt)["job"])


def run_of(machine: Machine, name: str) -> dict[str, Any]:
    """The only run of a batch job, as it is now."""
    [line] = machine.run("leadline", "batch", "runs", name, "--teamspace", "acme", "--json").stdout.splitlines()
    run: dict[str, Any] = json.loads(line)
    return run


def lines_of(machine: Machine, job: int) -> list[str]:
    """What a run has printed so far."""
    lines = machine.run("leadline", "batch", "logs", str(job), "--json").stdout.splitlines()
    return [json.loads(line)["text"] for line in lines]


def ended(machine: Machine, name: str) -> dict[str, Any]:
    """The only run of a batch job, at its end."""
    wait_for(lambda: run_of(machine, name)["state"] in ("completed", "failed"), 60)
    return run_of(machine, name)


def begun(machine: Machine, name: str) -> int:
    """A run that goes on until it is told; the same code lies in the same folder, so each has its own."""
    published(machine, name, f"{dedent(UNTIL_TOLD)}# {name}\n")
    job = invoke(machine, name)
    wait_for(lambda: lines_of(machine, job) == ["begun"], 60)
    return job


def tell(machine: Machine) -> None:
    """Have runs come to their end: they see their code's folder, and what is put into it."""
    machine.run("sh", "-euc", f"for folder in {CODE}/*/; do touch $folder/go-on; done")


@in_a_machine
def test_a_run_has_its_sandbox_and_a_network(service: Machine) -> None:
    program = """
        import os, socket
        def main():
            print(os.uname().nodename, [name for _, name in socket.if_nameindex()], os.path.exists("/var/lib"))
    """
    published(service, "greeting", program)
    job = invoke(service, "greeting")
    assert ended(service, "greeting")["state"] == "completed"
    assert lines_of(service, job) == ["sandbox ['lo', 'tap0'] False"]


@in_a_machine
def test_a_run_that_takes_more_memory_than_it_may_is_ended(service: Machine) -> None:
    program = """
        import os, time
        def main():
            for _ in range(20):
                if os.fork() == 0:
                    kept = os.urandom(10_000_000)
                    time.sleep(600)
            time.sleep(600)
    """
    bound = json.loads(service.run("leadline", "status", "--json").stdout)["memory_bound"]
    assert bound in ("cgroup v2", "a look at it ten times a second")
    published(service, "hungry", program)
    invoke(service, "hungry")
    run = ended(service, "hungry")
    assert (run["state"], run["message"]) == ("failed", "it needed more memory than its plan allows"), (bound, run)


@in_a_machine
@pytest.mark.parametrize("way", ["restarted", "stopped", "killed"])
def test_a_run_goes_on_over_the_service_and_is_booked_once(service: Machine, way: str) -> None:
    job = begun(service, way)
    pid = service.service("MainPID")
    match way:
        case "restarted":
            service.run("systemctl", "restart", "leadline.service")
            assert run_of(service, way)["state"] == "running"
            tell(service)
        case "stopped":
            service.run("systemctl", "stop", "leadline.service")
            assert service.service("Result") == "success"
            tell(service)
            wait_for(lambda: service.run("sh", "-c", f"ls {RUNS}/*/end", check=False).returncode == 0, 30)
            service.run("systemctl", "start", "leadline.service")
        case "killed":
            service.run("sh", "-c", f"kill -KILL {pid}")
            wait_for(lambda: service.service("MainPID") not in (pid, "0"), 20)
            wait_for(lambda: service.service("ActiveState") == "active", 60)
            tell(service)
    assert service.service("MainPID") != pid
    run = ended(service, way)
    assert (run["state"], len(run["attempts"])) == ("completed", 1), run
    assert lines_of(service, job) == ["begun", "done"]
    wait_for(lambda: service.run("ls", RUNS).stdout == "", 30)


@in_a_machine
def test_without_the_drop_in_no_run_starts_and_the_doctor_says_what_mends_it(service: Machine) -> None:
    service.run("mv", DROP_IN, f"{DROP_IN}.away")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", "leadline.service")
    published(service, "walled-in", "def main(): pass")
    invoke(service, "walled-in")
    assert ended(service, "walled-in")["state"] == "failed"
    ran = service.run("leadline", "doctor", check=False)
    assert ran.returncode == 1
    [fault] = [line for line in ran.stdout.splitlines() if line.startswith("FAULT")]
    assert f"install -D -m 644 deploy/leadline.service.d/batch.conf {DROP_IN}" in fault
    service.run("mv", f"{DROP_IN}.away", DROP_IN)
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", "leadline.service")
    assert service.run("leadline", "doctor").returncode == 0
