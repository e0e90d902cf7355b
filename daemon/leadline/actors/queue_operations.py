"""Operations on the queue as a whole: how it is, by family, teamspace and provider, and its pauses."""

import os
import time
from collections import Counter
from heapq import nsmallest
from typing import Final

import msgspec

from leadline.actors import views
from leadline.actors.pace import Pace
from leadline.actors.peers import Peer, act
from leadline.actors.supervisor import Supervisor
from leadline.actors.surroundings import Surroundings
from leadline.core.events import PauseSet
from leadline.core.model import Family, JobState, Now
from leadline.core.rate_limit import BucketLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import AccountName, Instant, JobId, TeamspaceId

QUARANTINED_SHOWN: Final = 50

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
            families = family_statuses(scheduler)
            return msgspec.structs.replace(
                status,
                state="draining" if scheduler.draining else "ready",
                paused=sorted(f"{scope} {name}".strip() for scope, name in scheduler.pauses),
                families=families,
                teamspaces=len({teamspace for teamspace, _ in scheduler.backlog.lanes}),
                oldest_queued_at=min(filter(None, (each.oldest_queued_at for each in families)), default=None),
                jobs_per_second=pace.jobs_per_second(now.instant),
                providers=[view for view in _providers(scheduler, now) if _is_in_use(view)],
                stalls=_stalls(scheduler, now, pace),
                quarantined=_quarantined(scheduler),
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
        """A page of teamspaces, or those with the most work."""
        prefix, after = operation.prefix or "", operation.after or ""

        def look(scheduler: Scheduler, _: Now) -> list[wire.TeamspaceView]:
            if operation.most:
                named = ((scheduler.teamspaces.names[number], jobs) for number, jobs in _work(scheduler).items())
                busy = ((-jobs, name) for name, jobs in named if jobs and name.startswith(prefix))
                return [self._teamspace(scheduler, name) for _, name in nsmallest(operation.limit, busy)]
            names = sorted(name for name in scheduler.names if name > after and name.startswith(prefix))
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
            delayed=scheduler.delayed.by_teamspace.get(number, 0),
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
            return _providers(scheduler, now, operation.name)

        found = await self._supervisor.dispatcher.look(look)
        if operation.name is not None and not found:
            raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {operation.name}", at="name")
        return wire.ProvidersReply(line=line, providers=found, tried=tried, ref=operation.ref)


def _of_notices(undelivered: int) -> list[wire.JobWarning]:
    if not undelivered:
        return []
    message = f"{undelivered:,} mails or webhooks about jobs were not delivered"
    return [wire.JobWarning(code="undelivered_notices", message=message)]


def family_statuses(scheduler: Scheduler) -> list[wire.FamilyStatus]:
    """The queue by family; costs what runs and the number of lanes, however many jobs are queued or delayed."""
    oldest = scheduler.backlog.oldest()
    running = dict.fromkeys(Family, 0)
    stopping = dict.fromkeys(Family, 0)
    for job in scheduler.running.values():
        (stopping if job.state is JobState.STOPPING else running)[scheduler.kinds[job.kind].family] += 1
    return [
        wire.FamilyStatus(
            family=family.word,
            delayed=scheduler.delayed.by_family[family],
            queued=scheduler.backlog.queued[family],
            running=running[family],
            stopping=stopping[family],
            in_hand=scheduler.busy[family],
            capacity=scheduler.rules.capacity.get(family),
            oldest_queued_at=views.moment(Instant(oldest[family])) if family in oldest else None,
        )
        for family in Family
    ]


def _is_in_use(view: wire.ProviderView) -> bool:
    """Whether somebody uses an account or waits for it, or is kept from that."""
    used = view.waiting or view.in_flight or any(limit.charged for limit in view.limits)
    return bool(used) or view.state != "open"


def _providers(scheduler: Scheduler, now: Now, only: str | None = None) -> list[wire.ProviderView]:
    names = scheduler.teamspaces.names
    found = []
    for name in sorted(scheduler.accounts) if only is None else scheduler.accounts.keys() & {only}:
        account = scheduler.accounts[AccountName(name)]
        state = account.state(now.instant)
        turn = None
        if state.next is not None:
            turn = names[scheduler.jobs[scheduler.calls[state.next].job].teamspace]
        waiting = {names[teamspace]: calls for teamspace, calls in account.waiting_by_teamspace().items()}
        found.append(views.provider_view(name, state, waiting, turn, now.instant))
    return found


def _stalls(scheduler: Scheduler, now: Now, pace: Pace) -> list[wire.StallView]:
    found = []
    for stall in reversed(pace.stalls.values()):
        live = views.live(scheduler, stall.job, now)
        found.append(
            wire.StallView(
                job=stall.job,
                teamspace=stall.teamspace,
                at=views.certain_moment(stall.at),
                seconds=stall.seconds,
                killed=stall.killed,
                state=None if live is None else live.state,
                stalled=live is not None and live.stalled,
            )
        )
    return found


def _quarantined(scheduler: Scheduler) -> list[JobId]:
    held = (
        job.id
        for job in scheduler.suspects.values()
        if job.details is not None and JobReason.QUARANTINED in job.details.waits
    )
    return nsmallest(QUARANTINED_SHOWN, held)


def _work(scheduler: Scheduler) -> Counter[TeamspaceId]:
    """How many jobs each teamspace has that are delayed, queued or running."""
    work = Counter(scheduler.delayed.by_teamspace)
    for lane in scheduler.backlog.lanes.values():
        work[lane.teamspace] += lane.queued + len(lane.held)
    return work


def _records(scheduler: Scheduler, now: Now) -> dict[str, float | None]:
    """How our own database's bucket of records is, by the names of the wire; nothing where there is none."""
    for account in scheduler.accounts.values():
        if not any(isinstance(limit, BucketLimit) for limit in account.limits):
            continue
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
