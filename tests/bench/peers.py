"""What Leadline is compared with: PgQueuer, in a database of its own on the same server, in processes of its own.

It is set up as its documentation recommends for throughput: durable tables, its settings of autovacuum, asyncpg,
uvloop, a connection for each worker and a pool for whoever submits one by one; and it looks for jobs again without a
pause. Its jobs have no payload. What it gets beyond that is planner statistics of a queue that is filled: without them
each dequeue sorts the whole queue, until autovacuum comes by within the minute.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from leadline.adapters.postgres.pool import Connection
from tests.bench.place import Place, connected
from tests.bench.processor import Moment

PYTHON: Final = Path(__file__).resolve().parents[2] / ".tools" / "peers" / "bin" / "python"
"""Where `scripts/setup --peers` puts it."""

WORKERS: Final = 2
BATCH: Final = 1_000
"""Jobs that a worker takes at a time."""

KEYS: Final = 100
"""It limits entrypoints, so each tenant is one, and every dequeue names them all."""
BATCH_WITHIN_LIMITS: Final = 10
"""Ends are stored when so many have come together, or after 0.1 s; until then they keep their keys from working."""

BATCH_AT_A_PACE: Final = 10
"""Its default."""

READ_BYTES_MAX: Final = 1 << 24
POLL_SECONDS: Final = 0.02


async def version() -> str:
    """Of PgQueuer."""
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-c", "import pgqueuer; print(pgqueuer.__version__)", stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    return printed.decode().strip()


@asynccontextmanager
async def pgqueuer(place: Place, name: str) -> AsyncIterator["PgQueuer | None"]:
    """A PgQueuer on a new database, where peers are asked for."""
    if not place.with_peers:
        yield None
        return
    async with place.database(f"{name}_pgqueuer") as url, connected(url) as raw:
        peer = PgQueuer(url, raw)
        await peer.install()
        yield peer


class PgQueuer:
    """Its queue is empty before and after each of these."""

    def __init__(self, url: str, raw: Connection) -> None:
        self._url = url
        self._raw = raw

    async def install(self) -> None:
        """Make its tables, and the statistics of a queue that is filled."""
        await self._do("install")
        await self._fill(1, BATCH)
        await self._clear()

    async def submitted_and_completed(self, jobs: int) -> tuple[float, float]:
        """Jobs per second by one client in bulk, and then by two workers."""
        submitted = await self._fill(1, jobs)
        return submitted, await self._drain(jobs, 1, 0, BATCH)

    async def completed_within_limits(self, jobs: int) -> float:
        """Jobs per second by two workers, of 100 tenants that run one job at a time each."""
        await self._fill(KEYS, jobs)
        return await self._drain(jobs, KEYS, 1, BATCH_WITHIN_LIMITS)

    async def end_to_end(self, jobs: int) -> float:
        """Jobs per second that two workers complete while a client submits them in bulk."""
        async with AsyncExitStack() as open_processes:
            workers = [await open_processes.enter_async_context(self._part("serve", BATCH)) for _ in range(WORKERS)]
            client = await open_processes.enter_async_context(self._part("submit", 1, jobs))
            for worker in workers:
                worker.tell()
            started = time.perf_counter()
            client.tell()
            await client.answer()
            await self._until_empty()
            rate = jobs / (time.perf_counter() - started)
            for worker in workers:
                worker.tell()
                await worker.answer()
        await self._clear()
        return rate

    async def lives(self, per_second: int, seconds: float) -> list[Moment]:
        """When each job was submitted and started, at this rate, with one worker."""
        async with (
            self._part("serve", BATCH_AT_A_PACE) as worker,
            self._part("pace", per_second, int(per_second * seconds)) as client,
        ):
            worker.tell()
            client.tell()
            await client.answer()
            await self._until_empty()
            worker.tell()
            lives = [(submitted, started) for submitted, started in await worker.answer()]
        await self._clear()
        return lives

    async def _fill(self, keys: int, jobs: int) -> float:
        seconds = await self._do("submit", keys, jobs)
        await self._raw.execute("VACUUM ANALYZE pgqueuer")
        return float(jobs / seconds)

    async def _drain(self, jobs: int, keys: int, limit: int, batch: int) -> float:
        async with AsyncExitStack() as open_processes:
            workers = [
                await open_processes.enter_async_context(self._part("drain", keys, limit, batch))
                for _ in range(WORKERS)
            ]
            started = time.perf_counter()
            for worker in workers:
                worker.tell()
            for worker in workers:
                await worker.answer()
            rate = jobs / (time.perf_counter() - started)
        left = await self._raw.fetchval("SELECT count(*) FROM pgqueuer")
        assert left == 0, f"PgQueuer left {left} jobs"
        await self._clear()
        return rate

    async def _until_empty(self) -> None:
        while await self._raw.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)"):
            await asyncio.sleep(POLL_SECONDS)

    async def _clear(self) -> None:
        """Leave nothing for autovacuum to do while others are measured; the statistics stay."""
        await self._raw.execute("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics")

    async def _do(self, part: str, *numbers: int) -> Any:
        async with self._part(part, *numbers) as process:
            process.tell()
            return await process.answer()

    @asynccontextmanager
    async def _part(self, part: str, *numbers: int) -> AsyncIterator["_Part"]:
        process = await asyncio.create_subprocess_exec(
            PYTHON, "-m", "tests.bench.pgqueuer_process", self._url, part, *map(str, numbers),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=READ_BYTES_MAX,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            opened = _Part(process.stdin, process.stdout)
            await opened.ready()
            yield opened
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


class _Part:
    """A process of PgQueuer that does one thing."""

    def __init__(self, lines: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        self._lines = lines
        self._answers = answers

    async def ready(self) -> None:
        """Wait until it is connected."""
        await self._line()

    def tell(self) -> None:
        """Let it begin, or end what has no end of its own."""
        self._lines.write(b"\n")

    async def answer(self) -> Any:
        """Wait until it has done its part."""
        return json.loads(await self._line())

    async def _line(self) -> bytes:
        line = await self._answers.readline()
        if not line:
            raise RuntimeError("PgQueuer did not do its part")
        return line
