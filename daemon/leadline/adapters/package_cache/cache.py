"""What packages are there, what is in use, and what has to go.

A folder holds one entry for each text of requirements with the interpreter they are for. It appears as a whole and on
disk, or not at all: it is put together in another folder and then renamed. What a daemon that died has left half done
is removed by the next one.

    KEY/packages    what a run is shown
    KEY/about       what it takes on disk; touched at each use
    new-…           being installed
    old-…           being removed

An entry in use is locked (flock(2)): by us as long as somebody is about to start a run in it, and from then on by the
run, whether we live or not. Where all entries together are larger than they may be, those go which were not used for
the longest time; one that is locked stays, so what is in use may take more than that.
"""

import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from leadline.adapters.package_cache import tools
from leadline.adapters.package_cache.installation import Asked, Installer
from leadline.adapters.package_cache.tools import Python
from leadline.features.batch import requirements
from leadline.features.batch.packages import InstallFailed
from leadline.ports.runner import Limits, Runner
from leadline_protocol.errors import ErrorCode, Refused

RUNS: Final = "install-"
"""What the names of the runs that install begin with."""

PACKAGES_BYTES_MAX: Final = 512 << 20
"""All files of one entry."""

LIMITS: Final = Limits(
    seconds=600,
    memory_bytes=1536 << 20,
    processes=64,
    disk_bytes=1024 << 20,
    output_bytes=1 << 20,
)
"""Of an installation. What lies on its disk, wheels and what is unpacked from them, is in its memory too."""

AT_ONCE: Final = 2
"""Installations; others wait."""

RETRY_SECONDS: Final = 60.0
"""When a full disk may have room again."""

_BLOCK: Final = 4096
_NEW, _OLD = "new-", "old-"


class _About(Struct, frozen=True):
    bytes: int


_ABOUT: Final = msgspec.json.Decoder(_About)


class PackageCache:
    """Installs packages and keeps them (`features.batch.packages.Packages`)."""

    def __init__(
        self,
        folder: Path,
        runner: Runner,
        *,
        bytes_max: int,
        index_url: str | None = None,
        limits: Limits = LIMITS,
        packages_bytes_max: int = PACKAGES_BYTES_MAX,
    ) -> None:
        """`bytes_max` bounds all entries together, `packages_bytes_max` each.

        `index_url` is the index that packages come from instead of PyPI. It has to be on the public internet: an
        installation reaches nothing else.
        """
        self._folder = folder
        self._runner = runner
        self._bytes_max = bytes_max
        self._index_url = index_url
        self._installer = Installer(runner, limits, packages_bytes_max, index_url)
        self._installing = anyio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._pythons: dict[Path, Python] = {}

    async def begin(self) -> None:
        """Make the folder, and remove what an earlier daemon has left half done, its installations with it."""
        for run in await self._runner.adopt():
            if run.name.startswith(RUNS):
                await run.kill()
                await run.forget()
        await anyio.to_thread.run_sync(self._clean)

    @asynccontextmanager
    async def packages(
        self, requirement: bytes, interpreter: Path, reaches: Sequence[str], *, builds: bool = False
    ) -> AsyncIterator[Path]:
        """A folder with what a requirements.txt asks for. Raises InstallFailed, CannotRun, Refused."""
        lines = requirements.read(requirement)
        if interpreter not in self._pythons:
            self._pythons[interpreter] = await tools.ask(interpreter)
        python = self._pythons[interpreter]
        key = _key(lines, python, self._index_url, builds=builds)
        turn = self._turns.setdefault(key, anyio.Lock())
        async with turn:
            fresh = False
            while (held := self._hold(key)) is None:
                if not reaches:
                    raise InstallFailed("packages cannot be fetched: the plan lets code reach nothing outside")
                pip = None if python.pip else tools.pip_wheel()
                async with self._installing:
                    await self._install(key, Asked(lines, interpreter, pip, tuple(reaches), builds))
                fresh = True
        try:
            if fresh:
                await self._evict()
            yield self._folder / key / "packages"
        finally:
            os.close(held)

    async def _install(self, key: str, asked: Asked) -> None:
        """Make an entry."""
        token = secrets.token_hex(8)
        workplace = self._folder / f"{_NEW}{token}"
        entry = workplace / "entry"
        try:
            await anyio.to_thread.run_sync(_make_entry, workplace, entry)
            await self._installer.install(f"{RUNS}{token}", asked, workplace, entry / "packages")
            await anyio.to_thread.run_sync(_finish_entry, entry)
            entry.rename(self._folder / key)
            await anyio.to_thread.run_sync(_sync, self._folder)
        except OSError as error:
            message = f"packages cannot be installed now: {error.strerror}"
            raise Refused(ErrorCode.UNAVAILABLE, message, retry_after=RETRY_SECONDS) from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(workplace, ignore_errors=True))

    def _hold(self, key: str) -> int | None:
        """Lock an entry and note that it is used; None where there is none.

        This and the removal of entries take their turns: neither awaits anything between its lock and what follows.
        """
        try:
            held = os.open(self._folder / key / "packages", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(self._folder / key / "about")
        return held

    async def _evict(self) -> None:
        """Remove what has not been used for the longest time, until what stays is no more than may be."""
        total, entries = await anyio.to_thread.run_sync(self._entries)
        removed = []
        for key, size in entries:
            if total <= self._bytes_max:
                break
            if self._set_aside(key):
                removed.append(self._folder / f"{_OLD}{key}")
                total -= size
        for path in removed:
            await anyio.to_thread.run_sync(shutil.rmtree, path)

    def _set_aside(self, key: str) -> bool:
        """Let nobody find an entry any more, unless it is in use."""
        descriptor = os.open(self._folder / key / "packages", os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._folder / key).rename(self._folder / f"{_OLD}{key}")
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _entries(self) -> tuple[int, Sequence[tuple[str, int]]]:
        """What all entries take together, and each by its key, the one first that was used the longest time ago."""
        found = []
        for path in self._folder.iterdir():
            if not path.name.startswith((_NEW, _OLD)):
                about = path / "about"
                found.append((about.stat().st_mtime_ns, path.name, _ABOUT.decode(about.read_bytes()).bytes))
        return sum(size for _, _, size in found), [(key, size) for _, key, size in sorted(found)]

    def _clean(self) -> None:
        self._folder.mkdir(mode=0o755, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.startswith((_NEW, _OLD)):
                shutil.rmtree(path)


def _key(lines: Sequence[str], python: Python, index_url: str | None, *, builds: bool) -> str:
    """What an entry is found by: whatever its content depends on, but for the day on which it was made."""
    return hashlib.sha256(
        msgspec.json.encode([lines, python.version, python.platform, python.abi, index_url, builds])
    ).hexdigest()


def _make_entry(workplace: Path, entry: Path) -> None:
    workplace.mkdir(mode=0o700)
    for path in (entry, entry / "packages"):
        path.mkdir()
        path.chmod(0o755)


def _finish_entry(entry: Path) -> None:
    """Say what it takes, and have all of it on disk before it gets its name."""
    size = sum(
        -(-(Path(place) / name).lstat().st_size // _BLOCK) * _BLOCK
        for place, _, names in os.walk(entry)
        for name in names
    )
    (entry / "about").write_bytes(msgspec.json.encode(_About(size)))
    _sync(entry)


def _sync(folder: Path) -> None:
    """Write down what its file system has in memory: syncfs(2), for thousands of files at once."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
