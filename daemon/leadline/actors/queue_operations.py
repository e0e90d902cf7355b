"""Operations on the queue as a whole: how it is, by family, teamspace and provider, and its pauses."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from leadline.actors import views
from leadline.actors.peers import Peer, act
from leadline.actors.supervisor import Supervisor
from leadline.actors.surroundings import Surroundings
from leadline.core.events import PauseSet
from leadline.core.model import Family, JobState, Now
from leadline.core.rate_limit import BucketLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId

SECONDS_PER_HOUR: Final = 3_600


class QueueOperations:
    """Carries out `status`, `pause`, `resume`, `teamspaces` and `providers`."""

    def __init__(self, supervisor: Supervisor, surroundings: Surroundings) -> None:
        self._supervisor = supervisor
        self._around = surroundings

    async def status(self, operation: wire.Status, _: Peer, line: int) -> wire.Reply:
        """How the daemon is."""
        around = self._around
        reign = self._supervisor.reign
        status = wire.StatusReply(
            line=line,
            version=around.version,
            pid=os.getpid(),
            epoch=0 if reign is None else reign.epoch,
            started_at=around.started,
            uptime_seconds=time.time() - around.started.timestamp(),
            state="unavailable" if self._supervisor.has_reigned else "starting",
            families=[],
            teamspaces=0,
            database=await around.database(),
            loop_lag_seconds=around.loop_lag_seconds(),
            memory_bytes=resident_bytes(),
            connections=around.connections(),
            memory_bound=around.memory_bound(),
            warnings=_of_notices(await around.undelivered()),
            ref=operation.ref,
        )
        if reign is None:
            return status
        pace = reign.dispatcher.pace

        def look(scheduler: Scheduler, now: Now) -> wire.StatusReply:
            oldest = scheduler.backlog.oldest()
            return msgspec.structs.replace(
                status,
                state="draining" if scheduler.draining else "ready",
                paused=sorted(f"{scope} {name}".strip() for scope, name in scheduler.pauses),
                families=family_statuses(scheduler, _delayed(scheduler)),
                teamspaces=len({teamspace for teamspace, _ in scheduler.backlog.lanes}),
                oldest_queued_at=None if oldest is None else views.certain_moment(Instant(oldest)),
                jobs_per_second=pace.jobs_per_second(now.instant),
                providers=_providers(scheduler, now, in_use=True),
                database=msgspec.structs.replace(
                    status.database,
                    commit_seconds_p50=pace.commit_seconds(0.5),
                    commit_seconds_p99=pace.commit_seconds(0.99),
                    **_records(scheduler, now),
                ),
                start_seconds_p50=pace.start_seconds(0.5, now.instant),
                start_seconds_p99=pace.start_seconds(0.99, now.instant),
            )

        return await reign.dispatcher.look(look)

    async def pause(self, operation: wire.Pause | wire.Resume, peer: Peer, line: int) -> wire.Reply:
        """Pause something, or let it go on. Raises Refused."""
        name = "" if operation.name is None else str(operation.name)
        if operation.scope == "family" and name not in {family.word for family in Family}:
            raise Refused(ErrorCode.BAD_REQUEST, f"there is no family {name}", at="name")
        paused = isinstance(operation, wire.Pause)
        what = f"{operation.scope} {name}".strip()
        await self._around.record(act(operation, peer, what))
        await self._supervisor.dispatcher.tell(PauseSet(operation.scope, name, paused))
        return wire.Done(line=line, message=f"The {what} is {'paused' if paused else 'going on'}.", ref=operation.ref)

    async def teamspaces(self, operation: wire.Teamspaces, _: Peer, line: int) -> wire.Reply:
        """A page of the teamspaces that have work."""

        def look(scheduler: Scheduler, _: Now) -> list[wire.TeamspaceView]:
            names = sorted(name for name in scheduler.names if operation.after is None or name > operation.after)
            return [self._teamspace(scheduler, name) for name in names[: operation.limit + 1]]

        found = await self._supervisor.dispatcher.look(look)
        page = found[: operation.limit]
        following = page[-1].teamspace if len(found) > operation.limit else None
        return wire.TeamspacesReply(line=line, teamspaces=page, next=following, ref=operation.ref)

    def _teamspace(self, scheduler: Scheduler, name: str) -> wire.TeamspaceView:
        number = scheduler.names[name]
        limits = scheduler.limits_of(number)
        lanes = [lane for family in Family if (lane := scheduler.backlog.lanes.get((number, family))) is not None]
        return wire.TeamspaceView(
            teamspace=name,
            plan=self._around.plan_of(name),
            queued=sum(lane.queued for lane in lanes),
            running=sum(len(lane.held) for lane in lanes),
            paused=("teamspace", name) in scheduler.pauses,
            slots={family.word: slots for family, slots in limits.slots.items() if slots is not None},
        )

    async def providers(self, operation: wire.Providers, peer: Peer, line: int) -> wire.Reply:
        """The providers and who waits for them; or one real call to one. Raises Refused."""
        tried = None
        if operation.action == "try":
            await self._around.record(act(operation, peer, f"provider {operation.name}", "try"))
            tried = await self._around.try_provider(operation, peer.uid)

        def look(scheduler: Scheduler, now: Now) -> list[wire.ProviderView]:
            return _providers(scheduler, now, in_use=False)

        found = await self._supervisor.dispatcher.look(look)
        if operation.name is not None:
            found = [view for view in found if view.provider == operation.name]
            if not found:
                raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {operation.name}", at="name")
        return wire.ProvidersReply(line=line, providers=found, tried=tried, ref=operation.ref)


def _of_notices(undelivered: int) -> list[wire.JobWarning]:
    if not undelivered:
        return []
    message = f"{undelivered:,} mails or webhooks about jobs were not delivered: leadline notices tells which"
    return [wire.JobWarning(code="undelivered_notices", message=message)]


def delayed_in(scheduler: Scheduler, entry: tuple[Instant, JobId]) -> Family | None:
    """Of which family the job of an entry in the scheduler's list of delayed ones is; None: it is delayed no more."""
    job = scheduler.jobs.get(entry[1])
    return scheduler.kinds[job.kind].family if job is not None and job.state is JobState.DELAYED else None


