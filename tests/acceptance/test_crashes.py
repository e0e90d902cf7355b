"""Whatever is killed and whenever, the work goes on by itself, and the provider's own log shows what it cost.

The oracle is outside of the daemon: what the provider wrote down, and what comes out of the table in the end. A call
may be repeated only where it was on its way when the daemon was killed, and no window of the provider's limit may hold
more than it allows, across all the restarts.
"""

import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import LeadlineError
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, openai, people, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Fault, line_of, score_of
from tests.world.log import Call, read_clocks
from tests.world.servers import Served
from tests.world.windows import worst_window

KILLS: Final = 20
KILLS_WHILE_STARTING: Final = 4
UNSTORED_KILLS: Final = 4
"""After so many a result is waited for: a job that has none for ten kills is quarantined, and a slow machine may not
have stored one when each kill comes."""
LEADS: Final = 150
WINDOW_CALLS: Final = 15
WINDOW_SECONDS: Final = 1.0
SCORE_MIN: Final = 7
TASKS: Final = ("score", "personalise")
"""What the steps ask, as the model's log names it."""

Question = tuple[str, str]
"""An address, and what was asked about it."""

STORED_WITHIN_US: Final = SECOND // 2
"""What was answered so shortly before a kill may not have been stored by then."""

STORED_AT_LAST_US: Final = 5 * SECOND
"""The same where the machine is busy and what is stored is looked at besides."""

FLIGHT_US: Final = 5 * SECOND
"""So long after it has left a request may arrive, as the daemon is told: on one machine nothing travels longer, but
what has arrived is noted when it is read, and a busy machine may take its time for that. Every kill costs the calls in
flight so much."""

CALLS_LEFT: Final = 5 * WINDOW_CALLS
"""So many are to come at the last kill: on a busy machine it may be seconds late, and must not find the work done."""

LIMITED: Final = [
    f'limits = [{{ shape = "window", amount = {WINDOW_CALLS}, per_seconds = {WINDOW_SECONDS}, unit = "request" }}]',
    f"flight_seconds = {FLIGHT_US / SECOND}",
]


def chain(teamspace: str) -> wire.Chain:
    """Score everybody, then write a line for the best."""
    score = wire.EnrichStep(
        table="people",
        module="ai_prompt",
        into={"score": "number"},
        params={"prompt": "Score this lead, only the number: {{email}}"},
    )
    line = wire.EnrichStep(
        table="people",
        module="ai_prompt",
        into={"line": "text"},
        params={"prompt": "Personalise a line for {{email}}"},
        where=f"score >= {SCORE_MIN}",
    )
    return wire.Chain(teamspace=teamspace, steps=[score, line])


