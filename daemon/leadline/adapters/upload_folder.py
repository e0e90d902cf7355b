"""Files on their way in: taken from where others put them to where only the daemon writes.

A submitter names a file in STATE/incoming by its bare name, or one below a folder that the configuration lists. The
way there is walked folder by folder without following links, so that no link leads out of it, and only a regular file
is taken. It is copied rather than moved or linked: whoever still has it open could otherwise change it while it is
being read.
"""

import os
import secrets
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from leadline.features.tables.ports import TakenFile
from leadline_protocol.errors import ErrorCode, Refused

COPY_BYTES: Final = 1024 * 1024


class UploadFolder:
    """The port `features.tables.ports.Incoming` on the file system."""

    def __init__(self, incoming: Path, own: Path, folders: Sequence[Path]) -> None:
        """`own` is where copies are kept; `folders` are those below which a path may be named."""
        self._incoming = incoming
        self._own = own
        self._folders = folders

    async def take(self, path: str) -> TakenFile:
        """Copy a submitted file to where only the daemon writes. Raises Refused with bad_archive, at `path`."""
        return await anyio.to_thread.run_sync(self._take, path)

    async def dispose(self, path: str, name: str) -> None:
        """Remove the copy, and the original where it was put into the common folder."""
        await anyio.to_thread.run_sync(self._dispose, path, name)

    def path_of(self, name: str) -> Path:
        """Where the daemon's copy of that name is."""
        return self._own / name

    async def keep_only(self, names: Collection[str], copied_before: float) -> Sequence[str]:
        """Remove all other copies, and return their names: submissions were refused, or a daemon crashed.

        What was copied at that time (seconds since 1970) or later stays: its submission may be under way.
        """
        return await anyio.to_thread.run_sync(self._keep_only, names, copied_before)

    def _keep_only(self, names: Collection[str], copied_before: float) -> Sequence[str]:
        with os.scandir(self._own) as entries:
            old = [entry.name for entry in entries if entry.stat(follow_symlinks=False).st_mtime < copied_before]
        orphans = [name for name in old if name not in names]
        for name in orphans:
            self._remove(name)
        return orphans

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self._own / name).unlink()

    def _take(self, path: str) -> TakenFile:
        source = self._open(path)
        name = secrets.token_hex(16)
        target = os.open(self._own / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = 0
            while count := os.sendfile(target, source, size, COPY_BYTES):
                size += count
            os.fsync(target)
        except OSError as error:
            self._remove(name)
            raise Refused(
                ErrorCode.UNAVAILABLE, f"the file could not be copied: {error.strerror}", at="path", retry_after=10.0
            ) from error
        finally:
            os.close(source)
            os.close(target)
        return TakenFile(name, size)

    def _open(self, path: str) -> int:
        """Open a submitted file for reading. Raises Refused."""
        root, parts = self._place(path)
        folder = -1
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = inner
            # A FIFO would keep an ordinary open waiting for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        except OSError as error:
            raise _refused(f"{path} cannot be read: {error.strerror}") from error
        finally:
            if folder >= 0:
                os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _refused(f"{path} is not a regular file")
        return descriptor

    def _place(self, path: str) -> tuple[Path, Sequence[str]]:
        """The folder to start from, and the way down to the file. Raises Refused."""
        if "\0" in path or ".." in Path(path).parts:
            raise _refused("a path has no NUL and no ..")
        if "/" not in path:
            return self._incoming, [path]
        given = Path(path)
        for folder in self._folders:
            if given.is_absolute() and given.is_relative_to(folder) and given != folder:
                return folder, given.relative_to(folder).parts
        allowed = ", ".join(str(folder) for folder in self._folders)
        places = f"the name of a file in {self._incoming}" + (f", or a path below {allowed}" if allowed else "")
        raise _refused(f"{path} is not among the folders that uploads may name: give {places}")

    def _dispose(self, path: str, name: str) -> None:
        self._remove(name)
        if "/" not in path:
            with suppress(OSError):
                (self._incoming / path).unlink()


class LookedAtFolder(UploadFolder):
    """The same for a dry run: a file is looked at, and stays where it is."""

    def _take(self, path: str) -> TakenFile:
        source = self._open(path)
        try:
            return TakenFile("", os.fstat(source).st_size)
        finally:
            os.close(source)


def _refused(message: str) -> Refused:
    return Refused(ErrorCode.BAD_ARCHIVE, message, at="path")
