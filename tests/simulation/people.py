"""Those who submit, cancel, pause and set limits, and the misfortunes that strike the daemon itself.

People insist: a submission whose answer was lost is handed in again under the same key until it is answered, and a
pause that was refused for want of a daemon is repeated.
"""

import random
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import Answer, Receipt
from leadline.core.model import SECOND, Family, Limits
from leadline.core.permits import PERMIT_SECONDS
from leadline_protocol.errors import ErrorCode
from leadline_protocol.ids import JobId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.daemon import Reign, Surroundings
from tests.simulation.faults import Fault, dice
from tests.simulation.store import Plan

TEAMSPACES = tuple(f"team{number}" for number in range(8))
MINUTE = 60 * SECOND


class Stage(Protocol):
    """What people and misfortunes act upon."""

    agenda: Agenda
    around: Surroundings
    reign: Reign | None
    quiet: bool

    def acknowledged(self, key: str, receipt: Receipt) -> None: ...

    def submitted(self) -> None: ...

    def struck(self, fault: Fault) -> None: ...

    def begin_reign(self) -> None: ...


class People:
    """All of them, and bad luck."""

    def __init__(self, stage: Stage, seed: int, faults: frozenset[Fault]) -> None:
        self._stage = stage
        self._agenda = stage.agenda
        self._submit_dice = dice(seed, "people")
        self._dice = {fault: dice(seed, fault) for fault in Fault}
        self._keys = 0
        self._paused: dict[tuple[str, str], bool] = {}
        """What people want of each scope that was ever paused."""
        self._seldom(self._submit_dice, 12, self._submit)
        habits: dict[Fault, tuple[float, Callable[[], None]]] = {
            Fault.CANCEL: (60, self._cancel),
            Fault.PAUSE: (150, self._pause),
            Fault.LIMITS: (300, self._set_limits),
            Fault.CRASH: (900, self._crash),
            Fault.FREEZE: (600, self._freeze),
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

    def _hand_in(self, key: str, new: ev.NewJob) -> None:
        def heard(answers: Answer) -> None:
            assert isinstance(answers, list)
            (answer,) = answers
            if isinstance(answer, Receipt):
                self._stage.acknowledged(key, answer)
            else:
                assert answer.code is ErrorCode.QUEUE_FULL, f"a submission was refused: {answer}"

        self.insist(lambda: ev.Submitted([new]), heard)

    def _new(self, chance: random.Random, key: str) -> ev.NewJob:
        teamspace = chance.choice(TEAMSPACES)
        kind = chance.choices([0, 1, 2, 3], [20, 10, 60, 10])[0]
        steps = tuple(self._step(chance, teamspace) for _ in range(chance.randint(2, 4))) if kind == 1 else ()
        delay = chance.choice([0, 0, 0, 0, 30, 600]) * SECOND
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
            self.insist(lambda: order)

    def _pause(self) -> None:
        chance = self._dice[Fault.PAUSE]
        job = self._live_job(chance)
        scopes = [("queue", ""), ("family", "tables"), ("provider", chance.choice(["snov", "ai", "fast"]))]
        if job is not None:
            scopes += [("job", str(job))] * 4
        if self._stage.reign is not None and self._stage.reign.scheduler.names:
            scopes.append(("teamspace", chance.choice(sorted(self._stage.reign.scheduler.names))))
        scope = chance.choice(scopes)
        self._stage.struck(Fault.PAUSE)
        self._set_pause(scope, paused=True)
        self._agenda.after(chance.randint(SECOND, 5 * MINUTE), WORLD, self._resume, scope)

    def _resume(self, scope: tuple[str, str]) -> None:
        self._set_pause(scope, paused=False)

    def _set_pause(self, scope: tuple[str, str], *, paused: bool) -> None:
        self._paused[scope] = paused
        self.insist(lambda: ev.PauseSet(*scope, paused=self._paused[scope]))

    def _set_limits(self) -> None:
        chance = self._dice[Fault.LIMITS]
        self._stage.struck(Fault.LIMITS)
        self.limit(chance.choice(TEAMSPACES), chance.randint(0, 3))
        if chance.random() < 0.3:
            self.set_capacity(chance.randint(1, 5))

    def limit(self, teamspace: str, tables: int) -> None:
        slots = {**self._stage.around.rules.default_limits.slots, Family.TABLES: tables}
        self._stage.around.limits[teamspace] = ev.LimitsSet(teamspace, Limits(slots, max_queued=60))
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

    # -- misfortunes ------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        reign = self._stage.reign
        if reign is None:
            return
        chance = self._dice[Fault.CRASH]
        self._stage.struck(Fault.CRASH)
        self._stage.reign = None
        reign.end(lambda: chance.random() < 0.5)
        seconds = chance.choice([0.2, 2, 30, 300])
        self._agenda.after(round(seconds * SECOND), WORLD, self._stage.begin_reign)

    def _freeze(self) -> None:
        reign = self._stage.reign
        if reign is None:
            return
        chance = self._dice[Fault.FREEZE]
        self._stage.struck(Fault.FREEZE)
        seconds = chance.choice([0.5, 5, 25, 40, 290, 310, 2000])
        reign.freeze(self._agenda.now + round(seconds * SECOND))

    def _take_over(self, tries: int = 2000) -> None:
        """Another daemon takes over, best while the first is just about to use a permit."""
        reign = self._stage.reign
        if reign is None or self._stage.quiet:
            return
        if tries and not any(actor.handed for actor in reign.actors.values()):
            self._agenda.after(1000, WORLD, self._take_over, tries - 1)
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


def _payload(chance: random.Random) -> bytes:
    plan = Plan(
        provider=chance.choices(["snov", "ai", "fast"], [20, 50, 30])[0],
        leads=chance.choice([0, 1, 2, 5, 10, 10, 20, 40]),
        at_once=chance.choice([1, 4, 8]),
        rests_seconds=chance.choice([0] * 12 + [120, 1500]),
        fails=chance.random() < 0.05,
    )
    return msgspec.json.encode(plan)
