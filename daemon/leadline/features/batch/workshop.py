"""Makes code ready to be run: a folder with what was in the zip, and one with the packages that it needs.

Both are made once and kept. The folder of a zip is named after the zip's own digest, so whoever uploads the same again
finds it there, and one that is half made is told from one that is whole by its name. What is in them can be read by
anybody on this machine and changed by nobody but the daemon; which other teamspaces' code cannot see, as their
sandboxes do not hold it.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread

from leadline.features.batch import archive_worker
from leadline.features.batch.archive import Code
from leadline.features.batch.packages import Packages
from leadline.features.batch.ports import BatchPlan, Ready, StoredCode
from leadline.ports.runner import CannotRun

READABLE: Final = 0o755


class Pythons(Protocol):
    """The Pythons of this machine."""

    @property
    def paths(self) -> Mapping[str, Path]:
        """By name."""
        ...

    @property
    def default(self) -> str | None:
        """That of whoever names none."""
        ...


class CodeWorkshop:
    """Makes code ready (`features.batch.ports.Workshop`)."""

    def __init__(self, folder: Path, packages: Packages, interpreters: Callable[[], Awaitable[Pythons]]) -> None:
        """`folder` is where code is kept; `interpreters` looks which there are."""
        self._folder = folder
        self._packages = packages
        self._interpreters = interpreters
        self._making = anyio.Lock()

    async def interpreters(self) -> Collection[str]:
        """The names of the Pythons that there are."""
        return (await self._interpreters()).paths

    async def judge(self, archive: Path) -> Code:
        """What is in a zip. Raises Refused with bad_archive."""
        return await archive_worker.judge(archive)

    @asynccontextmanager
    async def ready(self, code: StoredCode, interpreter: str | None, plan: BatchPlan) -> AsyncIterator[Ready]:
        """A folder with the code, and one with the packages that it needs; see the port."""
        python = await self._interpreter(interpreter)
        folder = await self._code(code)
        if code.requirements is None:
            yield Ready(folder, None, python)
            return
        async with self._packages.packages(code.requirements, python, plan.reaches, builds=plan.builds) as packages:
            yield Ready(folder, packages, python)

    async def keep_only(self, digests: Callable[[], Awaitable[Collection[bytes]]]) -> int:
        """Remove what was made of all other zips, and what is half made; returns how many folders that were."""
        async with self._making:
            return await anyio.to_thread.run_sync(_keep_only, self._folder, {each.hex() for each in await digests()})

    async def _interpreter(self, name: str | None) -> Path:
        there = await self._interpreters()
        wanted = name or there.default
        if wanted is None:
            raise CannotRun("there is no Python on this machine that a sandbox could show: see batch.interpreters")
        if wanted not in there.paths:
            raise CannotRun(f"there is no Python {wanted} here any more: see batch.interpreters")
        return there.paths[wanted]

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
            await archive_worker.unpack(archive, half)
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
