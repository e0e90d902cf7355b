"""The notices and the handed-over sockets, with a socket of our own in the place of systemd's."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from leadline.adapters.systemd import BadActivation, ServiceManager, activated_sockets, has_started_us


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, and NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@leadline-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address.replace("@", "\0"))
        end.settimeout(5)
        yield end, address


def test_each_notice_arrives_as_systemd_reads_it(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    service = ServiceManager({"NOTIFY_SOCKET": address})
    service.ready()
    service.status("3 queued,\n2 running")
    service.stopping()
    assert [end.recv(4096) for _ in range(3)] == [b"READY=1", b"STATUS=3 queued, 2 running", b"STOPPING=1"]


def test_a_reload_carries_the_moment_at_which_it_began(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ServiceManager({"NOTIFY_SOCKET": address}).reloading()
    reloading, moment = end.recv(4096).decode().split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_outside_systemd_nothing_is_said_and_nothing_fails() -> None:
    service = ServiceManager({})
    service.ready()
    service.stopping()
    assert service.beat_seconds is None
    assert activated_sockets({}) == {}


def test_a_service_manager_that_is_gone_takes_nobody_down(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


def test_no_child_inherits_the_variables() -> None:
    environment = {
        "NOTIFY_SOCKET": "/nowhere",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "submit",
        "PATH": "/bin",
    }
    ServiceManager(environment)
    assert activated_sockets(environment) == {}, "they were meant for another process"
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("environment", "beat_seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_period(environment: dict[str, str], beat_seconds: float | None) -> None:
    assert ServiceManager(dict(environment)).beat_seconds == beat_seconds


async def test_the_watchdog_starves_while_the_daemon_is_not_well(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    end.setblocking(False)
    service = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    asked = 0

    def healthy() -> bool:
        nonlocal asked
        asked += 1
        if asked == 6:
            tasks.cancel_scope.cancel()
        return asked <= 3

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.feed_watchdog, healthy)
    assert [end.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    with pytest.raises(BlockingIOError):
        end.recv(4096)


async def test_without_a_watchdog_nobody_is_fed() -> None:
    await ServiceManager({}).feed_watchdog(lambda: True)


ACTIVATED = """
import os
os.environ["LISTEN_PID"] = str(os.getpid())
from leadline.adapters.systemd import activated_sockets
for name, found in activated_sockets().items():
    print(name, found.getsockname(), found.family.name, os.get_inheritable(found.fileno()))
print(sorted(name for name in os.environ if name.startswith("LISTEN")))
"""


def activate(descriptors: list[int], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs a program whose descriptors from 3 on are these, as systemd would."""
    script = f"import os\nfor n, d in enumerate({descriptors}, 100): os.dup2(d, n)\n"
    script += f"for n in range({len(descriptors)}): os.dup2(100 + n, 3 + n)\n"
    script += f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {ACTIVATED!r}])"
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sockets_of_systemd_are_found_by_their_names(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as submit, socket.socket(socket.AF_UNIX) as control:
        for opened, name in ((submit, "submit.sock"), (control, "control.sock")):
            opened.bind(str(tmp_path / name))
            opened.listen()
        ran = activate([submit.fileno(), control.fileno()], {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "submit:control"})
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        f"submit {tmp_path}/submit.sock AF_UNIX False",
        f"control {tmp_path}/control.sock AF_UNIX False",
        "[]",
    ]


@pytest.mark.parametrize("names", ["submit", "submit:submit", "submit:control:more"])
def test_sockets_that_do_not_match_their_names_are_refused(names: str) -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
    with pytest.raises(BadActivation, match="its own name"):
        activated_sockets(environment)


def test_a_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        ran = activate([file.fileno()], {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "submit"})
    assert "BadActivation: descriptor 3 (submit) is not a socket" in ran.stderr


@pytest.mark.parametrize(
    ("pid", "started"), [(os.getpid(), True), (os.getppid(), False), ("", False)], ids=["us", "another", "nobody"]
)
def test_a_service_is_known_from_what_it_has_started(pid: int | str, *, started: bool) -> None:
    assert has_started_us({"SYSTEMD_EXEC_PID": str(pid)}) is started
