"""The daemon on virtual time: one reign of dispatcher, actors, timer and pulse over the real scheduler.

The order is that of the actors: what happened gathers while a decision is being committed; nothing of a decision is
carried out before its records are stored; the timer is armed only when there is nothing else to do. A reign ends when a
commit fails or the process dies; what it leaves behind is what is in the store.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from leadline.core import events as ev
from leadline.core.effects import Answer, Effects, StopAttempt
from leadline.core.model import SECOND, Kind, Now, Rules
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


class Commit(Struct, frozen=True):
    """How a commit goes."""

    microseconds: int
    stored: bool = True
    known: bool = True
    """Whether the daemon hears how it went."""


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
    next_commit: Callable[[], Commit]
    work_latency: Callable[[], int]
    decided: Callable[["Reign", Sequence[ev.Event], Effects], None]
    """After each decision, before it is stored."""
    started: Callable[["Reign", AttemptActor], None]
    sending: Callable[["Reign", CallId], None]
    """Called with the first byte of each request."""
    ended: Callable[["Reign"], None]
    """The reign is over, because of a commit; somebody must begin the next one."""
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
        self.batch: list[Posted] = []
        """What the decision under way took in."""
        self.committing: Effects | None = None
        self.working: list[Callable[[], None]] = []
        """Work transactions under way."""
        self.is_busy = True
        self.freezes: list[tuple[int, int]] = []
        self.timer = 0
        self.pulsing = False
        limits = list(around.limits.values())
        self.scheduler, first = self.store.recover(
            around.kinds, around.rules, self.now, around.learned, limits, scheduler_type=around.scheduler_type
        )
        around.decided(self, [], first)
        self._commit(first)

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
        if not self.is_busy:
            self.is_busy = True
            self.agenda.after(0, self.process, self._decide)

    def new_call(self) -> CallId:
        self.around.last_call = CallId(self.around.last_call + 1)
        return self.around.last_call

    def may_send(self, call: CallId) -> bool:
        return self.scheduler.may_send(call, self.now.instant)

    def sending(self, call: CallId) -> None:
        self.around.sending(self, call)

    def commit_work(self, write: Callable[[], None]) -> None:
        self.working.append(write)
        self.agenda.after(self.around.work_latency(), self.process, self._work_committed, write)

    def gone(self, job: JobId) -> None:
        self.actors.pop(job, None)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        self.timer += 1
        self.batch, self.inbox = self.inbox, []
        events = [self._with_known_keys(posted.event) for posted in self.batch]
        effects = self.scheduler.handle(events, self.now)
        self.around.decided(self, events, effects)
        if effects.records:
            self._commit(effects)
        else:
            self._carry_out(effects)

    def _with_known_keys(self, event: ev.Event) -> ev.Event:
        if isinstance(event, ev.Submitted):
            return ev.Submitted([self.store.known(new) for new in event.jobs])
        return event

    def _commit(self, effects: Effects) -> None:
        commit = self.around.next_commit()
        self.committing = effects
        self.agenda.after(commit.microseconds, self.process, self._committed, effects, commit)

    def _committed(self, effects: Effects, commit: Commit) -> None:
        self.committing = None
        stored = commit.stored and self.is_owner()
        if stored:
            self.store.commit(effects.records)
        if stored and commit.known:
            self._carry_out(effects)
        else:
            self.end(lambda: False)
            self.around.ended(self)

    def is_owner(self) -> bool:
        """The fence: whether the database takes anything from this reign."""
        return self.epoch == self.store.epoch

    def _carry_out(self, effects: Effects) -> None:
        batch, self.batch = self.batch, []
        for posted, answer in zip(batch, effects.answers, strict=True):
            if posted.reply is not None:
                posted.reply(answer)
        for stop in effects.stops:
            self._stop(stop)
        for start in effects.starts:
            actor = self.actors[start.job] = self.around.attempt_type(self, start)
            self.around.started(self, actor)
        for refused in effects.refused_calls:
            for actor in list(self.actors.values()):
                actor.refuse(refused)
        for send in effects.sends:
            holder = self.actors.get(send.job)
            if holder is not None:
                holder.grant(send.call)
            else:
                self.post(ev.CallEnded(send.call, self.now.instant, ev.CallEnd(unsent=True)))
        if self.actors and not self.pulsing:
            self.pulsing = True
            self.agenda.after(PULSE_SECONDS * SECOND, self.process, self._pulse)
        if self.inbox or effects.more:
            self.agenda.after(0, self.process, self._decide)
        else:
            self.is_busy = False
            self._arm()

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
        if self.committing is not None and self.is_owner() and is_stored():
            self.store.commit(self.committing.records)
        for write in self.working:
            if is_stored():
                write()
        for posted in (*self.batch, *self.inbox):
            if posted.lost is not None:
                posted.lost()
