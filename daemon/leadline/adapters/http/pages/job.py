"""One job: all that is known of it, and what a run of a batch job prints while it prints it."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages import cards, foreign
from leadline.adapters.http.pages.refused_rows import reason_words
from leadline.adapters.http.pages.timeline import timeline
from leadline.adapters.http.pages.visit import Visit
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

NEWEST_HAPPENINGS: Final = 20
"""So much of a job's story is open; what was before is behind a summary."""

LINES_SHOWN: Final = 200
"""Lines on one page."""

POINTS_MIN: Final = 4
"""Of a plot."""

NEWS_SECONDS: Final = 20.0
"""So long a question for new lines waits for one: less than proxies do."""


class StepRow(Struct, frozen=True):
    """A step of a chain."""

    card: cards.Card
    rules: Sequence[str]
    """When it runs at all."""


class Pace(Struct, frozen=True):
    """How far a job was at one time, and how fast it had become that much."""

    at: datetime
    done: int
    per_minute: float


class Lines(Struct, frozen=True):
    """Lines that an attempt of a run has printed, in their order."""

    attempt: int
    """0 for the first."""
    lines: Sequence[wire.BatchLine]
    older: int | None
    """There are lines in front of this one."""
    newer: int | None
    """There are lines behind this one."""
    ended: bool
    """There will be no more of the whole run."""

    @property
    def last(self) -> int:
        """The number of the last of them; 0: there are none."""
        return self.lines[-1].number if self.lines else 0


async def one(visit: Visit) -> web.StreamResponse:
    """The page of a job."""
    told = await visit.ask(wire.Job(job=visit.job()))
    view = told.view
    why, story = await asyncio.gather(visit.ask(wire.Why(job=view.job)), visit.ask(wire.History(job=view.job)))
    run, lines = await _run(visit, view) if view.kind == "batch" else (None, None)
    now = datetime.now(UTC)
    seen = msgspec.structs.replace(view, waits=why.blockers, jobs_ahead=why.jobs_ahead, eta=why.eta)
    submission = told.submission or {}
    steps = [cards.card(step, (), now) for step in told.steps]
    card = cards.card(seen, story.history, now)
    happenings = timeline(view, story.history)
    return visit.page(
        "job.html",
        card=card,
        steps=step_rows(submission, steps),
        rules=rules(submission),
        pace=pace_of(told.throughput),
        errors=told.errors,
        reason_words=reason_words,
        spent=told.spent,
        run=run,
        result=None if run is None or run.result is None else _shown_json(run.result),
        lines=lines,
        happenings=happenings[-NEWEST_HAPPENINGS:],
        earlier=happenings[:-NEWEST_HAPPENINGS],
        submission=foreign.submitted(submission) if submission else None,
    )


def step_rows(submission: Mapping[str, Any], steps: Sequence[cards.Card]) -> Sequence[StepRow]:
    """The steps of a chain, each with what its chain says of when it runs."""
    said = submission.get("steps", [])
    return [StepRow(step, rules(said[place] if place < len(said) else {})) for place, step in enumerate(steps)]


def rules(work: Mapping[str, Any]) -> Sequence[str]:
    """When a job or a step runs, and over which leads, as its submission says."""
    said = []
    if when := work.get("when"):
        if states := when.get("ended"):
            said.append(f"Runs only if the step before it has ended {' or '.join(states)}.")
        if (least := when.get("done_at_least")) is not None:
            said.append(f"Runs only if the step before it has done at least {least:,}.")
        if (most := when.get("failed_at_most")) is not None:
            few = "nothing" if most == 0 else f"no more than {most:,}"
            said.append(f"Runs only if {few} failed in the step before it.")
    if work.get("empty", "run") != "run":
        said.append(f"If no lead matches, it is {_GUARDED[work['empty']]}.")
    if more := work.get("more_than"):
        said.append(f"If more than {more['count']:,} match, it is {_GUARDED[more['then']]}.")
    if work.get("run_if"):
        said.append(f"Leads are left out for which this is not true when their turn comes: {work['run_if']}")
    if first := work.get("first"):
        said.append(f"A test run: the first {first:,} leads only.")
    if (cap := work.get("spend_cap")) is not None:
        said.append(f"It may spend {cap:,} credits; leads for which none are left are skipped.")
    if work.get("kind") == "chain":
        goes_on = work.get("on_failure", "stop") == "continue"
        said.append("If a step fails, the later ones " + ("run nevertheless." if goes_on else "are skipped."))
    return said


