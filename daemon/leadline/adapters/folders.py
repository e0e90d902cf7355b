"""The daemon's places in the file system: whose they are, and that nobody else uses them.

A state directory belongs to one daemon at a time: a lock that the kernel holds for its process, so that it is free
again however the process ends, with the owner's name in the file for the one who is refused. A daemon that takes over
from one that hangs has it killed: both would be at the same files, sockets and Postgres, of which no epoch keeps the
older one away, and a process that is merely stopped may go on in the middle of anything. Submitters reach two places
only, by their group: a sticky folder to put files into and a folder to fetch exports from; and they reach the
daemon by sockets that belong to a group.
"""

import fcntl
import grp
import os
import re
import signal
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from leadline_protocol.errors import LeadlineError

log = structlog.get_logger(__name__)

KILL_SECONDS: Final = 30.0
"""How long a killed process may take to be gone; one that waits for a disk is not before that answers."""
UNSEEN_SECONDS: Final = 2.0
"""For how long the file may name nobody who has it open: its holder has just ended, or has not yet put its name in."""
KILL_PAUSE_SECONDS: Final = 0.01

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
def sole_owner(state_dir: Path, *, takeover: bool = False) -> Iterator[str]:
    """Hold the state directory: one daemon each, whose name stands in the lock file.

    Yields a name for the lock that no other on any machine has while this one exists. With `takeover` whoever holds it
    is killed first. Raises StateInUse.
    """
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _lock(descriptor):
            if not takeover:
                owner = _owner(descriptor)
                raise StateInUse(
                    f"{state_dir} is in use by {owner}: stop that, choose another --state-dir, or start with --takeover"
                )
            _take(descriptor, state_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        found = os.fstat(descriptor)
        yield f"{_identity(state_dir)} {found.st_dev} {found.st_ino}"
    finally:
        os.close(descriptor)


def _identity(state_dir: Path) -> str:
    """A name that no other state directory has, given at its first use; a copy of it lies at another inode.

    Not the machine's or the boot's: a service that sees only processes in /proc cannot read those.
    """
    path = state_dir / "id"
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(uuid.uuid4().hex)
        fresh.replace(path)
    return path.read_text()


def _lock(descriptor: int) -> bool:
    """Lock a file, unless somebody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(descriptor: int) -> str:
    """Who says in the lock file that it is his."""
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another daemon"


def _take(descriptor: int, state_dir: Path) -> None:
    """Lock a file as soon as its holder is dead, who is killed for it. Raises StateInUse where that cannot be done."""
    began = seen = time.monotonic()
    owner = _owner(descriptor)
    while not _lock(descriptor):
        owner = _owner(descriptor)
        now = time.monotonic()
        if _kill(owner, descriptor):
            seen = now
        elif now > seen + UNSEEN_SECONDS:
            raise StateInUse(
                f"{state_dir} is in use by {owner}, which cannot be killed from here: it is another user's, or runs on "
                "another machine or in another container; end it there"
            )
        if now > began + KILL_SECONDS:
            raise StateInUse(f"{state_dir} is in use by {owner}, which does not end though it was killed")
        time.sleep(KILL_PAUSE_SECONDS)
    log.warning("took_state_directory", state_dir=str(state_dir), owner_before=owner)


def _kill(owner: str, descriptor: int) -> bool:
    """Kill the process that is named in a lock file if it has this very file open; whether it has."""
    named = re.match(r"pid (\d+)", owner)
    if named is None:
        return False
    pid = int(named[1])
    try:
        process = os.pidfd_open(pid)  # from here on the number can mean nobody else
    except ProcessLookupError:
        return False
    try:
        with suppress(PermissionError, FileNotFoundError, ProcessLookupError):
            if _has_open(pid, os.fstat(descriptor)):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return True
        return False
    finally:
        os.close(process)


def _has_open(pid: int, file: os.stat_result) -> bool:
    """Whether a process has a file open. Raises what the kernel says of another user's process, or of one that ends."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.path.samestat(link.stat(), file):
                return True
    return False


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
