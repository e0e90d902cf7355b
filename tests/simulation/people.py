"""Those who submit, cancel, pause and set limits, and the misfortunes that strike the daemon itself.

People insist: a submission whose answer was lost is handed in again under the same key until it is answered, and a
pause that was refused for want of a daemon is repeated. Some hand in what was answered long ago, as a client does that
has lost its receipt, and some use a key twice for different things.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import Answer, Receipt
from leadline.core.model import SECOND, Family, Limits
from leadline.core.permits import PERMIT_SECONDS
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.daemon import Exposed, Reign, Surroundings
from tests.simulation.faults import Fault, dice
from tests.simulation.store import Plan

TEAMSPACES = tuple(f"team{number}" for number in range(12))
WEIGHTS = {"team3": 2.0, "team4": 0.5}
"""Of those whose share of a provider is not 1."""
QUEUES_MAX = {"team5": 4}
"""How much may wait, of those that may have less than the others."""
QUEUE_MAX = 60
SUBMITTED_EVERY_SECONDS = 15
MINUTE = 60 * SECOND
AMBUSH_MICROSECONDS = 50
"""So soon after its moment a misfortune strikes: nothing that set out then has arrived."""


class Stage(Protocol):
    """What people and misfortunes act upon."""

    agenda: Agenda
    around: Surroundings
    reign: Reign | None
    quiet: bool

    def acknowledged(self, key: str, receipt: Receipt) -> None: ...

    def refused(self, key: str, refusal: Refused) -> None: ...

    def told(self, order: ev.PauseSet | ev.CancelAsked) -> None:
        """It was answered that this is in force."""
        ...

    def asked(self, order: ev.PauseSet) -> None:
        """From now on a pause may be over."""
        ...

    def submitted(self) -> None: ...

    def struck(self, fault: Fault) -> None: ...

    def deadly(self, job: JobId) -> None:
        """A job takes the daemon down."""
        ...

    def begin_reign(self) -> None: ...


class People:
    """All of them, and bad luck."""

    def __init__(self, stage: Stage, seed: int, faults: frozenset[Fault]) -> None:
        self._stage = stage
        self._agenda = stage.agenda
        self._submit_dice = dice(seed, "people")
        self._again_dice = dice(seed, "people who ask again")
        self._dice = {fault: dice(seed, fault) for fault in Fault}
        self._ambushes: dict[Exposed, Callable[[], None]] = {}
        """Misfortunes that wait for their moment."""
        self._handed_in: list[tuple[str, ev.NewJob]] = []
        """What was handed in and answered, by key; the last few."""
        self._keys = 0
        for teamspace in TEAMSPACES:
            if teamspace in WEIGHTS or teamspace in QUEUES_MAX:
                stage.around.limits[teamspace] = limits_of(teamspace, stage.around.rules.default_limits.slots)
        self._paused: dict[tuple[str, str], ev.PauseSet] = {}
        """What people want of each scope that was ever paused."""
        self._seldom(self._submit_dice, SUBMITTED_EVERY_SECONDS, self._submit)
        habits: dict[Fault, tuple[float, Callable[[], None]]] = {
            Fault.CANCEL: (60, self._cancel),
            Fault.PAUSE: (150, self._pause),
            Fault.LIMITS: (300, self._set_limits),
            Fault.CRASH: (600, self._crash),
            Fault.FREEZE: (900, self._freeze),
            Fault.TAKEOVER: (1200, self._take_over),
            Fault.CLOCK_STEP: (900, self._step_clock),
        }
        for fault, (seconds, do) in habits.items():
            if fault in faults:
                self._seldom(self._dice[fault], seconds, do)

    def _seldom(self, chance: random.Random, seconds: float, do: Callable[[], None]) -> None:
        """Do it again and again, so many seconds apart on average."""

        def then() -> None:
            if not self._stage.quiet:
                do()
                self._seldom(chance, seconds, do)

        self._agenda.after(round(chance.expovariate(1 / seconds) * SECOND), WORLD, then)

    def insist(self, say: Callable[[], ev.Event], heard: Callable[[Answer], None] | None = None) -> None:
        """Say it until a daemon has heard it; what is said is what is wanted at that moment."""

        def again() -> None:
            self._agenda.after(SECOND, WORLD, self.insist, say, heard)

        if self._stage.reign is None:
            again()
        else:
            self._stage.reign.post(say(), heard, again)

    # -- submitting -------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        chance = self._submit_dice
        self._keys += 1
        key = f"key{self._keys}"
        self._stage.submitted()
        self._hand_in(key, self._new(chance, key))
        again, which, other = (self._again_dice.random() for _ in range(3))
        if self._handed_in and again < 0.1:
            self._hand_in_again(*self._handed_in[int(which * len(self._handed_in))], other=other < 0.3)

    def _hand_in(self, key: str, new: ev.NewJob) -> None:
        def heard(answers: Answer) -> None:
            answer = _only(answers)
            if isinstance(answer, Receipt):
                self._stage.acknowledged(key, answer)
                self._handed_in = [*self._handed_in[-20:], (key, new)]
            else:
                assert answer.code is ErrorCode.QUEUE_FULL, f"a submission was refused: {answer}"
                self._stage.refused(key, answer)

        self.insist(lambda: ev.Submitted([new]), heard)

    def _hand_in_again(self, key: str, new: ev.NewJob, *, other: bool) -> None:
        """The same once more, or another thing under the same key; both are told of the first."""

        def heard(answers: Answer) -> None:
            answer = _only(answers)
            if isinstance(answer, Receipt):
                assert not other, f"another thing under {key} was taken in: {answer}"
                assert answer.duplicate, f"{key} was taken in once more: {answer}"
                self._stage.acknowledged(key, answer)
            else:
                assert other, f"{key} handed in again was refused: {answer}"
                assert answer.code is ErrorCode.CONFLICT, f"another thing under {key} was refused: {answer}"

        again = replace(new, key=ev.Key(key.encode(), b"other body")) if other else new
        self.insist(lambda: ev.Submitted([again]), heard)

    def _new(self, chance: random.Random, key: str) -> ev.NewJob:
        teamspace = chance.choice(TEAMSPACES)
        kind = chance.choices([0, 1, 2, 3], [15, 6, 62, 17])[0]
        steps = tuple(self._step(chance, teamspace) for _ in range(chance.randint(2, 4))) if kind == 1 else ()
        delay = chance.choice([0] * 8 + [30, 300]) * SECOND
        return ev.NewJob(
            teamspace,
            kind,
            b"" if kind in {0, 1} else _payload(chance),
            key=ev.Key(key.encode(), b"body"),
            delay_microseconds=delay,
            priority_microseconds=chance.choice([0, 0, 0, 300]) * SECOND,
            steps=steps,
            stop_on_failure=chance.random() < 0.7,
        )

    def _step(self, chance: random.Random, teamspace: str) -> ev.NewJob:
        kind = chance.choices([0, 2, 3], [10, 70, 20])[0]
        return ev.NewJob(teamspace, kind, b"" if kind == 0 else _payload(chance))

    # -- what people do to jobs -------------------------------------------------------------------------------------

    def _live_job(self, chance: random.Random) -> JobId | None:
        reign = self._stage.reign
        if reign is None or not reign.scheduler.jobs:
            return None
        return chance.choice(sorted(reign.scheduler.jobs))

    def _cancel(self) -> None:
        chance = self._dice[Fault.CANCEL]
        job = self._live_job(chance)
        if job is not None:
            self._stage.struck(Fault.CANCEL)
            order = ev.CancelAsked(job, force=chance.random() < 0.3)
            self.insist(lambda: order, lambda answer: None if answer else self._stage.told(order))

    def _pause(self) -> None:
        chance = self._dice[Fault.PAUSE]
        job = self._live_job(chance)
        families = [("family", "tables"), ("family", "batch")]
        scopes = [("queue", ""), *families, ("provider", chance.choice(["snov", "ai", "fast"]))]
        if job is not None:
            scopes += [("job", str(job))] * 4
        if self._stage.reign is not None and self._stage.reign.scheduler.names:
            scopes.append(("teamspace", chance.choice(sorted(self._stage.reign.scheduler.names))))
        scope = chance.choice(scopes)
        pause = partial(self._pause_for, scope, chance.randint(SECOND, 2 * MINUTE))
        if chance.random() < 0.5:
            self._ambushes[Exposed.PERMIT] = pause
        else:
            pause()

    def _pause_for(self, scope: tuple[str, str], microseconds: int) -> None:
        self._stage.struck(Fault.PAUSE)
        self._set_pause(scope, paused=True)
        self._agenda.after(microseconds, WORLD, self._resume, scope)

    def _resume(self, scope: tuple[str, str]) -> None:
        self._set_pause(scope, paused=False)

    def _set_pause(self, scope: tuple[str, str], *, paused: bool) -> None:
        wish = self._paused[scope] = ev.PauseSet(*scope, paused=paused)
        if not paused:
            self._stage.asked(wish)
        said = wish

        def say() -> ev.Event:
            nonlocal said
            said = self._paused[scope]
            return said

        def heard(answer: Answer) -> None:
            if said.paused and said is self._paused[scope] and answer is None:  # and nobody has wished otherwise since
                self._stage.told(said)

        self.insist(say, heard)

    def _set_limits(self) -> None:
        chance = self._dice[Fault.LIMITS]
        self._stage.struck(Fault.LIMITS)
        self.limit(chance.choice(TEAMSPACES), chance.choice([0, 1, 1, 2, 2, 3]))
        if chance.random() < 0.3:
            self.set_capacity(chance.randint(1, 5))

    def limit(self, teamspace: str, tables: int) -> None:
        slots = {**self._stage.around.rules.default_limits.slots, Family.TABLES: tables}
        self._stage.around.limits[teamspace] = limits_of(teamspace, slots)
        self.insist(lambda: self._stage.around.limits[teamspace])

    def set_capacity(self, tables: int) -> None:
        rules = self._stage.around.rules
        self._stage.around.rules = replace(rules, capacity={**rules.capacity, Family.TABLES: tables})
        self.insist(lambda: ev.RulesSet(self._stage.around.rules))

    def calm_down(self) -> None:
        """Take back everything that holds jobs up."""
        for scope in self._paused:
            self._resume(scope)
        for teamspace in list(self._stage.around.limits):
            self.limit(teamspace, 1)
        self.set_capacity(4)
        self._release()

    def _release(self) -> None:
        """Let everything out of quarantine, again and again: what died last is judged at the next start."""
        reign = self._stage.reign
        for job in sorted(reign.scheduler.suspects) if reign is not None else ():
            order = ev.PauseSet("job", str(job), paused=False)
            self.insist(lambda order=order: order)  # type: ignore[misc]  # bound now
        self._agenda.after(MINUTE, WORLD, self._release)

    # -- misfortunes ------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        """The daemon dies, best while something is on its way to the disk, or a permit to its use."""
        moment = self._dice[Fault.CRASH].choice([None, *Exposed])
        if moment is None:
            self._kill()
        else:
            self._ambushes[moment] = self._kill

    def _kill(self) -> None:
        if self._stage.reign is not None:
            self._stage.struck(Fault.CRASH)
            self._end_reign(Fault.CRASH)

    def _end_reign(self, fault: Fault) -> None:
        reign = self._stage.reign
        assert reign is not None, "somebody dies"
        chance = self._dice[fault]
        self._stage.reign = None
        reign.end(lambda: chance.random() < 0.5)
        self._stage.around.crashed = self._stage.around.store.ran_at_crash()
        seconds = chance.choice([0.2, 0.2, 0.2, 2, 2, 2, 30, 120])
        self._agenda.after(round(seconds * SECOND), WORLD, self._stage.begin_reign)

    def taken_down(self, reign: Reign, job: JobId) -> None:
        """A job ends the daemon in which it runs."""
        if reign is self._stage.reign:
            self._stage.deadly(job)
            self._end_reign(Fault.DEADLY_JOB)
        else:
            reign.end(lambda: False)

    def exposed(self, moment: Exposed) -> None:
        """Something has just set out that a misfortune may have been waiting for."""
        do = self._ambushes.pop(moment, None)
        if do is not None and not self._stage.quiet:
            self._agenda.after(AMBUSH_MICROSECONDS, WORLD, do)

    def _freeze(self) -> None:
        """The daemon stands still, as often as not with a call just on its way."""
        if self._dice[Fault.FREEZE].random() < 0.5:
            self._ambushes[Exposed.PERMIT] = self._stop_the_clock
        else:
            self._stop_the_clock()

    def _stop_the_clock(self) -> None:
        reign = self._stage.reign
        if reign is None:
            return
        chance = self._dice[Fault.FREEZE]
        self._stage.struck(Fault.FREEZE)
        seconds = chance.choice([0.5, 0.5, 0.5, 5, 5, 5, 25, 25, 40, 40, 290, 310, 2000])
        reign.freeze(self._agenda.now + round(seconds * SECOND))

    def _take_over(self) -> None:
        """Another daemon takes over, best while the first is just about to use a permit."""
        self._ambushes[Exposed.PERMIT] = self._begin_another

    def _begin_another(self) -> None:
        reign = self._stage.reign
        if reign is None:
            return
        self._stage.struck(Fault.TAKEOVER)
        seconds = self._dice[Fault.TAKEOVER].choice([0, 3, 10, 20, 40, 600])
        if seconds:
            reign.freeze(self._agenda.now + seconds * SECOND)
        self._stage.reign = None
        self._stage.around.store.epoch += 1  # the fence falls first; then the old permits are waited out
        self._agenda.after(PERMIT_SECONDS * SECOND, WORLD, self._stage.begin_reign)

    def _step_clock(self) -> None:
        self._stage.struck(Fault.CLOCK_STEP)
        self._stage.around.wall_offset += self._dice[Fault.CLOCK_STEP].choice([-1800, -60, -1, 1, 60, 1800]) * SECOND


def limits_of(teamspace: str, slots: Mapping[Family, int | None]) -> ev.LimitsSet:
    """A teamspace's limits in force, where only its slots ever change."""
    queue_max = QUEUES_MAX.get(teamspace, QUEUE_MAX)
    return ev.LimitsSet(teamspace, Limits(slots, max_queued=queue_max, weight=WEIGHTS.get(teamspace, 1.0)))


def _only(answers: Answer) -> Receipt | Refused:
    assert isinstance(answers, list)
    (answer,) = answers
    return answer


def _payload(chance: random.Random) -> bytes:
    plan = Plan(
        provider=chance.choices(["snov", "ai", "fast"], [20, 50, 30])[0],
        leads=chance.choice([0, 1, 2, 4, 8, 12, 16, 20, 40]),
        at_once=chance.choice([1, 4, 8]),
        rests_seconds=chance.choice([0] * 12 + [120, 1500]),
        fails=chance.random() < 0.05,
    )
    return msgspec.json.encode(plan)
