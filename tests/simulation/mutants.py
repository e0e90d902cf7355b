"""Daemons with one guard knocked out each: every one of them must be caught, or the simulation proves nothing.

A mutant is a subclass of one of the parts, with one thing left out, and says which promise it breaks and which
misfortunes bring that to light. `hunt` lets it live through one seed after the other until something is noticed.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.backlog import Lane
from leadline.core.deadlines import Alarm
from leadline.core.decision import Decision
from leadline.core.effects import Answer, Effects, Receipt, Records
from leadline.core.heartbeats import next_check
from leadline.core.model import (
    SECOND,
    Attempt,
    Call,
    Chain,
    Job,
    Kind,
    Limits,
    Now,
    Rules,
    Stopping,
)
from leadline.core.permits import Permits
from leadline.core.provider_account import FLOWING
from leadline.core.quarantine import Crashed
from leadline.core.rate_limit import NextReset
from leadline.core.scheduler import Scheduler
from leadline.core.teamspaces import Teamspaces
from leadline.features.tables.lead_course import Course
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TeamspaceId
from tests.simulation.daemon import Commit, Decided, Reign
from tests.simulation.faults import Fault
from tests.simulation.simulation import START, Options, Parts, Result, Simulation
from tests.simulation.store import Store
from tests.simulation.work import AttemptActor, Flow

# -- receipts, commits, owners ----------------------------------------------------------------------------------------


class AnswersEarly(Reign):
    """Answers when it has decided, not when that is stored."""

    def _land(self, decided: Decided) -> None:
        self._answer(decided)
        super()._land(Decided(decided.effects, [replace(posted, reply=None) for posted in decided.batch]))


class NeedsNoDisk(Reign):
    """Carries out what the database has refused."""

    def _landed(self, decided: Decided, *, stored: bool) -> None:
        super()._landed(decided, stored=stored or self.is_owner())


class AssumesCommitted(Reign):
    """Takes a commit of which it heard nothing for done."""

    def _unheard(self, decided: Decided, commit: Commit, *, stored: bool) -> None:
        self._landed(decided, stored=True)


class AssumesFailed(Reign):
    """Takes a commit of which it heard nothing for failed, and tells so."""

    def _unheard(self, decided: Decided, commit: Commit, *, stored: bool) -> None:
        nothing = Refused(ErrorCode.QUEUE_FULL, "nothing was stored")
        for posted in decided.batch:
            if posted.reply is not None:
                posted.reply([nothing] if isinstance(posted.event, ev.Submitted) else nothing)
                posted.lost = None
        self._landed(decided, stored=False)


class Unfenced(Reign):
    """Writes though another has taken over."""

    def is_owner(self) -> bool:
        return True


class SendsEarly(Reign):
    """Sends a call when that is decided, not when it is stored."""

    def _land(self, decided: Decided) -> None:
        effects = decided.effects
        super()._land(decided)
        if self.landing is decided:
            self._send(effects)
            effects.sends = []


class ForgetsKeys(Store):
    """Does not know which keys were used."""

    def known(self, new: ev.NewJob) -> ev.NewJob:
        return new

    def commit(self, records: Records) -> None:
        self.keys.clear()
        super().commit(records)


class IgnoresBodies(Scheduler):
    """Takes every use of a key for the same submission."""

    def _first_under(self, teamspace: str, key: ev.Key) -> Receipt | Refused | None:
        known = key.known
        return super()._first_under(
            teamspace, key if known is None else replace(key, known=replace(known, body_hash=key.body_hash))
        )


# -- attempts and their results ---------------------------------------------------------------------------------------


class TakesLateWrites(Store):
    """Takes what attempts write without asking whether they are still the present ones."""

    def is_present(self, epoch: int, job: JobId, number: int) -> bool:
        return True


class ReusesNumbers(Scheduler):
    """Gives an attempt the number of the one before it."""

    def _start(self, job: Job, lane: Lane) -> None:
        if job.details is not None and job.details.attempts:
            job.details.attempts -= 1
        super()._start(job, lane)


class SkipsCheckpoints(AttemptActor):
    """Begins with the first lead each time."""

    def _has_ended(self, lead: LeadId) -> bool:
        return super()._has_ended(lead) and self.host.store.ended_by.get((self.job, lead)) == self.identity


class ResultsApart(AttemptActor):
    """Stores a call's end in one transaction and the lead's in another."""

    def _settle(self, flow: Flow, turn: object, call: CallId | None = None) -> None:
        if call is not None:
            self.host.store.keep_answer(call, flow.began, "done")
        super()._settle(flow, turn, call)  # type: ignore[arg-type]  # handed on as it is


class OneSlotMore(Scheduler):
    """Runs one job more than a teamspace may."""

    def limits_of(self, teamspace: TeamspaceId) -> Limits:
        limits = super().limits_of(teamspace)
        return replace(limits, slots={family: slots and slots + 1 for family, slots in limits.slots.items()})


class FreesSlotsEarly(Scheduler):
    """Takes an attempt that is told to stop at once for gone."""

    def _stop(self, job: Job, order: Stopping) -> None:
        attempt = job.details.attempt if job.details is not None else None
        super()._stop(job, order)
        if order.forced and attempt is not None and job.id in self.running:
            self._stopped(job, attempt, "")


class StartsAllSteps(Scheduler):
    """Lets the second step of a chain start with the first."""

    def _add_steps(self, chain: Job, new: ev.NewJob) -> tuple[JobId, ...]:
        steps = super()._add_steps(chain, new)
        self._lift_waits(self.jobs[steps[1]], lambda _: True)
        return steps


class ForgetsFailures(Scheduler):
    """Goes on with a chain though a step has failed."""

    def _step_ended(self, step: Job, state: object) -> None:
        chain = self.chains.get(step.details.chain) if step.details is not None and step.details.chain else None
        if isinstance(chain, Chain):
            chain.stop_on_failure = False
        super()._step_ended(step, state)  # type: ignore[arg-type]  # handed on as it is


# -- calls ------------------------------------------------------------------------------------------------------------


class NeverOld(Scheduler):
    """Lets a permit be used at any time."""

    def may_send(self, call: CallId, instant: Instant) -> bool:
        return call in self.calls and self.accounts[self.calls[call].account].may_send(call, instant)


class RepeatsRequests(AttemptActor):
    """Its HTTP client makes every request that fails once more."""

    def _lost(self, flow: Flow, call: CallId) -> None:
        if flow.sent_at is not None and flow.sent_at > 0:
            self._send(flow, call)
            flow.sent_at = -1
        else:
            super()._lost(flow, call)

    def _may_send(self, call: CallId) -> bool:
        return True


class AsksForEver(AttemptActor):
    """Asks again however often nobody knows what became of the request."""

    def _course(self, task: str | None) -> Course:
        return Course("reuse_id", poll_seconds=5.0, poll_wait_seconds=3600.0, task=task)


class NoLastLook(AttemptActor):
    """Uses a permit without looking whether it still holds."""

    def _may_send(self, call: CallId) -> bool:
        return True


class GoesOnAsking(Scheduler):
    """Lets code make calls in a pause, because it goes on anyway."""

    def _is_silenced(self, job: Job, account: AccountName) -> bool:
        return False


class ForgetsPauses(Store):
    """Does not know after a restart what people have paused."""

    def commit(self, records: Records) -> None:
        records.pauses.clear()
        super().commit(records)


class AssumesUnsent(Store):
    """Takes a call that a crash has cut off for one that was never made."""

    def cut_off_calls(self, instant: Instant) -> None:
        for stored in self.calls.values():
            if stored.state == "sent":
                stored.state = "unsent"


class ForgetsSuspects(Store):
    """Does not know who ran when the daemon died."""

    def ran_at_crash(self) -> dict[JobId, Crashed]:
        return {}


class Altered(Scheduler):
    """A scheduler with other permits."""

    permits_type: type[Permits] = Permits

    def __init__(self, kinds: Sequence[Kind], rules: Rules, next_reset: NextReset | None = None) -> None:
        super().__init__(kinds, rules, next_reset)
        self.permits = self.permits_type(self.deadlines, next_reset)
        self.accounts, self.calls = self.permits.accounts, self.permits.calls


class FreesAtSend(Permits):
    """Takes a request for arrived when it is sent."""

    def sent(self, event: ev.CallSent) -> None:
        super().sent(event)
        self.response_began(ev.ResponseBegan(event.call, event.at))


class FreesAtSendScheduler(Altered):
    permits_type = FreesAtSend


class Hasty(Scheduler):
    """Believes that time runs a little faster than it does."""

    def handle(self, events: Sequence[ev.Event], now: Now) -> Effects:
        return super().handle(events, Now(Instant(now.instant + (now.instant - START) // 10), now.wall))


class ForgetsCharges(Store):
    """Knows of no calls after a restart."""

    def charges_since(self, instant: int) -> list[object]:  # type: ignore[override]  # none of any type
        return []


class ThrownBackUnheard(Permits):
    """Takes a call that was thrown back for one that failed."""

    def ended(self, event: ev.CallEnded, decision: Decision) -> Call | None:
        end = replace(event.end, throttled=False, failed=True) if event.end.throttled else event.end
        return super().ended(ev.CallEnded(event.call, event.at, end), decision)


class ThrownBackUnheardScheduler(Altered):
    permits_type = ThrownBackUnheard


class NoCanary(Permits):
    """Lets everyone go again when a provider's time is over."""

    def granted(self, instant: Instant) -> Iterable[Call]:  # type: ignore[override]  # it is only gone through
        for name in self._touched:
            account = self.accounts[name]
            until = account.standing.throttled_until
            if until is not None and until <= instant:
                account._standing, account._canary = FLOWING, None
        return super().granted(instant)


