"""Tables of leads at work: a file comes in, is worked on, and goes out again; and a provider is asked about leads.

One table a round, as a user has them: uploaded, filled by a formula over a filter, written into as enrichment does,
exported. Then the daemon's memory is looked at: the most that it has had resident since it began.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from statistics import fmean
from typing import Final

import aiohttp
import anyio.to_thread

from leadline.adapters.postgres.pool import Connection
from tests.bench import limits
from tests.bench.clients import carried_out, lead_list
from tests.bench.figures import Round
from tests.bench.place import Daemon, Place, connected

ASKED_AT_ONCE: Final = 64
"""As many leads of a job as are asked about at once."""

FORMULA: Final = "round(100000 / nullif(employees, 0), 2)"
FILTER: Final = "country = 'DE' and employees > 10"
BY_HAND: Final = """
UPDATE bench.lead SET data = data || jsonb_build_object(
    'per_head', round(100000 / nullif((data ->> 'employees')::numeric, 0), 2))
WHERE data ->> 'country' = 'DE' AND (data ->> 'employees')::numeric > 10
"""

WRITTEN_BACK: Final = """
UPDATE bench.lead SET data = data || jsonb_build_object('score', id % 10, 'opener', 'A friendly sentence to ' || id)
WHERE id > $1 AND id <= $2
"""

MODULE: Final = """
name = "size"
base_url = "{url}"
mode = "sync"
inputs = ["email"]
cost = {{ request = 1 }}
limits = []
[request]
method = "GET"
path = "/size"
query = {{ email = "{{{{email}}}}" }}
[response.columns]
size = {{ select = "size", type = "number" }}
"""


async def tables(place: Place, rounds: int, leads: int) -> dict[str, list[Round]]:
    """Formula with a filter, write-back and export, each beside what Postgres can do with the same rows."""
    measured: dict[str, list[Round]] = {name: [] for name in ("formula", "write_back", "export")}
    async with place.daemon("tables") as daemon, connected(daemon.url) as raw:
        for number in range(1, rounds + 1):
            table = f"round_{number}"
            await _blocking(partial(_upload, daemon, table, leads))
            await raw.execute(
                """
                CREATE SCHEMA IF NOT EXISTS bench;
                CREATE TABLE bench.lead (LIKE lead INCLUDING ALL) WITH (fillfactor = 70)
                """
            )
            await raw.execute("INSERT INTO bench.lead SELECT * FROM lead WHERE table_id = $1", number)

            before = await _by_hand(raw)
            await raw.execute("VACUUM lead")
            job = {"kind": "formula", "table": table, "into": {"per_head": "number"}, "expression": FORMULA}
            filled = await _blocking(partial(carried_out, daemon.socket, {**job, "where": FILTER}))
            measured["formula"].append(Round(filled.leads / filled.seconds, fmean((before, await _by_hand(raw)))))

            before = await _written_back(raw, leads)
            await raw.execute("VACUUM lead")
            written = await _blocking(partial(carried_out, daemon.socket, {"kind": "write_back", "table": table}))
            limit = fmean((before, await _written_back(raw, leads)))
            measured["write_back"].append(Round(written.leads / written.seconds, limit))

            out = await _copied_out(raw, number)
            exported = await _blocking(partial(carried_out, daemon.socket, {"kind": "export", "table": table}))
            measured["export"].append(Round(exported.leads / exported.seconds, out))
            await raw.execute("DROP TABLE bench.lead")
        measured["tables_memory"] = [Round(daemon.peak_bytes() / 1e6)]
    return measured


def _upload(daemon: Daemon, table: str, leads: int) -> None:
    (daemon.incoming / table).write_bytes(lead_list(leads))
    carried_out(daemon.socket, {"kind": "upload", "table": table, "path": table})


async def _by_hand(raw: Connection) -> float:
    """Leads per second of the UPDATE that somebody would write who needs no reasons."""
    await raw.execute("VACUUM bench.lead")
    started = time.perf_counter()
    status = await raw.execute(BY_HAND)
    return int(status.removeprefix("UPDATE ")) / (time.perf_counter() - started)


async def _written_back(raw: Connection, leads: int) -> float:
    """Leads per second of an UPDATE that makes up its values, 5,000 a commit."""
    await raw.execute("VACUUM bench.lead")
    written = 0
    started = time.perf_counter()
    for first in range(0, leads, limits.ROWS_PER_COMMIT):
        status = await raw.execute(WRITTEN_BACK, first, first + limits.ROWS_PER_COMMIT)
        written += int(status.removeprefix("UPDATE "))
    return written / (time.perf_counter() - started)


async def _copied_out(raw: Connection, table: int) -> float:
    """Leads per second of a COPY to nowhere."""
    started = time.perf_counter()
    status = await raw.copy_from_query("SELECT data FROM lead WHERE table_id = $1", table, output=limits.forget)
    return int(status.removeprefix("COPY ")) / (time.perf_counter() - started)


async def enrichment(place: Place, rounds: int, leads: int) -> dict[str, list[Round]]:
    """A provider without limits is asked about each lead; beside it, a loop that asks and throws the answers away."""
    measured: dict[str, list[Round]] = {"enrichment": []}
    async with _provider() as url:
        module = place.folder / "size.toml"
        module.write_text(MODULE.format(url=url), encoding="utf-8")
        async with place.daemon("enrichment", f'[providers.size]\nmodule = "{module}"\n') as daemon:
            await _blocking(partial(_upload, daemon, "leads", leads))
            job = {"kind": "enrich", "table": "leads", "module": "size", "into": {"size": "number"}}
            await _blocking(partial(carried_out, daemon.socket, {**job, "first": ASKED_AT_ONCE}))
            for _ in range(rounds):
                before = await _asked_in_a_loop(url, leads)
                asked = await _blocking(partial(carried_out, daemon.socket, job))
                limit = fmean((before, await _asked_in_a_loop(url, leads)))
                measured["enrichment"].append(Round(asked.leads / asked.seconds, limit))
    return measured


@asynccontextmanager
async def _provider() -> AsyncIterator[str]:
    """A provider in a process of its own; its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.provider", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def _asked_in_a_loop(url: str, leads: int) -> float:
    """Requests per second of a bare client, as many at once as the daemon has."""
    numbers = iter(range(leads))

    async def ask(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            query = {"email": f"person{number}@example.com"}
            async with session.get(f"{url}/size", params=query) as response:
                assert (await response.json())["size"] is not None

    connector = aiohttp.TCPConnector(limit=ASKED_AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        started = time.perf_counter()
        await asyncio.gather(*(ask(session) for _ in range(ASKED_AT_ONCE)))
        return leads / (time.perf_counter() - started)


_blocking = anyio.to_thread.run_sync
