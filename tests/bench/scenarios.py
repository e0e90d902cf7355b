"""The daemon at work: each scenario measures some rows together, limit → ours → limit in every round; where peers are
asked for, limit → ours → peer → ours → limit.

The queue is paused while it is filled, where filling is what is measured; resuming it measures the rest. A first,
smaller round that nobody counts warms everything up and brings the rows for the limits.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from statistics import fmean
from typing import TypeVar

import anyio
import anyio.to_thread
from msgspec import Struct

from tests.bench import alone, limits, processor
from tests.bench import tables as leads
from tests.bench.clients import Pipeline, at_a_pace, lead_list, noops, one_at_a_time
from tests.bench.daemon import STAMP
from tests.bench.figures import Round
from tests.bench.peers import PgQueuer, pgqueuer
from tests.bench.place import Daemon, Place, connected, dialled

T = TypeVar("T")

PAUSE = {"op": "pause", "scope": "queue"}
RESUME = {"op": "resume", "scope": "queue"}

CALM_PER_SECOND = 100
BUSY_PER_SECOND = 2_000

STALLED_SECONDS = 0.005
"""An fdatasync p99 above this says that the disk is somebody else's at the moment."""


class Sizes(Struct, frozen=True):
    """How much of everything."""

    jobs: int = 120_000
    peer_jobs: int = 60_000
    peer_limited_jobs: int = 3_000
    client_jobs: int = 8_000
    commits: int = 150
    seconds: float = 5.0
    queued: int = 200_000
    dispatched_short: int = 1_000
    dispatched_long: int = 1_000_000
    leads: int = 200_000
    asked: int = 10_000
    idle_seconds: float = 10.0
    provider_windows: int = 8
    uploaded: int = 100_000
    teamspaces: tuple[int, ...] = (1, 100, 10_000)


LEAD_TABLES = (("lead", ("table_id", "id", "data")), ("lead_key", ("table_id", "key_hash", "lead")))
"""Where the rows of a list go."""

Measured = dict[str, list[Round]]
Scenario = Callable[[Place, int, Sizes], Awaitable[Measured]]


