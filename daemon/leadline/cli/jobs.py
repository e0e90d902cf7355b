"""Looking at jobs: `jobs`, `job` and `why`."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import FileOrDash, Misused, Placed, any_socket, control
from leadline.cli.words import (
    ago,
    clock,
    counted,
    errors_sentence,
    expected,
    note,
    number,
    outcome,
    percent,
    progress,
    seconds_between,
    settled,
    shown,
    span,
    title,
    wait_sentence,
    why_so,
)
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    ENDED_STATES,
    Family,
    Get,
    History,
    HistoryEntry,
    Job,
    JobReply,
    Jobs,
    JobView,
    ListView,
    Spent,
    State,
    Why,
    WhyReply,
)

HASH_CHARACTERS = 8
"""So much of a hash tells lists apart for the eye."""

PAGE_JOBS = 1000
"""As many as one reply holds."""

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Json = Annotated[Flag, Parameter(name="--json", help="One JSON object a line, times in RFC 3339.")]


def jobs(
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="Only jobs of this teamspace.")] = None,
    table: Annotated[str | None, Parameter(help="Only jobs on tables of this name.")] = None,
    state: Annotated[State | None, Parameter(help="Only jobs in this state.")] = None,
    family: Annotated[Family | None, Parameter(help="Only jobs of this family.")] = None,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), help="So many at most.")] = 50,
    before: Annotated[int | None, Parameter(help="Only jobs older than the one of this number.")] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    if limit < 1:
        raise Misused("--limit must be at least 1")
    asked = Jobs(
        teamspace=teamspace, table=table, state=state, family=family, before=None if before is None else JobId(before)
    )
    now = terminal.now()
    if json:
        for view in _listed(place, asked, limit):
            terminal.json_line(view)
        return
    views = list(_listed(place, asked, limit))
    terminal.columns(
        ("JOB", "KIND", "TEAMSPACE", "TABLE", "STATE", "LEADS", "SUBMITTED", "NOTE"),
        [
            (
                str(view.job),
                view.kind,
                shown(view.teamspace),
                shown(view.table or ""),
                terminal.state(view.shown),
                progress(view.counts),
                clock(view.submitted_at, now),
                note(view, now),
            )
            for view in views
        ],
        right=("JOB",),
    )
    if len(views) == limit and terminal.is_terminal(sys.stdout):
        terminal.remark(f"Older ones: leadline jobs --before {views[-1].job}")


def _listed(place: Placed, asked: Jobs, limit: int) -> Iterator[JobView]:
    from msgspec.structs import replace

    with control(place) as daemon:
        before = asked.before
        while limit > 0:
            page = daemon.client.call(replace(asked, limit=min(limit, PAGE_JOBS), before=before))
            yield from page.jobs[:limit]
            limit -= len(page.jobs)
            before = page.next
            if before is None:
                return


JobNumber = Annotated[int, Parameter(name="ID", help="The number of the job, as its receipt says.")]


def job(
    id_: JobNumber,
    /,
    *,
    place: Placed,
    history: Annotated[
        Flag, Parameter(help="Also how it came to where it is; as JSON, the entries of that alone.")
    ] = False,
    refused: Annotated[
        Flag, Parameter(help="Instead, as CSV to be repaired, the rows of an upload that were not taken, and why.")
    ] = False,
    not_done: Annotated[
        Flag, Parameter(help="Instead, as CSV, the leads that it is through with and has not done, and why.")
    ] = False,
    output: Annotated[
        FileOrDash | None,
        Parameter(name=("--output", "-o"), help="Put those rows or leads into this file; - for standard output."),
    ] = None,
    json: Json = False,
) -> None:
    """Show one job: how far it is, what it waits for, what was submitted."""
    wanted = [name for name, given in (("history", history), ("refused", refused), ("not-done", not_done)) if given]
    if len(wanted) > 1:
        raise Misused("Give one of --history, --refused and --not-done")
    if output is not None and (json or history or not wanted):
        raise Misused("--output goes with --refused or --not-done, and is CSV")
    job_id = JobId(id_)
    with any_socket(place) as daemon:
        if wanted and not daemon.controls:
            raise Misused(f"--{wanted[0]} takes the control socket, which you may not open")
        if refused or not_done:
            from leadline.cli import job_rows

            rows = job_rows.refused(daemon, job_id) if refused else job_rows.not_done(daemon, job_id)
            if output is None or str(output) == "-":
                job_rows.show(rows, json=json)
            else:
                job_rows.save(rows, output)
            return
        reply = daemon.client.call(Job(job=job_id) if daemon.controls else Get(job=job_id))
        story = daemon.client.call(History(job=job_id)).history if history else []
    if json and history:
        for entry in story:
            terminal.json_line(entry)
        return
    if json:
        terminal.json_line(_as_one_object(reply))
        return
    now = terminal.now()
    _show_job(reply.view, reply.spent, now)
    for errors in reply.errors:
        step = f"Job {errors.job}: " if errors.job != reply.view.job else ""
        terminal.say(f"  {step}{errors_sentence(errors)}")
    if reply.errors and reply.view.kind != "chain":
        option = "--refused" if reply.view.kind == "upload" else "--not-done"
        terminal.say(f"  `leadline job {job_id} {option}` lists them.")
    if reply.steps:
        terminal.say()
        _show_steps(reply.steps, now)
    if reply.submission is not None:
        terminal.say()
        terminal.say("Submitted as")
        terminal.say(_indented(reply.submission))
    if history:
        terminal.say()
        _show_history(story, now)


def _as_one_object(reply: JobReply) -> dict[str, Any]:
    """The view of a job with what was submitted in it, and of a chain its steps."""
    job: dict[str, Any] = msgspec.to_builtins(reply.view, builtin_types=(datetime,))
    if reply.steps:
        job["steps"] = msgspec.to_builtins(reply.steps, builtin_types=(datetime,))
    if reply.submission is not None:
        job["submission"] = reply.submission
    if reply.spent:
        job["spent"] = reply.spent
    if reply.errors:
        job["errors"] = reply.errors
    if reply.throughput:
        job["throughput"] = reply.throughput
    return job


def _show_job(view: JobView, spent: Sequence[Spent], now: datetime) -> None:
    state = terminal.state(view.shown) + (f", {terminal.paint('STALLED', 'red')}" if view.stalled else "")
    tries = f", attempt {view.attempt}" if view.attempt > 1 else ""
    terminal.say(f"{terminal.paint(f'Job {view.job}', 'bold')}: {title(view)}, {state}{tries}")
    told = {wait.message for wait in view.waits}
    if view.message not in told and (reason := why_so(view.state, view.message, view.reason)):
        terminal.say(f"  {reason}")
    if view.counts.total:
        done = percent(settled(view.counts), view.counts.total)
        rate = f", {number(view.leads_per_second)} leads/s" if view.leads_per_second else ""
        terminal.say(f"  {outcome(view.counts)} ({done}{rate})")
    if view.ends is not None:
        terminal.say(f"  It is expected to end {expected(view.ends, now)}.")
    if spent:
        terminal.say(f"  {_cost(spent)}")
    if view.activity:
        terminal.say(f"  {shown(view.activity)}")
    for wait in view.waits:
        terminal.say(f"  {terminal.paint('Waits:', 'yellow')} {wait_sentence(wait, now)}")
    for warning in view.warnings:
        terminal.warn(shown(warning.message))
    terminal.say(f"  {_times(view, now)}")
    if view.chain is not None:
        terminal.say(f"  It is step {view.step} of the chain {view.chain}.")
    if view.frozen_list is not None:
        terminal.say(f"  {_list_sentence(view.frozen_list, now)}")
    if view.steps:
        terminal.say(f"  Its steps are the jobs {', '.join(map(str, view.steps))}.")
    if view.rerun_of is not None:
        terminal.say(f"  It is a rerun of job {view.rerun_of}.")
    if view.priority_seconds:
        terminal.say(f"  It goes ahead of jobs submitted up to {span(view.priority_seconds)} earlier.")


def _list_sentence(frozen: ListView, now: datetime) -> str:
    where = "" if frozen.where is None else f" where {shown(frozen.where)}"
    when = "when it was submitted" if frozen.select_leads == "on_submit" else "when its turn came"
    leads = counted(frozen.leads, "lead")
    return f"Its list: {leads}{where}, frozen {when} ({clock(frozen.at, now)}, {frozen.hash[:HASH_CHARACTERS]})."


def _show_steps(steps: list[JobView], now: datetime) -> None:
    """The steps of a chain, each with the receipt of its list."""
    terminal.columns(
        ("STEP", "JOB", "KIND", "TABLE", "STATE", "LEADS", "LIST", "FROZEN", "WHERE", "NOTE"),
        [
            (
                str(view.step),
                str(view.job),
                view.kind,
                shown(view.table or ""),
                terminal.state(view.shown),
                progress(view.counts),
                "" if view.frozen_list is None else view.frozen_list.hash[:HASH_CHARACTERS],
                "" if view.frozen_list is None else clock(view.frozen_list.at, now),
                "" if view.frozen_list is None else shown(view.frozen_list.where or ""),
                note(msgspec.structs.replace(view, chain=None), now),
            )
            for view in steps
        ],
        right=("STEP", "JOB"),
    )


def _cost(spent: Sequence[Spent]) -> str:
    """What it has cost, in a sentence."""
    total = sum((each.credits for each in spent), Decimal(0))
    parts = [f"{shown(each.provider)} {each.credits:f}" for each in spent if each.credits]
    whose = f": {', '.join(parts)}" if len(parts) > 1 else f" at {shown(spent[0].provider)}" if parts else ""
    perhaps = sum((each.perhaps or Decimal(0) for each in spent), Decimal(0))
    besides = f"; perhaps {perhaps:f} more, for calls of which nobody learnt how they ended" if perhaps else ""
    return f"It has cost {total:f} {'credit' if total == 1 else 'credits'}{whose}{besides}."


def _times(view: JobView, now: datetime) -> str:
    parts = [f"Submitted {clock(view.submitted_at, now)}"]
    if view.state == "delayed" and view.run_at is not None:
        parts.append(f"to run at {clock(view.run_at, now)} ({ago(view.run_at, now)})")
    if view.started_at is not None:
        due = max(view.submitted_at, view.run_at or view.submitted_at)
        waited = seconds_between(due, view.started_at)
        parts.append(f"started after {span(waited)}" if waited else "started at once")
        if view.ended_at is not None:
            parts.append(
                f"ended {clock(view.ended_at, now)}, {span(seconds_between(view.started_at, view.ended_at))} later"
            )
        else:
            parts.append(f"runs for {span(seconds_between(view.started_at, now))}")
    elif view.ended_at is not None:
        parts.append(f"ended {clock(view.ended_at, now)} without having started")
    return ", ".join(parts) + "."


def _indented(submission: object) -> str:
    text = msgspec.json.format(msgspec.json.encode(submission), indent=2).decode()
    return "\n".join(f"  {shown(line)}" for line in text.splitlines())


def _show_history(story: list[HistoryEntry], now: datetime) -> None:
    rows = []
    for entry in story:
        details = ", ".join(str(value) if key == "message" else f"{key} {value}" for key, value in entry.detail.items())
        rows.append((clock(entry.at, now), entry.event, shown(details)))
    terminal.columns(("WHEN", "WHAT", "DETAILS"), rows)


def why(id_: JobNumber, /, *, place: Placed, json: Json = False) -> None:
    """Tell all that a job waits for, with numbers, and when it is expected to start."""
    with control(place) as daemon:
        reply = daemon.client.call(Why(job=JobId(id_)))
        view = daemon.client.call(Job(job=JobId(id_))).view
    if json:
        terminal.json_line(reply)
        return
    for line in _reasons(view, reply, terminal.now()):
        terminal.say(line)


def _reasons(view: JobView, reply: WhyReply, now: datetime) -> Iterator[str]:
    name = f"Job {view.job} ({title(view)})"
    if view.state in ENDED_STATES:
        reason = why_so(view.state, view.message, view.reason)
        how = f": {reason.rstrip('.')}" if reason else ""
        when = "" if view.ended_at is None else f" at {clock(view.ended_at, now)}"
        yield f"{name} waits for nothing: it ended {view.state}{when}{how}."
        return
    state = "is running" if view.state == "running" else f"is {view.state}"
    if view.stalled:
        state += " and stalled"
    if reply.blockers:
        things = "one thing" if len(reply.blockers) == 1 else f"{len(reply.blockers)} things"
        yield f"{name} {state} and waits for {things}:"
        for blocker in reply.blockers:
            yield f"  • {wait_sentence(blocker, now)}"
    elif view.state == "running":
        yield f"{name} {state}; nothing holds it back."
    else:
        yield f"{name} {state}; nothing but its place in the queue holds it back."
    if view.started_at is None or view.state == "queued":
        if reply.jobs_ahead:
            yield f"{counted(reply.jobs_ahead, 'job')} run{'s' if reply.jobs_ahead == 1 else ''} before it."
        else:
            yield "No job runs before it."
        if reply.eta is None:
            yield "Nobody knows when it will start."
        else:
            yield f"It is expected to start {expected(reply.eta, now)}."