class NoCanaryScheduler(Altered):
    permits_type = NoCanary


class ForgetsHints(Store):
    """Does not know after a restart which provider wants to be left alone."""

    def commit(self, records: Records) -> None:
        records.accounts.clear()
        super().commit(records)


class Favours(Permits):
    """Counts the calls of one teamspace for less."""

    def ask(
        self, event: ev.CallAsked, job: Job | None, attempt: Attempt | None, weight: float, decision: Decision
    ) -> None:
        favoured = job is not None and job.teamspace == 1
        super().ask(event, job, attempt, weight * 50 if favoured else weight, decision)


class FavoursScheduler(Altered):
    permits_type = Favours


class GivesAllBack(Permits):
    """Lets who gives a call back unsent have all the turns that he has missed, before anybody who came since."""

    def ended(self, event: ev.CallEnded, decision: Decision) -> Call | None:
        call = self.calls.get(event.call)
        lanes = () if call is None else self.accounts[call.account]._turns._lanes.values()
        times = [lane.fair._virtual for lane in lanes]
        if event.end.unsent:
            for lane in lanes:
                lane.fair._virtual = -math.inf
        known = super().ended(event, decision)
        for lane, time in zip(lanes, times, strict=True):
            lane.fair._virtual = time
        return known


class GivesAllBackScheduler(Altered):
    permits_type = GivesAllBack