async def queue(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Fill a paused queue, then let it go."""
    measured: Measured = {
        name: [] for name in (
            "submissions", "completed", "cpu", "peer_submissions", "peer_completed", "peer_completed_limited",
        )
    }  # fmt: skip
    lines = noops(sizes.jobs, notify_last=True)
    async with (
        place.daemon("queue") as daemon,
        connected(daemon.url) as raw,
        pgqueuer(place, "queue") as peer,
    ):
        with dialled(daemon.socket) as sock:
            pipeline = Pipeline(sock)

            def ours() -> tuple[float, float, float]:
                before = daemon.usage().cpu_seconds
                daemon.tell(PAUSE)
                stored = pipeline.submit(lines, until_ended=False).stored
                started = time.perf_counter()
                daemon.tell(RESUME)
                pipeline.wait_for_end()
                ended = time.perf_counter() - started
                return sizes.jobs / stored, sizes.jobs / ended, daemon.usage().cpu_seconds - before

            async def limit() -> tuple[float, float]:
                return await limits.copy_rate(raw, jobs), await limits.update_rate(raw, jobs)

            daemon.tell(PAUSE)
            await _blocking(partial(pipeline.submit, lines, until_ended=False))
            jobs = await limits.stored(raw, "add_jobs", limit=sizes.jobs)
            daemon.tell(RESUME)
            await _blocking(pipeline.wait_for_end)
            for _ in range(rounds):
                before = await limit()
                turns = [await _blocking(ours)]
                if peer is not None:
                    peer_submitted, peer_completed = await peer.submitted_and_completed(sizes.peer_jobs)
                    peer_limited = await peer.completed_within_limits(sizes.peer_limited_jobs)
                    turns.append(await _blocking(ours))
                submitted, completed, cpu = map(fmean, zip(*turns, strict=True))
                copied, updated = map(fmean, zip(before, await limit(), strict=True))
                measured["submissions"].append(Round(submitted, copied))
                measured["completed"].append(Round(completed, updated))
                measured["cpu"].append(Round(1e6 * cpu / sizes.jobs))
                if peer is not None:
                    measured["peer_submissions"].append(Round(submitted, peer_submitted))
                    measured["peer_completed"].append(Round(completed, peer_completed))
                    measured["peer_completed_limited"].append(Round(completed, peer_limited))
    return measured


async def queue_with_keys(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Fill a paused queue with jobs that have idempotency keys."""
    measured: Measured = {"submissions_with_keys": []}
    async with place.daemon("queue_with_keys") as daemon, connected(daemon.url) as raw:
        with dialled(daemon.socket) as sock:
            pipeline = Pipeline(sock)

            def ours(key: str) -> float:
                lines = noops(sizes.jobs, key=key, notify_last=True)
                daemon.tell(PAUSE)
                return sizes.jobs / pipeline.submit(lines, until_ended=False).stored

            def let_go() -> None:
                daemon.tell(RESUME)
                pipeline.wait_for_end()

            await _blocking(partial(ours, "warm"))
            rows = [await limits.stored(raw, name, limit=sizes.jobs) for name in ("add_jobs", "add_keys")]
            await _blocking(let_go)
            for number in range(rounds):
                before = await limits.copy_rate(raw, *rows)
                submitted = await _blocking(partial(ours, f"round-{number}"))
                await _blocking(let_go)
                after = await limits.copy_rate(raw, *rows)
                measured["submissions_with_keys"].append(Round(submitted, fmean((before, after))))
    return measured


async def end_to_end(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Jobs are submitted while the ones before them are completed."""
    measured: Measured = {"end_to_end": [], "peer_end_to_end": []}
    lines = noops(sizes.jobs, notify_last=True)
    async with (
        place.daemon("end_to_end") as daemon,
        connected(daemon.url) as raw,
        pgqueuer(place, "end_to_end") as peer,
    ):
        with dialled(daemon.socket) as sock:
            pipeline = Pipeline(sock)

            def ours() -> float:
                ended = pipeline.submit(lines, until_ended=True).ended
                assert ended is not None
                return sizes.jobs / ended

            async def limit() -> float:
                return 1 / (1 / await limits.copy_rate(raw, jobs) + 1 / await limits.update_rate(raw, jobs))

            daemon.tell(PAUSE)
            await _blocking(partial(pipeline.submit, lines, until_ended=False))
            jobs = await limits.stored(raw, "add_jobs", limit=sizes.jobs)
            daemon.tell(RESUME)
            await _blocking(pipeline.wait_for_end)
            for _ in range(rounds):
                before = await limit()
                rates = [await _blocking(ours)]
                if peer is not None:
                    peer_rate = await peer.end_to_end(sizes.peer_jobs)
                    rates.append(await _blocking(ours))
                    measured["peer_end_to_end"].append(Round(fmean(rates), peer_rate))
                measured["end_to_end"].append(Round(fmean(rates), fmean((before, await limit()))))
    return measured


async def clients(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Fifty clients that wait for each receipt."""
    measured: Measured = {"clients": []}
    async with place.daemon("clients") as daemon, connected(daemon.url) as raw:
        daemon.tell(PAUSE)
        await _blocking(partial(one_at_a_time, daemon.socket, 50, sizes.client_jobs))
        jobs = await limits.stored(raw, "add_jobs", limit=sizes.client_jobs)
        daemon.tell(RESUME)
        limit = partial(limits.single_insert_rate, daemon.url, jobs, 16)
        for _ in range(rounds):
            before = await limit()
            ours = await _blocking(partial(one_at_a_time, daemon.socket, 50, sizes.client_jobs))
            measured["clients"].append(Round(ours, fmean((before, await limit()))))
    return measured


async def start_latency(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """How long after its line was written a job's work begins."""
    measured: Measured = {"start_p50": [], "start_p99": [], "start_p99_2000": [], "peer_start_p99": []}
    async with (
        place.daemon("start_latency") as daemon,
        connected(daemon.url) as raw,
        pgqueuer(place, "start_latency") as peer,
    ):
        await _blocking(partial(_start_milliseconds, daemon, BUSY_PER_SECOND, sizes.seconds))
        daemon.tell(PAUSE)
        await _blocking(partial(one_at_a_time, daemon.socket, 50, sizes.commits))
        jobs = await limits.stored(raw, "add_jobs", limit=sizes.commits)
        daemon.tell(RESUME)
        for _ in range(rounds):
            synced = limits.fdatasync_seconds(place.folder)
            commits = await limits.single_commit_seconds(raw, jobs, sizes.commits, CALM_PER_SECOND)
            calm = await _blocking(partial(_start_milliseconds, daemon, CALM_PER_SECOND, sizes.seconds))
            busy = await _blocking(partial(_start_milliseconds, daemon, BUSY_PER_SECOND, sizes.seconds))
            if peer is not None:
                theirs = await _peer_start_milliseconds(peer, CALM_PER_SECOND, sizes.seconds)
                calm += await _blocking(partial(_start_milliseconds, daemon, CALM_PER_SECOND, sizes.seconds))
                busy += await _blocking(partial(_start_milliseconds, daemon, BUSY_PER_SECOND, sizes.seconds))
            commits += await limits.single_commit_seconds(raw, jobs, sizes.commits, CALM_PER_SECOND)
            synced += limits.fdatasync_seconds(place.folder)
            disk = limits.percentile(synced, 99)
            stalled = disk > STALLED_SECONDS
            limit = 1e3 * limits.percentile(commits, 50)
            measured["start_p50"].append(Round(limits.percentile(calm, 50), limit, stalled))
            measured["start_p99"].append(Round(limits.percentile(calm, 99) - 1e3 * disk, None, stalled))
            measured["start_p99_2000"].append(Round(limits.percentile(busy, 99) - 1e3 * disk, None, stalled))
            if peer is not None:
                measured["peer_start_p99"].append(
                    Round(limits.percentile(calm, 99), limits.percentile(theirs, 99), stalled)
                )
    return measured


def _start_milliseconds(daemon: Daemon, per_second: float, seconds: float) -> list[float]:
    """From each job's line to its start; without those that a slow processor held up, if they are not most of them."""
    seen = daemon.stamps.stat().st_size
    with processor.watched() as slow:
        sent = at_a_pace(daemon.socket, "stamp", per_second, seconds)
        deadline = time.monotonic() + 60
        while daemon.stamps.stat().st_size < seen + STAMP.size * len(sent):
            if time.monotonic() > deadline:
                raise RuntimeError("jobs that were submitted did not start")
            time.sleep(0.01)
    stamps = dict(STAMP.iter_unpack(daemon.stamps.read_bytes()[seen:]))
    lives = [(when, stamps[job]) for job, when in sent.items()]
    return [(started - written) / 1e6 for written, started in processor.undisturbed(lives, slow)]


async def _peer_start_milliseconds(peer: PgQueuer, per_second: int, seconds: float) -> list[float]:
    """From each job's submission to its start, told as ours are."""
    with processor.watched() as slow:
        lives = await peer.lives(per_second, seconds)
    return [(started - submitted) / 1e6 for submitted, started in processor.undisturbed(lives, slow)]


async def restart(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Kill a daemon with a long queue and start it again; what one with an empty queue takes meanwhile is left out."""
    measured: Measured = {"restart": [], "memory": []}
    async with (
        place.daemon("restart_empty") as empty,
        place.daemon("restart_full") as full,
        connected(full.url) as raw,
    ):
        full.tell(PAUSE)
        empty.tell(PAUSE)
        with dialled(full.socket) as sock:
            await _blocking(partial(Pipeline(sock).submit, noops(sizes.queued), until_ended=False))
        for _ in range(rounds):
            before = await limits.copy_out_rate(raw)
            empty_seconds, empty_bytes = await _blocking(partial(_again, empty))
            full_seconds, full_bytes = await _blocking(partial(_again, full))
            rate = sizes.queued / max(full_seconds - empty_seconds, 1e-3)
            measured["restart"].append(Round(rate, fmean((before, await limits.copy_out_rate(raw)))))
            measured["memory"].append(Round((full_bytes - empty_bytes) / sizes.queued))
    return measured


def _again(daemon: Daemon) -> tuple[float, int]:
    """Seconds until a daemon that is killed takes work again, and what it weighs then."""
    daemon.kill()
    started = time.perf_counter()
    daemon.start()
    return time.perf_counter() - started, daemon.usage().resident_bytes


async def tables(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Tables of leads, from a file to a file."""
    return await leads.tables(place, rounds, sizes.leads)


async def enrichment(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Leads that a provider is asked about."""
    return await leads.enrichment(place, rounds, sizes.asked)


async def idle(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """Nothing happens."""
    measured: Measured = {"idle": []}
    async with place.daemon("idle") as daemon:
        with dialled(daemon.socket) as sock:
            await _blocking(partial(Pipeline(sock).submit, noops(1_000, notify_last=True), until_ended=True))
        await anyio.sleep(1)
        for _ in range(rounds):
            before = daemon.usage().cpu_seconds
            await anyio.sleep(sizes.idle_seconds / rounds)
            used = daemon.usage().cpu_seconds - before
            measured["idle"].append(Round(100 * used / (sizes.idle_seconds / rounds)))
    return measured


async def core(_: Place, rounds: int, sizes: Sizes) -> Measured:
    """The scheduler without anything round it."""
    return {
        "memory_core": [Round(alone.bytes_per_queued_job(min(sizes.queued, 100_000)))],
        "dispatch": await _blocking(
            partial(alone.dispatch_cost, rounds, sizes.dispatched_short, sizes.dispatched_long)
        ),
    }


async def provider(_: Place, __: int, sizes: Sizes) -> Measured:
    """A provider at its limit, on virtual time: the same every time, so one round is enough."""
    played = [alone.provider_at_its_limit(waiting, sizes.provider_windows) for waiting in sizes.teamspaces]
    return {"provider": [min(played, key=lambda each: each.ratio)]}


async def upload(place: Place, rounds: int, sizes: Sizes) -> Measured:
    """A list of leads becomes a table, each time a new one; 2 % of its rows are duplicates, 1 % have no address."""
    measured: Measured = {"upload": []}
    async with place.daemon("upload") as daemon, connected(daemon.url) as raw:
        text = lead_list(sizes.uploaded)
        with dialled(daemon.socket) as sock:
            pipeline = Pipeline(sock)

            def ours(table: str) -> float:
                (daemon.incoming / table).write_bytes(text)
                line = f'{{"kind":"upload","teamspace":"bench","table":"{table}","path":"{table}","notify":true}}\n'
                ended = pipeline.submit(line.encode(), until_ended=True).ended
                assert ended is not None
                return sizes.uploaded / ended

            await _blocking(partial(ours, "warm"))
            rows = [await limits.kept(raw, table, columns) for table, columns in LEAD_TABLES]
            for number in range(rounds):
                before = await limits.copy_rate(raw, *rows)
                uploaded = await _blocking(partial(ours, f"round-{number}"))
                after = await limits.copy_rate(raw, *rows)
                measured["upload"].append(Round(uploaded, fmean((before, after))))
    return measured


async def _blocking(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


SCENARIOS: Mapping[Scenario, tuple[str, ...]] = {
    queue: ("submissions", "completed", "cpu", "peer_submissions", "peer_completed", "peer_completed_limited"),
    queue_with_keys: ("submissions_with_keys",),
    clients: ("clients",),
    end_to_end: ("end_to_end", "peer_end_to_end"),
    start_latency: ("start_p50", "start_p99", "start_p99_2000", "peer_start_p99"),
    restart: ("restart", "memory"),
    tables: ("formula", "write_back", "export", "tables_memory"),
    enrichment: ("enrichment",),
    idle: ("idle",),
    core: ("dispatch", "memory_core"),
    upload: ("upload",),
    provider: ("provider",),
}
"""Which rows each of them measures."""
