"""A bound on the memory of all processes of a run together, where the kernel lets us set one.

A cgroup counts everything: what each process has for itself, what they share, files in memory, and what the kernel
keeps for them. It is made below the one that the daemon is in, so that whatever binds the daemon binds its runs. Where
memory is counted by the old hierarchy (version 1), root may make one. In the new one (version 2) whoever was given the
daemon's cgroup may, systemd's `Delegate=`; but there no cgroup may hold both processes and others of which memory is
counted, so the daemon has to be in one of its own below. Systemd puts it there (`DelegateSubgroup=daemon`, from version
254 on). Elsewhere it moves there itself, where it is alone. A service must not: the next daemon would be started where
this one was, and the kernel would refuse that while runs live below.
"""

import os
import re
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from msgspec import Struct

_DAEMON: Final = "daemon"
"""The cgroup below the one that was given to us for the daemon itself."""


REMOVAL_SECONDS_MAX: Final = 5.0


class Version(StrEnum):
    """Which hierarchy counts memory."""

    V1 = "cgroup v1"
    V2 = "cgroup v2"


class Ground(Struct, frozen=True):
    """Where cgroups may be made."""

    version: Version
    folder: str


def find_ground(process: Path = Path("/proc/self"), *, movable: bool = True) -> Ground | None:
    """Where this process may make cgroups that bound memory. To be called before it starts others.

    `movable`: it may go into another cgroup for that.
    """
    return _ground_v1(process) or _ground_v2(process, movable=movable)


class Cgroup:
    """The cgroup of one run."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    @classmethod
    def make(cls, ground: Ground, name: str, memory_bytes: int) -> "Cgroup":
        """Make one. Raises OSError."""
        made = cls(Path(ground.folder, name))
        made.remove()  # of one with the same name whose end nobody has seen
        made.path.mkdir()
        match ground.version:
            case Version.V1:
                made._set("memory.limit_in_bytes", memory_bytes)
                with suppress(OSError):  # there is no such file where swap is not counted
                    made._set("memory.memsw.limit_in_bytes", memory_bytes)
            case Version.V2:
                made._set("memory.max", memory_bytes)
                with suppress(OSError):
                    made._set("memory.swap.max", 0)
        return made

    def join(self) -> None:
        """Put this process into it, and whatever it will start."""
        self._set("cgroup.procs", os.getpid())

    @property
    def overrun(self) -> bool:
        """Whether the kernel has had to kill somebody in it."""
        for name in ("memory.oom_control", "memory.events"):
            with suppress(OSError):
                found = re.search(r"^oom_kill (\d+)$", (self.path / name).read_text(), re.MULTILINE)
                return found is not None and found[1] != "0"
        return False

    def remove(self) -> None:
        """Remove it. Nobody is in it any more, which the kernel may take a moment to notice."""
        deadline = time.monotonic() + REMOVAL_SECONDS_MAX
        while self.path.exists() and time.monotonic() < deadline:
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.01)

    def _set(self, name: str, value: int) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY)  # what is not there is not made
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)


def _ground_v1(process: Path) -> Ground | None:
    for line in _lines(process / "cgroup"):
        _, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = _mounted(process, "cgroup", own, option="memory")
            if folder is not None and os.access(folder, os.W_OK):
                return Ground(Version.V1, str(folder))
    return None


def _ground_v2(process: Path, *, movable: bool) -> Ground | None:
    own = next((line.removeprefix("0::") for line in _lines(process / "cgroup") if line.startswith("0::")), None)
    folder = None if own is None else _mounted(process, "cgroup2", own)
    if folder is None:
        return None
    with suppress(OSError):
        if folder.name == _DAEMON:
            return _opened(folder.parent)
        if movable and "memory" in _words(folder / "cgroup.controllers") and _alone_in(folder):
            (folder / _DAEMON).mkdir(exist_ok=True)
            (folder / _DAEMON / "cgroup.procs").write_text(str(os.getpid()))
            return _opened(folder)
    return None


def _opened(folder: Path) -> Ground:
    """Have memory counted for each cgroup below. Raises OSError."""
    if "memory" not in _words(folder / "cgroup.subtree_control"):
        (folder / "cgroup.subtree_control").write_text("+memory")
    return Ground(Version.V2, str(folder))


def _alone_in(folder: Path) -> bool:
    return _words(folder / "cgroup.procs") == [str(os.getpid())]


def _mounted(process: Path, kind: str, own: str, option: str | None = None) -> Path | None:
    """Where a cgroup is in the file system; a mount may show a part of the hierarchy only (proc_pid_mountinfo(5))."""
    for line in _lines(process / "mountinfo"):
        place, _, source = line.partition(" - ")
        _, _, _, root, point, *_ = place.split(" ")
        found, _, options = source.split(" ", 2)
        if found == kind and (option is None or option in re.split("[ ,]", options)):
            with suppress(ValueError):
                return Path(point) / Path(own).relative_to(root)
    return None


def _words(file: Path) -> list[str]:
    return file.read_text().split()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()
