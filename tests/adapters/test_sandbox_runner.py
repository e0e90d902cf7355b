"""Runs on this machine and what becomes of them: daemons and supervisors that die, folders, interpreters, numbers."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.adapters.sandbox_runner import runner as adapter
from leadline.adapters.sandbox_runner.cgroups import Ground, Version, find_ground
from leadline.adapters.sandbox_runner.output import CUT, LineCutter
from leadline.adapters.sandbox_runner.processes import named
from leadline.adapters.sandbox_runner.run_folder import LogReader, Processes, RunFolder, log_line
from leadline.adapters.sandbox_runner.runner import LocalRunner, sandbox_runner
from leadline.adapters.sandbox_runner.seccomp import REFUSED, program
from leadline.ports.runner import Killed, KilledFor, Lost, NotBegun, Returned, SandboxMissing
from tests.adapters.named_processes import gone
from tests.contracts.runners import INTERPRETER, Code, first_line

pytestmark = pytest.mark.timeout(60)

FOREVER = "import time\ndef main():\n    print('here')\n    time.sleep(600)"


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


@asynccontextmanager
async def running(folder: Path, *, ground: Ground | None = None, protected: bool = True) -> AsyncIterator[LocalRunner]:
    async with sandbox_runner(folder / "runs", ground=ground, protected=protected) as runner:
        try:
            yield runner
        finally:
            for run in await runner.adopt():
                await run.kill()


def processes_of(folder: Path, name: str) -> Processes:
    processes = RunFolder(folder / "runs" / name).processes()
    assert processes is not None
    return processes


# -- who dies first ---------------------------------------------------------------------------------------------------

DAEMON = """
    import asyncio, sys
    from pathlib import Path
    from leadline.adapters.sandbox_runner.cgroups import find_ground
    from leadline.adapters.sandbox_runner.runner import sandbox_runner
    from tests.contracts.runners import Code, first_line

    async def main(folder):
        async with sandbox_runner(folder / "runs", ground=find_ground()) as runner:
            run = await runner.start(Code(folder).order(sys.argv[2], name="survivor"))
            await first_line(run)
            print("started", flush=True)
            await run.ended()

    asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.needs("bwrap")
async def test_a_daemon_that_is_killed_leaves_its_runs_to_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", dedent(DAEMON), str(tmp_path), FOREVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"started\n"
        daemon.kill()
    async with running(tmp_path) as runner:
        (run,) = await runner.adopt()
        assert await first_line(run) == "here"
        processes = processes_of(tmp_path, "survivor")
        assert not gone(processes.first)
        assert (await run.kill()).how == Killed(KilledFor.TOLD)
        assert gone(processes.first)


@pytest.mark.needs("bwrap")
async def test_a_run_whose_supervisor_is_killed_dies_with_it_and_is_lost(tmp_path: Path, code: Code) -> None:
    async with running(tmp_path, ground=find_ground()) as runner:
        run = await runner.start(code.order(FOREVER))
        await first_line(run)
        processes = processes_of(tmp_path, run.name)
        os.kill(processes.supervisor.pid, signal.SIGKILL)
        end = await run.ended()
        assert end.how == Lost()
        assert end.began is not None
        assert 0 < end.seconds < 30
        assert gone(processes.first)
        assert processes.cgroup is None or not Path(processes.cgroup).exists()
    async with running(tmp_path) as runner:
        (run,) = await runner.adopt()
        assert await run.ended() == end, "and stays lost"


@pytest.mark.needs("bwrap")
async def test_a_run_whose_supervisor_stands_still_is_killed_without_it(tmp_path: Path, code: Code) -> None:
    async with running(tmp_path, ground=find_ground()) as runner:
        run = await runner.start(code.order(FOREVER))
        await first_line(run)
        processes = processes_of(tmp_path, run.name)
        os.kill(processes.supervisor.pid, signal.SIGSTOP)
        with anyio.fail_after(30):
            assert (await run.kill()).how == Killed(KilledFor.TOLD)
        assert gone(processes.first)
        assert gone(processes.supervisor)


@pytest.mark.needs("bwrap")
async def test_a_run_from_before_the_machine_was_started_again_is_lost(tmp_path: Path, code: Code) -> None:
    async with running(tmp_path) as runner:
        run = await runner.start(code.order("def main(): pass"))
        await run.ended()
        folder = RunFolder(tmp_path / "runs" / run.name)
        there = named(os.getpid())
        before = msgspec.structs.replace(there, boot="another")
        folder.write_processes(Processes(before, first=before, started=1))
        (folder.path / "end").unlink()
    async with running(tmp_path) as runner:
        (run,) = await runner.adopt()
        assert (await run.ended()).how == Lost(), "and whoever has its number now lives on"


