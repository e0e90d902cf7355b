"""Anything that may happen, in any order: the audit holds after every step, and nothing acknowledged is ever lost.

Hypothesis draws the steps and shrinks what fails. The harness asserts after each of them: the audit, that memory and
database know the same jobs, that what started had leave to and was the oldest that had.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import Receipt
from leadline.core.model import ENDED, SECOND, Counts, Family, JobState, Limits
from leadline.core.rate_limit import ConcurrentLimit, Cost, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import CallId, Instant, JobId
from tests.core.harness import RULES, SLOTS, Harness, new
from tests.world.windows import worst_window

TEAMSPACES = st.sampled_from(["a", "b", "c"])
STEPS = st.sampled_from(["enrich", "enrich", "batch", "noop"])
KINDS = st.one_of(STEPS, st.just("mail"))
WAITS = st.sampled_from([JobReason.POLL, JobReason.BACKOFF, JobReason.APPROVAL])
SCOPES = st.sampled_from(
    [("queue", ""), ("family", "tables"), ("family", "batch"), ("teamspace", "a"), ("provider", "snov")]
)
SECONDS = st.one_of(st.sampled_from([0.0, 1.0, 30.0, 60.0, 120.0, 300.0, 900.0]), st.floats(0, 400))


class Queue(RuleBasedStateMachine):
    """A queue, its people, its attempts, its providers and its crashes."""

    @initialize(tables=st.sampled_from([1, 2, 8]), slots=st.sampled_from([1, 2]), kills=st.booleans())
    def begin(self, tables: int, slots: int, kills: bool) -> None:
        limits = Limits({**SLOTS, Family.TABLES: slots}, max_queued=12)
        capacity = {Family.TABLES: tables, Family.BATCH: 2}
        self.queue = Harness(replace(RULES, capacity=capacity, default_limits=limits, auto_kill_stalled=kills))
        self.queue.provider("snov", WindowLimit(3, 60), ConcurrentLimit(2))
        self.queue.provider("openai")

    def running(self, data: st.DataObject) -> JobId:
        return data.draw(st.sampled_from(sorted(self.queue.actors)), label="job")

    def live(self, data: st.DataObject) -> JobId:
        return data.draw(st.sampled_from(sorted(self.queue.scheduler.jobs)), label="job")

    def has_running(self) -> bool:
        return bool(self.queue.actors)

    def has_live(self) -> bool:
        return bool(self.queue.scheduler.jobs)

    # -- people -----------------------------------------------------------------------------------------------------

    @rule(teamspace=TEAMSPACES, kind=KINDS, delay=st.sampled_from([0, 0, 0, 50]), priority=st.sampled_from([0, 0, 90]))
    def submit(self, teamspace: str, kind: str, delay: int, priority: int) -> None:
        self.queue.answer_to(new(teamspace, kind, delay=delay, priority=priority))

    @rule(teamspace=TEAMSPACES, kinds=st.lists(KINDS, min_size=2, max_size=5), key=st.sampled_from(["k", "l"]))
    def submit_batch(self, teamspace: str, kinds: list[str], key: str) -> None:
        first, *_ = answers = self.queue.answers_to(
            *(new(teamspace, kind, key=f"{key}{place // 2}") for place, kind in enumerate(kinds))
        )
        if isinstance(first, Receipt) and isinstance(answers[1], Receipt):
            assert answers[1].job == first.job
            assert answers[1].duplicate

    @rule(
        teamspace=TEAMSPACES,
        kinds=st.lists(STEPS, min_size=1, max_size=4),
        stop_on_failure=st.booleans(),
        delay=st.sampled_from([0, 0, 50]),
    )
    def submit_chain(self, teamspace: str, kinds: list[str], stop_on_failure: bool, delay: int) -> None:
        steps = tuple(new(teamspace, kind) for kind in kinds)
        submission = new(teamspace, "chain", steps=steps, stop_on_failure=stop_on_failure, delay=delay)
        self.queue.answer_to(submission)

    @precondition(has_live)
    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: st.DataObject, force: bool) -> None:
        job = self.live(data)
        self.queue.cancel(job, force=force)
        state = self.queue.state(job)
        assert state in ENDED or state is JobState.STOPPING

    @rule(scope=SCOPES)
    def pause(self, scope: tuple[str, str]) -> None:
        self.queue.pause(*scope)

    @rule(scope=SCOPES)
    def resume(self, scope: tuple[str, str]) -> None:
        self.queue.resume(*scope)

    @precondition(has_live)
    @rule(data=st.data(), paused=st.booleans())
    def pause_job(self, data: st.DataObject, paused: bool) -> None:
        (self.queue.pause if paused else self.queue.resume)("job", self.live(data))

    @rule(teamspace=TEAMSPACES, slots=st.integers(0, 3), max_queued=st.sampled_from([2, 12]))
    def set_limits(self, teamspace: str, slots: int, max_queued: int) -> None:
        self.queue.limit(teamspace, tables=slots, max_queued=max_queued)

    @rule(tables=st.integers(1, 4), batch=st.integers(1, 4))
    def set_rules(self, tables: int, batch: int) -> None:
        self.queue.rules = replace(self.queue.rules, capacity={Family.TABLES: tables, Family.BATCH: batch})
        self.queue.tell(ev.RulesSet(self.queue.rules))

    @rule(amount=st.integers(1, 5))
    def set_provider(self, amount: int) -> None:
        self.queue.provider("snov", WindowLimit(amount, 60), ConcurrentLimit(2))

    # -- attempts ---------------------------------------------------------------------------------------------------

    @precondition(has_running)
    @rule(data=st.data(), provider=st.sampled_from(["snov", "openai", "nobody"]), cost=st.integers(1, 4))
    def ask(self, data: st.DataObject, provider: str, cost: int) -> None:
        self.queue.ask(self.running(data), provider, lead=data.draw(st.integers(1, 3)), cost=Cost(request=cost))

    @precondition(lambda self: any(actor.out for actor in self.queue.actors.values()))
    @rule(data=st.data(), end=st.sampled_from(["good", "failed", "throttled", "hinted", "parked", "key", "unsent"]))
    def answer(self, data: st.DataObject, end: str) -> None:
        out = sorted(call for actor in self.queue.actors.values() for call in actor.out)
        call = data.draw(st.sampled_from(out), label="call")
        job = self.queue.database.calls[call].row.job
        hint = Instant(self.queue.instant + 2000 * SECOND)
        match end:
            case "good":
                self.queue.answer(job, call)
            case "failed":
                self.queue.answer(job, call, failed=True)
            case "throttled":
                self.queue.answer(job, call, throttled=True)
            case "hinted":
                self.queue.answer(job, call, throttled=True, retry_after=hint)
            case "parked":
                self.queue.answer(job, call, failed=True, parked=JobReason.DAILY_CAP, retry_after=hint)
            case "key":
                self.queue.answer(job, call, failed=True, parked=JobReason.INVALID_KEY)
            case _:
                self.queue.never_left(job, call)

    @precondition(has_running)
    @rule(data=st.data(), done=st.integers(0, 3))
    def settle(self, data: st.DataObject, done: int) -> None:
        self.queue.settle(self.running(data), done)

    @precondition(has_running)
    @rule(data=st.data(), reason=WAITS, seconds=st.sampled_from([None, 5, 899, 901]))
    def wait(self, data: st.DataObject, reason: JobReason, seconds: float | None) -> None:
        self.queue.wait(self.running(data), reason, seconds)

    @precondition(has_running)
    @rule(data=st.data(), reason=WAITS)
    def wait_over(self, data: st.DataObject, reason: JobReason) -> None:
        self.queue.wait_over(self.running(data), reason)

    @precondition(has_running)
    @rule(data=st.data(), state=st.sampled_from([JobState.COMPLETED, JobState.PARTIAL, JobState.FAILED]))
    def finish(self, data: st.DataObject, state: JobState) -> None:
        self.queue.finish(self.running(data), state=state)

    @precondition(has_running)
    @rule()
    def finish_all_at_once(self) -> None:
        self.queue.finish(*self.queue.actors)

    @precondition(has_running)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.queue.die(self.running(data))

    @precondition(has_running)
    @rule(data=st.data(), beats=st.booleans(), lingers=st.booleans())
    def misbehave(self, data: st.DataObject, beats: bool, lingers: bool) -> None:
        actor = self.queue.actors[self.running(data)]
        actor.beats, actor.lingers = beats, lingers

    @precondition(has_live)
    @rule(data=st.data(), number=st.integers(0, 3))
    def report_late(self, data: st.DataObject, number: int) -> None:
        """From an attempt that is over, or about a call that is."""
        job = self.live(data)
        actor = self.queue.actors.get(job)
        if actor is not None and actor.number == number:
            return
        instant = self.queue.now.instant
        strangers = [CallId(call) for call in (0, 10_000)]
        self.queue.tell(
            ev.Progressed(job, number, Counts(9, 9)),
            ev.AttemptFinished(job, number, JobState.COMPLETED, Counts()),
            ev.AttemptStopped(job, number, Counts()),
            *(ev.CallEnded(call, instant, ev.CallEnd()) for call in strangers),
        )
        assert job in self.queue.scheduler.jobs

    # -- time and crashes -------------------------------------------------------------------------------------------

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.queue.pass_seconds(seconds)

    @rule(seconds=SECONDS)
    def stand_still(self, seconds: float) -> None:
        kills = [stop for stop in self.queue.stops if stop.order.forced]
        self.queue.sleep(seconds)
        self.queue.tell(ev.DaemonSlept(round(seconds * SECOND)))
        if not any(actor.told for actor in self.queue.actors.values()):
            assert kills == [stop for stop in self.queue.stops if stop.order.forced], "its own pause killed somebody"

    @rule(seconds=st.sampled_from([-10_800.0, -1.0, 60.0, 10_800.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.queue.set_wall(seconds)
        self.queue.tell()

    @rule(seconds=SECONDS)
    def crash(self, seconds: float) -> None:
        self.queue.restart(seconds=seconds)

    @rule(seconds=SECONDS, teamspace=TEAMSPACES)
    def crash_before_the_commit(self, seconds: float, teamspace: str) -> None:
        jobs = sorted(self.queue.scheduler.jobs)[:3]
        self.queue.scheduler.handle(
            [ev.Submitted([new(teamspace), new("z", "batch")]), *(ev.CancelAsked(job) for job in jobs)],
            self.queue.now,
        )
        self.queue.restart(seconds=seconds)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert worst_window([instant for instant, _ in self.queue.sent_to("snov")], 60) <= 5, "the largest limit of all"


Queue.TestCase.settings = settings(max_examples=40, stateful_step_count=60)
test_whatever_happens_the_audit_holds = Queue.TestCase
