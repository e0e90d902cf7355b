"""What a new process does before it becomes the program that it was made for.

It joins the run's cgroup, takes the lowest rank, and binds its life to the supervisor's. Root's runs are each a user of
its own, with no rights to anything: so that not even a hole in the walls makes root of them, and so that the kernel
counts their processes by themselves.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from leadline.adapters.sandbox_runner.cgroups import Cgroup

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_NET_ADMIN: Final = 12
CAPABILITY_VERSION: Final = 0x20080522
CLONE_NEWNS: Final = 0x20000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000

FIRST_USER: Final = 0x7000_0000
"""Root's runs are users from here on, by the number of their supervisor: above all that systems give out."""

NICENESS: Final = 10
"""What tenants compute comes after what the daemon does."""

OUT_OF_MEMORY_SCORE: Final = 800
"""Where the kernel has to kill somebody for memory, it is a run first."""

STAGE: Final = "/mnt"

_libc: Final = ctypes.CDLL(None, use_errno=True)


def entrance(
    *, cgroup: Cgroup | None = None, stage: "Stage | None" = None, user_of_its_own: bool = True
) -> Callable[[], None]:
    """What to do in a child of this process, which has one thread."""
    supervisor = os.getpid()
    user = FIRST_USER + supervisor if user_of_its_own and os.geteuid() == 0 else None

    def enter() -> None:
        if cgroup is not None:
            cgroup.join()
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE))
        os.nice(NICENESS)
        if stage is not None:
            stage.set_up()
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        _called("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(1)  # it was gone before this was asked for

    return enter


class Stage:
    """Where a sandbox finds the folders that it is to show.

    For an ordinary user that is where they are. Root's runs are users who cannot go there: so each folder is shown once
    more at a place that anybody can reach, in a view of the file system that only the new process has.
    """

    def __init__(self, trees: Mapping[str, str]) -> None:
        """`trees` are the folders by where they are to be inside."""
        self._moved = os.geteuid() == 0
        self._sources = list(trees.values())
        places = [f"{STAGE}/{number}" for number in range(len(trees))] if self._moved else self._sources
        self.seen: Final[Mapping[str, str]] = dict(zip(trees, places, strict=True))

    def set_up(self) -> None:
        """Show them, to this process alone."""
        if not self._moved:
            return
        _called("unshare", CLONE_NEWNS)
        _called("mount", None, b"/", None, MS_REC | MS_SLAVE, None)
        sources = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in self._sources]  # one may lie below the stage
        _called("mount", b"stage", STAGE.encode(), b"tmpfs", 0, b"mode=755")
        for number, source in enumerate(sources):
            place = Path(STAGE, str(number))
            place.mkdir()
            _called("mount", f"/proc/self/fd/{source}".encode(), bytes(place), None, MS_BIND | MS_REC, None)
            os.close(source)


def enter_network(user: int, net: int) -> None:
    """Go where a sandbox's network is, by descriptors of its two namespaces, with the right to configure it."""
    for namespace in (user, net):
        _called("setns", namespace, 0)
    rights = struct.pack("6I", 1 << CAP_NET_ADMIN, 1 << CAP_NET_ADMIN, 1 << CAP_NET_ADMIN, 0, 0, 0)
    _called("capset", struct.pack("Ii", CAPABILITY_VERSION, 0), rights)
    _called("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)  # which the next program keeps


def adopt_orphans() -> None:
    """Become the parent of whatever loses its own below this process."""
    _called("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _called(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library that Python has no name for. Raises OSError."""
    if getattr(_libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