def slow_ai(world: World, *faults: Fault) -> Served:
    """A model that takes a moment, and that would tell of no limit."""
    faulty = behaviours.Faulty(behaviours.ChatCompletions(), faults)
    return world.serve(behaviours.Delayed(faulty, median_us=SECOND // 12, seed=6), name="ai")


def repeated_without_need(
    calls: Sequence[Call], kills_us: Sequence[int], *, stored_within_us: int = STORED_WITHIN_US
) -> list[Call]:
    """The calls whose lead had been asked about before by a call that no kill interrupted, not even on its way."""
    by_question: dict[tuple[str | None, object], list[Call]] = defaultdict(list)
    for call in calls:
        by_question[call.lead, call.notes.get("task")].append(call)
    found = []
    for asked in by_question.values():
        for before, again in pairwise(asked):
            ended_us = before.ended_us or again.arrived_us
            cut = (kill for kill in kills_us if before.arrived_us - FLIGHT_US <= kill <= again.arrived_us)
            if not any(ended_us >= kill - stored_within_us for kill in cut):
                found.append(again)
    return found


STORED: Final = """
SELECT job, data ->> 'email' FROM lead JOIN lead_done ON block = id >> 10 WHERE get_bit(leads, (id & 1023)::int) = 1
AND job = ANY ($1)
UNION ALL SELECT job, data ->> 'email' FROM lead_result JOIN lead ON id = lead WHERE job = ANY ($1)
"""


def stored(daemon: Stage, steps: Sequence[JobId]) -> tuple[int, set[Question]]:
    """What the database holds the answers to, and a moment at which all of them were in it: the clock comes second."""
    held = {(email, TASKS[steps.index(job)]) for job, email in daemon.query(STORED, steps)}
    return read_clocks().instant, held


def asked_though_stored(calls: Sequence[Call], stored_us: Sequence[tuple[int, set[Question]]]) -> list[Call]:
    """The calls that were made although their answers were in the database, as it was looked at before, and when."""
    return [
        call
        for at_us, questions in stored_us
        for call in calls
        if call.arrived_us > at_us and (call.lead, call.notes.get("task")) in questions
    ]


def expected(emails: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What the table must hold in the end."""
    return {email: (str(score_of(email)), line_of(email) if score_of(email) >= SCORE_MIN else "") for email in emails}


def in_table(daemon: Stage, teamspace: str) -> dict[str, tuple[str, str]]:
    return {row["email"]: (row["score"], row["line"]) for row in daemon.rows(teamspace, "people")}


@pytest.mark.timeout(240)
def test_a_chain_survives_twenty_kills_at_random_moments_and_repeats_only_what_was_on_its_way(world: World) -> None:
    seed = random.SystemRandom().getrandbits(32) if os.environ.get("LEADLINE_SEED") is None else 0
    seed = int(os.environ.get("LEADLINE_SEED", seed))
    print(f"LEADLINE_SEED={seed}")
    chance = random.Random(seed)
    ai = slow_ai(world)
    emails = [str(person["email"]) for person in people(LEADS)]
    questions = LEADS + sum(score_of(email) >= SCORE_MIN for email in emails)
    moments = sorted(chance.sample(range(1, questions - CALLS_LEFT), KILLS - KILLS_WHILE_STARTING))
    starting = set(chance.sample(range(len(moments)), KILLS_WHILE_STARTING))
    kills_us: list[int] = []
    with stage(openai(ai, settings=LIMITED)) as daemon:
        daemon.table("acme", "people", people(LEADS))
        receipt = daemon.submit(chain("acme"))
        held: list[tuple[int, set[Question]]] = []
        settled = 0
        for number, moment in enumerate(moments):
            world.until(ai, lambda calls, moment=moment: len(calls) >= moment)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.2))
            if number % UNSTORED_KILLS == 0:
                more = daemon.until(receipt.job, lambda view, known=settled: view.counts.done > known)  # type: ignore[misc]
                settled = more.counts.done
            held.append(stored(daemon, receipt.steps))
            daemon.kill()
            kills_us.append(read_clocks().instant)
            if number in starting:
                daemon.kill_while_starting(chance.uniform(0.0, 2.0))
                kills_us.append(read_clocks().instant)
            daemon.start()
            assert daemon.view(receipt.job).state not in wire.ENDED_STATES, "killed too late to show anything"
        view = daemon.ended(receipt.job)
        assert len(kills_us) == KILLS
        assert view.state == "completed"
        assert (view.counts.total, view.counts.done) == (questions, questions)
        assert in_table(daemon, "acme") == expected(emails)
        assert any(questions for _, questions in held), "nothing was stored before any kill: this has shown nothing"
        assert asked_though_stored(ai.calls, held) == []
        assert repeated_without_need(ai.calls, kills_us, stored_within_us=STORED_AT_LAST_US) == []
        assert len(ai.calls) > questions, "no kill hit a call: this has shown nothing"
        assert worst_window([call.arrived_us for call in ai.calls], WINDOW_SECONDS) <= WINDOW_CALLS


def test_the_oracle_sees_a_lead_that_is_asked_about_again_without_need(world: World) -> None:
    """The control: results are made to be forgotten, as a daemon that answers before it commits would forget them."""
    leads = people(40)
    ai = slow_ai(world, Fault(behaviours.hang(), str(leads[-1]["email"])))  # the job is not over before the kill
    with stage(openai(ai, settings=LIMITED)) as daemon:
        daemon.table("acme", "people", leads)
        steps = daemon.submit(chain("acme")).steps
        daemon.until(steps[0], lambda view: view.counts.done >= 2 * WINDOW_CALLS)
        held = [stored(daemon, steps)]
        forget_results(daemon, steps[0])
        kill_us = read_clocks().instant
        daemon.kill()
        daemon.start()
        world.until(ai, lambda calls: asked_though_stored(calls, held) != [])
        world.until(ai, lambda calls: repeated_without_need(calls, [kill_us]) != [])


def test_the_oracle_sees_a_limit_that_is_not_kept(world: World) -> None:
    """The control: the same work under a limit that is set too high."""
    ai = slow_ai(world)
    with stage(openai(ai)) as daemon:
        daemon.table("acme", "people", people(40))
        daemon.ended(daemon.submit(chain("acme")).job)
        assert worst_window([call.arrived_us for call in ai.calls], WINDOW_SECONDS) > WINDOW_CALLS


def forget_results(daemon: Stage, job: JobId) -> None:
    daemon.query("DELETE FROM lead_result WHERE job = $1", job)
    daemon.query("DELETE FROM lead_done WHERE job = $1", job)


class Submitter(threading.Thread):
    """Hands in noops one after the other, and keeps the receipts."""

    def __init__(self, daemon: Stage) -> None:
        super().__init__(name="submitter")
        self._daemon = daemon
        self._over = threading.Event()
        self.enough = threading.Event()
        """Set from the hundredth receipt on."""
        self.acknowledged: list[JobId] = []
        self.refused: list[LeadlineError] = []

    def run(self) -> None:
        """Until told to stop."""
        with self._daemon.blocking_client(timeout_seconds=60) as client:
            while not self._over.is_set():
                try:
                    self.acknowledged.append(client.submit(wire.Noop(teamspace="loud")).job)
                    if len(self.acknowledged) == 100:
                        self.enough.set()
                except LeadlineError as error:
                    self.refused.append(error)
                self._over.wait(0.005)

    def stop(self) -> None:
        """Hand in no more."""
        self._over.set()
        self.join()


def test_no_acknowledged_job_is_lost_when_postgres_is_killed(world: World) -> None:
    ai = slow_ai(world)
    emails = [str(person["email"]) for person in people(60)]
    with stage(openai(ai, settings=LIMITED)) as daemon:
        daemon.table("acme", "people", people(60))
        submitter = Submitter(daemon)
        submitter.start()
        receipt = daemon.submit(chain("acme"))
        kills_us = []
        try:
            for moment in (10, 35, 70):
                world.until(ai, lambda calls, moment=moment: len(calls) >= moment)  # type: ignore[misc]
                kills_us.append(read_clocks().instant)
                os.kill(daemon.postmaster(), signal.SIGKILL)
            world.until(ai, lambda calls: len(calls) >= 75)
            assert submitter.enough.wait(60)
        finally:
            submitter.stop()
        daemon_pid = daemon.pid
        view = daemon.ended(receipt.job)
        assert view.state == "completed"
        assert in_table(daemon, "acme") == expected(emails)
        assert worst_window([call.arrived_us for call in ai.calls], WINDOW_SECONDS) <= WINDOW_CALLS
        assert len(set(submitter.acknowledged)) == len(submitter.acknowledged)
        for job in submitter.acknowledged:
            assert daemon.ended(job).state == "completed"
        assert daemon.pid == daemon_pid, "the daemon itself goes on"
        daemon.kill()
        daemon.start()
        for job in submitter.acknowledged:
            assert daemon.view(job).state == "completed"
