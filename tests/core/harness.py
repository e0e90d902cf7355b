"""The scheduler on virtual time, with actors that do as they are told, and a database that refuses nonsense.

Every step is what the shell does: events in, records stored, effects carried out, and then `audit.check`. Time passes
from deadline to deadline, and every running attempt beats each ten seconds unless a test says that it does not. What
an attempt does beside that is the test's business: ask for permits, settle leads, wait, end.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from leadline.core import audit
from leadline.core import events as ev
from leadline.core.effects import (
    Answer,
    Effects,
    Receipt,
    RefuseCall,
    SendCall,
    StartAttempt,
    StopAttempt,
    WarnStalled,
)
from leadline.core.model import (
    SECOND,
    Counts,
    Details,
    Family,
    Job,
    JobState,
    Kind,
    Limits,
    Now,
    Rules,
    StopCause,
    Wait,
)
from leadline.core.quarantine import Crashed
from leadline.core.rate_limit import Cost, Limit
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId
from tests.core.durable import Durable

PULSE_SECONDS = 10
START = 1_800_000_000 * SECOND

KINDS = (
    Kind(0, "noop", Family.NOOP, instant=True),
    Kind(1, "chain", Family.TABLES, chain=True),
    Kind(2, "enrich", Family.TABLES),
    Kind(3, "batch", Family.BATCH),
    Kind(4, "mail", Family.OUTREACH),
)
NUMBER_OF = {kind.name: kind.number for kind in KINDS}

SLOTS: Mapping[Family, int | None] = {Family.NOOP: 1, Family.TABLES: 1, Family.BATCH: 5, Family.OUTREACH: 1}
CAPACITY: Mapping[Family, int | None] = {Family.TABLES: 8, Family.BATCH: 4, Family.OUTREACH: 64}
RULES = Rules(CAPACITY, Limits(SLOTS))


class Actor(Struct):
    """A running attempt, as the shell sees it."""

    job: JobId
    number: int
    since: Instant
    beats: bool = True
    lingers: bool = False
    """Takes its time to be gone, even when it is forced. Others are gone at once when forced, else when nothing of
    them is out."""
    asked: dict[CallId, AccountName] = field(default_factory=dict)
    out: dict[CallId, AccountName] = field(default_factory=dict)
    counts: Counts = Counts()
    told: StopAttempt | None = None


class Harness:
    """A queue on virtual time."""

    def __init__(self, rules: Rules = RULES, *, kinds: Sequence[Kind] = KINDS) -> None:
        self.kinds = kinds
        self.rules = rules
        self.instant = START
        self.wall = START
        self.database = Durable()
        self.learned: dict[AccountName, ev.AccountLearned] = {}
        self.limits: dict[str, ev.LimitsSet] = {}
        self.scheduler = Scheduler(kinds, rules)
        self.actors: dict[JobId, Actor] = {}
        self.counts: dict[JobId, Counts] = {}
        """Leads in a final state, as the work has stored them."""
        self.last_call = 0
        self.last_pulse = START
        self.sent: list[tuple[Instant, CallId]] = []
        """Calls handed over, in order."""
        self.refused: dict[CallId, RefuseCall] = {}
        self.stops: list[StopAttempt] = []
        self.starts: list[StartAttempt] = []
        self.warnings: list[tuple[Instant, WarnStalled]] = []
        self.acknowledged: set[JobId] = set()
        """Jobs that somebody holds a receipt of."""
        self.wants: list[ev.Event] = []
        """What actors have to say once the present effects are carried out."""

    # -- time and events --------------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        return Now(Instant(self.instant), Instant(self.wall))

    def tell(self, *events: ev.Event) -> list[Answer]:
        """One decision, and those that follow from it at once; returns the answers to these events."""
        first = effects = self.scheduler.handle(events, self.now)
        self.carry_out(effects)
        while effects.more or self.wants:
            wants, self.wants = self.wants, []
            effects = self.scheduler.handle(wants, self.now)
            self.carry_out(effects)
        return first.answers

    def carry_out(self, effects: Effects) -> None:
        self.database.commit(effects.records)
        self.acknowledged |= {
            answer.job
            for answers in effects.answers
            if isinstance(answers, list)
            for answer in answers
            if isinstance(answer, Receipt)
        }
        for stop in effects.stops:
            self._stop(stop)
        for start in effects.starts:
            assert start.job not in self.actors, f"job {start.job} runs twice"
            self.starts.append(start)
            counts = self.counts.get(start.job, Counts())
            self.actors[start.job] = Actor(start.job, start.number, Instant(self.instant), counts=counts)
        for refused in effects.refused_calls:
            self._refuse(refused)
        for send in effects.sends:
            self._send(send)
        self.warnings += [(Instant(self.instant), warning) for warning in effects.warnings]
        for ended in effects.records.ended:
            assert ended.id not in self.actors, f"job {ended.id} has ended and still runs"
        if not effects.more:
            audit.check(self.scheduler, self.now)
            self._check_starts(effects)
        known = self.database.live.keys() | self.database.ended.keys()
        assert self.acknowledged <= known, f"jobs {self.acknowledged - known} were acknowledged and are lost"
        assert self.database.live.keys() >= self.scheduler.jobs.keys(), "memory knows jobs that are not stored"
        lost = self.database.live.keys() - self.scheduler.jobs.keys()
        assert not lost or len(self.kinds) < len(KINDS), f"jobs {lost} are stored and not in memory"

    def _check_starts(self, effects: Effects) -> None:
        """What has started had leave to, and was the oldest that had."""
        for slot in effects.records.slots_taken:
            limit = self.scheduler.limits_of(slot.teamspace).slots[slot.family]
            held = sum(key[:2] == (slot.teamspace, slot.family) for key in self.database.slots)
            assert limit is None or held <= limit, f"{slot} is one too many for its teamspace"
        admitted = {row.id: row for row in effects.records.admitted}
        for start in effects.starts:
            assert start.admitted is admitted.get(start.job), f"{start} says something else of its admission"
            capacity = self.scheduler.rules.capacity.get(start.family)
            assert capacity is None or self.scheduler.busy[start.family] <= capacity, f"{start} is one too many"
            job = self.scheduler.jobs[start.job]
            if job.details is not None and job.details.chain is not None:
                continue
            for lane in self.scheduler.backlog.lanes.values():
                head = lane.head()
                if lane.family is not start.family or head is None:
                    continue
                if (lane.limit is None or len(lane.held) < lane.limit) and not self._is_paused(head):
                    assert job < head, f"{job} has started before {head}"

    def _is_paused(self, job: Job) -> bool:
        family = self.kinds[job.kind].family
        return self.scheduler.pauses.block(self.scheduler.teamspaces.names[job.teamspace], family)

    def pass_seconds(self, seconds: float) -> None:
        """Let time run, stopping at every deadline and at every pulse."""
        self.run_to(self.instant + round(seconds * SECOND))

    def run_to(self, target: int) -> None:
        while True:
            deadline = self.scheduler.next_deadline(self.now)
            pulse = self.last_pulse + PULSE_SECONDS * SECOND
            step = min(target, pulse if self.actors else target, target if deadline is None else deadline)
            self._advance(max(step, self.instant))
            events: list[ev.Event] = []
            if step >= pulse or not self.actors:
                self.last_pulse = self.instant
                events = [ev.Beat(actor.job, actor.number) for actor in self.actors.values() if actor.beats]
            if events or (deadline is not None and deadline <= self.instant):
                self.tell(*events)
            if self.instant >= target:
                return

    def _advance(self, instant: int) -> None:
        self.wall += instant - self.instant
        self.instant = instant

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the clock on the wall, by so much."""
        self.wall += round(seconds * SECOND)

    def sleep(self, seconds: float) -> None:
        """The whole process stands still: no beat, no timer."""
        self._advance(self.instant + round(seconds * SECOND))

    def restart(self, *, seconds: float = 0) -> None:
        """The daemon dies and a new one begins from what is stored."""
        self._advance(self.instant + round(seconds * SECOND))
        self._begin({})

    def crash(self) -> None:
        """The daemon dies by itself, and a new one begins and is told who ran."""
        cut_off = {call.row.job for call in self.database.calls.values() if call.state == "sent"}
        self._begin({job: Crashed(actor.counts.settled, job in cut_off) for job, actor in self.actors.items()})

    def _begin(self, crashed: Mapping[JobId, Crashed]) -> None:
        self.actors.clear()
        self.wants.clear()
        self.last_pulse = self.instant
        self.scheduler, first = self.database.recover(
            self.kinds,
            self.rules,
            self.now,
            list(self.learned.values()),
            list(self.limits.values()),
            crashed=crashed,
        )
        assert not first.answers
        self.carry_out(first)
        self.tell()

    # -- what people do ---------------------------------------------------------------------------------------------

    def submit(self, teamspace: str, kind: str = "enrich", **fields: object) -> JobId:
        return self.receipt(new(teamspace, kind, **fields)).job

    def receipt(self, submission: ev.NewJob) -> Receipt:
        answer = self.answer_to(submission)
        assert isinstance(answer, Receipt), f"refused: {answer}"
        return answer

    def answer_to(self, submission: ev.NewJob) -> Receipt | Refused:
        (answer,) = self.answers_to(submission)
        return answer

    def answers_to(self, *submissions: ev.NewJob) -> list[Receipt | Refused]:
        known = [self.database.known(submission) for submission in submissions]
        effects = self.scheduler.handle([ev.Submitted(known)], self.now)
        (answers,) = effects.answers
        assert isinstance(answers, list)
        self.carry_out(effects)
        if effects.more or self.wants:
            self.tell()
        return answers

    def submit_chain(self, teamspace: str, *kinds: str, **fields: object) -> tuple[JobId, ...]:
        """A chain's id and those of its steps."""
        steps = tuple(new(teamspace, kind) for kind in kinds or ("enrich", "enrich", "enrich"))
        receipt = self.receipt(new(teamspace, "chain", steps=steps, **fields))
        return (receipt.job, *receipt.steps)

    def cancel(self, job: JobId, *, force: bool = False) -> Answer:
        return self.tell(ev.CancelAsked(job, force))[0]

    def pause(self, scope: str, name: object = "") -> Answer:
        return self.tell(ev.PauseSet(scope, str(name), paused=True))[0]

    def resume(self, scope: str, name: object = "") -> Answer:
        return self.tell(ev.PauseSet(scope, str(name), paused=False))[0]

    def limit(self, teamspace: str, *, max_queued: int = 10_000, weight: float = 1.0, **slots: int | None) -> None:
        """A teamspace's limits in force; slots by the family's word."""
        families = {family: slots.get(family.word, SLOTS[family]) for family in Family}
        self.limits[teamspace] = ev.LimitsSet(teamspace, Limits(families, max_queued, weight))
        self.tell(self.limits[teamspace])

    def provider(
        self, name: str, *limits: Limit, failed_count: bool = True, pace_per_second: float | None = None
    ) -> None:
        self.learned[AccountName(name)] = ev.AccountLearned(
            AccountName(name), limits, failed_count=failed_count, pace_per_second=pace_per_second
        )
        self.tell(self.learned[AccountName(name)])

    # -- what attempts do -------------------------------------------------------------------------------------------

    def ask(
        self,
        job: JobId,
        provider: str = "snov",
        *,
        lead: int = 0,
        cost: Cost | None = None,
        credits_max: Decimal = ev.NOTHING,
        patient: bool = True,
    ) -> CallId:
        actor = self.actors[job]
        self.last_call += 1
        call = CallId(self.last_call)
        actor.asked[call] = AccountName(provider)
        cost = cost or Cost(request=1)
        account, about = AccountName(provider), LeadId(lead or call)
        asked = ev.CallAsked(call, job, actor.number, account, about, cost, credits=credits_max, patient=patient)
        self.tell(asked)
        return call

    def answer(self, job: JobId, call: CallId, **end: object) -> None:
        """The call's answer arrives, and its result is stored."""
        instant = Instant(self.instant)
        stored = self.database.calls.get(call)
        if stored is not None:
            self.database.note(call, began=instant)
            if stored.state == "sent" and not {"failed", "throttled", "lost"} & end.keys():
                stored.state = "done"
                if "cost" in end:
                    stored.row = replace(stored.row, cost=msgspec.json.encode(end["cost"]))
        actor = self.actors.get(job)
        if actor is not None:
            actor.out.pop(call, None)
        self.tell(ev.ResponseBegan(call, instant), ev.CallEnded(call, instant, ev.CallEnd(**end)))  # type: ignore[arg-type]  # the test's
        if actor is not None and actor.told is not None and job in self.actors:
            self._obey(actor, actor.told)
            self.tell()

    def never_left(self, job: JobId, call: CallId) -> None:
        """It is certain that no byte of the request left."""
        self.actors[job].out.pop(call)
        self.sent = [sent for sent in self.sent if sent[1] != call]
        self.tell(ev.CallEnded(call, Instant(self.instant), ev.CallEnd(unsent=True)))

    def settle(self, job: JobId, done: int = 1, *, failed: int = 0) -> None:
        """So many more leads are in a final state, and that is stored."""
        actor = self.actors[job]
        counts = actor.counts
        actor.counts = Counts(max(counts.total, 1000), counts.done + done, counts.failed + failed)
        self.counts[job] = actor.counts
        self.tell(ev.Progressed(job, actor.number, actor.counts))

    def wait(self, job: JobId, reason: JobReason, seconds: float | None = None) -> None:
        until = None if seconds is None else Instant(self.instant + round(seconds * SECOND))
        self.tell(ev.WaitOpened(job, self.actors[job].number, Wait(reason, until)))

    def wait_over(self, job: JobId, reason: JobReason) -> None:
        self.tell(ev.WaitClosed(job, self.actors[job].number, reason))

    def finish(self, *jobs: JobId, state: JobState = JobState.COMPLETED, reason: JobReason | None = None) -> None:
        """Their attempts come to their ends, all at the same moment."""
        events = []
        for job in jobs:
            actor = self.actors.pop(job)
            events.append(ev.AttemptFinished(job, actor.number, state, actor.counts, reason))
        self.tell(*events)

    def die(self, job: JobId) -> None:
        """An attempt ends though nobody told it to."""
        actor = self.actors.pop(job)
        self.tell(ev.AttemptStopped(job, actor.number, actor.counts, "the database was lost"))

    def stop_now(self, job: JobId) -> None:
        """An attempt that was told to stop is gone at last."""
        self.die(job)

    def _stop(self, stop: StopAttempt) -> None:
        self.stops.append(stop)
        actor = self.actors[stop.job]
        assert actor.number == stop.number, "an attempt is stopped by its number"
        actor.told = stop
        self._obey(actor, stop)

    def _obey(self, actor: Actor, stop: StopAttempt) -> None:
        if not actor.lingers and (stop.order.forced or not actor.out):
            del self.actors[stop.job]
            self.wants.append(ev.AttemptStopped(stop.job, stop.number, actor.counts, "evidence"))

    def _send(self, send: SendCall) -> None:
        actor = self.actors[send.job]
        self.sent.append((Instant(self.instant), send.call))
        actor.out[send.call] = actor.asked.pop(send.call)
        self.database.note(send.call, sent=Instant(self.instant))
        self.wants.append(ev.CallSent(send.call, Instant(self.instant)))

    def _refuse(self, refused: RefuseCall) -> None:
        self.refused[refused.call] = refused
        for actor in self.actors.values():
            actor.asked.pop(refused.call, None)

    # -- what is seen -----------------------------------------------------------------------------------------------

    def sent_to(self, provider: str) -> list[tuple[Instant, CallId]]:
        return [sent for sent in self.sent if self.database.calls[sent[1]].row.account == provider]

    @property
    def running(self) -> set[JobId]:
        """Jobs whose work has been handed to an actor and has not ended."""
        return set(self.actors)

    def job(self, job: JobId) -> Job:
        return self.scheduler.jobs[job]

    def details(self, job: JobId) -> Details:
        details = self.job(job).details
        assert details is not None
        return details

    def state(self, job: JobId) -> JobState:
        """As memory and database agree."""
        ended = self.database.ended.get(job)
        if ended is not None:
            assert job not in self.scheduler.jobs, f"job {job} has ended and is still here"
            assert job not in self.database.live, f"job {job} has ended and is still live"
            return ended.state
        state = self.scheduler.jobs[job].state
        assert self.database.live[job].state is state, f"job {job} is {state}, stored {self.database.live[job].state}"
        return state

    def reason(self, job: JobId) -> JobReason | None:
        return self.database.ended[job].reason

    def story(self, job: JobId) -> list[str]:
        return [line.event for line in self.database.history[job]]

    def waits(self, job: JobId) -> set[JobReason]:
        return {wait.reason for wait in self.scheduler.waits_of(self.job(job), Instant(self.instant))}

    def busy(self, family: Family = Family.TABLES) -> int:
        return self.scheduler.busy[family]

    def last_cause(self, job: JobId) -> StopCause:
        return next(stop.order.cause for stop in reversed(self.stops) if stop.job == job)


def new(teamspace: str, kind: str = "enrich", **fields: object) -> ev.NewJob:
    """A submission; `delay`, `priority` in seconds, `key` and `body` as text."""
    delay = fields.pop("delay", 0)
    priority = fields.pop("priority", 0)
    key = fields.pop("key", None)
    body = fields.pop("body", "")
    if key is not None:
        fields["key"] = ev.Key(str(key).encode(), str(body).encode())
    assert isinstance(delay, int | float)
    assert isinstance(priority, int | float)
    return ev.NewJob(
        teamspace,
        NUMBER_OF[kind],
        b"",
        delay_microseconds=round(delay * SECOND),
        priority_microseconds=round(priority * SECOND),
        **fields,  # type: ignore[arg-type]  # the test's
    )
