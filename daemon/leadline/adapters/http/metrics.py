"""Numbers for Prometheus, read when it asks: the scheduler's own counts, and what the daemon measures of itself anyway.

Nothing is collected for it between two scrapes, but for a few sums that grow with each decision. Names follow the
conventions of Prometheus: `leadline_`, the unit, and `_total` on what only grows. What grows begins at zero with each
reign over the database, which Prometheus takes for a restart. No teamspace is a label: there may be 10,000 of them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from leadline.actors.dispatcher import Dispatcher
from leadline.actors.pace import Histogram, Pace
from leadline.actors.queue_operations import family_statuses, resident_bytes
from leadline.actors.supervisor import Supervisor
from leadline.actors.views import provider_view
from leadline.core.model import SECOND
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import FamilyStatus, ProviderView

T = TypeVar("T")

SLICE: Final = 1_000
"""So many things are counted at a time: a millisecond or so."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Process(Struct, frozen=True):
    """What is measured of the process, besides the queue."""

    version: str
    started_seconds: float
    """Unix time."""
    loop_lag_seconds: float
    connections: Mapping[str, int]
    """By the way they came in."""
    submissions: int
    refusals: Mapping[ErrorCode, int]


class QueueNumbers(Struct, frozen=True):
    """The queue at one moment."""

    families: Sequence[FamilyStatus]
    waits: Mapping[str, int]
    """Running jobs that wait, by reason."""
    oldest_seconds: float | None
    accounts: Sequence[ProviderView]
    throttles: Mapping[str, int]
    """By account: calls that were turned away as too many."""
    draining: bool
    pace: Pace


class Metrics:
    """All numbers there are."""

    def __init__(self, supervisor: Supervisor, process: Callable[[], Process]) -> None:
        self._supervisor = supervisor
        self._process = process

    async def text(self) -> bytes:
        """In the text format of Prometheus; without those of the queue where nobody can look at it now."""
        queue = None
        with suppress(Refused):
            queue = await _look(self._supervisor.dispatcher)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([*_of_process(self._process()), *_of_queue(queue)]))
        return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _look(dispatcher: Dispatcher) -> QueueNumbers:
    """The queue as it is now. Raises Refused with unavailable.

    Where many thousands run, to look at them all takes longer than anybody may be kept waiting: that is done in slices,
    between which others have their turns. The numbers are then of a moment that is some milliseconds long.
    """
    now = await dispatcher.look(lambda _, now: now)
    scheduler = dispatcher.scheduler
    waits: Counter[str] = Counter()
    async for jobs in _in_slices(list(scheduler.running.values())):
        for job in jobs:
            if job.id in scheduler.running:
                waits.update({wait.reason.value for wait in scheduler.waits_of(job, now.instant)})
    accounts: list[ProviderView] = []
    throttles: dict[str, int] = {}
    async for named in _in_slices(sorted(scheduler.accounts.items())):
        for name, account in named:
            state = account.state(now.instant)
            accounts.append(provider_view(name, state, {}, None, now.instant))
            throttles[name] = state.throttles
    oldest = min(scheduler.backlog.oldest().values(), default=None)
    return QueueNumbers(
        family_statuses(scheduler),
        waits,
        None if oldest is None else max(0, now.instant - oldest) / SECOND,
        accounts,
        throttles,
        scheduler.draining,
        dispatcher.pace,
    )


async def _in_slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
        await asyncio.sleep(0)


