"""The processes of a run, from their start until the kernel says that they are gone.

In a sandbox there are three that are not the code's: bubblewrap outside, the first process of the namespace, and the
bootstrap, which the code is loaded into. The sandbox ends when the bootstrap does, and all else with it. Should the
supervisor be killed, the kernel kills bubblewrap, and by that the first process. Where there is a network, its helper
is a fourth.
"""

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from leadline.adapters.sandbox_runner import bootstrap, bubblewrap, network, seccomp
from leadline.adapters.sandbox_runner.cgroups import Cgroup
from leadline.adapters.sandbox_runner.entrance import Stage, entrance
from leadline.adapters.sandbox_runner.modules import helper
from leadline.adapters.sandbox_runner.processes import Named, named, send
from leadline.adapters.sandbox_runner.run_folder import Task

START_SECONDS_MAX: Final = 30.0
"""A sandbox that is not up by then does not come."""


class Life:
    """A run that has been started."""

    def __init__(
        self,
        popen: "subprocess.Popen[bytes]",
        first: int,
        output: int,
        channel: socket.socket,
        questions: socket.socket,
        product: int | None,
        *,
        protected: bool,
    ) -> None:
        self._popen = popen
        self._protected = protected
        self.first: Final[Named] = named(first)
        self.first_gone: Final = os.pidfd_open(first)
        """Readable when nothing of the run is left."""
        self.ended: Final = os.pidfd_open(popen.pid)
        """Readable when the code's own process has ended."""
        self.output: Final = output
        self.channel: Final = channel
        """What the bootstrap says and is told."""
        self.questions: Final = questions
        """What the code asks and is answered."""
        self.product: Final = product
        """Where its product comes from, if it is to make one."""
        self._network: subprocess.Popen[bytes] | None = None

    @property
    def scratch(self) -> Path:
        """Its scratch folder, seen from here."""
        return Path(f"/proc/{self.first.pid}/root{bubblewrap.SCRATCH}")

    def connect(self, reaches: Sequence[str]) -> None:
        """Give it a network. Raises NoNetwork, OSError."""
        self._network = network.connect(self.first.pid, reaches, entrance())

    def kill(self) -> None:
        """Kill everything; without a sandbox, what has stayed in the group of the first process."""
        if self._protected:
            send(self.first_gone, signal.SIGKILL)
        else:
            os.killpg(self._popen.pid, signal.SIGKILL)

    def collect(self) -> int:
        """Wait until nothing is left; returns how the code's own process ended, as a shell has it."""
        self.kill()
        select.select([self.first_gone], [], [])
        code = self._popen.wait()
        if self._network is not None:
            self._network.kill()
            self._network.wait()
        with suppress(ChildProcessError):  # the first process has become our child when bubblewrap ended
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        for descriptor in (self.first_gone, self.ended, self.output, self.product):
            if descriptor is not None:
                os.close(descriptor)
        self.channel.close()
        self.questions.close()
        return code if code >= 0 else 128 - code


class NotLaunched(Exception):
    """There is no sandbox; the message says why."""


def launch(task: Task, cgroup: Cgroup | None) -> Life:
    """Start a run as far as its bootstrap, which waits to be told. Raises NotLaunched, OSError."""
    first: int | None
    with ExitStack() as opened:
        (ours, its), (answers, asks) = socket.socketpair(), socket.socketpair()
        opened.enter_context(its)
        opened.enter_context(asks)
        output, printed = os.pipe()
        opened.callback(os.close, printed)
        for descriptor in (output, ours.fileno()):
            os.set_blocking(descriptor, False)
        given, product = [asks.fileno(), its.fileno()], None
        if task.order.product is not None:
            product, made = os.pipe()
            opened.callback(os.close, made)
            os.set_blocking(product, False)
            given.append(made)
        if task.bubblewrap is None:
            popen = _unprotected(task, given, printed)
            first = popen.pid
        else:
            popen, first = _sandboxed(task, task.bubblewrap, cgroup, given, printed, opened)
    try:
        if first is not None:
            return Life(popen, first, output, ours, answers, product, protected=task.bubblewrap is not None)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it was gone before it had a name
    popen.kill()
    popen.wait()
    raise NotLaunched(_words(output))


def _sandboxed(
    task: Task,
    program: str,
    cgroup: Cgroup | None,
    given: Sequence[int],
    printed: int,
    opened: ExitStack,
) -> tuple["subprocess.Popen[bytes]", int | None]:
    """Bubblewrap, and the number of the sandbox's first process; None where it does not come."""

    def file(content: bytes) -> int:
        descriptor = os.memfd_create("content")
        opened.callback(os.close, descriptor)
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    nameserver = network.NAMESERVER if task.order.reaches else None
    trees = {bubblewrap.CODE: str(task.order.code), **{path: path for path in task.trees}}
    if task.order.packages is not None:
        trees[bubblewrap.PACKAGES] = str(task.order.packages)
    stage = Stage(trees)
    contents = {
        **bubblewrap.contents(nameserver),
        bubblewrap.BOOTSTRAP: Path(bootstrap.__file__).read_text("utf-8"),
        f"{bubblewrap.MODULES}/helper.py": Path(helper.__file__).read_text("utf-8"),
    }
    info, told = os.pipe()
    opened.callback(os.close, info)
    openings = bubblewrap.Openings(
        trees=stage.seen,
        files={path: file(content.encode()) for path, content in contents.items()},
        filter=file(seccomp.program()),
        info=told,
    )
    words = bubblewrap.arguments(openings, task.order.limits.disk_bytes, _root_links())
    arguments = file("\0".join([*words, ""]).encode())
    command = [program, "--args", str(arguments), "--", *_bootstrap(task, bubblewrap.BOOTSTRAP, given)]
    inherited = [arguments, *openings.files.values(), openings.filter, told, *given]
    try:
        popen = _popen(command, {}, "/", printed, inherited, entrance(cgroup=cgroup, stage=stage))
    finally:
        os.close(told)
    return popen, _first_process(info)


def _unprotected(task: Task, given: Sequence[int], printed: int) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in bubblewrap.ENVIRONMENT.items() if name not in {"HOME", "TMPDIR"}}
    command = _bootstrap(task, bootstrap.__file__, given)
    return _popen(command, environment, task.order.code, printed, given, entrance(user_of_its_own=False))


def _bootstrap(task: Task, program: str, given: Sequence[int]) -> Sequence[str]:
    """`given` are the descriptors it is born with: for what the code asks, for the channel, and for its product."""
    return [str(task.order.interpreter), "-s", program, *map(str, given)]


def _popen(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | str,
    printed: int,
    inherited: Sequence[int],
    enter: Callable[[], None],
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  what it runs is confined, or meant not to be
        command,
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=printed,
        cwd=cwd,
        env=environment,
        pass_fds=inherited,
        start_new_session=True,
        preexec_fn=enter,  # noqa: PLW1509  there is one thread
    )


def _first_process(info: int) -> int | None:
    """What bubblewrap says of the sandbox's first process: it may not be able to make one."""
    deadline = time.monotonic() + START_SECONDS_MAX
    text = b""
    while select.select([info], [], [], max(0, deadline - time.monotonic()))[0]:
        piece = os.read(info, 4096)
        if not piece:
            break
        text += piece
    return int(json.loads(text)["child-pid"]) if text.endswith(b"}\n") else None


def _root_links() -> Mapping[str, str]:
    return {path.name: str(path.readlink()) for path in Path("/").iterdir() if path.is_symlink()}


def _words(output: int) -> str:
    with suppress(BlockingIOError):
        return os.read(output, 2_000).decode(errors="replace").strip()
    return "it said nothing"
