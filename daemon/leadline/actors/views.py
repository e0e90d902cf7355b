"""Jobs and accounts as people and programs see them: from the store and the memory to the shapes of the wire."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct, field

from leadline.actors.summaries import summary
from leadline.core import heartbeats
from leadline.core.estimate import Tempo
from leadline.core.forecast import Why
from leadline.core.model import ENDED, SECOND, Counts, Job, JobState, Now, Wait
from leadline.core.provider_account import AccountState, Standing
from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, DailyLimit, LimitState, WindowLimit
from leadline.core.scheduler import Scheduler
from leadline.core.throughput import Point, between
from leadline.ports.control import Act
from leadline.ports.store import StoredJob
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS, JobReason
from leadline_protocol.ids import Instant, JobId


class Submitted(Struct, frozen=True):
    """What a view shows of a submission itself."""

    table: str | None = None
    priority_seconds: float = 0.0


class Live(Struct, frozen=True):
    """What only the scheduler knows of a job that has not ended."""

    state: JobState
    attempt: int = 0
    waits: Sequence[Wait] = ()
    activity: str = ""
    busy: bool = True
    stalled: bool = False
    steps: Sequence[JobId] = field(default_factory=tuple)
    tempo: Tempo | None = None
    ends: tuple[Instant, Instant] | None = None
    """No sooner and no later than then; None: nobody knows."""

    @property
    def waits_for_its_turn(self) -> bool:
        """Whether nothing is done for it at present."""
        return self.state in {JobState.QUEUED, JobState.DELAYED} or (bool(self.waits) and not self.busy)


_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_SUBMITTED: Final = msgspec.json.Decoder(Submitted)
_WARNINGS: Final = msgspec.json.Decoder(list[wire.JobWarning])


def moment(instant: Instant | None) -> datetime | None:
    """An instant or a wall time, in microseconds, as a time in UTC."""
    return None if instant is None else datetime.fromtimestamp(instant / SECOND, UTC)


def certain_moment(instant: Instant) -> datetime:
    """The same for an instant that is there."""
    return datetime.fromtimestamp(instant / SECOND, UTC)


def eta(expected: tuple[Instant, Instant] | None) -> wire.Eta | None:
    """A range of instants as it is shown."""
    if expected is None:
        return None
    earliest, latest = expected
    return wire.Eta(earliest=certain_moment(earliest), latest=certain_moment(latest))


def counts(stored: Counts) -> wire.Counts:
    """Counts with what is pending, so that they add up to the total."""
    return wire.Counts(
        total=stored.total,
        done=stored.done,
        failed=stored.failed,
        skipped=stored.skipped,
        unknown=stored.unknown,
        pending=stored.pending,
    )


def warnings(stored: bytes) -> list[wire.JobWarning]:
    """The warnings kept with a job."""
    return _WARNINGS.decode(stored) if stored else []


def live(scheduler: Scheduler, job_id: JobId, now: Now) -> Live | None:
    """What the scheduler knows of a job; None where it has ended."""
    job = scheduler.jobs.get(job_id)
    return None if job is None else _live(scheduler, job, now)


def _live(scheduler: Scheduler, job: Job, now: Now) -> Live:
    chain = scheduler.chains.get(job.id)
    steps = chain.steps if chain is not None else ()
    details = job.details
    if details is None:
        return Live(job.state, steps=steps)
    attempt = details.attempt
    waits = tuple(scheduler.waits_of(job, now.instant))
    if attempt is None:
        return Live(job.state, details.attempts, waits, steps=steps)
    return Live(
        job.state,
        attempt.number,
        waits,
        attempt.activity,
        attempt.busy or bool(attempt.flying),
        heartbeats.still_seconds(attempt, now.instant) >= scheduler.rules.stall_after_seconds,
        steps,
    )


def wait(core: Wait) -> wire.Wait:
    """A wait with its sentence."""
    return wire.Wait(reason=core.reason, message=sentence(core), until=moment(core.until), numbers=dict(core.numbers))


def sentence(core: Wait) -> str:
    """A wait in words that a customer understands, with its numbers."""
    numbers = core.numbers
    name = numbers.get("provider", "the provider")
    if "mailbox" in numbers:
        return _of_mailbox(numbers)
    match core.reason:
        case JobReason.LIMIT if "per_seconds" in numbers:
            unit = numbers.get("unit", "request")
            return (
                f"Waiting for {name}: {numbers['amount']} {unit}s in any {_short(numbers['per_seconds'])} s are"
                f" {_whose(name)}, {numbers.get('charged', 0)} of them are taken{_in_line(numbers)}."
            )
        case JobReason.LIMIT if numbers.get("unit") == "order":
            return f"Waiting for {name}: it works on {numbers['amount']} orders at a time."
        case JobReason.LIMIT if "amount" in numbers:
            return f"Waiting for {name}: {numbers['amount']} calls at a time are {_whose(name)}{_in_line(numbers)}."
        case JobReason.LIMIT if "pace_per_second" in numbers:
            return f"Waiting for {name}: {_evenly(float(numbers['pace_per_second']))}{_in_line(numbers)}."
        case JobReason.LIMIT:
            return f"Waiting for {name}: it is the turn of others{_in_line(numbers)}."
        case JobReason.RETRY_AFTER:
            return f"{name} asked everyone to wait."
        case JobReason.CIRCUIT:
            refusals = numbers.get("refusals", 1)
            again = f" {refusals} times in a row though its limits were kept" if refusals != 1 else ""
            return f"{name} turned calls away{again}; one trial call decides when work goes on."
        case JobReason.DAILY_CAP:
            return f"The allowance of {name} for today is used up."
        case JobReason.CREDITS:
            return f"The account at {name} has no credits left; somebody must fill it up and resume the provider."
        case JobReason.POLL:
            return f"{name} is working on it; its result is asked for at intervals."
        case JobReason.BULK_RESULT:
            return f"{name} is working on an order for {numbers.get('leads', 'many')} leads; it is asked at intervals."
        case JobReason.QUARANTINED:
            often = f"{numbers['crashes']} times" if "crashes" in numbers else "again and again"
            return f"The daemon went down {often} while it was at work; it waits until a person resumes or cancels it."
        case JobReason.BACKOFF if "crashes" in numbers:
            return "The daemon went down while it ran; it runs when no other such job does."
        case JobReason.BACKOFF:
            return "Something failed that may work in a moment; trying again soon."
        case JobReason.PAUSED:
            what = f"{numbers['scope']} {numbers.get('name', '')}".strip() if "scope" in numbers else "job"
            return f"A person paused the {what}; it goes on when that is resumed."
        case JobReason.APPROVAL:
            return f"{_guarded(numbers)}: it waits until a person resumes or cancels it."
        case JobReason.CAPACITY:
            much = f"all {numbers['capacity']}" if "capacity" in numbers else "as many"
            return f"The servers have {much} jobs of this kind in hand that they may; it goes on as soon as one rests."
        case JobReason.SLOT:
            count = f"{numbers['held']} of {numbers['slots']}" if "slots" in numbers else "as many"
            holders = numbers.get("jobs", numbers.get("job"))
            of_which = "" if holders is None else f" (now {holders})"
            return (
                f"This teamspace runs {count} jobs of the kind that its plan allows{of_which}; it starts when one ends."
            )
        case JobReason.DELAYED:
            return "Its time has not come."
        case _:
            return JOB_REASONS[core.reason]


def _of_mailbox(numbers: Mapping[str, int | float | str]) -> str:
    """Why a mail does not leave its mailbox yet."""
    mailbox = f"the mailbox of {numbers['mailbox']}"
    match numbers.get("why", numbers.get("guard")):
        case "hours":
            return f"Mails leave {mailbox} within its hours only; it is planned for when they begin."
        case "daily_cap":
            return (
                f"Today {mailbox} has sent {numbers.get('sent', 'all')} of the {numbers.get('cap', '')} mails it may."
            )
        case "gap" | "in_flight":
            return (
                f"Between two mails of {mailbox} there are at least {numbers.get('gap_seconds', 1)} s; others go first."
            )
        case "follow_ups_first":
            return f"Of the mails of {mailbox} follow-ups go before first mails."
        case "domain_limit":
            return f"Today {numbers.get('sent', 'all')} mails have gone to the contact's domain, as many as may."
        case "mailbox_paused":
            return f"A pause holds {mailbox}: it goes on when somebody resumes it."
        case "mailbox_never":
            return f"Its hours and its daily cap leave {mailbox} no moment for it: change them and resume it."
        case "no_mail_server":
            return f"There is no mail server for {mailbox}: give it one and resume it."
        case _:
            return (
                f"The mail server did not take it for now ({numbers.get('story', 'it said no')}); trying again later."
            )


def _whose(provider: object) -> str:
    """Who shares an account's limits: everyone, or the teamspace whose own key it has."""
    return "allowed to this teamspace's own key" if "@" in str(provider) else "shared by everyone"


