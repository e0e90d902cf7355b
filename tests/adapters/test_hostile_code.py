"""Programs that mean harm: inside the sandbox they come to nothing, and without it the same programs do what they try.

Each attack tells what it has achieved, and the tests look for traces of it outside. What would fill the machine is
bounded by itself, so that it can be tried without the sandbox as well.
"""

import os
import platform
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from leadline.adapters.sandbox_runner.cgroups import find_ground
from leadline.adapters.sandbox_runner.processes import Named, named
from leadline.adapters.sandbox_runner.run_folder import RunFolder
from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.adapters.sandbox_runner.seccomp import REFUSED
from leadline.ports.runner import Exited, Killed, KilledFor, Returned, Run, Runner
from tests.adapters.named_processes import gone
from tests.contracts.runners import Code, first_line, killed_within_a_second, texts_of

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.timeout(60)]

CANARY = "canary-4711"


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


@asynccontextmanager
async def running(folder: Path, *, protected: bool) -> AsyncIterator[Runner]:
    async with sandbox_runner(folder / "runs", ground=find_ground(), protected=protected) as runner:
        try:
            yield runner
        finally:
            for run in await runner.adopt():
                await run.kill()


class Surroundings:
    """What there is to be had outside."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.secret = folder / "secret"
        self.secret.write_text(CANARY)
        self.secret.chmod(0o600)
        self.victim = stack.enter_context(subprocess.Popen(["sleep", "600"], env={"CANARY": CANARY}))
        stack.callback(self.victim.kill)
        self._sockets = [
            stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)
        ]
        path, name = str(folder / "socket"), f"leadline-{uuid4().hex}"
        addresses: list[Any] = [path, "\0" + name, ("127.0.0.1", 0)]
        for sock, address in zip(self._sockets, addresses, strict=True):
            sock.bind(address)
            sock.listen()
        self.event: Mapping[str, Any] = {
            "secret": str(self.secret),
            "victim": self.victim.pid,
            "socket": path,
            "abstract": name,
            "port": self._sockets[2].getsockname()[1],
            "clone": {"x86_64": 56, "aarch64": 220}[platform.machine()],
            "keyctl": REFUSED[platform.machine()]["keyctl"],
        }

    def connections(self) -> int:
        """How many have come."""
        came = 0
        for sock in self._sockets:
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.accept()[0].close()
                came += 1
        return came


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Surroundings]:
    with ExitStack() as stack:
        yield Surroundings(tmp_path, stack)


TRYING = """
    import contextlib, ctypes, os, signal, socket, subprocess, sys, time

    achieved = []

    @contextlib.contextmanager
    def trying(what):
        try:
            yield
        except (OSError, subprocess.SubprocessError):
            pass
        else:
            achieved.append(what)

    def succeed(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")

    libc = ctypes.CDLL(None, use_errno=True)
"""

ATTACKS = {
    "reads files": """
        def main(event):
            with trying("a secret"):
                open(event["secret"]).read()
            with trying("by way of another process"):
                open(f"/proc/{event['victim']}/root{event['secret']}").read()
            with trying("through a link"):
                link = f"{os.environ.get('TMPDIR', os.path.dirname(event['secret']))}/link"
                os.symlink(event["secret"], link)
                open(link).read()
            with trying("the passwords"):
                os.stat("/etc/shadow")
            with trying("the kernel's parameters"):
                os.stat("/sys/kernel")
            return achieved
    """,
    "reads what processes were started with": """
        def main(event):
            with trying("another's"):
                open(f"/proc/{event['victim']}/environ").read()
            with trying("the parent's words"):
                if "supervisor" not in open(f"/proc/{os.getppid()}/cmdline").read():
                    raise OSError
            return achieved
    """,
    "writes outside": """
        def main(event):
            with trying("a file"):
                open(event["secret"], "w").write("overwritten")
            with trying("beside it"):
                open(event["secret"] + "-2", "w").close()
            with trying("its own code"):
                open(__file__, "a").write("# changed")
            with trying("through a link"):
                link = f"{os.environ.get('TMPDIR', os.path.dirname(event['secret']))}/link"
                os.symlink(event["secret"], link)
                open(link, "a").write("overwritten")
            return achieved
    """,
    "connects": """
        def main(event):
            with trying("a socket in the file system"):
                socket.socket(socket.AF_UNIX).connect(event["socket"])
            with trying("a socket with a name"):
                socket.socket(socket.AF_UNIX).connect("\\0" + event["abstract"])
            with trying("the machine itself"):
                socket.create_connection(("127.0.0.1", event["port"]), 2)
            return achieved
    """,
    "meddles with processes": """
        def main(event):
            with trying("ends another"):
                os.kill(event["victim"], signal.SIGTERM)
            with trying("traces its own child"):
                child = subprocess.Popen(["sleep", "600"])
                try:
                    succeed(libc.ptrace(16, child.pid, None, None))
                finally:
                    child.kill()
            return achieved
    """,
    "asks the kernel for more": """
        def main(event):
            with trying("a namespace"):
                if os.fork() == 0:
                    os._exit(libc.unshare(0x10000000) != 0)
                if os.wait()[1]:
                    raise OSError
            with trying("a child with a namespace"):
                child = libc.syscall(event["clone"], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
                if child == 0:
                    os._exit(0)
                succeed(child)
            with trying("keys"):
                succeed(libc.syscall(event["keyctl"], 0, -3, 1))
            return achieved
    """,
    "takes more than its share": """
        import tempfile
        def main(event):
            with trying("processes"):
                children = []
                try:
                    for _ in range(60):
                        children.append(subprocess.Popen(["sleep", "600"]))
                finally:
                    for child in children:
                        child.kill()
                        child.wait()
            with trying("disk"), tempfile.TemporaryFile(buffering=0) as file:
                for _ in range(40):
                    file.write(bytes(1_000_000))
                    if file.tell() % 1_000_000:
                        raise OSError
            return achieved
    """,
}

ACHIEVED = {
    "reads files": [
        "a secret", "by way of another process", "through a link", "the passwords", "the kernel's parameters",
    ],
    "reads what processes were started with": ["another's", "the parent's words"],
    "writes outside": ["a file", "beside it", "its own code", "through a link"],
    "connects": ["a socket in the file system", "a socket with a name", "the machine itself"],
    "meddles with processes": ["ends another", "traces its own child"],
    "asks the kernel for more": ["a namespace", "a child with a namespace", "keys"],
    "takes more than its share": ["processes", "disk"],
}  # fmt: skip


@pytest.mark.parametrize("protected", [True, False], ids=["inside", "without"])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_achieves_nothing(
    attack: str, protected: bool, tmp_path: Path, code: Code, outside: Surroundings
) -> None:
    async with running(tmp_path, protected=protected) as runner:
        run = await runner.start(code.order(dedent(TRYING) + dedent(ATTACKS[attack]), event=outside.event))
        how = (await run.ended()).how
        assert isinstance(how, Returned), (how, await texts_of(run))
    traces = [
        outside.secret.read_text() != CANARY,
        len(list(tmp_path.glob("secret-*"))) > 0,
        any(path.read_text().endswith("# changed") for path in tmp_path.glob("code-*/main.py")),
        outside.connections() > 0,
        outside.victim.poll() is not None,
    ]
    if protected:
        assert msgspec.json.decode(how.value) == []
        assert not any(traces)
    else:
        assert msgspec.json.decode(how.value) == ACHIEVED[attack], "or the attack is none"
        expected = {"writes outside": [0, 1, 2], "connects": [3], "meddles with processes": [4]}
        assert [number for number, trace in enumerate(traces) if trace] == expected.get(attack, [])


async def test_each_refused_system_call_is(tmp_path: Path, code: Code) -> None:
    program = """
        import ctypes
        def main(calls):
            libc = ctypes.CDLL(None, use_errno=True)
            def errno(number):
                ctypes.set_errno(0)
                libc.syscall(number, -1, -1, -1, -1, -1)
                return ctypes.get_errno()
            return {name: errno(number) for name, number in calls.items()}
    """
    calls = {**REFUSED[platform.machine()], "getpid with another's number": 0x40000000 + 39}
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program, event=calls))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
        assert msgspec.json.decode(how.value) == dict.fromkeys(calls, 1)


async def test_sockets_are_those_of_the_internet_of_this_machine_and_of_its_routes(tmp_path: Path, code: Code) -> None:
    program = """
        import errno, socket
        def main():
            def refused(family):
                try:
                    socket.socket(family, socket.SOCK_DGRAM).close()
                except OSError as error:
                    return error.errno == errno.EPERM
                return False
            return [family for family in range(64) if not refused(family)]
    """
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
        families = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
        assert msgspec.json.decode(how.value) == families


async def test_inside_there_is_nothing_but_what_it_takes_to_run(tmp_path: Path, code: Code) -> None:
    program = """
        import os
        def main():
            seen = " ".join([open("/proc/self/mounts").read(), *os.environ, *os.environ.values()])
            for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
                for file in ("environ", "cmdline"):
                    seen += open(f"/proc/{pid}/{file}").read()
            return [sorted(os.listdir("/")), sorted(os.listdir("/dev")), sorted(os.environ), os.listdir("/tmp"), seen]
    """
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
    root, devices, environment, scratch, seen = msgspec.json.decode(how.value)
    system = {"bin", "lib", "lib32", "lib64", "libx32", "sbin"}
    assert set(root) - system == {"code", "dev", "etc", "leadline", "proc", "tmp", "usr"}
    assert devices == ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    assert environment == ["HOME", "LANG", "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "TMPDIR"]
    assert scratch == []
    assert str(tmp_path) not in seen


async def test_the_scratch_folder_is_the_one_place_to_write_to(tmp_path: Path, code: Code) -> None:
    program = """
        import os
        def main():
            open_to_writing = []
            for folder, folders, _ in os.walk("/"):
                folders[:] = [name for name in folders if folder != "/" or name not in ("proc", "usr")]
                try:
                    open(folder + "/new", "w").close()
                    open_to_writing.append(folder)
                except OSError:
                    pass
            return open_to_writing
    """
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
        assert msgspec.json.decode(how.value) == ["/tmp"]


# -- what it leaves behind --------------------------------------------------------------------------------------------

DETACHED = """
    import os, time
    def main(event):
        begun, begins = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                os.execv("/bin/sleep", [event["name"], "600"])
            os._exit(0)
        os.wait()
        os.close(begins)
        os.read(begun, 1)  # comes to its end when the other program has begun
        print("here")
        time.sleep(event["seconds"])
"""


def named_so(name: str) -> list[int]:
    """The processes whose command begins with that word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "by itself"])
