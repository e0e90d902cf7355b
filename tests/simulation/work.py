"""An attempt at a job on virtual time: leads go their courses, several at once, until all have come to an end.

It is what the tables slice does, on the same pure `Course`, with the faults that work can have: it hangs on a lead, it
falls silent, it takes its time to be gone. Tenants' code goes on in a pause, and asks again later for what it is
refused; its own time bounds it, so it does not hang.
"""

from collections.abc import Callable
from typing import Protocol, assert_never

from msgspec import Struct

from leadline.core import events as ev
from leadline.core.effects import RefuseCall, StartAttempt
from leadline.core.model import SECOND, Counts, JobState, Stopping, Wait
from leadline.core.rate_limit import Cost
from leadline.features.tables.lead_course import LOST, Ask, Course, Pause, Settle, Turn
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId
from tests.simulation import provider
from tests.simulation.agenda import WORLD, Agenda, Process
from tests.simulation.provider import Provider
from tests.simulation.store import Plan, Store
from tests.world.behaviours import Plan as Answer

CALL_TIMEOUT = 60 * SECOND
FLIGHT_MAX = 5 * SECOND
ASKS_AGAIN = 20 * SECOND
"""So long after it was told of a pause does code try the call again."""


class Luck(Protocol):
    """What fate has in store for the work."""

    def is_stuck(self, job: JobId, lead: LeadId, times: int) -> bool: ...

    def is_deadly(self, job: JobId) -> bool: ...

    def falls_silent(self) -> bool: ...

    def lingers(self) -> int: ...

    def jitter(self) -> float: ...

    def latency(self) -> int: ...

    def connects(self) -> int: ...

    def network(self) -> int: ...


class Host(Protocol):
    """The daemon, as its attempts see it."""

    process: Process
    agenda: Agenda
    store: Store
    epoch: int
    luck: Luck
    providers: dict[AccountName, Provider]

    def post(self, event: ev.Event) -> None: ...

    def new_call(self) -> CallId: ...

    def may_send(self, call: CallId) -> bool: ...

    def sending(self, call: CallId, actor: "AttemptActor") -> None: ...

    def commit_work(self, write: Callable[[], None]) -> None:
        """Have it written in a little while, or, if the daemon dies meanwhile, perhaps."""
        ...

    def gone(self, job: JobId) -> None: ...

    def taken_down(self, job: JobId) -> None: ...


class Flow(Struct):
    """One lead on its way."""

    lead: LeadId
    course: Course
    ask: Ask | None = None
    call: CallId | None = None
    sent_at: int | None = None
    """When its present call was sent; None: it has none out."""
    began: Instant | None = None
    waits_for: JobReason | None = None


