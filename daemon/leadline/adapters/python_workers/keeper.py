"""A worker's keeper: the process between it and the daemon, which sees to it that nothing is left behind.

What a module starts may make itself independent of it, with a session of its own and a parent that has ended; neither
the worker's process group nor PR_SET_PDEATHSIG reaches that. So the process that the daemon starts forks the worker and
becomes a subreaper: every descendant whose parent ends is its child from then on. When the worker has ended, when the
daemon wants it to (SIGTERM), or when the daemon is gone, however that ended (the kernel sends the same signal then), it
kills its children, and those that they leave behind, until there is nobody left. Only then it ends itself, in the way
in which the worker has: its end proves that all are gone.

That takes no rights, and nothing that a service or a container may forbid, as a namespace of process numbers or a
control group would. The price is that nobody keeps the keeper: if that is killed by itself, its worker dies with it,
but not what lives in other sessions.
"""

import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Final, Never

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
LOOK_SECONDS: Final = 0.1
"""How soon it looks again for children that were not listed, as the list was changing."""


def fork_worker(daemon: int, channel: int) -> None:
    """Return in a new process, which is the worker; the one that called stays as its keeper.

    `daemon`: the parent; `channel`: the worker's end of the socket pair, which its keeper must not hold open.
    """
    _tell_of_the_end_of(daemon, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.setsid()
        _tell_of_the_end_of(keeper, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    for descriptor in (0, 1, 2, channel):
        os.close(descriptor)
    _keep(worker)


def _keep(worker: int) -> Never:
    """Wait for the worker's end, or for the order to bring it about; then end everybody."""
    status: int | None = None
    while status is None and signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) != signal.SIGTERM:
        status, _ = _collect(worker, status)
    while True:
        status, none_left = _collect(worker, status)
        if none_left:
            _end_like(status)
        killed = [_kill(child) for child in _children(worker)]
        if killed and not any(killed):
            _end_like(status)
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_SECONDS)


def _collect(worker: int, status: int | None) -> tuple[int | None, bool]:
    """Collect the children that have ended: the worker's wait status, if known by now, and whether none are left."""
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, True
        if pid == 0:
            return status, False
        if pid == worker:
            status = ended


def _children(worker: int) -> list[int]:
    """All children; the worker alone, where the kernel lists none. Nobody else collects them: a number stays theirs."""
    try:
        return [int(child) for child in Path("/proc/thread-self/children").read_text(encoding="ascii").split()]
    except OSError:
        return [worker]


def _kill(child: int) -> bool:
    """Kill a child; False where that is not allowed, as it has made itself another user's, or it is gone."""
    try:
        os.kill(child, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        return False
    return True


def _end_like(status: int | None) -> Never:
    """End with the worker's exit code, or by the signal that ended it."""
    if status is None or not os.WIFSIGNALED(status):
        os._exit(1 if status is None else os.waitstatus_to_exitcode(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os._exit(1)


def _tell_of_the_end_of(parent: int, number: signal.Signals) -> None:
    """Have the kernel send a signal when the parent ends; the process ends where it has ended already."""
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
