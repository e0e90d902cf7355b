"""A queue, its people, its providers and its misfortunes for some hours of virtual time, drawn from one seed.

The same scheduler that the daemon runs, the same pure course of a lead, the same behaviours that the test servers have.
The audit is asked after every decision, and every kill is held against what the attempt knows of itself. At the end,
when nothing goes wrong any more, every job must have ended within a bound that is computed beforehand, and the books
must balance: what the providers logged against what the store holds.

Equal seeds and options give equal histories, decision by decision, in every process: `Result.trace` is their hash.
`Parts` can be replaced one by one, by mutants that must be caught.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from time import process_time
from typing import Final

import msgspec
from msgspec import Struct, field

from leadline.core import audit
from leadline.core import events as ev
from leadline.core.effects import Effects, Receipt, StopAttempt
from leadline.core.heartbeats import BEAT_SECONDS, LATE_SECONDS
from leadline.core.model import SECOND, Family, JobState, Kind, Limits, Now, Rules, StopCause
from leadline.core.rate_limit import Cost
from leadline.core.scheduler import Scheduler
from leadline.features.tables.lead_course import LOST
from leadline_protocol.ids import CallId, JobId, LeadId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.daemon import Commit, Reign, Surroundings
from tests.simulation.fate import Fate
from tests.simulation.faults import Fault, dice, drawn
from tests.simulation.people import People
from tests.simulation.provider import OFFERS, Provider
from tests.simulation.store import Store
from tests.simulation.work import AttemptActor
from tests.world.windows import worst_window

START: Final = 1_800_000_000 * SECOND
LAST_EVENTS: Final = 200

KINDS: Final = (
    Kind(0, "noop", Family.NOOP, instant=True),
    Kind(1, "chain", Family.TABLES, chain=True),
    Kind(2, "enrich", Family.TABLES),
    Kind(3, "batch", Family.BATCH),
)
SLOTS: Final = {Family.NOOP: 1, Family.TABLES: 1, Family.BATCH: 2, Family.OUTREACH: 1}
SLOTS_MAX: Final = {Family.TABLES: 3, Family.BATCH: 2}
"""The most that any teamspace is ever allowed here."""
RULES: Final = Rules({Family.TABLES: 4, Family.BATCH: 3}, Limits(SLOTS, max_queued=60))
LEADS_PER_SECOND: Final = {"snov": 15 / 60, "ai": 60 / 60, "fast": 4.0}
SECONDS_PER_LEAD: Final = {"snov": 16, "ai": 2, "fast": 2}
"""One after the other, with nobody in the way."""


class Violation(AssertionError):
    """Something that must never be."""


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
        self.receipts: dict[JobId, str] = {}
        """The key under which each acknowledged job was handed in."""
        self._commit_dice = dice(seed, "commit")
        self._work_dice = dice(seed, "work transactions")
        self._fault_dice = {fault: dice(seed, fault) for fault in Fault}
        self._last: deque[tuple[int, object]] = deque(maxlen=LAST_EVENTS)
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
            work_latency=lambda: self._work_dice.randint(300, 5_000),
            decided=self._decided,
            started=self._started,
            sending=self._sending,
            ended=self._reign_ended,
        )
        self.people = People(self, seed, self.faults)

    def run(self) -> Result:
        """The whole history; what is violated is told in the result."""
        result = self.result
        began = process_time()
        try:
            self.begin_reign()
            while self.agenda.now < self.end and self.agenda.step():
                pass
            self._drain()
            self._check_books()
        except AssertionError as violation:
            result.violation = f"{type(violation).__name__}: {violation}"
            result.last = [f"{(at - START) / SECOND:14.6f} {thing}" for at, thing in self._last]
        result.cpu_seconds = process_time() - began
        result.trace = self._hash.hexdigest()
        result.calls = sum(len(provider.log) for provider in self.providers.values())
        for counted in (self.fate.struck, *(provider.struck for provider in self.providers.values())):
            result.struck.update({fault.value: times for fault, times in counted.items() if times})
        return result

    # -- the stage --------------------------------------------------------------------------------------------------

    def begin_reign(self) -> None:
        self.reign = self.parts.reign(self.around)

    def acknowledged(self, key: str, receipt: Receipt) -> None:
        """Somebody holds a receipt: the job must be stored, and it must be the only one under its key."""
        known = self.store.submitted.get(receipt.job)
        if known is None or known.key is None or known.key.key_hash != key.encode():
            raise Violation(f"{receipt} for {key} is of {known}")
        self.receipts[receipt.job] = key

    def submitted(self) -> None:
        self.result.submissions += 1

    def struck(self, fault: Fault) -> None:
        self.result.struck[fault.value] += 1

    def _reign_ended(self, reign: Reign) -> None:
        if reign is self.reign:  # and no other has taken over
            self.reign = None
            self.agenda.after(self._commit_dice.randint(100_000, 2_000_000), WORLD, self.begin_reign)

    def _next_commit(self) -> Commit:
        microseconds = self._commit_dice.randint(1_000, 8_000)
        if self._strikes(Fault.SLOW_COMMIT, 0.001):
            microseconds = self._fault_dice[Fault.SLOW_COMMIT].randint(SECOND, 8 * SECOND)
        if self._strikes(Fault.COMMIT_REFUSED, 0.0003):
            return Commit(microseconds, stored=False)
        if self._strikes(Fault.COMMIT_UNKNOWN, 0.0003):
            return Commit(microseconds, stored=self._fault_dice[Fault.COMMIT_UNKNOWN].random() < 0.5, known=False)
        return Commit(microseconds)

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

    def _bound_seconds(self) -> float:
        """How long it may take at most until everything has ended.

        First whatever holds everyone: a freeze, a delay, a clock that was set back, a provider's hint. Then what the
        busiest provider allows, and what the busiest teamspace does one after the other: half of the capacity is
        counted as taken by others, and a job whose work hangs is killed three times.
        """
        providers: Counter[str] = Counter()
        teamspaces: Counter[str] = Counter()
        for job in self.store.live:
            new = self.store.submitted[job]
            if new.payload:
                plan = self.store.plan(job)
                providers[plan.provider] += plan.leads
                seconds = 30 + plan.rests_seconds + plan.leads * SECONDS_PER_LEAD[plan.provider]
                seconds += 3 * 330 if self.faults & {Fault.STUCK_LEAD, Fault.WORKER_LOST} else 0
                teamspaces[new.teamspace] += seconds
        first = 2000 + 600 + 1800 + 2 * 1200
        allowed = max((leads / LEADS_PER_SECOND[name] for name, leads in providers.items()), default=0.0)
        return first + 1.2 * allowed + 2 * max(teamspaces.values(), default=0)

    # -- after every decision ---------------------------------------------------------------------------------------

    def _decided(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        now = reign.now
        self.result.decisions += 1
        self.result.events += len(events)
        self._last.extend((now.instant, event) for event in events)
        self._last.append((now.instant, _Outcome(effects)))
        self._trace(now, events, effects)
        if not effects.more:
            audit.check(reign.scheduler, now)
        for stop in effects.stops:
            self._check_kill(reign, stop)
        if not any(isinstance(event, ev.LimitsSet) for event in events):
            self._check_slots(reign, effects)

    def _check_slots(self, reign: Reign, effects: Effects) -> None:
        for slot in effects.records.slots_taken:
            limit = reign.scheduler.limits_of(slot.teamspace).slots[slot.family]
            held = sum(
                other.teamspace == slot.teamspace and KINDS[other.kind].family is slot.family
                for other in reign.scheduler.running.values()
            )
            if limit is not None and held > limit:
                raise Violation(f"{slot} is number {held} of {limit}")

    def _trace(self, now: Now, events: Iterable[ev.Event], effects: Effects) -> None:
        parts = [f"{now.instant} {now.wall}"]
        parts += [
            f"{type(event).__name__} {getattr(event, 'job', '')} {getattr(event, 'call', '')}" for event in events
        ]
        parts.append(str(_Outcome(effects)))
        parts += [f"{change.id} {change.state} {change.details!r}" for change in effects.records.changed.values()]
        self._hash.update("\n".join(parts).encode())

    def _check_kill(self, reign: Reign, stop: StopAttempt) -> None:
        """Nobody is killed who was at work, nor for a pause of the daemon's own."""
        actor = reign.actors.get(stop.job)
        if actor is None or stop.order.cause not in {StopCause.STALLED, StopCause.WORKER_LOST}:
            return
        if stop.order.cause is StopCause.WORKER_LOST:
            if not actor.silent and actor.process.alive:
                raise Violation(f"{stop}: it has never been silent")
            return
        frozen = 0
        for began, ended in reign.freezes:
            overlap = min(ended, self.agenda.now) - max(began, actor.moved_at)
            frozen += max(0, overlap - (BEAT_SECONDS + LATE_SECONDS) * SECOND)  # a shorter one cannot be noticed
        still = (self.agenda.now - actor.moved_at - frozen) / SECOND
        if still < RULES.stall_after_seconds:
            raise Violation(f"{stop}: it made progress {still} s ago")

    def _started(self, reign: Reign, actor: AttemptActor) -> None:
        """The world's own count: who really works at the same time."""
        running = [
            other.job
            for other in reign.actors.values()
            if (other.teamspace, other.family) == (actor.teamspace, actor.family)
        ]
        if len(running) > SLOTS_MAX[actor.family]:
            raise Violation(f"jobs {running} of one teamspace run at the same time")

    def _sending(self, reign: Reign, call: CallId) -> None:
        if self.reign is not None and reign is not self.reign:
            raise Violation(f"an ex-daemon sends call {call} while another one reigns")

    # -- the books --------------------------------------------------------------------------------------------------

    def _check_books(self) -> None:
        store = self.store
        for job, key in self.receipts.items():
            if job not in store.ended:
                raise Violation(f"job {job} was acknowledged (under {key}) and has not ended")
        keys = Counter(new.key.key_hash for new in store.submitted.values() if new.key is not None)
        if keys and max(keys.values()) > 1:
            raise Violation(f"one key made several jobs: {keys.most_common(1)}")
        if store.slots:
            raise Violation(f"slots {store.slots} are held by nobody")
        for provider in self.providers.values():
            self._check_provider(provider)
        self._check_leads()

    def _check_provider(self, provider: Provider) -> None:
        name = provider.offer.name
        for window in provider.offer.windows:
            times = [line.at for line in provider.log if window.unit == "request" or line.is_lead]
            worst = worst_window(times, window.seconds)
            if worst > window.amount:
                raise Violation(f"{name} saw {worst} {window.unit}s within {window.seconds} s")
        seen: set[int] = set()
        for line in provider.log:
            stored = self.store.calls.get(line.call)
            if stored is None or stored.state == "unsent":
                raise Violation(f"{name} saw call {line.call}, which is stored as {stored}")
            if line.call in seen:
                raise Violation(f"{name} saw call {line.call} twice")
            seen.add(line.call)

    def _check_leads(self) -> None:
        """Whoever was called twice had a reason; who completed left no lead out."""
        by_lead: defaultdict[tuple[JobId, LeadId], list[str]] = defaultdict(list)
        for call in self.store.calls.values():
            polled = call.row.account == "snov" and not msgspec.json.decode(call.row.cost, type=Cost).lead
            by_lead[call.row.job, call.row.lead].append("poll" if polled else f"{call.state} {call.cause}".strip())
        for (job, lead), ends in by_lead.items():
            story = f"job {job}, lead {lead}: {ends}"
            if ends.count("done") > 1 or (
                "done" in ends[:-1] and any(end != "poll" for end in ends[ends.index("done") + 1 :])
            ):
                raise Violation(f"called again after a good answer: {story}")
            if ends.count(f"unknown {LOST}") > 2:
                raise Violation(f"called again after two lost calls: {story}")
            if "sent" in ends:
                raise Violation(f"a call that never ended: {story}")
        for job, ended in self.store.ended.items():
            if ended.state in {JobState.COMPLETED, JobState.PARTIAL} and self.store.submitted[job].payload:
                counts = self.store.counts(job, self.store.plan(job).leads)
                if counts.pending:
                    raise Violation(f"job {job} is {ended.state} with {counts}")


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