@pytest.mark.parametrize("protected", [True, False], ids=["inside", "without"])
async def test_what_has_detached_itself_ends_with_the_run(
    protected: bool, killed: bool, tmp_path: Path, code: Code
) -> None:
    name = f"detached-{uuid4().hex}"
    event = {"name": name, "seconds": 600 if killed else 0}
    async with running(tmp_path, protected=protected) as runner:
        run = await runner.start(code.order(DETACHED, event=event))
        await first_line(run)
        await (run.kill() if killed else run.ended())
        left = named_so(name)
        for pid in left:
            os.kill(pid, 9)
    assert len(left) == (0 if protected else 1)


# -- what will not end ------------------------------------------------------------------------------------------------

STUBBORN = {
    "catches everything": """
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
    """,
    "never comes to the end of finally": """
        try:
            raise SystemExit
        finally:
            while True:
                pass
    """,
    "ignores every signal": """
        for number in signal.valid_signals():
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(600)
    """,
    "closes all that it was given": """
        os.closerange(0, 1024)
        time.sleep(600)
    """,
    "stands still": """
        os.kill(os.getpid(), signal.SIGSTOP)
    """,
    "forks without end": """
        while True:
            try:
                if os.fork():
                    os.setsid()
            except OSError:
                pass
    """,
    "talks nonsense to its supervisor": """
        channel = socket.socket(fileno=int(open("/proc/self/cmdline").read().split("\\0")[-2]))
        channel.sendall(b"{]\\n" + b"x" * 100_000)
        time.sleep(600)
    """,
    "never stops talking to its supervisor": """
        channel = socket.socket(fileno=int(open("/proc/self/cmdline").read().split("\\0")[-2]))
        while True:
            channel.sendall(b"x" * 100_000)
    """,
}


