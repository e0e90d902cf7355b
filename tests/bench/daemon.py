"""The daemon that is measured: the real one, with one more kind of job, `stamp`, whose work is to note the time.

A noop starts and ends in the decision that admits it, so it has no moment at which its work begins. A stamp goes the
way of every job with work in it: a slot, an attempt, a commit, a task; then it writes its number and the time.
"""

import logging
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import anyio
import structlog

from leadline import config
from leadline.core.model import Counts, Family, JobState
from leadline.main import collect_garbage_seldom, daemon
from leadline.ports.work import Attempt, Finished, Prepared
from leadline_protocol.messages import Submission

STAMP: Final = struct.Struct("<qq")
"""A job's id and the nanoseconds of CLOCK_MONOTONIC, which all processes share."""


class StampSubmission(Submission, tag="stamp", frozen=True, kw_only=True):
    """Note the time."""


class Stamp:
    """The kind of job."""

    name = "stamp"
    family = Family.TABLES

    def __init__(self, file: int) -> None:
        self._file = file

    async def prepare(self, *_: Any, **__: Any) -> Prepared:
        """Nothing can be wrong with it."""
        return Prepared()

    async def run(self, attempt: Attempt) -> Finished:
        """Note the time."""
        os.write(self._file, STAMP.pack(attempt.job.id, time.monotonic_ns()))
        return Finished(JobState.COMPLETED, Counts())


async def _run(folder: Path) -> None:
    file = os.open(folder / "stamps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    path = folder / "leadline.toml"
    async with daemon(
        config.load(path),
        config_path=path,
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        extra_kinds=lambda _: [Stamp(file)],
        extra_submissions=[StampSubmission],
    ) as running:
        await running.until_stopped()


def _end_with_the_bench() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    collect_garbage_seldom()
    anyio.run(_run, Path(sys.argv[1]), backend_options={"use_uvloop": True})
