"""The queue on virtual time without any misfortune: what takes hours is over in a moment, and exact to the microsecond.

The parts are those of the simulation: the real scheduler, reigns that store before they act, attempts that take leads
through their courses, providers with windows and logs of their own. Only chance is gone: every latency is fixed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from leadline.core import audit
from leadline.core import events as ev
from leadline.core.effects import Answer, Effects, Receipt, StartAttempt, StopAttempt
from leadline.core.model import SECOND, Counts, Family, Job, JobState, Kind, Limits, Rules
from leadline.core.rate_limit import Unit, WindowLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol.ids import AccountName, JobId, LeadId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.daemon import Commit, Reign, Surroundings
from tests.simulation.provider import Offer, Provider
from tests.simulation.store import Plan, Store
from tests.simulation.work import AttemptActor
from tests.world.behaviours import Now, Request, Window, json_plan
from tests.world.behaviours import Plan as Answering

START = 1_800_000_000 * SECOND
COMMIT = 5_000
"""Microseconds."""
AUDITED_EVERY = 20
"""The simulation audits every decision; here some do."""

KINDS = (
    Kind(0, "noop", Family.NOOP, instant=True),
    Kind(1, "chain", Family.TABLES, chain=True),
    Kind(2, "enrich", Family.TABLES),
    Kind(3, "batch", Family.BATCH),
)
SLOTS = {Family.NOOP: 1, Family.TABLES: 1, Family.BATCH: 5, Family.OUTREACH: 1}
"""As in the default plan."""

SNOV = Offer(
    AccountName("snov"),
    polls=False,
    limits=(WindowLimit(15, 60, Unit.LEAD), WindowLimit(60, 60)),
    windows=(Window(15, 60, "lead"), Window(60, 60)),
)
AI = Offer(AccountName("ai"), polls=False, limits=())


class Steady:
    """Answers after a fixed time; `hint` throws the next call back instead, with so many seconds to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.hint: int | None = None

    def respond(self, request: Request, now: Now) -> Answering:
        if self.hint is not None:
            hint, self.hint = self.hint, None
            return Answering(status=429, headers={"retry-after": str(hint)}, delay_us=100_000, outcome="throttled")
        return msgspec.structs.replace(json_plan({}), delay_us=round(self.seconds * SECOND))


class Luck(Struct):
    """Fixed latencies; `stuck` says how often the work hangs on a lead."""

    stuck: dict[tuple[JobId, LeadId], int] = field(default_factory=dict)

    def is_stuck(self, job: JobId, lead: LeadId, times: int) -> bool:
        return times < self.stuck.get((job, lead), 0)

    def is_deadly(self, job: JobId) -> bool:
        return False

    def falls_silent(self) -> bool:
        return False

    def lingers(self) -> int:
        return 20_000

    def jitter(self) -> float:
        return 0.0

    def latency(self) -> int:
        return 1_000

    def connects(self) -> int:
        return 1_000

    def network(self) -> int:
        return 10_000