def in_its_namespace(first: Named) -> set[Named]:
    """The processes in the namespace of one."""
    place = Path(f"/proc/{first.pid}/ns/pid").stat().st_ino
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "ns/pid").stat().st_ino == place:
                found.add(named(int(entry.name)))
    return found


@pytest.mark.parametrize("manner", STUBBORN)
async def test_whatever_a_run_does_it_is_gone_within_a_second(manner: str, tmp_path: Path, code: Code) -> None:
    program = "import os, signal, socket, time\ndef main():\n    print('here')\n" + STUBBORN[manner].replace(
        "\n    ", "\n"
    )
    async with running(tmp_path, protected=True) as runner:
        members: set[Named] = set()

        async def run_that_is_at_it() -> Run:
            run = await runner.start(code.order(program))
            await first_line(run)
            first = first_of(tmp_path, run)
            members.update(in_its_namespace(first))
            assert first in members
            return run

        _, end = await killed_within_a_second(run_that_is_at_it)
        assert end.how == Killed(KilledFor.TOLD)
        assert [each for each in members if not gone(each)] == []


def first_of(folder: Path, run: Run) -> Named:
    processes = RunFolder(folder / "runs" / run.name).processes()
    assert processes is not None
    assert processes.first is not None
    return processes.first


LIES = [
    '{"returned": {"json": "{]"}}',
    '{"returned": {"json": "' + "[" * 100_000 + '"}}',
    '{"returned": {"json": "\\"' + "x" * 300_000 + '\\""}}',
    '{"returned": {"json": "\\ud800"}}',
    '{"returned": 1}',
    '{"raised": null}',
    '"' + "x" * 2_000_000 + '"',
]


@pytest.mark.parametrize("lie", range(len(LIES)))
async def test_nobody_believes_what_code_says_in_the_name_of_the_bootstrap(
    lie: int, tmp_path: Path, code: Code
) -> None:
    program = """
        import os, socket
        def main(said):
            channel = socket.socket(fileno=int(open("/proc/self/cmdline").read().split("\\0")[-2]))
            try:
                channel.sendall(said.encode() + b"\\n")
            finally:
                os._exit(5)
    """
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program, event=LIES[lie]))
        assert (await run.ended()).how == Exited(5)


async def test_a_line_without_end_is_bounded_like_all_output(tmp_path: Path, code: Code) -> None:
    program = "import os\ndef main():\n    while True: os.write(1, b'x' * 65536)"
    async with running(tmp_path, protected=True) as runner:
        run = await runner.start(code.order(program))
        assert (await run.ended()).how == Killed(KilledFor.OUTPUT)
        kept = RunFolder(tmp_path / "runs" / run.name).log.stat().st_size
        assert kept < 20_000