class HearsHalf(Scheduler):
    """Forgets every tenth end of a call."""

    def _call_ended(self, event: ev.CallEnded) -> None:
        if event.call % 10:
            super()._call_ended(event)


# -- time, memory, liveness -------------------------------------------------------------------------------------------


class NoFreshTime(Scheduler):
    """Blames attempts for the time in which the daemon itself stood still."""

    def _give_fresh_time(self, job_id: JobId, attempt: Attempt) -> None:
        pass

    def _apply(self, event: ev.Event) -> Answer:
        if isinstance(event, ev.Beat) and (attempt := self._attempt(event.job, event.number)) is not None:
            attempt.beaten = self._decision.now.instant
            return None
        return super()._apply(event)


class NeverStalled(Scheduler):
    """Has all the patience in the world."""

    def _check_attempt(self, job_id: JobId, number: int, *, late: bool) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is not None:
            attempt.moved = self._decision.now.instant
        super()._check_attempt(job_id, number, late=late)


class ExcusedByWaits(Scheduler):
    """Takes an attempt for one that waits while any lead of it does."""

    def _check_attempt(self, job_id: JobId, number: int, *, late: bool) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is not None and (attempt.asking or attempt.waits):
            attempt.moved = self._decision.now.instant
        super()._check_attempt(job_id, number, late=late)


