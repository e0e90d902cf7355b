"""The daemon's places in the file system: whose they are, and that nobody else uses them.

A state directory belongs to one daemon at a time: a lock that the kernel holds for its process, so that it is free
again however the process ends, with the owner's name in the file for the one who is refused. Submitters reach two
places only, by their group: a sticky folder to put files into and a folder to fetch exports from; and they reach the
daemon by sockets that belong to a group.
"""

import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from leadline_protocol.errors import LeadlineError

log = structlog.get_logger(__name__)

SUBMIT_GROUP: Final = "leadline-submit"
CONTROL_GROUP: Final = "leadline-admin"


class StateInUse(LeadlineError):
    """Another daemon runs on this state directory."""


def make_state(state_dir: Path) -> None:
    """Make the state directory, and in it the folders through which files travel."""
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / "uploads").mkdir(mode=0o700, exist_ok=True)
    _make_common(state_dir / "incoming", 0o1770)  # sticky: nobody removes what another has put there
    _make_common(state_dir / "exports", 0o750)


def _make_common(folder: Path, mode: int) -> None:
    """A folder for the group of submitters, in which files are the group's too; unless somebody has made it already."""
    if not folder.exists():
        folder.mkdir()
        folder.chmod(mode)
        if _give_to_group(folder, SUBMIT_GROUP):
            with suppress(PermissionError):  # a unit may forbid it with RestrictSUIDSGID=
                folder.chmod(mode | stat.S_ISGID)


@contextmanager
def sole_owner(state_dir: Path) -> Iterator[None]:
    """Hold the state directory: one daemon each, whose name stands in the lock file."""
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another daemon"
            raise StateInUse(f"{state_dir} is in use by {owner}: stop that, or choose another --state-dir") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def listening_socket(path: Path, group: str) -> socket.socket:
    """A Unix socket, bound and not listening yet, that only its owner and the group may open."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    _give_to_group(path, group)
    sock.setblocking(False)
    return sock


def _give_to_group(path: Path, name: str) -> bool:
    """Let a group use it, where there is such a group and we may say so; else it is for our own user alone."""
    try:
        os.chown(path, -1, grp.getgrnam(name).gr_gid)
    except (KeyError, PermissionError):
        log.debug("no_group", path=str(path), group=name)
        return False
    return True