@pytest.mark.needs("bwrap")
async def test_a_run_of_which_a_daemon_died_before_it_was_started_has_not_begun(tmp_path: Path, code: Code) -> None:
    async with running(tmp_path) as runner:
        run = await runner.start(code.order("def main(): pass"))
        await run.ended()
        folder = RunFolder(tmp_path / "runs" / run.name)
        for name in ("end", "processes"):
            (folder.path / name).unlink()
        (tmp_path / "runs" / "half-made").mkdir()
    async with running(tmp_path) as runner:
        (run,) = await runner.adopt()
        assert isinstance((await run.ended()).how, NotBegun)
        assert not (tmp_path / "runs" / "half-made").exists(), "nobody was told of that"


# -- what holds it ----------------------------------------------------------------------------------------------------


async def test_without_bubblewrap_code_is_refused_unless_it_may_run_without(
    tmp_path: Path, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "SEARCH_PATH", str(tmp_path))
    async with running(tmp_path) as runner:
        with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
            await runner.start(code.order("def main(): return 1"))
        assert await runner.adopt() == []
    async with running(tmp_path, protected=False) as runner:
        run = await runner.start(code.order("def main(): return 1"))
        assert isinstance((await run.ended()).how, Returned)


async def test_a_sandbox_that_cannot_be_put_up_says_why(
    tmp_path: Path, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory() as folder:  # where everybody can go
        Path(folder).chmod(0o755)
        fake = Path(folder, "bwrap")
        fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        fake.chmod(0o755)
        monkeypatch.setattr(adapter, "SEARCH_PATH", folder)
        async with running(tmp_path) as runner:
            run = await runner.start(code.order("def main(): return 1"))
            assert (await run.ended()).how == NotBegun("bwrap: No permissions to create new namespace")


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("counted", [True, False], ids=["by the kernel", "by the supervisor"])
async def test_memory_is_held_whoever_counts_it(tmp_path: Path, code: Code, counted: bool) -> None:
    """In small steps, over processes, files and what they share, of which no limit of a single process knows."""
    program = """
        import mmap, os, time
        def main(way):
            for part in range(40):
                if way == "files":
                    with open(f"/tmp/{part}", "wb") as file:
                        file.write(bytes(5_000_000))
                elif os.fork() == 0:
                    kept = mmap.mmap(-1, 5_000_000)
                    kept.write(os.urandom(1) * 5_000_000)
                    time.sleep(600)
                time.sleep(0.02)
            time.sleep(600)
    """
    ground = find_ground()
    if counted and ground is None:
        pytest.xfail("nobody has given us a cgroup that counts memory")
    for way in ("files", "processes"):
        async with running(tmp_path, ground=ground if counted else None) as runner:
            assert runner.memory_bound == (ground.version if counted and ground else "a look at it ten times a second")
            order = code.order(program, event=way, memory_bytes=120_000_000, disk_bytes=400_000_000, processes=64)
            run = await runner.start(order)
            assert (await run.ended()).how == Killed(KilledFor.MEMORY), way


@pytest.mark.needs("bwrap")
async def test_an_environment_brings_its_packages_wherever_it_lies(tmp_path: Path, code: Code) -> None:
    place = tmp_path / "private" / "environment"
    subprocess.run([INTERPRETER, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "installed.py").write_text("value = 4711")
    async with running(tmp_path) as runner:
        program = "import installed, sys\ndef main(): return [installed.value, sys.prefix]"
        run = await runner.start(code.order(program, interpreter=place / "bin" / "python"))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
        assert msgspec.json.decode(how.value) == [4711, str(place)]


@pytest.mark.needs("bwrap")
@pytest.mark.root
async def test_roots_runs_are_users_of_their_own_each(tmp_path: Path, code: Code) -> None:
    tmp_path.chmod(0o700)
    async with running(tmp_path) as runner:
        runs = [await runner.start(code.order(FOREVER)) for _ in range(2)]
        users = set()
        for run in runs:
            await first_line(run)
            first = processes_of(tmp_path, run.name).first
            assert first is not None
            users.add(Path(f"/proc/{first.pid}").stat().st_uid)
        assert len(users) == 2
        assert min(users) > 0x7000_0000


def version_2(folder: Path, *, own: str, procs: str, controllers: str = "cpu memory pids") -> Path:
    """Files as the kernel has them where memory is counted by version 2, and a process there."""
    process, mount = folder / "process", folder / "mount"
    for each in (process, mount / own / "below"):
        each.mkdir(parents=True)
    (process / "cgroup").write_text(f"1:name=systemd:/\n0::/slice/{own}\n")
    (process / "mountinfo").write_text(
        "22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw\n"
        f"30 22 0:26 /slice {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    for each in (mount / own, (mount / own).parent):
        (each / "cgroup.controllers").write_text(controllers)
        (each / "cgroup.procs").write_text(procs)
        (each / "cgroup.subtree_control").write_text("")
    return process


def test_in_a_cgroup_of_version_2_that_was_given_to_it_the_daemon_makes_room(tmp_path: Path) -> None:
    process = version_2(tmp_path, own="leadline.service", procs=f"{os.getpid()}\n")
    folder = tmp_path / "mount" / "leadline.service"
    assert find_ground(process) == Ground(Version.V2, str(folder))
    assert (folder / "daemon" / "cgroup.procs").read_text() == str(os.getpid())
    assert (folder / "cgroup.subtree_control").read_text() == "+memory"


def test_a_service_stays_where_systemd_has_put_it(tmp_path: Path) -> None:
    process = version_2(tmp_path, own="leadline.service", procs=f"{os.getpid()}\n")
    assert find_ground(process, movable=False) is None
    assert not (tmp_path / "mount" / "leadline.service" / "daemon").exists()


def test_a_daemon_that_has_been_put_below_its_cgroup_of_version_2_uses_that(tmp_path: Path) -> None:
    process = version_2(tmp_path, own="leadline.service/daemon", procs="17\n18\n")
    assert find_ground(process, movable=False) == Ground(Version.V2, str(tmp_path / "mount" / "leadline.service"))


@pytest.mark.parametrize(
    ("procs", "controllers"),
    [("17\n18\n", "memory"), (f"{os.getpid()}\n", "cpu pids")],
    ids=["others", "not_counted"],
)
def test_nobody_else_is_moved_and_nothing_made_where_memory_is_not_counted(
    tmp_path: Path, procs: str, controllers: str
) -> None:
    process = version_2(tmp_path, own="session.scope", procs=procs, controllers=controllers)
    assert find_ground(process) is None
    assert not (tmp_path / "mount" / "session.scope" / "daemon").exists()


# -- parts ------------------------------------------------------------------------------------------------------------


def test_a_number_that_was_given_out_again_means_nobody() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        name = named(process.pid)
        assert not gone(name)
        assert gone(msgspec.structs.replace(name, born=name.born - 1))
        process.kill()
    assert gone(name)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)), st.integers(1, 20))