class StalledLate(Scheduler):
    """Looks at an attempt ten seconds after it should."""

    def _arm_check(self, job: Job, attempt: Attempt) -> None:
        late = Instant(next_check(attempt, self.rules) + 10 * SECOND)
        self.deadlines.arm(late, Alarm.CHECK, job.id, attempt.number)


class Unlimited(Teamspaces):
    """Knows no bound to what may wait."""

    def limits_for(self, name: str, rules: Rules) -> Limits:
        return replace(super().limits_for(name, rules), max_queued=1_000_000)


class EndlessQueues(Scheduler):
    """Takes in more than a teamspace may have waiting."""

    def __init__(self, kinds: Sequence[Kind], rules: Rules, next_reset: NextReset | None = None) -> None:
        super().__init__(kinds, rules, next_reset)
        self.teamspaces = Unlimited()


class NoTimer(Reign):
    """Arms no timer."""

    def _arm(self) -> None:
        pass


class ForgetsToWake(Permits):
    """Does not look at an account again when a call has ended."""

    def ended(self, event: ev.CallEnded, decision: Decision) -> Call | None:
        touched = dict(self._touched)
        call = super().ended(event, decision)
        self._touched = touched
        return call


class ForgetsToWakeScheduler(Altered):
    permits_type = ForgetsToWake


class Mutant(Struct, frozen=True):
    """A guard that is knocked out."""

    promise: str
    parts: Parts
    faults: frozenset[Fault] = frozenset()
    """What brings it to light."""
    seed: int = 1
    """Where to begin the hunt: a seed that is known to be quick."""


