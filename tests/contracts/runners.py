"""The runners that the contract holds for, behind one face: what a test needs beside the port itself."""

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import msgspec

from leadline.adapters.sandbox_runner.cgroups import find_ground
from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.ports.runner import End, Limits, LogLine, Order, Run, Runner

INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable))
KILLS = 5
"""So many runs are killed before none is said to end in time: a machine stands still now and then."""
ROOMY = Limits(seconds=60, memory_bytes=256_000_000, processes=32, disk_bytes=8_000_000, output_bytes=1_000_000)


class Place(Protocol):
    """Where runs are kept: several runners of one place, one after the other, are daemons that were restarted."""

    def daemon(self) -> AbstractAsyncContextManager[Runner]:
        """A runner, as long as the daemon lives."""
        ...


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, folder: Path, *, protected: bool = True) -> None:
        self.folder = folder
        self.protected = protected

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Runner]:
        async with sandbox_runner(self.folder / "runs", ground=find_ground(), protected=self.protected) as runner:
            yield runner


class Code:
    """Makes orders of programs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def order(self, program: str, name: str | None = None, event: object = None, **fields: Any) -> Order:
        """An order for the text of a main.py, with room enough but for the limits that are named."""
        self._made += 1
        folder = self._folder / f"code-{self._made}"
        folder.mkdir()
        (folder / "main.py").write_text(dedent(program), encoding="utf-8")
        limits = {each: fields.pop(each) for each in Limits.__struct_fields__ if each in fields}
        given: Mapping[str, Any] = {"interpreter": INTERPRETER, "reaches": (), **fields}
        return Order(
            name or f"run-{self._made}",
            folder,
            event=msgspec.Raw(msgspec.json.encode(event)),
            limits=msgspec.structs.replace(ROOMY, **limits),
            **given,
        )


async def lines_of(run: Run, after: int = 0) -> list[LogLine]:
    """Its whole log, once it has ended."""
    return [line async for line in run.log(after)]


async def texts_of(run: Run) -> list[str]:
    """What its lines say."""
    return [line.text for line in await lines_of(run)]


async def first_line(run: Run) -> str:
    """What it says first."""
    async for line in run.log():
        return line.text
    raise AssertionError(f"it said nothing, and ended: {await run.ended()}")


async def killed_within_a_second(begin: Callable[[], Awaitable[Run]]) -> tuple[Run, End]:
    """A run that was killed, and how it ended: the first, of those that are begun one after the other, to end in time.

    Raises AssertionError where none does.
    """
    took: list[float] = []
    while len(took) < KILLS:
        run = await begin()
        began = time.monotonic()
        end = await run.kill()
        took.append(time.monotonic() - began)
        if took[-1] < 1:
            return run, end
    raise AssertionError(f"so many seconds each: {took}")
