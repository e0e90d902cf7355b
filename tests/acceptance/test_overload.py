"""A crowd, a flood and a storm at the sockets: nobody else waits for them, memory and the log stay small.

What a client waits is read from its own log, which it keeps in a process of its own; the daemon's memory from the
kernel; what it says from its log file.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.blocking import BlockingClient
from tests.acceptance.stage import Stage, stage

MEGABYTE: Final = 1024 * 1024

IDLE: Final = 10_000
DEAF: Final = 500
SLOW: Final = 500

MEASURED_SECONDS: Final = 5.0
FLOOD_SECONDS: Final = 8.0
WAIT_MILLISECONDS_MAX: Final = 50.0
SETTLED_SECONDS: Final = 60.0
LOG_LINES_MAX: Final = 20

ROUNDS: Final = 5
"""A round in which the machine itself stood still is measured again: the promise is about the daemon."""


pytestmark = pytest.mark.timeout(420)
"""All of it is done twice as quickly on a machine that has nothing else to do."""


@pytest.fixture
def daemon() -> Iterator[Stage]:
    with stage("[plans.default]\nmax_queued = 10000000\n") as running:
        yield running


def begin(role: str, daemon: Stage, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.acceptance.crowd", role, str(daemon.submit_socket), *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


@contextmanager
def crowd(daemon: Stage, *, idle: int = 0, deaf: int = 0, slow: int = 0) -> Iterator[None]:
    """So many peers that are connected, until the block ends."""
    process = begin("hold", daemon, idle, deaf, slow)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline()) == {"held": idle + deaf + slow}
        yield
    finally:
        process.communicate(timeout=60)


def patient_client(daemon: Stage) -> Mapping[str, float]:
    """What a client waits for its receipts, in milliseconds."""
    found = told(begin("measure", daemon, MEASURED_SECONDS))
    assert found["refused"] == 0
    took = sorted(found["seconds"])
    return {"p50": 1e3 * took[len(took) // 2], "p99": 1e3 * took[int(0.99 * len(took))], "count": len(took)}


def resident(daemon: Stage) -> int:
    """The daemon's memory in bytes, as the kernel counts it."""
    status = Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])


def log_lines(daemon: Stage) -> int:
    return len(daemon.log.read_text(encoding="utf-8").splitlines())


def flooded(daemon: Stage, connections: int, line: str) -> tuple[Mapping[str, float], dict[str, Any]]:
    """What a client waits during a flood, and what the flood was told."""
    process = begin("flood", daemon, FLOOD_SECONDS, connections, line)
    time.sleep(1.0)  # until it is in full spate
    return patient_client(daemon), told(process)


FLOODS: Final = ((1, "noop"), (40, "noop"), (8, "rubbish"), (8, "brackets"))
"""Connections, and what is sent over each."""


def until_memory_is_back(daemon: Stage, before: int) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while (now := resident(daemon)) > 1.1 * before:
        assert time.monotonic() < deadline, f"{before} bytes before, {now} now"
        time.sleep(0.2)


def until_alone(client: BlockingClient) -> None:
    """Wait until the daemon has noticed that everybody else is gone."""
    deadline = time.monotonic() + 30
    while client.call(wire.Status()).connections > 1:
        assert time.monotonic() < deadline


def cpu_seconds(daemon: Stage) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_another_clients_receipts_hardly_wait_for_a_crowd_and_a_flood_and_memory_comes_back(daemon: Stage) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > IDLE + DEAF + SLOW + 2_000, f"a hard limit of {hard} open files is too low for this"
    flooded(daemon, 40, "noop")  # a daemon that has had much to do, and is done with it
    before, lines = resident(daemon), log_lines(daemon)
    alone = patient_client(daemon)
    with crowd(daemon, idle=IDLE, deaf=DEAF, slow=SLOW):
        assert daemon.ask(wire.Status()).connections >= IDLE
        for connections, word in FLOODS:
            waits = []
            for _ in range(ROUNDS):
                waited, replies = flooded(daemon, connections, word)
                assert replies["taken"] + replies["refused"] > 100, "the flood was none"
                assert resident(daemon) - before < 200 * MEGABYTE
                waits.append(waited["p99"] - alone["p99"])
                if waits[-1] < WAIT_MILLISECONDS_MAX:
                    break
            else:
                pytest.fail(f"{connections} times {word}: the p99 grew by {waits} ms")
    until_memory_is_back(daemon, before)
    assert log_lines(daemon) - lines <= LOG_LINES_MAX


def test_nothing_of_what_comes_and_goes_stays_in_memory(daemon: Stage) -> None:
    def round_of_everything() -> int:
        taken = 0
        for connections, word in ((4, "noop"), (4, "rubbish")):
            replies = told(begin("flood", daemon, 2.0, connections, word))
            taken += replies["taken"] + replies["refused"]
        told(begin("storm", daemon, 500))
        with ExitStack() as stack:
            for _ in range(100):
                listener = stack.enter_context(daemon.blocking_client())
                listener.call(wire.Watch())
                listener.submit(wire.Noop(teamspace="heard", delay=86_400, notify=True))
        return taken

    grown = []
    for _ in range(3):  # what it takes at its worst, it may keep once; what stays of every round shows each time
        before = resident(daemon)
        taken = 0
        while taken < 100_000:
            taken += round_of_everything()
        grown.append(resident(daemon) - before)
        if grown[-1] < 10 * MEGABYTE:
            return
    pytest.fail(f"a hundred thousand requests left {grown} bytes behind")


def test_ten_thousand_disconnects_are_a_few_lines_of_the_log(daemon: Stage) -> None:
    grown = []
    for _ in range(4):  # what it takes at its worst, it may keep once; what stays of every storm shows each time
        before, lines = resident(daemon), log_lines(daemon)
        assert told(begin("storm", daemon, 10_000)) == {"gone": 10_000}
        with daemon.blocking_client() as client:
            until_alone(client)
        assert log_lines(daemon) - lines <= LOG_LINES_MAX
        grown.append(resident(daemon) - before)
        if grown[-1] < 2 * MEGABYTE:
            return
    pytest.fail(f"each storm left {grown} bytes behind")


def settled_open_files(daemon: Stage) -> int:
    """How many files it has open once it has come up: what it begins with takes some more when it is ready."""
    deadline = time.monotonic() + 30
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < 1:
        assert time.monotonic() < deadline
        now = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.02)
    return seen


def test_a_daemon_that_runs_out_of_open_files_says_so_to_newcomers_and_goes_on_with_everybody_else(
    daemon: Stage,
) -> None:
    first = daemon.submit(wire.Noop(teamspace="a"))
    with daemon.blocking_client() as early:
        open_files = settled_open_files(daemon)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_files + 40, open_files + 40))
        lines = log_lines(daemon)
        refused = 0
        with ExitStack() as stack:
            for _ in range(open_files + 200):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.settimeout(10)
                sock.connect(str(daemon.submit_socket))
                stack.callback(sock.close)
                try:
                    sock.sendall(b'{"op":"ping"}\n')
                    said = sock.recv(4096)
                except (BrokenPipeError, ConnectionResetError):
                    said = b""
                refused += not said or b'"busy"' in said
            assert refused > 100
            cpu = cpu_seconds(daemon)
            assert early.submit(wire.Noop(teamspace="a")).job > first.job
            time.sleep(1)  # in which a daemon that tried again and again would be busy
            assert cpu_seconds(daemon) - cpu < 0.5
        until_alone(early)
        assert log_lines(daemon) - lines <= LOG_LINES_MAX
    assert daemon.ended(daemon.submit(wire.Noop(teamspace="a")).job).state == "completed"