class Queue:
    """A daemon, its providers, and whoever asks it for something."""

    def __init__(self, *, tables: int | None = 8, answers_after: float = 1.0, slots: int = 1) -> None:
        self.agenda = Agenda(START)
        self.store = Store()
        self.luck = Luck()
        self.behaviours: dict[str, Steady] = {}
        self.providers: dict[AccountName, Provider] = {}
        for offer in (SNOV, AI):
            self.behaviours[offer.name] = Steady(answers_after)
            self.providers[offer.name] = Provider(offer, 0, frozenset(), self.agenda, self.behaviours[offer.name])
        self.started: list[tuple[int, JobId, int]] = []
        """(instant, job, attempt) of everything that was handed to an actor."""
        self.stopped: list[tuple[int, StopAttempt]] = []
        """When each order to stop was decided."""
        self.around = Surroundings(
            agenda=self.agenda,
            store=self.store,
            providers=self.providers,
            luck=self.luck,
            kinds=KINDS,
            rules=Rules({Family.TABLES: tables}, Limits({**SLOTS, Family.TABLES: slots})),
            learned=[ev.AccountLearned(offer.name, offer.limits) for offer in (SNOV, AI)],
            limits={},
            scheduler_type=Scheduler,
            attempt_type=AttemptActor,
            wall_offset=0,
            next_commit=lambda _: Commit(COMMIT),
            work_latency=lambda: COMMIT,
            decided=self._decided,
            started=self._started,
            sending=lambda reign, actor, call: None,
            ended=lambda reign: None,
        )
        self.decisions = 0
        self.reign = Reign(self.around)
        self.run(0.1)

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.agenda.now

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, holds: Callable[[], bool], seconds: float = 100_000) -> None:
        """Let time pass until something holds."""
        alarm: list[int] = []
        self.agenda.after(round(seconds * SECOND), WORLD, alarm.append, 1)
        while not alarm and not holds():
            assert self.agenda.step()

    def run_until_ended(self, *jobs: JobId) -> None:
        self.run_until(lambda: all(job in self.store.ended for job in jobs))
        assert all(job in self.store.ended for job in jobs), "they have not ended"

    def restart(self) -> None:
        """The daemon is killed and started anew."""
        self.reign.end(lambda: False)
        self.reign = Reign(self.around)

    # -- what is asked of it ----------------------------------------------------------------------------------------

    def ask(self, event: ev.Event) -> Answer:
        """Say something to the daemon and wait for its answer."""
        answers: list[Answer] = []
        self.reign.post(event, answers.append)
        self.run_until(lambda: bool(answers))
        return answers[0]

    def receipt(self, new: ev.NewJob) -> Receipt:
        answers = self.ask(ev.Submitted([new]))
        assert isinstance(answers, list)
        (receipt,) = answers
        assert isinstance(receipt, Receipt), f"refused: {receipt}"
        return receipt

    def submit(self, teamspace: str, leads: int = 1, **rest: Any) -> JobId:
        return self.receipt(enrich(teamspace, leads, **rest)).job

    # -- what is seen -----------------------------------------------------------------------------------------------

    @property
    def running(self) -> set[JobId]:
        return set(self.reign.actors)

    def job(self, job: JobId) -> Job:
        return self.reign.scheduler.jobs[job]

    def state(self, job: JobId) -> JobState:
        ended = self.store.ended.get(job)
        return self.store.live[job].state if ended is None else ended.state

    def counts(self, job: JobId) -> Counts:
        return self.store.counts(job, self.store.plan(job).leads)

    def last_progress_of(self, job: JobId) -> int:
        """When the daemon heard of a running job's last progress."""
        details = self.job(job).details
        assert details is not None
        assert details.attempt is not None
        return details.attempt.moved

    def start_of(self, job: JobId, attempt: int = 1) -> int:
        return next(at for at, started, number in self.started if (started, number) == (job, attempt))

    def calls(self, job: JobId) -> Sequence[int]:
        """When the providers saw the job's calls."""
        return [line.at for provider in self.providers.values() for line in provider.log if line.job == job]

    def _decided(self, reign: Reign, events: Sequence[ev.Event], effects: Effects) -> None:
        self.stopped += [(self.now, stop) for stop in effects.stops]
        self.decisions += 1
        if self.decisions % AUDITED_EVERY == 0:
            audit.check(reign.scheduler, reign.now)

    def _started(self, reign: Reign, start: StartAttempt) -> None:
        self.started.append((self.now, start.job, start.number))


def enrich(
    teamspace: str, leads: int = 1, *, provider: str = "ai", at_once: int = 1, rests_seconds: int = 0, **fields: object
) -> ev.NewJob:
    """A submission of a job that has so many leads."""
    payload = msgspec.json.encode(Plan(provider, leads, at_once, rests_seconds))
    return ev.NewJob(teamspace, 2, payload, **fields)  # type: ignore[arg-type]  # the test's