def _delayed(scheduler: Scheduler) -> Counter[Family | None]:
    return Counter(delayed_in(scheduler, entry) for entry in scheduler.delayed)


def family_statuses(scheduler: Scheduler, delayed: Mapping[Family | None, int]) -> list[wire.FamilyStatus]:
    """The queue by family; `delayed`: how many of each are so."""
    running = dict.fromkeys(Family, 0)
    stopping = dict.fromkeys(Family, 0)
    for job in scheduler.running.values():
        (stopping if job.state is JobState.STOPPING else running)[scheduler.kinds[job.kind].family] += 1
    return [
        wire.FamilyStatus(
            family=family.word,
            delayed=delayed.get(family, 0),
            queued=scheduler.backlog.queued[family],
            running=running[family],
            stopping=stopping[family],
            in_hand=scheduler.busy[family],
            capacity=scheduler.rules.capacity.get(family),
        )
        for family in Family
    ]


def _providers(scheduler: Scheduler, now: Now, *, in_use: bool) -> list[wire.ProviderView]:
    waiting: dict[str, Counter[str]] = {}
    for call in scheduler.calls.values():
        if not call.granted and call.job in scheduler.jobs:
            teamspace = scheduler.teamspaces.names[scheduler.jobs[call.job].teamspace]
            waiting.setdefault(call.account, Counter())[teamspace] += 1
    found = []
    for name, account in sorted(scheduler.accounts.items()):
        state = account.state(now.instant)
        used = state.waiting or state.in_flight or state.standing.throttled_until or state.standing.parked
        if in_use and not (used or any(limit.charged for limit in state.limits)):
            continue
        turn = None
        if state.next is not None:
            turn = scheduler.teamspaces.names[scheduler.jobs[scheduler.calls[state.next].job].teamspace]
        found.append(views.provider_view(name, state, waiting.get(name, {}), turn, now.instant))
    return found


def _records(scheduler: Scheduler, now: Now) -> dict[str, float | None]:
    """How our own database's bucket of records is, by the names of the wire; nothing where there is none."""
    for account in scheduler.accounts.values():
        for state in account.state(now.instant).limits:
            if isinstance(state.limit, BucketLimit):
                return {
                    "records_available": state.free,
                    "records_last_hour": state.last_hour,
                    "records_per_hour": state.limit.amount * SECONDS_PER_HOUR / state.limit.per_seconds,
                }
    return {}


def resident_bytes() -> int:
    """What the process holds of the memory."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  read on every status: no Path needed
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
