"""The daemon on virtual time: one reign of dispatcher, actors, timer and pulse over the real scheduler.

The order is that of the actors: what happened gathers while a decision is being committed, and now and then the next
decision is made ahead, to be committed when that one has landed; nothing of a decision is carried out before its
records are stored; the timer is armed only when there is nothing else to do. A commit of which nobody knows how it
went is looked up; where that is in vain, or it did not take place, the reign ends, as it does when the process dies.
What it leaves behind is what is in the store.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import Answer, Effects, StartAttempt, StopAttempt
from leadline.core.model import SECOND, Kind, Now, Rules
from leadline.core.quarantine import Crashed
from leadline.core.scheduler import Scheduler
from leadline_protocol.ids import AccountName, CallId, Instant, JobId
from tests.simulation.agenda import Agenda, Process
from tests.simulation.provider import Provider
from tests.simulation.store import Store
from tests.simulation.work import AttemptActor, Luck

PULSE_SECONDS = 10
LATE_SECONDS = 1
LONGEST_SLEEP_SECONDS = 60

Reply = Callable[[Answer], None]
"""Told what was decided, when it is durable; None where that will never be known."""


class Posted(Struct):
    event: ev.Event
    reply: Reply | None = None
    lost: Callable[[], None] | None = None
    """Called in place of `reply` when the reign ends first."""


class Decided(Struct):
    """A decision on its way to the disk."""

    effects: Effects
    batch: list[Posted]
    """What it took in."""
    settled: bool = False
    """The database has it, or never will."""


class Commit(Struct, frozen=True):
    """How a commit goes."""

    microseconds: int
    stored: bool = True
    known: bool = True
    """Whether the daemon hears how it went."""
    look_up: int | None = None
    """After so many microseconds it has looked up what it did not hear; None: that is in vain."""


class Exposed(StrEnum):
    """The moments at which a daemon has most to lose."""

    DECISION = "decision"
    """A decision is on its way to the disk."""
    WORK = "work"
    """What a call has brought is."""
    PERMIT = "permit"
    """A call may be sent, and has not been."""


class Surroundings(Struct):
    """What the daemon runs in, and who looks on."""

    agenda: Agenda
    store: Store
    providers: dict[AccountName, Provider]
    luck: Luck
    kinds: Sequence[Kind]
    rules: Rules
    learned: Sequence[ev.AccountLearned]
    limits: dict[str, ev.LimitsSet]
    scheduler_type: type[Scheduler]
    attempt_type: type[AttemptActor]
    wall_offset: int
    next_commit: Callable[[Effects], Commit]
    work_latency: Callable[[], int]
    decided: Callable[["Reign", Sequence[ev.Event], Effects], None]
    """After each decision, before it is stored."""
    started: Callable[["Reign", StartAttempt], None]
    """Called before an attempt is begun."""
    sending: Callable[["Reign", AttemptActor, CallId], None]
    """Called with the first byte of each request."""
    ended: Callable[["Reign"], None]
    """The reign is over, because of a commit; somebody must begin the next one."""
    stored: Callable[["Reign", Effects], None] = lambda reign, effects: None
    """When the records of a decision have become durable."""
    taken_down: Callable[["Reign", JobId], None] = lambda reign, job: None
    """A job has ended the process in which it ran."""
    crashed: Mapping[JobId, Crashed] = {}
    """What ran when the daemon before died, until a reign has stored what that means."""
    exposed: Callable[["Exposed"], None] = lambda moment: None
    """When something sets out that should not be cut off."""
    decides_ahead: Callable[[], bool] = lambda: False
    """Whether something that happens during a commit is decided on before that has landed."""
    last_call: CallId = CallId(0)


class Reign:
    """The daemon from a recovery to its end."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.agenda = around.agenda
        self.store = around.store
        self.luck = around.luck
        self.providers = around.providers
        self.process = Process()
        self.store.epoch += 1
        self.epoch = self.store.epoch
        self.actors: dict[JobId, AttemptActor] = {}
        self.inbox: list[Posted] = []
        self.landing: Decided | None = None
        """The decision that is being committed."""
        self.ahead: Decided | None = None
        """A decision that was made meanwhile: it is committed when the other has landed."""
        self.working: list[Callable[[], None]] = []
        """Work transactions under way."""
        self.is_due = False
        """A decision is about to be made."""
        self.more = False
        self.freezes: list[tuple[int, int]] = []
        self.timer = 0
        self.pulsing = False
        limits = list(around.limits.values())
        self.scheduler, first = self.store.recover(
            around.kinds,
            around.rules,
            self.now,
            around.learned,
            limits,
            scheduler_type=around.scheduler_type,
            crashed=around.crashed,
        )
        if not first.records:
            around.crashed = {}
        around.decided(self, [], first)
        self._land(Decided(first, []))

    @property
    def now(self) -> Now:
        return Now(Instant(self.agenda.now), Instant(self.agenda.now + self.around.wall_offset))

    # -- what actors and people do ----------------------------------------------------------------------------------

    def post(self, event: ev.Event, reply: Reply | None = None, lost: Callable[[], None] | None = None) -> None:
        if not self.process.alive:
            if lost is not None:
                lost()
            return
        self.inbox.append(Posted(event, reply, lost))
        if self.landing is None or (self.ahead is None and self.around.decides_ahead()):
            self._decide_soon()

    def new_call(self) -> CallId:
        self.around.last_call = CallId(self.around.last_call + 1)
        return self.around.last_call

    def may_send(self, call: CallId) -> bool:
        return self.scheduler.may_send(call, self.now.instant)

    def sending(self, call: CallId, actor: AttemptActor) -> None:
        self.around.sending(self, actor, call)

    def commit_work(self, write: Callable[[], None]) -> None:
        self.around.exposed(Exposed.WORK)
        self.working.append(write)
        self.agenda.after(self.around.work_latency(), self.process, self._work_committed, write)

    def gone(self, job: JobId) -> None:
        self.actors.pop(job, None)

    def taken_down(self, job: JobId) -> None:
        self.around.taken_down(self, job)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _decide_soon(self) -> None:
        if not self.is_due:
            self.is_due = True
            self.agenda.after(0, self.process, self._decide)

    def _decide(self) -> None:
        self.is_due = False
        if self.ahead is not None:
            return
        self.timer += 1
        batch, self.inbox = self.inbox, []
        events = [self._with_known_keys(posted.event) for posted in batch]
        effects = self.scheduler.handle(events, self.now)
        self.more = effects.more
        self.around.decided(self, events, effects)
        decided = Decided(effects, batch)
        if self.landing is None:
            self._land(decided)
        else:
            self.ahead = decided

    def _with_known_keys(self, event: ev.Event) -> ev.Event:
        if isinstance(event, ev.Submitted):
            return ev.Submitted([self._with_known_key(new) for new in event.jobs])
        return event

    def _with_known_key(self, new: ev.NewJob) -> ev.NewJob:
        """What is under way may be found in the database, or not yet."""
        if self.landing is not None and new.key is not None:
            for row in self.landing.effects.records.admitted:
                key = row.new.key
                if key is not None and (row.new.teamspace, key.key_hash) == (new.teamspace, new.key.key_hash):
                    known = ev.KnownKey(row.id, key.body_hash, row.state)
                    return replace(new, key=replace(new.key, known=known))
        return self.store.known(new)

    def _land(self, decided: Decided) -> None:
        if decided.effects.records:
            self.landing = decided
            self.around.exposed(Exposed.DECISION)
            commit = self.around.next_commit(decided.effects)
            self.agenda.after(commit.microseconds, self.process, self._committed, decided, commit)
        else:
            self._carry_out(decided)

    def _committed(self, decided: Decided, commit: Commit) -> None:
        stored = commit.stored and self.is_owner()
        decided.settled = True
        if stored:
            self._store(decided.effects)
        if commit.known:
            self._landed(decided, stored=stored)
        else:
            self._unheard(decided, commit, stored=stored)

    def _unheard(self, decided: Decided, commit: Commit, *, stored: bool) -> None:
        """Nobody knows how the commit went: it is looked up, never guessed."""
        if commit.look_up is None:
            self._landed(decided, stored=False)
        else:
            self.agenda.after(commit.look_up, self.process, self._looked_up, decided, stored)

    def _looked_up(self, decided: Decided, stored: bool) -> None:
        self._landed(decided, stored=stored)

    def _landed(self, decided: Decided, *, stored: bool) -> None:
        """What is known to be stored is carried out; anything else ends the reign."""
        if stored:
            self.landing = None
            self._carry_out(decided)
        else:
            self.end(lambda: False)
            self.around.ended(self)

    def _store(self, effects: Effects) -> None:
        self.store.commit(effects.records)
        self.around.crashed = {}
        self.around.stored(self, effects)

    def is_owner(self) -> bool:
        """The fence: whether the database takes anything from this reign."""
        return self.epoch == self.store.epoch

    def _carry_out(self, decided: Decided) -> None:
        effects = decided.effects
        self._answer(decided)
        for stop in effects.stops:
            self._stop(stop)
        for start in effects.starts:
            self.around.started(self, start)
            self.actors[start.job] = self.around.attempt_type(self, start)
        for refused in effects.refused_calls:
            for actor in list(self.actors.values()):
                actor.refuse(refused)
        self._send(effects)
        if self.actors and not self.pulsing:
            self.pulsing = True
            self.agenda.after(PULSE_SECONDS * SECOND, self.process, self._pulse)
        if self.ahead is not None:
            ahead, self.ahead = self.ahead, None
            self._land(ahead)
        elif self.inbox or self.more:
            self._decide_soon()
        else:
            self._arm()

    def _answer(self, decided: Decided) -> None:
        for posted, answer in zip(decided.batch, decided.effects.answers, strict=True):
            if posted.reply is not None:
                posted.reply(answer)

    def _send(self, effects: Effects) -> None:
        for send in effects.sends:
            holder = self.actors.get(send.job)
            if holder is not None:
                self.around.exposed(Exposed.PERMIT)
                holder.grant(send.call)
            else:
                self.post(ev.CallEnded(send.call, self.now.instant, ev.CallEnd(unsent=True)))

    def _stop(self, stop: StopAttempt) -> None:
        actor = self.actors.get(stop.job)
        if actor is None or not actor.process.alive:
            return
        assert actor.number == stop.number, f"{stop} is not for attempt {actor.number}"
        actor.stop(stop.order)

    # -- time -------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due = self.scheduler.next_deadline(self.now)
        if due is None:
            return
        self.timer += 1
        asleep = min(max(due - self.agenda.now, 0), LONGEST_SLEEP_SECONDS * SECOND)
        self.agenda.after(asleep, self.process, self._go_off, self.timer, due)

    def _go_off(self, timer: int, due: int) -> None:
        if timer != self.timer:
            return
        late = self.agenda.now - due
        if late > LATE_SECONDS * SECOND:
            self.post(ev.DaemonSlept(late))
        self.post(ev.Ticked())

    def _pulse(self) -> None:
        self.agenda.after(self.luck.latency(), self.process, self._beat)  # the loop has other things to do as well

    def _beat(self) -> None:
        for actor in list(self.actors.values()):
            actor.beat()
        self.pulsing = bool(self.actors)
        if self.pulsing:
            self.agenda.after(PULSE_SECONDS * SECOND, self.process, self._pulse)

    def _work_committed(self, write: Callable[[], None]) -> None:
        self.working.remove(write)
        write()

    def freeze(self, until: int) -> None:
        """The process stands still until then, or for as long as it does already."""
        since = max(self.agenda.now, self.process.frozen_until)
        if since < until:
            self.process.frozen_until = until
            self.freezes.append((since, until))

    # -- the end ----------------------------------------------------------------------------------------------------

    def end(self, is_stored: Callable[[], bool]) -> None:
        """The reign is over; `is_stored` says of each transaction under way whether it took place."""
        self.process.alive = False
        lost = [decided for decided in (self.landing, self.ahead) if decided is not None]
        if self.landing is not None and not self.landing.settled and self.is_owner() and is_stored():
            self._store(self.landing.effects)
        for write in self.working:
            if is_stored():
                write()
        for posted in (*(posted for decided in lost for posted in decided.batch), *self.inbox):
            if posted.lost is not None:
                posted.lost()