def _in_line(numbers: Mapping[str, int | float | str]) -> str:
    """Where the teamspace stands in the line of a shared account, where that is known."""
    position = numbers.get("position")
    if not isinstance(position, int) or "@" in str(numbers.get("provider")):
        return ""
    return f"; this teamspace is {_ordinal(position)} in line"


def _evenly(per_second: float) -> str:
    if per_second > 1:
        return f"it is asked {_short(per_second)} times a second, evenly"
    return f"it is asked every {_short(round(1 / per_second, 3))} s"


def _ordinal(number: int) -> str:
    """`third`, `21st`."""
    if number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _guarded(numbers: Mapping[str, int | float | str]) -> str:
    """What a guard has found."""
    match numbers.get("guard"):
        case JobReason.GUARD_EMPTY:
            return "No lead matched"
        case JobReason.GUARD_MORE_THAN:
            return f"{numbers.get('leads', 'More')} leads matched, which is more than its guard lets through"
        case _:
            return "A guard holds it"


def _short(number: float | str) -> str:
    return f"{number:g}" if isinstance(number, int | float) else number


def explained(view: wire.JobView, told: Why) -> wire.JobView:
    """The same job with all that holds it back."""
    waits = [wait(each) for each in told.blockers]
    return msgspec.structs.replace(view, waits=waits, jobs_ahead=told.jobs_ahead, eta=goes_on(told))