def test_lines_are_the_same_however_they_arrive(printed: bytes, cuts: list[int], most: int) -> None:
    bounds = [0, *sorted(cuts), len(printed)]
    cutter = LineCutter(most)
    lines = [line for a, b in pairwise(bounds) for line in cutter.feed(printed[a:b])]
    lines += cutter.end()
    whole = printed.split(b"\n")
    expected = whole if whole[-1] else whole[:-1]
    assert len(lines) == len(expected)
    for line, text in zip(lines, expected, strict=True):
        kept = text[:most].decode(errors="replace").removesuffix("\r")
        assert line == (kept if len(text) <= most else kept + CUT)


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reader = LogReader(log)
    assert reader.read() == []
    whole = log_line(1, "one") + log_line(2, "t\u2028w\x0bo")
    log.write_bytes(whole[:-1])
    assert [line.text for line in reader.read()] == ["one"]
    log.write_bytes(whole)
    assert [(line.number, line.at, line.text) for line in reader.read()] == [(2, 2, "t\u2028w\x0bo")]
    assert reader.read() == []


def decide(filter_program: bytes, call: int, machine: int, argument: int) -> int:
    """What the kernel would make of a system call: the few instructions that the filter uses."""
    lines = list(struct.iter_unpack("=HBBI", filter_program))
    data = {0: call, 4: machine, 16: argument}
    value, at = 0, 0
    while True:
        code, then, otherwise, operand = lines[at]
        match code:
            case 0x20:
                value = data[operand]
            case 0x15:
                at += then if value == operand else otherwise
            case 0x35:
                at += then if value >= operand else otherwise
            case 0x06:
                return int(operand)
        at += 1


@pytest.mark.parametrize(
    ("machine", "number", "read", "sockets"),
    [("x86_64", 0xC000003E, 0, (41, 53)), ("aarch64", 0xC00000B7, 63, (198, 199))],
)
def test_the_filter_refuses_what_it_lists_and_nothing_else(
    machine: str, number: int, read: int, sockets: tuple[int, int]
) -> None:
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    made = program(machine)
    assert {call: decide(made, call, number, 1) for call in range(500)} == {
        call: refuse if call in REFUSED[machine].values() else allow for call in range(500)
    }
    assert [decide(made, call, number, family) for call in sockets for family in (1, 2, 10, 16, 17, 40)] == [
        *[allow] * 4, *[refuse] * 2
    ] * 2  # fmt: skip
    assert decide(made, read, number ^ 1, 0) == kill, "the numbers of another machine"
    assert decide(made, 0x40000000 + read, number, 0) == refuse


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SandboxMissing, match="riscv64"):
        program("riscv64")
