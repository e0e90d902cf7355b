"""A process by its number and its birth: a name that means no other as long as the machine runs.

Numbers are given out again. The time of birth, in clock ticks since the machine's start, tells the one that was meant
from a later one; from then on a descriptor stands for it, which the kernel never lets mean anybody else.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

SEARCH_PATH: Final = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
)
"""Where programs are looked for: an ordinary user's PATH leaves some of these folders out."""


class Named(Struct, frozen=True):
    """A process."""

    pid: int
    born: int
    """In clock ticks since the machine's start."""
    boot: str
    """Which start that was."""


def named(pid: int) -> Named:
    """The name of a process that exists, or has ended and not been collected yet."""
    return Named(pid, _born(pid), _boot())


def descriptor(process: Named) -> int | None:
    """A pidfd of that very process; None where it is gone. It becomes readable when the process ends."""
    if process.boot != _boot():
        return None
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    with suppress(OSError):
        if _born(process.pid) == process.born:
            return pidfd
    os.close(pidfd)
    return None


def send(pidfd: int, number: signal.Signals) -> None:
    """Send a signal; to one that has just ended is as good."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def resident_bytes(root: int) -> int:
    """What a process and all its descendants have in memory: pages that several share count for each of them."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in _tree(root):
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
    return total


def _tree(root: int) -> Iterator[int]:
    """A process and its descendants. Where a parent ends, its children become those of the namespace's first."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += (int(child) for child in (thread / "children").read_text().split())


def _born(pid: int) -> int:
    """Field 22 of proc_pid_stat(5): behind the second, a name that may hold anything and ends with the last bracket."""
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