def _of_process(process: Process) -> Iterable[Metric]:
    info = GaugeMetricFamily("leadline_build_info", "The version that runs; always 1.", labels=["version"])
    info.add_metric([process.version], 1)
    yield info
    yield GaugeMetricFamily(
        "process_start_time_seconds", "When the process began, in Unix time.", value=process.started_seconds
    )
    yield GaugeMetricFamily("process_resident_memory_bytes", "Memory that it holds.", value=resident_bytes())
    yield GaugeMetricFamily(
        "leadline_event_loop_lag_seconds",
        "How late the event loop was at its worst, in about the last minute.",
        value=process.loop_lag_seconds,
    )
    connections = GaugeMetricFamily("leadline_connections", "Peers that are connected.", labels=["face"])
    for face, count in process.connections.items():
        connections.add_metric([face], count)
    yield connections
    yield CounterMetricFamily(
        "leadline_submissions", "Submissions that were given a receipt.", value=process.submissions
    )
    refusals = CounterMetricFamily("leadline_refusals", "Submissions that were refused.", labels=["code"])
    for code in ErrorCode:
        refusals.add_metric([code.value], process.refusals.get(code, 0))
    yield refusals


def _of_queue(queue: QueueNumbers | None) -> Iterable[Metric]:
    is_ready = queue is not None and not queue.draining
    yield GaugeMetricFamily("leadline_ready", "Whether the queue takes work.", value=int(is_ready))
    if queue is None:
        return
    jobs = GaugeMetricFamily("leadline_jobs", "Jobs that have not ended.", labels=["family", "state"])
    in_hand = GaugeMetricFamily("leadline_jobs_in_hand", "Jobs with work in hand.", labels=["family"])
    capacity = GaugeMetricFamily(
        "leadline_jobs_in_hand_max", "So many may have; absent: any number.", labels=["family"]
    )
    for family in queue.families:
        for state in ("delayed", "queued", "running", "stopping"):
            jobs.add_metric([family.family, state], getattr(family, state))
        in_hand.add_metric([family.family], family.in_hand)
        if family.capacity is not None:
            capacity.add_metric([family.family], family.capacity)
    waits = GaugeMetricFamily("leadline_jobs_waiting", "Running jobs that wait, by what for.", labels=["reason"])
    for reason, count in sorted(queue.waits.items()):
        waits.add_metric([reason], count)
    yield from (jobs, in_hand, capacity, waits)
    if queue.oldest_seconds is not None:
        yield GaugeMetricFamily(
            "leadline_oldest_queued_age_seconds", "Age of the oldest queued job.", value=queue.oldest_seconds
        )
    yield CounterMetricFamily("leadline_jobs_ended", "Jobs that have ended.", value=queue.pace.ended)
    yield CounterMetricFamily(
        "leadline_stall_kills", "Attempts that were stopped because they stood still.", value=queue.pace.stall_kills
    )
    yield _histogram(
        "leadline_job_start_latency_seconds",
        "From the time at which a job could have started to its first start; a priority's head start counts.",
        queue.pace.starts,
    )
    yield _histogram("leadline_commit_seconds", "What commits of decisions took.", queue.pace.commits)
    yield from _of_accounts(queue)


def _of_accounts(queue: QueueNumbers) -> Iterable[Metric]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"leadline_provider_{name}", text, labels=["provider", *labels])

    of_limit = ("shape", "unit", "window")
    charged = gauge("charged_units", "Units that count against a limit now.", *of_limit)
    limits = gauge("limit_units", "So many units a limit allows.", *of_limit)
    flying = gauge("calls_in_flight", "Calls that are out.")
    waiting = gauge("calls_waiting", "Calls that wait for leave.")
    held = gauge("held", "Whether calls are held back, by why: throttled, trying, parked or paused.", "why")
    throttles = CounterMetricFamily(
        "leadline_provider_throttles", "Calls that it has turned away as too many.", labels=["provider"]
    )
    for account in queue.accounts:
        for each in account.limits:
            window = "" if each.per_seconds is None else f"{each.per_seconds:g}s"
            labels = [account.provider, each.shape, each.unit, window]
            charged.add_metric(labels, each.charged)
            limits.add_metric(labels, each.amount)
        flying.add_metric([account.provider], account.in_flight)
        waiting.add_metric([account.provider], account.waiting)
        for why in ("throttled", "trying", "parked", "paused"):
            held.add_metric([account.provider, why], int(account.state == why))
        throttles.add_metric([account.provider], queue.throttles[account.provider])
    yield from (charged, limits, flying, waiting, held, throttles)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets = []
    total = 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