_GUARDED: Final = {"skip": "skipped", "hold": "held until somebody lets it go on", "run": "run all the same"}


def pace_of(points: Sequence[wire.ThroughputPoint]) -> Sequence[Pace]:
    """How fast a job was, up to each of its points; empty where these are too few to show that it was now faster."""
    if len(points) < POINTS_MIN or not points[-1].done:
        return ()
    return [
        Pace(point.at, point.done, 60 * (point.done - before.done) / seconds)
        for before, point in pairwise(points)
        if (seconds := (point.at - before.at).total_seconds()) > 0
    ]


def _shown_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


# -- runs of batch jobs ------------------------------------------------------------------------------------------------


async def _run(visit: Visit, view: wire.JobView) -> tuple[wire.BatchRun | None, Lines | None]:
    """A run with the last lines of one of its attempts; None: it is not there, or not any more."""
    try:
        reply = await visit.ask(wire.BatchJobs(action="runs", teamspace=view.teamspace, instance=view.job))
        (run,) = reply.runs
        return run, await _last_lines(visit, run, 0)
    except Refused as no:
        if no.code is not ErrorCode.NOT_FOUND:
            raise
        return None, None


async def _last_lines(visit: Visit, run: wire.BatchRun, before: int) -> Lines:
    attempt = visit.number("attempt", _newest(run))
    asked = wire.BatchJobs(
        action="logs",
        teamspace=run.teamspace,
        instance=run.instance,
        retry_attempt=attempt,
        before=before,
        limit=LINES_SHOWN,
    )
    reply = await visit.ask(asked)
    newer = reply.lines[-1].number if before and reply.lines else None
    return Lines(attempt, reply.lines, reply.next, newer, reply.ended and _is_last(run, attempt))


async def log(visit: Visit) -> web.StreamResponse:
    """What a run has printed, page by page."""
    told = await visit.ask(wire.Job(job=visit.job()))
    reply = await visit.ask(wire.BatchJobs(action="runs", teamspace=told.view.teamspace, instance=told.view.job))
    (run,) = reply.runs
    after = visit.number("after")
    if after:
        lines = await _lines_behind(visit, run, after)
    else:
        lines = await _last_lines(visit, run, visit.number("before"))
    return visit.page("job_log.html", job=told.view, run=run, lines=lines)


async def _lines_behind(visit: Visit, run: wire.BatchRun, after: int) -> Lines:
    attempt = visit.number("attempt", _newest(run))
    reply = await visit.ask(
        wire.BatchJobs(
            action="logs",
            teamspace=run.teamspace,
            instance=run.instance,
            retry_attempt=attempt,
            after=after,
            limit=LINES_SHOWN,
        )
    )
    older = reply.lines[0].number if reply.lines else after + 1
    return Lines(attempt, reply.lines, older, reply.next, reply.ended and _is_last(run, attempt))


async def news(visit: Visit) -> web.StreamResponse:
    """The lines that a run prints next, as a piece of the page; behind the end of an attempt those of the next one."""
    attempt, after = visit.number("attempt"), visit.number("after")
    asked = wire.BatchJobs(
        action="logs",
        instance=visit.job(),
        teamspace=visit.teamspace,
        retry_attempt=attempt,
        after=after,
        wait_seconds=NEWS_SECONDS,
        limit=LINES_SHOWN,
    )
    reply = await visit.ask(asked)
    ended = False
    if reply.ended and not reply.lines:
        (run,) = (
            await visit.ask(wire.BatchJobs(action="runs", instance=asked.instance, teamspace=asked.teamspace))
        ).runs
        ended = run.state in wire.ENDED_STATES and _is_last(run, attempt)
        if not ended:
            attempt += 1
            reply = await visit.ask(msgspec.structs.replace(asked, retry_attempt=attempt, after=0))
            after = 0
    lines = Lines(attempt, reply.lines, None, None, ended)
    return visit.page("job_lines.html", job=asked.instance, lines=lines, after=after)


def _newest(run: wire.BatchRun) -> int:
    return max((attempt.retry_attempt for attempt in run.attempts), default=0)


def _is_last(run: wire.BatchRun, attempt: int) -> bool:
    """Whether no attempt comes behind one that has ended."""
    return run.state in wire.ENDED_STATES and attempt >= _newest(run)