MUTANTS: Final[dict[str, Mutant]] = {
    "an answer waits for its commit": Mutant("P1", Parts(reign=AnswersEarly), frozenset({Fault.CRASH})),
    "a lost commit is not taken for done": Mutant(
        "P1", Parts(reign=AssumesCommitted), frozenset({Fault.COMMIT_UNKNOWN}), seed=2
    ),
    "a lost commit is not taken for failed": Mutant(
        "P2", Parts(reign=AssumesFailed), frozenset({Fault.COMMIT_UNKNOWN})
    ),
    "a key is known": Mutant("P2", Parts(store=ForgetsKeys)),
    "a key stands for one body": Mutant("P2", Parts(scheduler=IgnoresBodies)),
    "no disk, no receipt": Mutant("P3", Parts(reign=NeedsNoDisk), frozenset({Fault.COMMIT_REFUSED})),
    "the last look before a call": Mutant("P4", Parts(attempt=NoLastLook), frozenset({Fault.PAUSE, Fault.CANCEL})),
    "code that goes on in a pause makes no calls": Mutant(
        "P4", Parts(scheduler=GoesOnAsking), frozenset({Fault.PAUSE})
    ),
    "pauses outlive a restart": Mutant("P4", Parts(store=ForgetsPauses), frozenset({Fault.PAUSE, Fault.CRASH})),
    "the fence": Mutant("P5", Parts(reign=Unfenced), frozenset({Fault.TAKEOVER})),
    "permits grow old": Mutant("P6", Parts(scheduler=NeverOld), frozenset({Fault.TAKEOVER})),
    "a slot for each": Mutant("P8", Parts(scheduler=OneSlotMore)),
    "a slot is held until all is gone": Mutant(
        "P8", Parts(scheduler=FreesSlotsEarly), frozenset({Fault.STUCK_LEAD, Fault.LINGER, Fault.CANCEL})
    ),
    "late writes are refused": Mutant(
        "P9", Parts(store=TakesLateWrites), frozenset({Fault.TAKEOVER, Fault.SLOW_COMMIT, Fault.CANCEL})
    ),
    "an attempt has a number of its own": Mutant("P9", Parts(scheduler=ReusesNumbers), frozenset({Fault.CRASH})),
    "a call is stored before it is sent": Mutant("P10", Parts(reign=SendsEarly)),
    "a request is made once": Mutant("P10", Parts(attempt=RepeatsRequests), frozenset({Fault.CUT})),
    "two lost calls are enough": Mutant("P11", Parts(attempt=AsksForEver), frozenset({Fault.CUT})),
    "a call that was cut off may have been made": Mutant(
        "P11", Parts(store=AssumesUnsent), frozenset({Fault.CRASH}), seed=2
    ),
    "a result and its call are one transaction": Mutant(
        "P12", Parts(attempt=ResultsApart), frozenset({Fault.CRASH}), seed=4
    ),
    "what has a result is not done again": Mutant("P13", Parts(attempt=SkipsCheckpoints), frozenset({Fault.CRASH})),
    "a step waits for its turn": Mutant("P13", Parts(scheduler=StartsAllSteps)),
    "a chain stops at a failure": Mutant("P13", Parts(scheduler=ForgetsFailures), frozenset({Fault.CANCEL})),
    "a charge outlives its send": Mutant("P14", Parts(scheduler=FreesAtSendScheduler), frozenset({Fault.SLOW_NETWORK})),
    "a window lasts its time": Mutant("P14", Parts(scheduler=Hasty)),
    "charges outlive a restart": Mutant("P14", Parts(store=ForgetsCharges), frozenset({Fault.CRASH})),
    "shares are fair": Mutant("P15", Parts(scheduler=FavoursScheduler)),
    "what is given back makes nobody wait": Mutant(
        "P15", Parts(scheduler=GivesAllBackScheduler), frozenset({Fault.FREEZE, Fault.PAUSE}), seed=4
    ),
    "who says wait is left alone": Mutant(
        "P16", Parts(scheduler=ThrownBackUnheardScheduler), frozenset({Fault.THROTTLE})
    ),
    "one canary": Mutant("P16", Parts(scheduler=NoCanaryScheduler), frozenset({Fault.THROTTLE})),
    "hints outlive a restart": Mutant("P16", Parts(store=ForgetsHints), frozenset({Fault.THROTTLE, Fault.CRASH})),
    "fresh time after a pause": Mutant("P21", Parts(scheduler=NoFreshTime), frozenset({Fault.FREEZE})),
    "who stands still is stopped": Mutant("P21", Parts(scheduler=NeverStalled), frozenset({Fault.STUCK_LEAD})),
    "... whoever waits beside him": Mutant(
        "P21", Parts(scheduler=ExcusedByWaits), frozenset({Fault.STUCK_LEAD, Fault.THROTTLE}), seed=32
    ),
    "... and in time": Mutant("P21", Parts(scheduler=StalledLate), frozenset({Fault.STUCK_LEAD})),
    "who takes the daemon down is quarantined": Mutant(
        "P22", Parts(store=ForgetsSuspects), frozenset({Fault.DEADLY_JOB})
    ),
    "a queue has an end": Mutant("P25", Parts(scheduler=EndlessQueues), frozenset({Fault.LIMITS})),
    "there is a timer": Mutant("P27", Parts(reign=NoTimer)),
    "who waits is woken": Mutant("P27", Parts(scheduler=ForgetsToWakeScheduler)),
    "every end is heard": Mutant("P28", Parts(scheduler=HearsHalf)),
}
"""By the guard that each of them lacks."""

HUNT_HOURS: Final = 1.0
HUNT_SEEDS: Final = 20


def hunt(mutant: Mutant, *, seeds: int = HUNT_SEEDS) -> tuple[float, Result]:
    """Virtual hours until it was caught, and how; or the last seed, which has found nothing either."""
    hours = 0.0
    for seed in range(mutant.seed, mutant.seed + seeds):
        result = Simulation(Options(seed, HUNT_HOURS, mutant.faults, mutant.parts)).run()
        hours += result.lived_hours
        if result.violation is not None:
            break
    return hours, result