def goes_on(told: Why) -> wire.Eta | None:
    """When a job is expected to start or to go on; None where nobody knows."""
    return None if told.earliest is None or told.latest is None else eta((told.earliest, told.latest))


def job_view(stored: StoredJob, family: str, now: Live | None) -> wire.JobView:
    """A job as it is shown."""
    submitted = _SUBMITTED.decode(stored.payload) if stored.payload else Submitted()
    ended = stored.state in ENDED
    state = stored.state if now is None or ended else now.state
    waits = [] if now is None or ended else [wait(each) for each in now.waits]
    tempo = None if now is None or ended else now.tempo
    total = stored.counts.total or (0 if ended and stored.started is not None else None)
    waiting = state is JobState.RUNNING and waits and now is not None and not now.busy
    return wire.JobView(
        job=stored.id,
        kind=stored.kind,
        summary=summary(stored.payload, total),
        family=family,
        teamspace=stored.teamspace,
        table=submitted.table,
        state=state,
        shown="waiting" if waiting else state,
        attempt=stored.attempt if now is None else max(stored.attempt, now.attempt),
        priority_seconds=submitted.priority_seconds,
        submitted_at=certain_moment(stored.submitted),
        run_at=moment(stored.run_at),
        started_at=moment(stored.started),
        ended_at=moment(stored.ended),
        counts=counts(stored.counts),
        leads_per_second=None if tempo is None else tempo.leads / tempo.seconds,
        ends=None if now is None or ended else eta(now.ends),
        activity=(now.activity if now is not None else "") or None,
        waits=waits,
        stalled=now is not None and now.stalled,
        reason=JobReason(stored.reason) if stored.reason else None,
        message=stored.message or _held(waits),
        warnings=warnings(stored.warnings),
        chain=stored.chain,
        step=None if stored.step is None else stored.step + 1,
        steps=list(now.steps) if now is not None else [],
        rerun_of=stored.rerun_of,
    )


