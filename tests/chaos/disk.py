"""A file system on `block_device`, from the side of those who use it: mounted, cut off, mounted again.

It takes root, FUSE and a loop device; where one of them is missing, `missing` says which.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.system_tools import SEARCH_PATH

SIZE_BYTES: Final = 2_000_000_000
"""Sparse: only what is written takes room. Ample for Postgres' log between two checkpoints."""

UNMOUNT_SECONDS: Final = 20.0

CLONE_NEWNS: Final = 0x20000
MS_REC_PRIVATE: Final = 0x4000 | 0x40000


def missing() -> str | None:
    """What this machine lacks for such a disk; None: nothing."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not Path(device).exists():
            return f"no {device}"
    for program in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(program, path=SEARCH_PATH) is None:
            return f"no {program}"
    return None


def keep_mounts_to_ourselves() -> None:
    """Mount in a namespace of this process and its children: all that is mounted goes with the last of them.

    To be called before there is a second thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")


class Disk:
    """A mounted disk."""

    def __init__(self, folder: Path) -> None:
        self._device = folder / "device"
        self.mountpoint: Final = folder / "disk"
        images = folder / "images"
        for path in (self.mountpoint, images):
            path.mkdir()
        self._device.touch()
        with (images / "now").open("wb") as image:
            image.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(images / "now"))
        _run("cp", "--sparse=always", str(images / "now"), str(images / "durable"))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.block_device", str(images), str(self._device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._hear() == "mounted"

    def mount(self) -> None:
        """Lay the file system over the device; recovers its journal where that is needed."""
        _run("mount", "-o", "loop", str(self._device), str(self.mountpoint))
        self.mountpoint.chmod(0o755)

    def unmount(self) -> None:
        """Take it off again, once the last of those who use it is dead."""
        deadline = time.monotonic() + UNMOUNT_SECONDS
        while True:
            self._kill_users()
            done = subprocess.run(["umount", str(self.mountpoint)], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.02)

    def cut(self, seed: int, share: float, requests: int) -> tuple[int, int]:
        """The power goes, so many writes and flushes from now; the sectors of the cache that were kept and lost."""
        kept, lost = self._say(f"cut {seed} {share} {requests}").split()
        return int(kept), int(lost)

    def power(self) -> None:
        """The power is back."""
        self._say("power")

    def slow(self, seconds: float) -> None:
        """Have every flush take that long from now on."""
        self._say(f"slow {seconds}")

    def lie(self) -> None:
        """Acknowledge flushes from now on without doing them."""
        self._say("lie")

    def sync(self) -> None:
        """Have everything flushed."""
        _run("sync", "-f", str(self.mountpoint))

    def close(self) -> None:
        """Unmount everything and end the device."""
        with suppress(AssertionError):
            self.unmount()
        subprocess.run(["umount", "-l", str(self._device)], capture_output=True, check=False)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()

    def _say(self, line: str) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def _kill_users(self) -> None:
        """Those whose working directory is on the disk: Postgres' processes, whose parent is gone."""
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with suppress(OSError):
                    if (process / "cwd").readlink().is_relative_to(self.mountpoint):
                        os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A new disk, formatted and mounted."""
    made = Disk(folder)
    try:
        made.mount()
        yield made
    finally:
        made.close()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": SEARCH_PATH})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
