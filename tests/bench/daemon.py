"""The daemon that is measured: the real one, with two more kinds of jobs.

A noop starts and ends in the decision that admits it, so it has no moment at which its work begins. A `stamp` goes the
way of every job with work in it: a slot, an attempt, a commit, a task; then it writes its number and the time. A
`write_back` stores a result for every lead of a table, as enrichment does, but without asking anybody for it, and in
chunks as large and as close together as a formula's.
"""

import itertools
import logging
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import structlog

from leadline import config
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.process import collect_garbage_seldom, let_threads_give_way
from leadline.core.model import Counts, Family, JobState
from leadline.features.tables.overlap import Turn, overlapped
from leadline.features.tables.ports import LeadStore, Result
from leadline.main import daemon
from leadline.ports.work import Attempt, Finished, Prepared
from leadline_protocol.ids import LeadId
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


class WriteBackSubmission(Submission, tag="write_back", frozen=True, kw_only=True):
    """Store a result for every lead."""

    table: str


class WriteBack:
    """The kind of job."""

    name = "write_back"
    family = Family.TABLES

    def __init__(self, leads: LeadStore) -> None:
        self._leads = leads

    async def prepare(self, *_: Any, **__: Any) -> Prepared:
        """Nothing can be wrong with it."""
        return Prepared()

    async def run(self, attempt: Attempt) -> Finished:
        """Store 5,000 results a time."""
        leads, job = self._leads, attempt.job
        table = await leads.table(job.teamspace, _WRITE_BACK.decode(job.payload).table)
        assert table is not None
        async with leads.work(job.id, attempt.number) as work:
            frozen = await work.freeze(table, None, None, None, None)
        done = 0
        numbers = itertools.count()

        async def following() -> Sequence[LeadId] | None:
            return await leads.chunk(frozen, next(numbers)) or None

        async def store(chunk: Sequence[LeadId], turn: Turn) -> None:
            nonlocal done
            results = [
                Result(lead, "done", cells={"score": lead % 10, "opener": f"A friendly sentence to {lead}"})
                for lead in chunk
            ]
            async with leads.work_ahead(job.id, attempt.number) as work:
                await work.settle(table, results)
                await turn()
                await work.claim()
                done += len(chunk)
                await work.save(Counts(total=frozen.total, done=done), "", None)

        await overlapped(following, store)
        return Finished(JobState.COMPLETED, Counts(total=done, done=done))


_WRITE_BACK: Final = msgspec.json.Decoder(WriteBackSubmission)


async def _run(folder: Path) -> None:
    file = os.open(folder / "stamps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    path = folder / "leadline.toml"
    async with daemon(
        config.load(path),
        config_path=path,
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        extra_kinds=lambda store: [Stamp(file), WriteBack(PostgresLeads(store))],
        extra_submissions=[StampSubmission, WriteBackSubmission],
    ) as running:
        await running.until_stopped()


def _end_with_the_bench() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    collect_garbage_seldom()
    let_threads_give_way()
    anyio.run(_run, Path(sys.argv[1]), backend_options={"use_uvloop": True})
