"""Two hundred pages open, over a million jobs that have ended: pages come quickly, and nobody's submissions wait."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol import messages as wire
from tests.acceptance.stage import Stage, stage
from tests.ports import held_port

ENDED: Final = 1_000_000
TEAMSPACES: Final = 100
PAGES: Final = 200
BUSY_PAGES: Final = 20
"""Of those, pages of the teamspace whose jobs come, start and end all the time."""

MEASURED_SECONDS: Final = 10.0
PAGE_MILLISECONDS_MAX: Final = 100.0
SUBMIT_MILLISECONDS_MORE_MAX: Final = 50.0
ROUNDS: Final = 5
"""A round in which the machine itself stood still is measured again: the promise is about the daemon."""

FILL: Final = """
WITH every AS (
    SELECT array_agg(lead_table.id ORDER BY lead_table.id) AS tables,
        array_agg(teamspace.id ORDER BY lead_table.id) AS teamspaces
    FROM lead_table JOIN teamspace ON teamspace.name = lead_table.teamspace
)
INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, started, table_id, teamspace,
    attempt, kind, state, stop_on_failure, notify, payload, message)
SELECT $1::bigint + n, $1::bigint + n, $2::bigint, $2::bigint, 10, 10, 0, 0, 0, $2::bigint,
    every.tables[1 + n % array_length(every.tables, 1)], every.teamspaces[1 + n % array_length(every.tables, 1)], 1,
    (SELECT id FROM kind WHERE name = 'formula'), CASE WHEN n % 1000 = 0 THEN 6 ELSE 4 END, false, false,
    convert_to('{"kind":"formula","table":"leads","into":{"n":"number"},"expression":"1"}', 'UTF8'), ''
FROM every, generate_series(1, $3::bigint) AS n
"""

pytestmark = pytest.mark.timeout(420)


@contextmanager
def pages() -> Iterator[tuple[Stage, str]]:
    """A daemon and where its pages are."""
    with held_port() as port, stage(f'[http]\nlisten = "127.0.0.1:{port}"\n') as daemon:
        yield daemon, f"http://127.0.0.1:{port}"


@contextmanager
def reading(daemon: Stage, origin: str, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Pages that are open, until the block ends."""
    lines = []
    for number in range(PAGES):
        busy = number < BUSY_PAGES
        teamspace = "patient" if busy else f"t{number % TEAMSPACES}"
        link = daemon.ask(wire.Links(teamspace=teamspace, person=f"p{number}", role="member"))
        lines.append(f"{link.path} {'/jobs' if busy or number % 2 else '/t/leads/jobs'}\n")
    command = [sys.executable, "-m", "tests.acceptance.readers", origin, str(seconds)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.writelines(lines)
            process.stdin.close()
            assert json.loads(process.stdout.readline()) == {"open": PAGES}
            yield process
        finally:
            process.kill()


def patient_client(daemon: Stage) -> float:
    """The 99th percentile of what a client waits for its receipts, in milliseconds."""
    command = [
        sys.executable,
        "-m",
        "tests.acceptance.crowd",
        "measure",
        str(daemon.submit_socket),
        str(MEASURED_SECONDS),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=True, timeout=60)
    return percentile(json.loads(done.stdout)["seconds"], 0.99)


def percentile(seconds: Sequence[float], part: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(seconds)[int(part * len(seconds))]


def fill(daemon: Stage) -> None:
    """A history. The daemon counts on from its last job when it starts again."""
    for teamspace in ("patient", *(f"t{number}" for number in range(TEAMSPACES))):
        daemon.ask(wire.Tables(action="create", teamspace=teamspace, table="leads", columns={"email": "text"}))
        last = daemon.submit(wire.Noop(teamspace=teamspace)).job
    daemon.ended(last)
    daemon.query(FILL, last, time.time_ns() // 1000, ENDED)
    daemon.query("VACUUM ANALYZE job_ended")
    daemon.restart()


def measured(daemon: Stage, origin: str) -> tuple[float, float, int]:
    """One round: how long pages took (the 95th percentile), how much longer submissions took beside them (the 99th),
    in milliseconds, and how many events the pages were told.
    """
    alone = patient_client(daemon)
    with reading(daemon, origin, MEASURED_SECONDS) as readers:
        beside = patient_client(daemon)
        assert readers.stdout is not None
        told = json.loads(readers.stdout.readline())
    assert len(told["seconds"]) > BUSY_PAGES
    return percentile(told["seconds"], 0.95), beside - alone, told["events"]


def test_two_hundred_open_pages_over_a_million_jobs_keep_nobody_waiting() -> None:
    with pages() as (daemon, origin):
        fill(daemon)
        rounds = []
        for _ in range(ROUNDS):
            page, more, events = measured(daemon, origin)
            rounds.append(f"pages {page:.0f} ms, submissions {more:+.0f} ms, {events} events")
            print(rounds[-1])
            assert events > BUSY_PAGES * 100, "the pages were told what happens"
            if page < PAGE_MILLISECONDS_MAX and more < SUBMIT_MILLISECONDS_MORE_MAX:
                return
    pytest.fail("; ".join(rounds))
