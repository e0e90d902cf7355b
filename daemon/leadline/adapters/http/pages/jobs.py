"""The jobs of a teamspace, and of one of its tables; and what is done about one of them."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

from aiohttp import web

from leadline.adapters.http.pages import cards
from leadline.adapters.http.pages.typed import whole
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

STATES: Final[Mapping[str, tuple[wire.State, ...]]] = {
    "running": ("running", "stopping"),
    "waiting": ("queued",),
    "scheduled": ("delayed",),
    "ended": get_args(wire.EndedState),
    "to come": ("queued", "delayed"),
}
"""Lists of jobs, by the states that they are in; but for the last one each can be shown by itself."""

TOGETHER: Final = ("to come", "running", "ended")
"""What is asked for to show all of them, in the order of a job's life: one that goes on meanwhile is in two lists, of
which the later holds, and never in none."""

LIMITS: Final = {"running": 50, "ended": 20}
LIMIT: Final = 40
"""How many stand on one page."""

EXPLAINED_MAX: Final = 20
"""Jobs of each list that all is said of why they wait; more than that nobody reads."""

STORIES_MAX: Final = 5
"""Jobs that have stood still of which is told what became of it."""


async def of_teamspace(visit: Visit) -> web.StreamResponse:
    """All jobs of a teamspace; for an operator who has chosen none, of all of them."""
    return await _page(visit, visit.teamspace, None)


async def of_table(visit: Visit) -> web.StreamResponse:
    """The jobs of one table."""
    teamspace, (table,) = visit.certain_teamspace, visit.values
    return await _page(visit, teamspace, table)


async def _page(visit: Visit, teamspace: str | None, table: str | None) -> web.StreamResponse:
    only, state = (visit.query.get(name) or None for name in ("show", "state"))
    asked = _asked(only, state, teamspace, table, visit.number("before") or None)
    replies = {name: await visit.ask(question) for name, question in asked.items()}
    seen = {job.job: job for reply in replies.values() for job in reply.jobs}
    steps = {step.job: step for reply in replies.values() for step in reply.steps}
    stories = await _stories(visit, [*seen.values(), *steps.values()])
    sections: dict[str, list[cards.Card]] = {section: [] for section in cards.SECTIONS}
    for card in cards.cards(list(seen.values()), list(steps.values()), stories, datetime.now(UTC)):
        sections[card.section].append(card)
    for section in ("waiting", "scheduled"):
        sections[section].sort(key=cards.turn)
    return visit.page(
        "jobs.html",
        sections=sections,
        following={name: reply.next for name, reply in replies.items()},
        table=table,
        state=state,
        states=STATES["ended"],
        only=only,
        is_later="before" in visit.query,
        path="/jobs" if table is None else f"/t/{in_path(table)}/jobs",
    )


def _asked(
    only: str | None, state: str | None, teamspace: str | None, table: str | None, before: int | None
) -> dict[str, wire.Jobs]:
    """What to ask for the lists on the page. Raises Refused."""
    if only is not None and only not in cards.SECTIONS:
        raise Refused(ErrorCode.NOT_FOUND, "there is no such list of jobs", at="show")
    if state is not None and state not in STATES["ended"]:
        raise Refused(ErrorCode.NOT_FOUND, "there is no such state in which jobs end", at="state")
    asked = {}
    for name in TOGETHER if only is None else (only,):
        asked[name] = wire.Jobs(
            teamspace=teamspace,
            table=table,
            nested=True,
            states=[state] if name == "ended" and state is not None else list(STATES[name]),
            limit=LIMITS.get(name, LIMIT),
            explained=0 if name == "ended" else EXPLAINED_MAX,
            before=None if only is None or before is None else JobId(before),
        )
    return asked


async def _stories(visit: Visit, jobs: Sequence[wire.JobView]) -> dict[JobId, Sequence[wire.HistoryEntry]]:
    """What has become of jobs that stand still, or have been started more than once."""
    odd = [job.job for job in jobs if job.state not in wire.ENDED_STATES and (job.stalled or job.attempt > 1)]
    replies = await asyncio.gather(*(visit.ask(wire.History(job=job)) for job in odd[:STORIES_MAX]))
    return {reply.job: reply.history for reply in replies}


# -- what is done about a job ------------------------------------------------------------------------------------------


async def cancel(visit: Visit) -> web.StreamResponse:
    """Have a job end; with `force` without waiting for answers that are under way."""
    await visit.ask(wire.Cancel(job=visit.job(), force="force" in visit.form.fields))
    return _back(visit, "cancelled")


async def pause(visit: Visit) -> web.StreamResponse:
    """Have a job begin nothing new."""
    await visit.ask(wire.Pause(scope="job", name=visit.job()))
    return _back(visit, "paused")


async def resume(visit: Visit) -> web.StreamResponse:
    """Let a job go on that somebody has paused, a guard holds, or that took the daemon down."""
    await visit.ask(wire.Resume(scope="job", name=visit.job()))
    return _back(visit, "resumed")


async def rerun(visit: Visit) -> web.StreamResponse:
    """Run a job that has ended again, or a part of it; of a chain from one of its steps on."""
    leads, step = (visit.form.fields.get(name) for name in ("leads", "from_step"))
    wanted: dict[str, Any] = {"leads": leads} if leads else {}
    if step:
        wanted["from_step"] = whole(step, "from_step")
    receipt = await visit.ask(wire.Rerun(job=visit.job(), **wanted))
    return _back(visit, "submitted", receipt.job)


async def file(visit: Visit) -> web.StreamResponse:
    """The file that an export has written."""
    return await visit.reach.give_job_file(visit.caller, visit.http, visit.job())


def _back(visit: Visit, said: str, job: JobId | None = None) -> web.Response:
    """The page of jobs that the form stood on; else that of the job, or of the one that was made."""
    back = visit.form.fields.get("back", "")
    return visit.see(back if cards.is_page_of_jobs(back) else f"/jobs/{job or visit.values[0]}", said=said)