def throughput(stored: StoredJob, points: Sequence[Point]) -> list[wire.ThroughputPoint]:
    """How far a job was at which time, from its start to its end; nothing of one that has no leads."""
    if stored.started is None or not points:
        return []
    ended = None if stored.ended is None else Point(stored.ended, stored.counts.settled)
    return [
        wire.ThroughputPoint(at=certain_moment(point.at), done=point.settled)
        for point in between(points, Point(stored.started, 0), ended)
    ]


def _held(waits: Sequence[wire.Wait]) -> str | None:
    """Why a person has to look at a job that has not ended."""
    return next((each.message for each in waits if each.reason is JobReason.APPROVAL), None)


def act_entry(act: Act) -> wire.HistoryEntry:
    """What somebody asked for, in the story of the job it was asked of."""
    who: dict[str, object] = {"uid": act.uid, "pid": act.pid}
    if act.person is not None:
        who |= {"person": act.person, "role": act.role}
    if act.detail:
        who["detail"] = act.detail
    return wire.HistoryEntry(at=certain_moment(act.at), event=f"{act.op} asked", detail=who)


REFUSALS_EXPLAINED: Final = 3
"""So many throttles in a row are no accident any more."""

WAITING_NAMED_MAX: Final = 100
"""Teamspaces that are named as waiting at a provider; there may be any number."""


def provider_view(
    name: str, state: AccountState, waiting: Mapping[str, int], turn: str | None, instant: Instant
) -> wire.ProviderView:
    """A provider account as it is shown at an instant; calls `waiting` by teamspace, of which one has its `turn`."""
    standing = state.standing
    until = standing.throttled_until
    throttled = until is not None and until > instant  # afterwards one call goes, to see whether the others may
    word: str = "open"
    if state.paused:
        word = "paused"
    elif standing.parked is not None:
        word = "parked"
    elif throttled:
        word = "throttled"
    elif until is not None:
        word = "trying"
    return wire.ProviderView(
        provider=name,
        state=word,  # type: ignore[arg-type]  # the words above are the literal's
        reason=standing.parked or _of_throttle(standing),
        limits=[_limit_view(each) for each in state.limits],
        pace_per_second=state.pace_per_second,
        in_flight=state.in_flight,
        waiting=state.waiting,
        waiting_teamspaces=len(waiting),
        waiting_by=dict(sorted(waiting.items(), key=lambda pair: (-pair[1], pair[0]))[:WAITING_NAMED_MAX]),
        next=turn,
        throttled_until=moment(until) if throttled else None,
        parked_until=moment(standing.parked_until),
        refusals=standing.refusals,
        canary=state.canary,
        message=_unexplained(standing.refusals),
    )


def _of_throttle(standing: Standing) -> JobReason | None:
    """Whether the provider has named the time of its throttle, or we take it upon us."""
    if not standing.refusals:
        return None
    return JobReason.RETRY_AFTER if standing.hinted else JobReason.CIRCUIT


def _unexplained(refusals: int) -> str | None:
    """What to make of a provider that throttles again and again."""
    if refusals < REFUSALS_EXPLAINED:
        return None
    return (
        f"it throttled {refusals} times in a row though its limits were kept: they are lower than configured, or"
        " somebody else uses the key"
    )


def _limit_view(state: LimitState) -> wire.LimitView:
    limit = state.limit
    match limit:
        case WindowLimit():
            return wire.LimitView(
                shape="window",
                unit=limit.unit,
                amount=limit.amount,
                per_seconds=limit.per_seconds,
                charged=state.charged,
                frees_at=moment(state.frees_at),
            )
        case ConcurrentLimit():
            return wire.LimitView(shape="concurrent", unit="request", amount=limit.amount, charged=state.charged)
        case DailyLimit():
            return wire.LimitView(
                shape="daily",
                unit=limit.unit,
                amount=limit.amount,
                charged=state.charged,
                frees_at=moment(state.frees_at),
            )
        case BucketLimit():
            return wire.LimitView(
                shape="bucket",
                unit=limit.unit,
                amount=limit.amount,
                per_seconds=limit.per_seconds,
                charged=state.charged,
            )