class AttemptActor:
    """One run of a job."""

    def __init__(self, host: Host, start: StartAttempt) -> None:
        self.host = host
        self.job = start.job
        self.number = start.number
        self.teamspace = start.teamspace
        self.family = start.family
        self.plan: Plan = host.store.plan(start.job)
        self.process = Process()
        self.stopping: Stopping | None = None
        self.silent = False
        self.flows: dict[LeadId, Flow] = {}
        self.asked: dict[CallId, Flow] = {}
        self.waiting: dict[JobReason, list[int]] = {}
        self.moved_at = self.beaten_at = self.answered_at = host.agenda.now
        """When it last stored a result, opened a wait or had one closed; was heard of; was told of a permit."""
        self.identity = host.store.new_attempt()
        self.account = AccountName(self.plan.provider)
        self._after(self.host.luck.latency(), self._begin)

    def overdue_since(self) -> Instant | None:
        """Since when it stands still without any reason; None: it does not, or is being stopped.

        That some leads wait is no reason for one whose request has gone out. Code bounds its own time.
        """
        if not self.family.resumes:
            return None
        waits = bool(self.waiting or self.asked) and all(flow.sent_at is None for flow in self.flows.values())
        if waits or self.stopping is not None or not self.process.alive:
            return None
        return Instant(max(self.moved_at, self.answered_at))

    # -- time -------------------------------------------------------------------------------------------------------

    def _after(self, delay: int, do: Callable[..., None], *arguments: object) -> None:
        self.host.agenda.after(delay, self.host.process, self._if_here, do, arguments)

    def _if_here(self, do: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if self.process.alive and not self.silent:
            do(*arguments)

    @property
    def now(self) -> Instant:
        return Instant(self.host.agenda.now)

    # -- the whole --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.host.store.begin(self.host.epoch, self.job, self.number, self.identity)
        if self.host.luck.is_deadly(self.job):
            self.host.taken_down(self.job)
            return
        self._report()
        if self.plan.rests_seconds:
            until = self.host.store.rests.get(self.job)
            if until is None:
                until = Instant(self.now + self.plan.rests_seconds * SECOND)
                self.host.store.rests[self.job] = until
            if self.now < until:
                self._open_wait(JobReason.BULK_RESULT, until)
                self._after(until - self.now, self._rested, until)
                return
        self._go_on()

    def _rested(self, until: int) -> None:
        self._close_wait(JobReason.BULK_RESULT, until)
        self._go_on()

    def _go_on(self) -> None:
        """Take on as many leads as may be in work at once; end when there is none left."""
        store = self.host.store
        if self.stopping is None:
            for number in range(1, self.plan.leads + 1):
                lead = LeadId(number)
                if len(self.flows) >= self.plan.at_once:
                    break
                if lead in self.flows or self._has_ended(lead):
                    continue
                course = self._course(store.tasks.get((self.job, lead)))
                flow = self.flows[lead] = Flow(lead, course)
                self._turn(flow, course.begin(store.causes(self.job, lead)))
        if self.flows or self.waiting:
            return
        counts = self.counts()
        if counts.pending:
            if self.stopping is not None:
                self._end(ev.AttemptStopped(self.job, self.number, counts, "told to stop"))
            return
        state = JobState.PARTIAL if counts.failed or counts.unknown else JobState.COMPLETED
        if self.plan.fails:
            state = JobState.FAILED
        reason = JobReason.ERROR if self.plan.fails else None
        self._end(ev.AttemptFinished(self.job, self.number, state, counts, reason))

    def _has_ended(self, lead: LeadId) -> bool:
        """Whether a lead has a result, of this attempt or of an earlier one."""
        return (self.job, lead) in self.host.store.results

    def _course(self, task: str | None) -> Course:
        return Course("retry_once", poll_seconds=5.0, poll_wait_seconds=3600.0, task=task)

    def _end(self, event: ev.Event) -> None:
        if self.process.alive:
            self.process.alive = False
            self.host.gone(self.job)
            self.host.post(event)

    def counts(self) -> Counts:
        return self.host.store.counts(self.job, self.plan.leads)

    def _report(self) -> None:
        self.beaten_at = self.now
        self.host.post(ev.Progressed(self.job, self.number, self.counts()))

    def beat(self) -> None:
        if self.host.luck.falls_silent():
            self.silent = True
        if not self.silent:
            self.beaten_at = self.now
            self.host.post(ev.Beat(self.job, self.number))

    def stop(self, order: Stopping) -> None:
        """Told to stop: nothing new begins; what is out may come back, unless it is forced."""
        self.stopping = order
        if order.forced:
            self.process.alive = False
            self.host.agenda.after(self.host.luck.lingers(), self.host.process, self._report_gone)
            return
        for flow in list(self.flows.values()):
            if flow.waits_for is not None or (
                flow.call is not None and flow.sent_at is None and flow.call in self.asked
            ):
                self._drop(flow)
        for reason in list(self.waiting):
            del self.waiting[reason]
            self.host.post(ev.WaitClosed(self.job, self.number, reason))
        self._after(0, self._go_on)

    def _report_gone(self) -> None:
        self.host.gone(self.job)
        self.host.post(ev.AttemptStopped(self.job, self.number, self.counts(), "killed"))

    # -- a lead's course --------------------------------------------------------------------------------------------

    def _turn(self, flow: Flow, turn: Turn) -> None:
        match turn:
            case Ask():
                self._ask(flow, turn)
            case Pause():
                if self.stopping is not None:
                    self._drop(flow)
                    return
                until = Instant(self.now + turn.microseconds)
                flow.waits_for = turn.reason
                self._open_wait(turn.reason, until)
                self._after(turn.microseconds, self._waited, flow, until, turn.then)
            case Settle():
                self._settle(flow, turn)
            case _:
                assert_never(turn)

    def _waited(self, flow: Flow, until: int, then: Ask) -> None:
        if self.flows.get(flow.lead) is not flow:
            return
        assert flow.waits_for is not None
        self._close_wait(flow.waits_for, until)
        flow.waits_for = None
        self._ask(flow, then)

    def _settle(self, flow: Flow, turn: Settle, call: CallId | None = None) -> None:
        def write() -> None:
            self.host.store.keep_result(self.job, flow.lead, turn.state)
            if call is not None:
                self.host.store.keep_answer(call, flow.began, "done")

        def written() -> None:
            if call is not None:
                self._end_call(flow, ev.CallEnd())
            self.moved_at = self.now
            self.flows.pop(flow.lead, None)
            self._report()
            self._go_on()

        self._commit(write, written)

    def _commit(self, write: Callable[[], None], written: Callable[[], None]) -> None:
        def then() -> None:
            accepted = self.host.store.work(self.host.epoch, self.job, self.number, self.identity, write)
            self._if_here(written if accepted else self._retired, ())

        self.host.commit_work(then)

    def _retired(self) -> None:
        self._end(ev.AttemptStopped(self.job, self.number, self.counts(), "retired"))

    def _drop(self, flow: Flow) -> None:
        flow.waits_for = None
        self.flows.pop(flow.lead, None)
        self._after(0, self._go_on)

    # -- waits ------------------------------------------------------------------------------------------------------

    def _open_wait(self, reason: JobReason, until: int) -> None:
        self.waiting.setdefault(reason, []).append(until)
        self.moved_at = self.now
        first = Instant(min(self.waiting[reason]))
        self.host.post(ev.WaitOpened(self.job, self.number, Wait(reason, first)))

    def _close_wait(self, reason: JobReason, until: int) -> None:
        if until not in self.waiting.get(reason, ()):
            return
        self.moved_at = self.now
        self.waiting[reason].remove(until)
        if self.waiting[reason]:
            first = Instant(min(self.waiting[reason]))
            self.host.post(ev.WaitOpened(self.job, self.number, Wait(reason, first)))
        else:
            del self.waiting[reason]
            self.host.post(ev.WaitClosed(self.job, self.number, reason))

    # -- calls ------------------------------------------------------------------------------------------------------

    def _ask(self, flow: Flow, ask: Ask) -> None:
        if self.stopping is not None:
            self._drop(flow)
            return
        flow.ask, flow.sent_at, flow.began = ask, None, None
        call = flow.call = self.host.new_call()
        self.asked[call] = flow
        is_lead = ask.what == "start" and self.account == "snov"
        cost = Cost(request=1, lead=1 if is_lead else 0)
        self.host.post(ev.CallAsked(call, self.job, self.number, self.account, flow.lead, cost))

    def refuse(self, refused: RefuseCall) -> None:
        flow = self.asked.pop(refused.call, None)
        self.answered_at = self.now
        if flow is None or not self.process.alive:
            return
        if refused.reason is None:
            self._drop(flow)
        elif refused.reason is JobReason.PAUSED:
            assert not self.family.resumes, "others are stopped, or wait"
            assert flow.ask is not None
            flow.call = None
            self._after(ASKS_AGAIN, self._ask, flow, flow.ask)
        else:
            self._settle(flow, Settle("failed", LeadReason.NEVER_FITS))

    def grant(self, call: CallId) -> None:
        """The permit is here: the request is written in a moment."""
        flow = self.asked.pop(call, None)
        self.answered_at = self.now
        if flow is None or self.flows.get(flow.lead) is not flow or self.silent:
            self.host.post(ev.CallEnded(call, self.now, ev.CallEnd(unsent=True)))
            return
        self.host.store.cut_off.setdefault((self.job, flow.lead), []).append(call)
        self._after(self.host.luck.connects(), self._send, flow, call)

    def _send(self, flow: Flow, call: CallId) -> None:
        if not self._may_send(call):
            self.host.post(ev.CallEnded(call, self.now, ev.CallEnd(unsent=True)))
            assert flow.ask is not None
            self._ask(flow, flow.ask)
            return
        self.host.sending(call, self)
        flow.sent_at = self.now
        self.host.post(ev.CallSent(call, self.now))
        task = flow.course.task if flow.ask is not None and flow.ask.what == "poll" else None
        request = provider.request_for(self.job, flow.lead, task)
        other_side = self.host.providers[self.account]

        def reply(answer: Answer) -> None:
            self._after(self.host.luck.network(), self._headers, flow, call, answer)

        arguments = (call, self.job, flow.lead, request, reply, self._is_connected(self.now + CALL_TIMEOUT))
        self.host.agenda.after(self.host.luck.network(), WORLD, other_side.receive, *arguments)
        self._after(CALL_TIMEOUT, self._timed_out, flow, call)

    def _may_send(self, call: CallId) -> bool:
        """The last look before the first byte."""
        return self.stopping is None and self.host.may_send(call)

    def _is_connected(self, until: int) -> Callable[[], bool]:
        """Whether the connection that is made now still stands, as long as nobody has answered.

        One of a daemon that another has taken over from does not count: its successor cannot know of it.
        """
        host = self.host
        return lambda: (
            self.process.alive and host.process.alive and host.epoch == host.store.epoch and host.agenda.now < until
        )

    def _headers(self, flow: Flow, call: CallId, answer: Answer) -> None:
        if flow.call != call or flow.sent_at is None:
            return
        if answer.stop is not None:
            self._lost(flow, call)
            return
        flow.began = self.now
        self.host.post(ev.ResponseBegan(call, self.now))
        hangs = self.family.resumes and self.host.luck.is_stuck(self.job, flow.lead, self._stall_kills(flow.lead))
        if not hangs:
            self._after(self.host.luck.latency(), self._body, flow, call, answer)

    def _stall_kills(self, lead: LeadId) -> int:
        return sum(cause == JobReason.STALLED for cause in self.host.store.causes(self.job, lead))

    def _body(self, flow: Flow, call: CallId, answer: Answer) -> None:
        if flow.call != call:
            return
        flow.sent_at = None
        if answer.status == 429:
            hint = provider.retry_after(answer, self.now)
            self._end_call(flow, ev.CallEnd(throttled=True, retry_after=None if hint is None else Instant(hint)))
            self._turn(flow, flow.course.thrown_back())
        elif answer.status >= 500:
            self._end_call(flow, ev.CallEnd(failed=True))
            turn = flow.course.broke(LeadReason.SERVER_ERROR, answer.outcome, self.host.luck.jitter())
            self._turn(flow, turn)
        elif answer.outcome in {"started", "in_progress"}:
            self._keep_task(flow, call, str(answer.notes["task_hash"]))
        else:
            self._settle(flow, Settle("done"), call)

    def _keep_task(self, flow: Flow, call: CallId, task: str) -> None:
        def write() -> None:
            self.host.store.tasks[self.job, flow.lead] = task
            self.host.store.keep_answer(call, flow.began, "done")

        def written() -> None:
            self._end_call(flow, ev.CallEnd())
            self.host.post(ev.Moved(self.job, self.number))
            self.moved_at = self.beaten_at = self.now
            self._turn(flow, flow.course.pending(task))

        self._commit(write, written)

    def _timed_out(self, flow: Flow, call: CallId) -> None:
        if flow.call == call and flow.sent_at is not None and flow.began is None:
            self._lost(flow, call)

    def _lost(self, flow: Flow, call: CallId) -> None:
        flow.sent_at = None

        def write() -> None:
            self.host.store.keep_answer(call, None, "unknown", LOST)

        def written() -> None:
            self._end_call(flow, ev.CallEnd(failed=True))
            self._turn(flow, flow.course.lost("no answer", self.host.luck.jitter()))

        self._commit(write, written)

    def _end_call(self, flow: Flow, end: ev.CallEnd) -> None:
        assert flow.call is not None
        self.host.post(ev.CallEnded(flow.call, self.now, end))
        flow.call = None
