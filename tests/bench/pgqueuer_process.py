"""PgQueuer at work, in a process of its own, with the packages of scripts/peers.lock and nothing of Leadline.

    python -m tests.bench.pgqueuer_process URL install
    python -m tests.bench.pgqueuer_process URL submit ENTRYPOINTS JOBS
    python -m tests.bench.pgqueuer_process URL pace PER_SECOND JOBS
    python -m tests.bench.pgqueuer_process URL drain ENTRYPOINTS LIMIT BATCH
    python -m tests.bench.pgqueuer_process URL serve BATCH

It says `ready` when it is connected, begins when it is sent a line, and answers with a line of JSON when it has done
its part: `submit` with the seconds that it took; `serve`, which goes on until it is sent a second line, with when each
job was submitted and started, in nanoseconds of CLOCK_MONOTONIC, which all processes share.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode

ROWS_PER_COMMIT: Final = 5_000
POOLED: Final = 4
"""Connections of a client that does not wait for one job to be stored before it submits the next."""

Line = Callable[[], Awaitable[bytes]]
"""Waits for the next line of standard input."""

Life = tuple[int, int]
"""When a job was submitted, and when it started."""


async def install(url: str, line: Line) -> None:
    """Its tables, durable, with the settings of autovacuum that its documentation recommends."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    await _ready(line)
    await queries.install()
    await queries.optimize_autovacuum()


async def submit(url: str, line: Line, entrypoints: int, jobs: int) -> float:
    """Submit jobs in bulk on one connection; the seconds that it took."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    names = [_name(number % entrypoints) for number in range(jobs)]
    groups = [names[first : first + ROWS_PER_COMMIT] for first in range(0, jobs, ROWS_PER_COMMIT)]
    await _ready(line)
    started = time.perf_counter()
    for group in groups:
        await queries.enqueue(group, [None] * len(group), [0] * len(group))
    return time.perf_counter() - started


async def pace(url: str, line: Line, per_second: int, jobs: int) -> None:
    """Submit jobs one by one at this rate, each with the time as its payload."""
    async with asyncpg.create_pool(url, min_size=POOLED, max_size=POOLED) as pool, asyncio.TaskGroup() as tasks:
        queries = Queries(AsyncpgPoolDriver(pool))
        await _ready(line)
        began = time.monotonic()
        for number in range(jobs):
            await asyncio.sleep(began + number / per_second - time.monotonic())
            tasks.create_task(queries.enqueue(_name(0), str(time.monotonic_ns()).encode()))


async def drain(url: str, line: Line, entrypoints: int, limit: int, batch: int) -> None:
    """Work until nothing is queued; at most so many jobs of an entrypoint at once, where the limit is not 0."""
    worker, _ = _worker(await asyncpg.connect(url), entrypoints, limit)
    await _ready(line)
    await worker.qm.run(dequeue_timeout=timedelta(0), batch_size=batch, mode=QueueExecutionMode.drain)


async def serve(url: str, line: Line, batch: int) -> list[Life]:
    """Work until told to stop; the lives of those jobs whose payload is the time."""
    worker, lives = _worker(await asyncpg.connect(url), 1, 0)
    await _ready(line)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.qm.run(dequeue_timeout=timedelta(0), batch_size=batch))
        await line()
        worker.shutdown.set()
    return lives


def _worker(connection: Any, entrypoints: int, limit: int) -> tuple[PgQueuer, list[Life]]:
    worker = PgQueuer(AsyncpgDriver(connection))
    lives: list[Life] = []

    async def noop(job: Job) -> None:
        if job.payload is not None:
            lives.append((int(job.payload), time.monotonic_ns()))

    for number in range(entrypoints):
        worker.entrypoint(_name(number), concurrency_limit=limit)(noop)
    return worker, lives


def _name(number: int) -> str:
    return f"team-{number}"


async def _ready(line: Line) -> None:
    print("ready", flush=True)
    await line()


async def _main(url: str, part: str, *numbers: int) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    parts: dict[str, Callable[..., Awaitable[Any]]] = {
        "install": install, "submit": submit, "pace": pace, "drain": drain, "serve": serve,
    }  # fmt: skip
    print(json.dumps(await parts[part](url, lines.readline, *numbers)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
