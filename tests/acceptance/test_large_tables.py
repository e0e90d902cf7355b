"""A long list of leads goes the whole way from a file to a file, and the daemon stays small.

The size in which this runs by itself takes a few seconds. With `LEADLINE_FULL_SIZE=1` the list has 1,000,000 rows,
which takes some minutes:

    LEADLINE_FULL_SIZE=1 scripts/test tests/acceptance/test_large_tables.py -s
"""

import csv
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import pytest

from tests.bench.clients import carried_out, lead_list
from tests.bench.place import Daemon, connected, place

FULL_SIZE: Final = "LEADLINE_FULL_SIZE" in os.environ
ROWS: Final = 1_000_000 if FULL_SIZE else 50_000
SECONDS: Final = 3_600 if FULL_SIZE else 120
MEGABYTES_MAX: Final = 400

LEADS: Final = ROWS * 97 // 100
"""Of a hundred rows, two repeat one before them and one has no address."""
LARGE: Final = sum(number % 100 not in {33, 66, 99} and number % 1_000 > 10 for number in range(1_000)) * ROWS // 1_000
"""Leads with more than ten employees."""

FORMULA: Final = {
    "kind": "formula", "into": {"per_head": "number"},
    "expression": "round(100000 / employees, 2)", "where": "country = 'DE' and employees > 10",
}  # fmt: skip


async def worked_on(daemon: Daemon, url: str) -> None:
    """Upload, filter, formula, results for each lead, export; each is looked at."""

    async def carry_out(job: Mapping[str, object]) -> int:
        submission = {"table": "leads", **job}
        return (await anyio.to_thread.run_sync(partial(carried_out, daemon.socket, submission))).leads

    (daemon.incoming / "leads.csv").write_bytes(lead_list(ROWS))
    assert await carry_out({"kind": "upload", "path": "leads.csv"}) == LEADS
    assert await carry_out(FORMULA) == LARGE
    assert await carry_out({"kind": "write_back"}) == LEADS
    assert await carry_out({"kind": "export", "path": "all.csv"}) == LEADS
    assert await carry_out({"kind": "export", "path": "large.csv", "where": "per_head > 0"}) == LARGE
    async with connected(url) as connection:
        filled = await connection.fetchrow(
            """
            SELECT count(*) AS leads, count(data -> 'score') AS scores, count(data -> 'per_head') AS per_head,
                count(*) FILTER (WHERE (data ->> 'per_head')::numeric
                    <> round(100000 / nullif((data ->> 'employees')::numeric, 0), 2)) AS wrong
            FROM lead
            """
        )
    assert filled is not None
    assert tuple(filled) == (LEADS, LEADS, LARGE, 0)
    exports = daemon.incoming.parent / "exports"
    assert lines_of(exports / "all.csv") == (LEADS, LEADS)
    assert lines_of(exports / "large.csv") == (LARGE, LARGE)


def lines_of(path: Path) -> tuple[int, int]:
    """How many leads a file has, and how many different addresses."""
    with path.open(encoding="utf-8", newline="") as file:
        emails = [row["email"] for row in csv.DictReader(file)]
    return len(emails), len(set(emails))


@pytest.mark.timeout(SECONDS)
async def test_a_long_list_goes_from_a_file_to_a_file_in_a_small_daemon() -> None:
    async with place(with_peers=False) as here, here.daemon("large") as daemon:
        began = daemon.peak_bytes()
        await worked_on(daemon, daemon.url)
        peak = daemon.peak_bytes()
        print(f"{ROWS:,} rows: {began / 1e6:.0f} MB at its beginning, at most {peak / 1e6:.0f} MB")
        assert peak < MEGABYTES_MAX * 1e6
