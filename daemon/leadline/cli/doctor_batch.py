"""What the doctor looks at where there may be batch jobs: whatever it takes to run tenants' code.

A sandbox is tried by making one, as whoever asks. What the service may do is another matter, which its unit says.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import anyio

from leadline.config import Config
from leadline.ports.runner import CannotRun
from leadline_protocol.messages import StatusReply

NAMESPACES: Final = frozenset({"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"})
"""What a sandbox is made of, in systemd's words."""

DROP_IN: Final = "leadline.service.d/batch.conf"
SYSTEMCTL_SECONDS: Final = 10.0


def batch(config: Config, status: StatusReply | None) -> Iterator[tuple[Literal["fine", "note", "fault"], str]]:
    """What is to be said of batch jobs; nothing where no plan has any. `status` is what a running daemon says."""
    plans = [plan.batch for plan in config.plans.values() if plan.batch.enabled]
    live = status is not None and status.memory_bound is not None
    if not plans and not live:
        return
    if not config.batch.sandbox:
        yield "note", "Code runs without a sandbox, as the daemon's user: batch.sandbox = true, unless all is trusted."
        return
    yield from _runs(config, sorted({network for plan in plans for network in plan.reaches}))
    if status is not None:
        unit = service_of(Path("/proc", str(status.pid), "cgroup"))
        if unit is not None and NAMESPACES - _allowed(unit):
            install = f"install -D -m 644 deploy/{DROP_IN} /etc/systemd/system/{DROP_IN}"
            restart = f"systemctl daemon-reload && systemctl restart {unit}"
            yield "fault", f"The service may make no sandbox: {install} && {restart}"
        if status.memory_bound is not None:
            counted = status.memory_bound.startswith("cgroup")
            yield "fine" if counted else "note", f"What holds a run to its memory: {status.memory_bound}."


def _runs(config: Config, reaches: list[str]) -> Iterator[tuple[Literal["fine", "fault"], str]]:
    """Pythons, a sandbox, and a network for it."""
    from leadline.adapters.interpreters import find
    from leadline.adapters.sandbox_runner.trial import run_nothing

    pythons = anyio.run(find, config.batch.interpreters)
    for name, fault in pythons.faults.items():
        yield "fault", f"{name}: {fault}."
    if pythons.default is None:
        yield "fault", "There is no Python that code can have: apt-get install python3"
        return
    yield "fine", f"Code can have Python {', '.join(pythons.paths)}."
    for networks, fine in ([], "A sandbox can be made."), (reaches, "It can reach the internet."):
        if networks or fine.startswith("A"):
            try:
                anyio.run(run_nothing, pythons.paths[pythons.default], networks)
                yield "fine", fine
            except CannotRun as error:
                yield "fault", f"No code can run: {error}"
                return


def service_of(cgroup: Path) -> str | None:
    """The unit that a process belongs to, by its file in /proc; None where it is no service of the system's."""
    if not cgroup.exists():
        return None
    found = re.search(r"(?m)^\d+:(?:name=systemd)?:/system\.slice/([^/\n]+\.service)(?:/|$)", cgroup.read_text())
    return None if found is None else found[1]


def _allowed(unit: str) -> frozenset[str]:
    """The namespaces that a service may make; all where nobody can tell."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return NAMESPACES
    command = [systemctl, "show", "--property=RestrictNamespaces", "--value", unit]
    said = subprocess.run(  # noqa: S603  the unit's name is the kernel's word
        command, capture_output=True, text=True, check=False, timeout=SYSTEMCTL_SECONDS
    ).stdout.split()
    return NAMESPACES if said in ([], ["no"]) else frozenset(said)
