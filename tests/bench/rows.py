"""What is measured, and how much of it is enough.

The floor is what the daemon must never fall below, the target what it is built for, the stretch what a sketch of its
shape without any of its guards has reached. The floor of the p99 of start latencies is what PgQueuer takes at 100/s: in
the same run where peers are asked for, else what it once took on two cores.
"""

from typing import Final

from tests.bench.figures import Row

ROWS: Final = (
    Row("submissions", "durable submissions, one pipelining client", "COPY of the same rows", "/s", 0.30, 0.50, 0.75),
    Row("submissions_with_keys", "the same with idempotency keys", "COPY of the same rows", "/s", 0.30, 0.50, 0.75),
    Row("clients", "50 clients, one job at a time each", "single INSERTs on 16 connections", "/s", 0.7, 1.1, 2),
    Row("completed", "completed, 10,000 teamspaces with a slot each", "UPDATE of the same rows", "/s", 0.25, 0.5, 1),
    Row("end_to_end", "submitted and completed at the same time", "COPY, then UPDATE", "/s"),
    Row("cpu", "daemon CPU per job, submitted and completed", "", "µs", 25, 16, 10, less_is_better=True),
    Row(
        "start_p50", "start latency p50 at 100/s", "single-row COMMIT at 100/s", "ms", 8, 4, 3, less_is_better=True
    ),
    Row(
        "start_p99", "start latency p99 at 100/s, above fdatasync p99", "", "ms", 14, 5, 2,
        less_is_better=True, floor_row="peer_start_p99",
    ),
    Row(
        "start_p99_2000", "start latency p99 at 2,000/s, above fdatasync p99", "", "ms", 14, 5, 2,
        less_is_better=True, floor_row="peer_start_p99",
    ),
    Row("memory", "resident memory per queued job", "", "bytes", 250, 180, 120, less_is_better=True),
    Row("memory_core", "the core's own memory per queued job", "", "bytes", 250, 180, 120, less_is_better=True),
    Row("restart", "restart with a long queue", "COPY-out of the same rows", "rows/s", 0.25, 0.45, 0.7),
    Row(
        "dispatch", "dispatch cost with 1,000,000 queued", "with 1,000 queued", "µs", 2, 1.5, 1.1,
        less_is_better=True,
    ),
    Row("formula", "formula over a filter", "hand-written UPDATE", "leads/s", 0.5, 0.8, 1),
    Row("write_back", "results written back, 5,000 a time", "UPDATE that makes them up", "leads/s", 0.5, 1, 2),
    Row("export", "export as CSV", "COPY-out of the same leads", "leads/s"),
    Row(
        "tables_memory", "most resident memory through upload, formula, results, export", "", "MB", 400, 300, 200,
        less_is_better=True,
    ),
    Row("enrichment", "enrichment, a provider without limits", "bare aiohttp client loop", "leads/s", 0.4, 0.6, 0.8),
    Row("idle", "CPU of an idle daemon", "", "% of a core", 1, 0.3, 0.05, less_is_better=True),
    Row("upload", "rows uploaded, with de-duplication and reasons", "COPY of the same rows", "/s", 0.2, 0.4, 0.6),
    Row(
        "provider", "a provider at its limit, 1 to 10,000 teamspaces waiting", "(N - max cost)/(W + latency)", "/s",
        0.95, 0.98, 0.995,
    ),
    Row(
        "peer_submissions", "durable submissions, one pipelining client", "PgQueuer, in bulk", "/s", 1.5, 3, 5,
        with_peers=True,
    ),
    Row(
        "peer_completed", "completed, 10,000 teamspaces with a slot each", "PgQueuer, 2 processes, no limits", "/s",
        2, 4, 9, with_peers=True,
    ),
    Row(
        "peer_completed_limited", "completed, 10,000 teamspaces with a slot each",
        "PgQueuer, 2 processes, 100 keys that run one job each", "/s", 30, 100, 200, with_peers=True,
    ),
    Row(
        "peer_end_to_end", "submitted and completed at the same time", "PgQueuer, 2 processes, no limits", "/s",
        2, 4, 7, with_peers=True,
    ),
    Row(
        "peer_start_p99", "start latency p99 at 100/s", "PgQueuer at 100/s", "ms", less_is_better=True, with_peers=True
    ),
)  # fmt: skip
"""In the order of the table."""

BY_NAME: Final = {row.name: row for row in ROWS}
