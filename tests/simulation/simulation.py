"""A queue, its people, its providers and its misfortunes for some hours of virtual time, drawn from one seed.

The same scheduler that the daemon runs, the same pure course of a lead, the same behaviours that the test servers have.
After every decision the audit is asked, and those who look on from outside (`witness`). At the end, when nothing goes
wrong any more, every job must have ended within a bound that is computed beforehand, nothing may be left in memory,
and the books must balance (`books`): what the providers logged against what the store holds.

Equal seeds and options give equal histories, decision by decision, in every process: `Result.trace` is their hash.
`Parts` can be replaced one by one, by mutants that must be caught.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from time import process_time
from typing import Final

from msgspec import Struct, field

from leadline.core import audit
from leadline.core import events as ev
from leadline.core.effects import Effects, Receipt
from leadline.core.model import SECOND, Family, Kind, Limits, Now, Rules
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import Refused
from leadline_protocol.ids import AccountName, CallId, JobId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.books import check_books
from tests.simulation.daemon import Commit, Reign, Surroundings
from tests.simulation.fate import Fate
from tests.simulation.faults import Fault, dice, drawn
from tests.simulation.people import QUEUE_MAX, People
from tests.simulation.provider import OFFERS, Provider
from tests.simulation.store import Store
from tests.simulation.violation import Violation
from tests.simulation.witness import Witness
from tests.simulation.work import AttemptActor

START: Final = 1_800_000_000 * SECOND
LAST_EVENTS: Final = 200
SPINS_MAX: Final = 100
"""Decisions at one instant that are still no endless loop."""

KINDS: Final = (
    Kind(0, "noop", Family.NOOP, instant=True),
    Kind(1, "chain", Family.TABLES, chain=True),
    Kind(2, "enrich", Family.TABLES),
    Kind(3, "batch", Family.BATCH),
)
SLOTS: Final = {Family.NOOP: 1, Family.TABLES: 1, Family.BATCH: 2, Family.OUTREACH: 1}
RULES: Final = Rules({Family.TABLES: 4, Family.BATCH: 6}, Limits(SLOTS, max_queued=QUEUE_MAX))
DECIDED_AHEAD: Final = 0.2
"""Of what happens during a commit, so much is decided on before that has landed."""
LEADS_PER_SECOND: Final = {"snov": 15 / 60, "ai": 60 / 60, "fast": 4.0}
SECONDS_PER_LEAD: Final = {"snov": 16, "ai": 2, "fast": 2}
"""One after the other, with nobody in the way."""


class Parts(Struct, frozen=True):
    """What is under test; a mutant is a subclass of one of them."""

    scheduler: type[Scheduler] = Scheduler
    reign: type[Reign] = Reign
    store: type[Store] = Store
    attempt: type[AttemptActor] = AttemptActor


class Options(Struct, frozen=True):
    """One simulation."""

    seed: int
    hours: float = 1.0
    faults: frozenset[Fault] | None = None
    """None: those that the seed draws."""
    parts: Parts = Parts()


class Result(Struct):
    """What came of it."""

    seed: int
    faults: frozenset[Fault]
    submissions: int = 0
    calls: int = 0
    """As the providers logged them."""
    struck: Counter[str] = field(default_factory=Counter)
    """How often each fault struck."""
    decisions: int = 0
    events: int = 0
    hours: float = 0.0
    """Of virtual time, with people and faults."""
    cpu_seconds: float = 0.0
    drained_seconds: float = 0.0
    """How long it took, after the last fault, until every job had ended."""
    bound_seconds: float = 0.0
    trace: str = ""
    lived_hours: float = 0.0
    """Of virtual time in all, until the end or the violation."""
    violation: str | None = None
    last: Sequence[str] = ()
    """The last events before a violation."""


class Simulation:
    """One history; `People`, `Reign` and `Fate` act upon it."""

    def __init__(self, options: Options) -> None:
        seed, parts = options.seed, options.parts
        self.faults = drawn(seed) if options.faults is None else options.faults
        self.parts = parts
        self.result = Result(seed, self.faults, hours=options.hours)
        self.agenda = Agenda(START)
        self.end = START + round(options.hours * 3600 * SECOND)
        self.store = parts.store()
        self.fate = Fate(seed, self.faults)
        self.providers = {offer.name: Provider(offer, seed, self.faults, self.agenda) for offer in OFFERS}
        self.quiet = False
        """No faults any more, and nobody who submits."""
        self.reign: Reign | None = None
        self.witness = Witness(self.agenda, self.store, RULES, self.faults)
        self._commit_dice = dice(seed, "commit")
        self._work_dice = dice(seed, "work transactions")
        self._ahead_dice = dice(seed, "decisions ahead")
        self._fault_dice = {fault: dice(seed, fault) for fault in Fault}
        self._last: deque[tuple[int, object]] = deque(maxlen=LAST_EVENTS)
        self._decided_at = 0
        self._spins = 0
        self._hash = blake2b(digest_size=16)
        self.around = Surroundings(
            agenda=self.agenda,
            store=self.store,
            providers=self.providers,
            luck=self.fate,
            kinds=KINDS,
            rules=RULES,
            learned=[ev.AccountLearned(offer.name, offer.limits) for offer in OFFERS],
            limits={},
            scheduler_type=parts.scheduler,
            attempt_type=parts.attempt,
            wall_offset=0,
            next_commit=self._next_commit,
            work_latency=self._work_latency,
            decided=self._decided,
            started=self.witness.started,
            sending=self._sending,
            ended=self._reign_ended,
            stored=lambda _, effects: self.witness.stored(effects),
            decides_ahead=lambda: self._ahead_dice.random() < DECIDED_AHEAD,
        )
        self.people = People(self, seed, self.faults)
        self.around.exposed = self.people.exposed
        self.around.taken_down = self.people.taken_down

    def run(self) -> Result:
        """The whole history; what is violated is told in the result."""
        result = self.result
        began = process_time()
        try:
            self.begin_reign()
            while self.agenda.now < self.end and self.agenda.step():
                pass
            result.calls = self._calls()
            self._drain()
            check_books(self.store, self.witness, self.providers.values())
        except Exception as violation:
            result.violation = f"{type(violation).__name__}: {violation}"
            result.last = [f"{(at - START) / SECOND:14.6f} {thing}" for at, thing in self._last]
        result.cpu_seconds = process_time() - began
        result.lived_hours = (self.agenda.now - START) / (3600 * SECOND)
        result.trace = self._hash.hexdigest()
        for counted in (self.fate.struck, *(provider.struck for provider in self.providers.values())):
            result.struck.update({fault.value: times for fault, times in counted.items() if times})
        return result

    # -- the stage --------------------------------------------------------------------------------------------------

    def begin_reign(self) -> None:
        self.witness.began(self.around.limits.values())
        self.reign = self.parts.reign(self.around)

    def _calls(self) -> int:
        return sum(len(provider.log) for provider in self.providers.values())

    def acknowledged(self, key: str, receipt: Receipt) -> None:
        self.witness.acknowledged(key, receipt)

    def refused(self, key: str, refusal: Refused) -> None:
        self.witness.refused_for_good(key, refusal)

    def told(self, order: ev.PauseSet | ev.CancelAsked) -> None:
        self.witness.told(order)

    def deadly(self, job: JobId) -> None:
        self.witness.deadly(job)

    def asked(self, order: ev.PauseSet) -> None:
        self.witness.asked(order)

    def submitted(self) -> None:
        self.result.submissions += 1

    def struck(self, fault: Fault) -> None:
        self.result.struck[fault.value] += 1

    def _reign_ended(self, reign: Reign) -> None:
        if reign is self.reign:  # and no other has taken over
            self.reign = None
            self.agenda.after(self._commit_dice.randint(100_000, 2_000_000), WORLD, self.begin_reign)

    def _next_commit(self, effects: Effects) -> Commit:
        chance = 0.02 if effects.records.admitted else 0.0003  # a receipt that is lost is worth more than a beat
        microseconds = self._commit_dice.randint(1_000, 8_000)
        if self._strikes(Fault.SLOW_COMMIT, 0.001):
            microseconds = self._fault_dice[Fault.SLOW_COMMIT].randint(SECOND, 8 * SECOND)
        if self._strikes(Fault.COMMIT_REFUSED, chance):
            return Commit(microseconds, stored=False)
        if self._strikes(Fault.COMMIT_UNKNOWN, chance):
            fate = self._fault_dice[Fault.COMMIT_UNKNOWN]
            stored, look_up = fate.random() < 0.5, fate.choice([None, 50_000, 2 * SECOND])
            return Commit(microseconds, stored=stored, known=False, look_up=look_up)
        return Commit(microseconds)

    def _work_latency(self) -> int:
        if self._strikes(Fault.SLOW_COMMIT, 0.002):
            return self._fault_dice[Fault.SLOW_COMMIT].randint(20_000, 8 * SECOND)
        return self._work_dice.randint(300, 5_000)

    def _strikes(self, fault: Fault, chance: float) -> bool:
        if self.quiet or fault not in self.faults or self._fault_dice[fault].random() >= chance:
            return False
        self.struck(fault)
        return True

    # -- the end ----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Nothing goes wrong any more: everything must come to its end within a bound."""
        self.quiet = self.fate.quiet = True
        for provider in self.providers.values():
            provider.quiet = True
        self.people.calm_down()
        self.result.bound_seconds = self._bound_seconds()
        began = self.agenda.now
        while self.store.live:
            if self.agenda.now - began > self.result.bound_seconds * SECOND or not self.agenda.step():
                seconds = (self.agenda.now - began) / SECOND
                raise Violation(f"after {seconds} s without a fault these jobs are live: {sorted(self.store.live)}")
        self.result.drained_seconds = (self.agenda.now - began) / SECOND
        self._check_nothing_is_left()

    def _check_nothing_is_left(self) -> None:
        """Whatever has ended is forgotten."""
        assert self.reign is not None, "somebody has ended the last job"
        scheduler = self.reign.scheduler
        while scheduler.jobs and self.agenda.step():
            pass
        for name in ("jobs", "running", "calls", "chains", "resting"):
            left = getattr(scheduler, name)
            if left:
                raise Violation(f"when all jobs have ended, among the scheduler's {name} are {left}")
        if scheduler.backlog.lanes or scheduler.teamspaces.pending:
            raise Violation(f"lanes {scheduler.backlog.lanes}, pending {scheduler.teamspaces.pending} are left")

    def _bound_seconds(self) -> float:
        """How long it may take at most until everything has ended.

        First whatever holds everyone: a freeze, a delay, a clock that was set back, a provider's hint. Then what the
        busiest provider allows, and what the busiest teamspace does one after the other: half of the capacity is
        counted as taken by others, and a job whose work hangs is killed three times. Code has its share of the
        capacity while it waits: all of it is counted as run one after the other.
        """
        providers: Counter[str] = Counter()
        teamspaces: Counter[str] = Counter()
        code = 0
        for job in self.store.live:
            new = self.store.submitted[job]
            if new.payload:
                plan = self.store.plan(job)
                providers[plan.provider] += plan.leads
                seconds = 30 + plan.rests_seconds + plan.leads * SECONDS_PER_LEAD[plan.provider]
                seconds += 3 * 330 if self.faults & {Fault.STUCK_LEAD, Fault.WORKER_LOST} else 0
                teamspaces[new.teamspace] += seconds
                code += 0 if KINDS[new.kind].family.resumes else seconds
        first = 2000 + 600 + 1800 + 2 * 1200
        allowed = max((leads / LEADS_PER_SECOND[name] for name, leads in providers.items()), default=0.0)
        return first + 1.2 * allowed + 2 * max(teamspaces.values(), default=0) + code

    # -- after every decision ---------------------------------------------------------------------------------------

    def _decided(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        now = reign.now
        self._spins = self._spins + 1 if now.instant == self._decided_at else 0
        self._decided_at = now.instant
        if self._spins > SPINS_MAX:
            raise Violation(f"it has decided {self._spins} times, and no time passes")
        self.result.decisions += 1
        self.result.events += len(events)
        self._last.extend((now.instant, event) for event in events)
        self._last.append((now.instant, _Outcome(effects)))
        self._trace(now, events, effects)
        if not effects.more:
            audit.check(reign.scheduler, now, self._changed(events, effects))
        self.witness.decided(reign, events, effects)

    def _changed(self, events: Sequence[ev.Event], effects: Effects) -> set[AccountName] | None:
        """The accounts of which it has heard, where nothing is stored and nobody was told what may run."""
        if effects.records or not events:
            return None
        accounts = set()
        for event in events:
            match event:
                case ev.CallSent() | ev.ResponseBegan() | ev.CallEnded():
                    stored = self.store.calls.get(event.call)
                    if stored is None:
                        return None
                    accounts.add(stored.row.account)
                case ev.CallAsked():
                    accounts.add(event.account)
                case ev.Beat() | ev.Progressed() | ev.Moved() | ev.WaitOpened() | ev.WaitClosed() | ev.Ticked():
                    pass
                case _:
                    return None
        return accounts

    def _trace(self, now: Now, events: Iterable[ev.Event], effects: Effects) -> None:
        parts = [f"{now.instant} {now.wall}"]
        parts += [
            f"{type(event).__name__} {getattr(event, 'job', '')} {getattr(event, 'call', '')}" for event in events
        ]
        parts.append(str(_Outcome(effects)))
        parts += [f"{change.id} {change.state} {change.details!r}" for change in effects.records.changed.values()]
        self._hash.update("\n".join(parts).encode())

    def _sending(self, reign: Reign, actor: AttemptActor, call: CallId) -> None:
        self.witness.sending(reign, self.reign, actor, call)


class _Outcome(Struct, frozen=True):
    """A decision in one line."""

    effects: Effects

    def __str__(self) -> str:
        effects = self.effects
        words = [f"start {start.job}/{start.number}" for start in effects.starts]
        words += [f"stop {stop.job}/{stop.number} {stop.order.cause}" for stop in effects.stops]
        words += [f"send {send.call}" for send in effects.sends]
        words += [f"refuse {refused.call}" for refused in effects.refused_calls]
        words += [f"{ended.id} {ended.state}" for ended in effects.records.ended]
        return f"=> {', '.join(words)}"
