"""Has zips judged and unpacked in a process of its own, so that neither the daemon's memory nor its loop is at their
mercy.

The process gets no environment and nothing to read but the zip. Whatever becomes of it is said of the zip: one that
takes too long or too much, or that ends its reader, is no zip to be taken. It is killed when nobody waits for it any
more, and ends with the daemon.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyio
import msgspec

from leadline.features.batch import archive_program
from leadline.features.batch.archive import Bounds, Code
from leadline.features.batch.archive_program import Answer, Start
from leadline_protocol.errors import ErrorCode, Refused

JUDGE_SECONDS_MAX: Final = 30
"""The worst zip of 4 MiB that is known takes 2; a machine may be busy."""

UNPACK_SECONDS_MAX: Final = 300

MEMORY_BYTES_MAX: Final = 1 << 30
"""Address space: of the interpreter itself, and twice what the worst main.py takes."""

RETRY_SECONDS: Final = 60.0
"""When a machine that lacked something may have it."""


async def judge(zip_file: Path, *, seconds: float = JUDGE_SECONDS_MAX) -> Code:
    """Read a whole zip and say what is in it. Raises Refused with bad_archive, which says what is wrong with it."""
    answer = await _ask(zip_file, _start(seconds), seconds)
    assert answer.code is not None, "it was judged and not refused"
    return answer.code


async def unpack(
    zip_file: Path, folder: Path, bounds: Bounds | None = None, *, seconds: float = UNPACK_SECONDS_MAX
) -> None:
    """Write the files of a zip below an empty folder, for anybody to read; without `bounds` it was judged.

    What was written stays where it ends otherwise.

    Raises:
        Refused: bad_archive, or unavailable where the machine has no room for it.

    """
    await _ask(zip_file, _start(seconds, folder, bounds), seconds)


async def _ask(zip_file: Path, start: Start, seconds: float) -> Answer:
    command = [sys.executable, "-X", "utf8", "-P", "-s", "-m", archive_program.__name__]
    status, said = None, b""
    with zip_file.open("rb") as file, anyio.move_on_after(seconds):
        with anyio.CancelScope(shield=True):  # one that is just being started could not be ended
            begun = await anyio.open_process(
                [*command, msgspec.json.encode(start).decode()],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
            )
        async with begun as process:
            assert process.stdout is not None
            try:
                async for piece in process.stdout:
                    said += piece
                status = await process.wait()
            except BaseException:
                process.kill()
                raise
    if status is None or status == -signal.SIGXCPU:
        raise Refused(ErrorCode.BAD_ARCHIVE, f"it takes longer than {seconds:g} s to be read")
    if status != 0:
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with {status}"
        raise Refused(ErrorCode.BAD_ARCHIVE, f"it cannot be read: who tried was ended {how}")
    answer = msgspec.json.decode(said, type=Answer)
    if answer.trouble is not None:
        message = f"it cannot be unpacked now: {answer.trouble}"
        raise Refused(ErrorCode.UNAVAILABLE, message, retry_after=RETRY_SECONDS)
    if answer.refused is not None:
        raise Refused(ErrorCode.BAD_ARCHIVE, answer.refused, at=answer.at)
    return answer


def _start(seconds: float, folder: Path | None = None, bounds: Bounds | None = None) -> Start:
    computing = int(seconds) + 1  # as the kernel counts it; by the clock the time is up before
    return Start(os.getpid(), computing, MEMORY_BYTES_MAX, None if folder is None else str(folder), bounds)
