"""Makes code ready to be run: a folder with what was in the zip, and one with the packages that it needs.

Both are made once and kept. The folder of a zip is named after the zip's own digest, so whoever uploads the same again
finds it there, and one that is half made is told from one that is whole by its name. What is in them can be read by
anybody on this machine and changed by nobody but the daemon; which other teamspaces' code cannot see, as their
sandboxes do not hold it.
"""

import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread

from leadline.features.batch.archive import Code
from leadline.features.batch.ports import BatchPlan, Ready, StoredCode
from leadline.ports.runner import CannotRun

READABLE: Final = 0o755


class Archives(Protocol):
    """Looks into zips, at no risk to the daemon."""

    async def judge(self, archive: Path) -> Code:
        """What is in one. Raises Refused with bad_archive."""
        ...

    async def unpack(self, archive: Path, folder: Path) -> None:
        """Write what is in one below an empty folder. Raises Refused with bad_archive."""
        ...


class Packages(Protocol):
    """Installs packages, at no risk to the daemon."""

    async def packages(self, requirements: bytes, interpreter: Path, reaches: tuple[str, ...]) -> Path:
        """A folder with what a requirements.txt names, for this Python. Raises Refused, CannotRun."""
        ...


class CodeWorkshop:
    """Makes code ready (`features.batch.ports.Workshop`)."""

    def __init__(
        self, folder: Path, archives: Archives, packages: Packages, interpreters: Callable[[], Mapping[str, Path]]
    ) -> None:
        """`folder` is where code is kept; the first of the `interpreters` is that of whoever names none."""
        self._folder = folder
        self._archives = archives
        self._packages = packages
        self.interpreters: Final = interpreters
        self._making = anyio.Lock()

    async def judge(self, archive: Path) -> Code:
        """What is in a zip. Raises Refused with bad_archive."""
        return await self._archives.judge(archive)

    async def make(self, code: StoredCode, interpreter: str | None, plan: BatchPlan) -> Ready:
        """A folder with the code, and one with the packages that it needs. Raises Refused, CannotRun."""
        python = self._interpreter(interpreter)
        folder = await self._code(code)
        packages = None
        if code.requirements is not None and code.requirements.strip():
            packages = await self._packages.packages(code.requirements, python, plan.reaches)
        return Ready(folder, packages, python)

    async def keep_only(self, digests: Callable[[], Awaitable[Collection[bytes]]]) -> int:
        """Remove what was made of all other zips, and what is half made; returns how many folders that were."""
        async with self._making:
            return await anyio.to_thread.run_sync(_keep_only, self._folder, {each.hex() for each in await digests()})

    def _interpreter(self, name: str | None) -> Path:
        there = self.interpreters()
        if name is None:
            if not there:
                raise CannotRun("there is no Python on this machine that a sandbox could show: see batch.interpreters")
            return next(iter(there.values()))
        if name not in there:
            raise CannotRun(f"there is no Python {name} here any more: see batch.interpreters")
        return there[name]

    async def _code(self, code: StoredCode) -> Path:
        whole = self._folder / code.sha256.hex()
        async with self._making:
            if not await anyio.Path(whole).is_dir():
                await self._unpack(code, whole)
        return whole

    async def _unpack(self, code: StoredCode, whole: Path) -> None:
        half = whole.with_suffix(".half")
        archive = whole.with_suffix(".zip")
        await anyio.to_thread.run_sync(_clear, half)
        await anyio.Path(archive).write_bytes(code.archive)
        try:
            await self._archives.unpack(archive, half)
            await anyio.Path(half).rename(whole)
        finally:
            await anyio.Path(archive).unlink(missing_ok=True)


def _keep_only(folder: Path, names: Collection[str]) -> int:
    others = [path for path in folder.iterdir() if path.name not in names] if folder.is_dir() else []
    for path in others:
        shutil.rmtree(path)
    return len(others)


def _clear(folder: Path) -> None:
    """Make an empty one, though a daemon may have died over it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(READABLE)
