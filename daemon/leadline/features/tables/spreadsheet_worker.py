"""Has spreadsheets unpacked and packed in a process of its own, so that neither the daemon's memory nor its loop is at
their mercy (`spreadsheets`).

The process gets no environment and nothing to read but the file. It says by a line on its output that it goes on, and
in a last line what is wrong with the file; one that ends by a signal has met one of its limits. It ends with whoever
waits for it.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio.streams.text import TextReceiveStream

from leadline.features.tables import spreadsheets
from leadline.features.tables.reading import UnreadableFileError

STORY_CHARACTERS_MAX: Final = 2_000


async def unpack(source: Path, sheet: str | None, target: Path, moved: Callable[[], None]) -> None:
    """Write the rows of a sheet into a plain file. Raises UnreadableFileError."""
    order = ["unpack", str(source), str(target), *([] if sheet is None else [sheet])]
    status, said, story = await _run(order, moved)
    if said:
        raise UnreadableFileError(said)
    if status < 0 or "MemoryError" in story:
        raise UnreadableFileError("the sheet is too large to be read; save it as CSV")
    assert status == 0, story


async def pack(source: Path, target: Path, moved: Callable[[], None]) -> None:
    """Write a plain file's rows as XLSX."""
    status, _, story = await _run(["pack", str(source), str(target)], moved)
    assert status == 0, story or f"ended by signal {-status}"


async def _run(order: Sequence[str], moved: Callable[[], None]) -> tuple[int, str, str]:
    """Run the process; its exit status, what it said last, and the end of its traceback, if there was one."""
    command = [sys.executable, "-X", "utf8", "-m", spreadsheets.__name__, *order]
    said, story = "", ""
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, cwd="/", env={}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with anyio.create_task_group() as group:

                async def listen(stream: TextReceiveStream) -> None:
                    nonlocal story
                    async for text in stream:
                        story = (story + text)[-STORY_CHARACTERS_MAX:]

                group.start_soon(listen, TextReceiveStream(process.stderr, errors="replace"))
                async for text in TextReceiveStream(process.stdout):
                    moved()
                    said = (said + text).lstrip("\n")[-STORY_CHARACTERS_MAX:]
            return await process.wait(), said.strip(), story
        except BaseException:
            process.kill()
            raise
