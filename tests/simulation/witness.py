"""Those who look on: each holds the daemon to a promise by what can be seen of it from outside, step by step.

A client keeps its receipts. Whoever paused or cancelled remembers when that was acknowledged. The providers' side
remembers who was told to wait. The machine knows which attempts are really there. None of them asks the scheduler what
it believes, but for one thing: what it cannot be blamed for (a share of the capacity that it waits for) is its own
word, and the audit proves that.

What can only be judged when everything is over is in `books`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import Effects, Receipt, Records, StartAttempt, StopAttempt
from leadline.core.heartbeats import BEAT_SECONDS, LATE_SECONDS
from leadline.core.model import SECOND, Details, Job, JobState, Limits, Rules, StopCause
from leadline.core.pauses import Scope
from leadline.core.places import attempt_of
from leadline.features.tables.lead_course import LOST
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId
from tests.simulation.agenda import Agenda
from tests.simulation.daemon import Reign
from tests.simulation.faults import Fault
from tests.simulation.people import QUEUE_MAX, QUEUES_MAX, WEIGHTS
from tests.simulation.store import Store
from tests.simulation.violation import Violation
from tests.simulation.work import AttemptActor

STALLED_LATE_SECONDS: Final = 5
"""How long after its deadline a stalled attempt may be stopped."""

CRASHES_MAX: Final = 3
"""So often may a job take the daemon down."""

FAIRLY_SHARED: Final = (AccountName("ai"), AccountName("fast"))
"""Accounts all of whose calls cost the same, so that fairness can be counted in calls."""


class Circuit(Struct, frozen=True):
    """A provider that has thrown a call back, as its own side knows it."""

    closed_until: Instant
    """Nobody may come before; then one, until there is a good answer."""
    canary: CallId | None = None


class Witness:
    """All of them."""

    def __init__(self, agenda: Agenda, store: Store, rules: Rules, faults: frozenset[Fault]) -> None:
        self._agenda = agenda
        self._store = store
        self._rules = rules
        self._patience = STALLED_LATE_SECONDS + (30 if Fault.SLOW_COMMIT in faults else 0)
        self.receipts: dict[JobId, str] = {}
        """The key under which each acknowledged job was handed in."""
        self.refused: set[str] = set()
        """Keys under which nothing was taken in."""
        self._jobs_by_key: dict[str, JobId] = {}
        self._cancelled: set[JobId] = set()
        self._paused: set[tuple[str, str]] = set()
        self._begun: set[tuple[JobId, int]] = set()
        self._limits: dict[str, Limits] = {}
        """Of each teamspace that has other than the default ones, as the daemon was told them."""
        self._slots: dict[JobId, int | None] = {}
        """How many of a teamspace and family may run, by the job that was started last under it."""
        self._deadly: Counter[JobId] = Counter()
        self._only_the_deadly_kill = Fault.CRASH not in faults
        self._circuits: dict[AccountName, Circuit] = {}
        """As the present reign was told."""
        self._stored_circuits: dict[AccountName, Circuit] = {}
        """As the last decision has it that was stored: what a new reign must know."""
        self._told_circuits: dict[int, dict[AccountName, Circuit]] = {}
        """As each decision has it that is not stored yet."""
        self._ratios: dict[tuple[AccountName, str, str], list[float]] = {}
        """Least and largest lead of one teamspace before another while both waited, and the present one."""
        self._held = False
        """Some calls have a permit and wait for a share of the capacity."""
        self._excused_at: dict[JobId, int] = {}
        """When each attempt was last seen to wait for a share of the capacity."""

    # -- a client's receipts ----------------------------------------------------------------------------------------

    def acknowledged(self, key: str, receipt: Receipt) -> None:
        """Somebody holds a receipt: the job must be stored, and it must be the only one under its key."""
        known = self._store.submitted.get(receipt.job)
        if known is None or known.key is None or known.key.key_hash != key.encode():
            raise Violation(f"{receipt} for {key} is of {known}")
        first = self._jobs_by_key.setdefault(key, receipt.job)
        if first != receipt.job:
            raise Violation(f"{receipt} for {key}, which is job {first}")
        self.receipts[receipt.job] = key

    def refused_for_good(self, key: str, refusal: Refused) -> None:
        """Somebody was told that nothing was taken in."""
        if any(new.key is not None and new.key.key_hash == key.encode() for new in self._store.submitted.values()):
            raise Violation(f"{key} was refused ({refusal}) and is stored")
        self.refused.add(key)

    # -- pauses and cancels -----------------------------------------------------------------------------------------

    def told(self, order: ev.PauseSet | ev.CancelAsked) -> None:
        """It was acknowledged: from now on no call begins that it forbids."""
        if isinstance(order, ev.CancelAsked):
            self._cancelled.add(order.job)
        else:
            self._paused.add((order.scope, order.name))

    def asked(self, order: ev.PauseSet) -> None:
        """Somebody asks for a pause to be over."""
        self._paused.discard((order.scope, order.name))

    def sending(self, reign: Reign, present: Reign | None, actor: AttemptActor, call: CallId) -> None:
        """The first byte of a request is written."""
        if present is not None and reign is not present:
            raise Violation(f"an ex-daemon sends call {call} while another one reigns")
        stored = self._store.calls.get(call)
        if stored is None or stored.state != "sent":
            raise Violation(f"call {call} is sent and stored as {stored}")
        if reign is not present:
            return  # what was acknowledged meanwhile was so by nobody
        self._check_lead(actor.job, stored.row.lead, call)
        if actor.job not in self._store.live:
            raise Violation(f"call {call} is sent for job {actor.job}, which has ended")
        chain = self._store.live[actor.job].admitted.chain
        for job in (actor.job, chain):
            if job in self._cancelled:
                raise Violation(f"call {call} of job {actor.job} begins after the cancel of {job} was acknowledged")
        if self._paused:
            new = self._store.submitted[actor.job]
            for scope in (
                (Scope.QUEUE, ""),
                (Scope.FAMILY, actor.family.word),
                (Scope.TEAMSPACE, new.teamspace),
                (Scope.PROVIDER, actor.account),
                (Scope.JOB, str(actor.job)),
                (Scope.JOB, str(chain)),
            ):
                if scope in self._paused:
                    raise Violation(f"call {call} of job {actor.job} begins after a pause of {scope} was acknowledged")
        self._probe(actor.account, call)

    def _check_lead(self, job: JobId, lead: LeadId, call: CallId) -> None:
        """Nobody is asked about a lead that has an end, nor a third time where two calls were lost."""
        if (job, lead) in self._store.results:
            raise Violation(f"call {call} begins for lead {lead} of job {job}, which has its end")
        if (job, lead) in self._store.tasks:
            return  # asking for a result orders nothing
        if list(self._store.causes(job, lead)).count(LOST) > 1:
            raise Violation(f"call {call} begins after two were lost for lead {lead} of job {job}")
        for earlier in self._store.cut_off[job, lead]:
            if self._store.calls[earlier].state == "done":
                raise Violation(f"call {call} begins for lead {lead} of job {job} after {earlier} was answered")

    def deadly(self, job: JobId) -> None:
        """A job takes the daemon down: nobody may get so far more than three times, unless a person lets it."""
        self._deadly[job] += 1
        if self._deadly[job] > CRASHES_MAX:
            raise Violation(f"job {job} takes the daemon down for the {self._deadly[job]}th time")

    def _note_releases(self, effects: Effects) -> None:
        """A person has let a job out of quarantine. To resume one that was only suspected clears it of nothing."""
        for line in effects.records.history:
            if (line.event, line.detail) == ("resumed", "from quarantine"):
                self._deadly[line.job] = 0

    def _check_suspects(self, reign: Reign) -> None:
        """Where one job and nothing else ends the daemon, nobody is quarantined but that one, after the third time."""
        if len(self._deadly) > 1:
            return  # who has been beside several of them cannot be told from them
        for job_id, job in reign.scheduler.suspects.items():
            quarantined = job.details is not None and JobReason.QUARANTINED in job.details.waits
            if quarantined and self._deadly[job_id] < CRASHES_MAX:
                raise Violation(f"job {job_id} is quarantined for {self._deadly[job_id]} crashes")

    # -- attempts ---------------------------------------------------------------------------------------------------

    def started(self, reign: Reign, start: StartAttempt) -> None:
        """An attempt is about to begin."""
        if (start.job, start.number) in self._begun:
            raise Violation(f"attempt {start.number} of job {start.job} begins a second time")
        self._begun.add((start.job, start.number))
        if start.job in reign.actors:
            raise Violation(f"{start} begins before attempt {reign.actors[start.job].number} is gone")
        limit = self._slots.pop(start.job, None)
        lane = (start.teamspace, start.family)
        running = [other.job for other in reign.actors.values() if (other.teamspace, other.family) == lane]
        if limit is not None and len(running) >= limit:
            raise Violation(f"{start} is beside {running}, and {limit} may run")
        self._check_turn(start)

    def _check_turn(self, start: StartAttempt) -> None:
        """A step begins when all before it have ended, and well enough."""
        admitted = self._store.live[start.job].admitted
        if admitted.chain is None:
            return
        new = self._store.submitted[admitted.chain]
        for step in range(admitted.chain + 1, start.job):
            ended = self._store.ended.get(JobId(step))
            if ended is None:
                raise Violation(f"{start} begins before step {step} has ended")
            if new.stop_on_failure and ended.state in {JobState.FAILED, JobState.CANCELLED}:
                raise Violation(f"{start} begins though step {step} has {ended.state}")

    # -- after every decision ---------------------------------------------------------------------------------------

    def decided(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        """A decision was made, and is not stored yet."""
        for stop in effects.stops:
            self._check_kill(reign, stop)
        if reign.epoch != self._store.epoch:
            return  # an ex-daemon: nothing of what it decides is ever stored, and nobody else can know of it
        self._note_releases(effects)
        if not events and self._only_the_deadly_kill:
            self._check_suspects(reign)
        self._note_slots(reign, events, effects)
        if effects.records.admitted:
            self._check_queues(effects, None if reign.landing is None else reign.landing.effects.records)
        self._check_watch(reign)
        self._note_circuits(events, effects)
        self._check_shares(reign, events, effects)

    def stored(self, effects: Effects) -> None:
        """A decision has become durable."""
        self._stored_circuits.update(self._told_circuits.pop(id(effects), {}))

    def began(self, limits: Iterable[ev.LimitsSet]) -> None:
        """A new reign: it knows what is stored and configured, and all that is out with a provider is lost."""
        self._limits = {event.teamspace: event.limits for event in limits}
        self._circuits = {name: replace(circuit, canary=None) for name, circuit in self._stored_circuits.items()}
        self._told_circuits.clear()
        self._ratios.clear()
        self._slots.clear()
        self._excused_at.clear()

    def _note_slots(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        just_set = {event.teamspace: event.limits for event in events if isinstance(event, ev.LimitsSet)}
        for slot in effects.records.slots_taken:
            name = reign.scheduler.teamspaces.names[slot.teamspace]
            limits = self._limits.get(name, self._rules.default_limits)
            most = limits.slots[slot.family]
            if most is not None and name in just_set:
                most = max(most, just_set[name].slots[slot.family] or 0)
            self._slots[slot.job] = most
        self._limits.update(just_set)

    def _check_queues(self, effects: Effects, under_way: Records | None) -> None:
        """Nobody is taken in beyond what a teamspace may have waiting; `under_way` is decided and not stored yet."""
        records = effects.records
        before = {
            job: (row.admitted.new.teamspace, row.state)
            for job, row in self._store.live.items()
            if row.admitted.chain is None
        }
        if under_way is not None:
            before |= {row.id: (row.new.teamspace, row.state) for row in under_way.admitted if row.chain is None}
            before |= {
                job: (before[job][0], change.state) for job, change in under_way.changed.items() if job in before
            }
            for ended in under_way.ended:
                before.pop(ended.id, None)
        gone = {ended.id for ended in records.ended}
        for name in {row.new.teamspace for row in records.admitted}:
            waiting = 0
            for job, (teamspace, was) in before.items():
                if teamspace == name and job not in gone:
                    change = records.changed.get(job)
                    is_ = was if change is None else change.state
                    waiting += is_ in _WAITS and was in _WAITS  # whoever comes back may
            for new in records.admitted:
                if new.new.teamspace == name and new.chain is None and new.id not in gone:
                    change = records.changed.get(new.id)
                    waiting += (new.state if change is None else change.state) in _WAITS
            if waiting > QUEUES_MAX.get(name, QUEUE_MAX):
                raise Violation(f"{name} has {waiting} jobs queued, of {QUEUES_MAX.get(name, QUEUE_MAX)}")

    # -- kills ------------------------------------------------------------------------------------------------------

    def _check_kill(self, reign: Reign, stop: StopAttempt) -> None:
        """Nobody is killed who was at work or had to wait, nor for a pause of the daemon's own."""
        actor = reign.actors.get(stop.job)
        if actor is None or stop.order.cause not in {StopCause.STALLED, StopCause.WORKER_LOST}:
            return
        if stop.order.cause is StopCause.WORKER_LOST:
            if not actor.silent and actor.process.alive:
                raise Violation(f"{stop}: it has never been silent")
            return
        if actor.overdue_since() is None:
            raise Violation(f"{stop}: it waits")
        frozen = 0
        for began, ended in reign.freezes:
            overlap = min(ended, self._agenda.now) - max(began, actor.moved_at)
            frozen += max(0, overlap - (BEAT_SECONDS + LATE_SECONDS) * SECOND)  # a shorter one cannot be noticed
        still = (self._agenda.now - actor.moved_at - frozen) / SECOND
        if still < self._rules.stall_after_seconds:
            raise Violation(f"{stop}: it made progress {still} s ago")

    def _check_watch(self, reign: Reign) -> None:
        """Nobody stands still, or is silent, for much longer than is allowed."""
        now = self._agenda.now
        latest_freeze = reign.freezes[-1][1] if reign.freezes else 0
        for actor in reign.actors.values():
            if actor.silent and actor.stopping is None:
                since, bound = actor.beaten_at, self._rules.beat_seconds_max
            elif (overdue := actor.overdue_since()) is not None:
                since, bound = overdue, self._rules.stall_after_seconds
            else:
                continue
            if now - since <= (bound + self._patience) * SECOND or since <= latest_freeze:
                continue
            job = reign.scheduler.running.get(actor.job)
            if job is None or _is_excused(job):
                self._excused_at[actor.job] = now
                continue
            since = max(since, self._excused_at.get(actor.job, 0))
            if now - since > (bound + self._patience) * SECOND and attempt_of(job).stopping is None:
                seconds = (now - since) / SECOND
                raise Violation(f"attempt {actor.number} of job {actor.job} has stood still for {seconds} s")

    # -- providers that want to be left alone -----------------------------------------------------------------------

    def _note_circuits(self, events: Sequence[ev.Event], effects: Effects) -> None:
        changed: dict[AccountName, Circuit] = {}
        closed = {row.id: row.state for row in effects.records.calls_closed}
        for event in events:
            if isinstance(event, ev.CallEnded) and (stored := self._store.calls.get(event.call)) is not None:
                name = stored.row.account
                circuit = self._circuits.get(name)
                is_canary = circuit is not None and circuit.canary == event.call
                if event.end.throttled and event.call in closed:
                    hint = event.end.retry_after
                    until = Instant(event.at + SECOND if hint is None or hint <= event.at else hint)
                    if circuit is not None and circuit.closed_until > 0 and not is_canary:
                        until = circuit.closed_until if hint is None else max(until, circuit.closed_until)
                        changed[name] = Circuit(until, circuit.canary)
                    else:
                        changed[name] = Circuit(until)
                elif circuit is not None and is_canary:
                    end = event.end
                    good = not (end.failed or end.lost or end.unsent or end.throttled)
                    changed[name] = Circuit(Instant(0)) if good else replace(circuit, canary=None)
                if name in changed:
                    self._circuits[name] = changed[name]
        for name, circuit in self._circuits.items():
            if circuit.canary in closed and closed[circuit.canary] != "done":
                changed[name] = replace(circuit, canary=None)
        self._circuits.update(changed)
        if changed:
            self._told_circuits[id(effects)] = changed

    def _probe(self, name: AccountName, call: CallId) -> None:
        circuit = self._circuits.get(name)
        if circuit is None or not circuit.closed_until:
            return
        if self._agenda.now < circuit.closed_until:
            left = (circuit.closed_until - self._agenda.now) / SECOND
            raise Violation(f"call {call} begins though {name} wants to be left alone for another {left} s")
        if circuit.canary is not None:
            raise Violation(f"call {call} begins before {name} has answered call {circuit.canary}, which is its canary")
        self._circuits[name] = replace(circuit, canary=call)

    # -- shares of a provider ---------------------------------------------------------------------------------------

    def _check_shares(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        """Of two teamspaces that wait for a provider throughout, neither gets ahead by more than a call of each.

        Who gives a call back unsent is charged for it as far as others have gone meanwhile: else whoever came since
        would wait for what he had no part in. How far that is cannot be seen from outside, so it is counted anew.
        """
        waiting: defaultdict[AccountName, dict[str, float]] = defaultdict(dict)
        scheduler = reign.scheduler
        held = False
        for job_id, job in scheduler.running.items():
            attempt = attempt_of(job)
            held = held or bool(attempt.held)
            if attempt.asking:
                account = AccountName(self._store.plan(job_id).provider)
                if account in FAIRLY_SHARED:
                    name = self._teamspace(job_id)
                    waiting[account][name] = WEIGHTS.get(name, 1.0)
        upset = bool(effects.refused_calls) or any(isinstance(event, ev.LimitsSet) for event in events)
        were_held, self._held = self._held, held
        if upset or held or were_held:  # what was granted earlier than it is sent cannot be counted from outside
            self._ratios.clear()
            return
        unsent = [self._store.calls[row.id].row for row in effects.records.calls_closed if row.state == "unsent"]
        anew = {(call.account, self._teamspace(call.job)) for call in unsent}
        got = Counter((send.account, self._teamspace(send.job)) for send in effects.sends)
        ratios: dict[tuple[AccountName, str, str], list[float]] = {}
        for account, a, b, weight_a, weight_b in _pairs(waiting):
            known = self._ratios.get((account, a, b))
            if known is None or (account, a) in anew or (account, b) in anew:
                known = [0.0, 0.0, 0.0]
            now = known[2] + got[account, a] / weight_a - got[account, b] / weight_b
            ratio = ratios[account, a, b] = [min(known[0], now), max(known[1], now), now]
            if ratio[1] - ratio[0] > 1 / weight_a + 1 / weight_b + 1e-6:
                raise Violation(f"{a} and {b} wait for {account}, and differ by {ratio} calls ÷ weight")
        self._ratios = ratios

    def _teamspace(self, job: JobId) -> str:
        return self._store.submitted[job].teamspace


_WAITS: Final = frozenset({JobState.DELAYED, JobState.QUEUED})


def _pairs(waiting: dict[AccountName, dict[str, float]]) -> Iterator[tuple[AccountName, str, str, float, float]]:
    for account, keys in waiting.items():
        ordered = sorted(keys)
        for place, a in enumerate(ordered):
            for b in ordered[place + 1 :]:
                yield account, a, b, keys[a], keys[b]


def _is_excused(job: Job) -> bool:
    """Whether it waits for a share of the capacity, which its work does not know of."""
    assert isinstance(job.details, Details)
    return JobReason.CAPACITY in attempt_of(job).waits
