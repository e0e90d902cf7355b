"""`batch invoke`, `runs` and `logs`: running a batch job, and what its runs have come to and printed.

The lines of a run are asked for, and the daemon answers when there are some: so they come as they are printed, also
over its restart. Each attempt has lines of its own.
"""

import secrets
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.batch import Name, Teamspace, saying_how_to_enable
from leadline.cli.daemon import Daemon, Failed, Misused, Placed, any_socket, control
from leadline.cli.files import conclude, tell
from leadline.cli.following import await_end, patiently
from leadline.cli.jobs import PAGE_JOBS, Flag, Json
from leadline.cli.words import clock, counted, shown, span, why_so
from leadline_protocol.errors import Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import ENDED_STATES, Batch, BatchJobs, BatchLine, BatchReply, BatchRun

WAIT_SECONDS: Final = 20.0
"""So long the daemon may wait for the next line: less than it is given to answer."""

GOOD_ENDS: Final = frozenset({"completed", "partial"})


def invoke(
    name: Name,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    body: Annotated[
        str | None, Parameter(help="The event's body: JSON, or @FILE with JSON in it; @- is standard input.")
    ] = None,
    query: Annotated[
        list[str] | None,
        Parameter(help="KEY=VALUE, one of the event's query_string_parameters; as often as needed.", negative=""),
    ] = None,
    wait: Annotated[Flag, Parameter(help="Print its lines as they come, until it has ended, and say how.")] = False,
    json: Json = False,
) -> int:
    """Run a batch job now, as a program does by submission.

    With --wait the exit status is 1 unless it has run to its end.
    """
    submission = Batch(
        teamspace=teamspace,
        idempotency_key=f"leadline-invoke-{secrets.token_hex(8)}",
        batch_job=name,
        body=None if body is None else _json_in(body),
        query_string_parameters=_parameters(query or []),
    )
    with any_socket(place) as daemon:
        with saying_how_to_enable(teamspace) if daemon.controls else nullcontext():
            receipt = daemon.client.submit(submission)
        if not wait or not daemon.controls:
            return conclude(daemon, receipt, wait=wait, json=json)
        tell(receipt, json=json)
        _print(_followed(daemon, receipt.job), json=json)
        await_end(daemon, receipt.job)
        run = _run(daemon, receipt.job)
    if json:
        terminal.json_line(run)
    else:
        for line in _verdict(run):
            terminal.say(line)
    return int(run.state not in GOOD_ENDS)


def runs(
    name: Annotated[str | None, Parameter(name="NAME", help="Only of the batch job of this name.")] = None,
    /,
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="Only of this teamspace.")] = None,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), help="So many at most.")] = 50,
    json: Json = False,
) -> None:
    """List runs, newest first, also those that were skipped, and why."""
    if limit < 1:
        raise Misused("--limit must be at least 1")
    if name is not None and teamspace is None:
        raise Misused("Say with --teamspace whose batch job that is")
    asked = BatchJobs(action="runs", teamspace=teamspace, name=name)
    found = _listed(place, asked, limit)
    if json:
        for run in found:
            terminal.json_line(run)
        return
    now = terminal.now()
    terminal.columns(
        ("RUN", "TEAMSPACE", "BATCH JOB", "STATE", "BY", "WHEN", "TOOK", "NOTE"),
        [
            (
                str(run.instance),
                shown(run.teamspace),
                shown(run.batch_job) or "(deleted)",
                terminal.state(run.state),
                shown(run.source),
                _when(run, now),
                _took(run),
                _note(run),
            )
            for run in found
        ],
        right=("RUN", "TOOK"),
    )


def logs(
    instance: Annotated[int, Parameter(name="RUN", help="The number of the run, as `runs` lists them.")],
    /,
    *,
    place: Placed,
    attempt: Annotated[
        int | None, Parameter(help="Only of this attempt: 1 is the first one, 2 its first retry [all].")
    ] = None,
    follow: Annotated[Flag, Parameter(name=("--follow", "-f"), help="Go on with what it prints from now on.")] = False,
    json: Json = False,
) -> None:
    """Print what a run has printed, each line with its time."""
    if attempt is not None and attempt < 1:
        raise Misused("--attempt must be at least 1")
    with control(place) as daemon:
        if attempt is not None:
            lines = _printed(daemon, JobId(instance), attempt - 1, follow=follow)
        elif follow:
            lines = _followed(daemon, JobId(instance))
        else:
            lines = _kept(daemon, JobId(instance))
        _print(lines, json=json)


# -- lines -------------------------------------------------------------------------------------------------------------


def _print(lines: Iterator[BatchLine], *, json: bool) -> None:
    """Print lines as they come, and say where another attempt begins."""
    attempt = 0
    for line in lines:
        if json:
            terminal.json_line(line)
            continue
        if line.retry_attempt > attempt:
            attempt = line.retry_attempt
            terminal.remark(f"Attempt {attempt + 1}:")
        terminal.say(f"{clock(line.at, terminal.now())} {shown(line.text)}")
        sys.stdout.flush()


def _kept(daemon: Daemon, instance: JobId) -> Iterator[BatchLine]:
    """The lines that a run has printed by now."""
    for attempt in _run(daemon, instance).attempts:
        yield from _printed(daemon, instance, attempt.retry_attempt, follow=False)


def _followed(daemon: Daemon, instance: JobId) -> Iterator[BatchLine]:
    """The lines of a run, of one attempt after the other, until it has ended."""
    retry_attempt = 0
    while True:
        yield from _printed(daemon, instance, retry_attempt, follow=True)
        run = _run(daemon, instance)
        newest = max((attempt.retry_attempt for attempt in run.attempts), default=-1)
        if newest < retry_attempt or (newest == retry_attempt and run.state in ENDED_STATES):
            return  # there will be no further attempt, nor was there this one
        retry_attempt += 1


def _printed(daemon: Daemon, instance: JobId, retry_attempt: int, *, follow: bool) -> Iterator[BatchLine]:
    """The lines of an attempt; those to come as well where they are followed."""
    asked = BatchJobs(
        action="logs", instance=instance, retry_attempt=retry_attempt, wait_seconds=WAIT_SECONDS if follow else 0.0
    )
    while True:
        reply = _told(daemon, asked)
        yield from reply.lines
        if reply.ended or not (follow or reply.next):
            return
        if reply.lines:
            asked = replace(asked, after=reply.lines[-1].number)


def _run(daemon: Daemon, instance: JobId) -> BatchRun:
    (run,) = _told(daemon, BatchJobs(action="runs", instance=instance)).runs
    return run


def _told(daemon: Daemon, asked: BatchJobs) -> BatchReply:
    """What the daemon says, as soon as there is one that says it."""
    while True:
        try:
            return patiently(daemon, asked)
        except Unreachable:
            terminal.remark("The daemon went away; waiting for it to come back.")


# -- runs --------------------------------------------------------------------------------------------------------------


def _listed(place: Placed, asked: BatchJobs, limit: int) -> Iterator[BatchRun]:
    with control(place) as daemon:
        while limit > 0:
            page = daemon.client.call(replace(asked, limit=min(limit, PAGE_JOBS)))
            yield from page.runs[:limit]
            limit -= len(page.runs)
            if page.next is None:
                return
            asked = replace(asked, after=page.next)


def _verdict(run: BatchRun) -> Iterator[str]:
    """How a run ended: `Run 41 failed after 3 min: ...`."""
    took = f" after {_took(run)}" if run.attempts else ""
    reason = why_so(run.state, run.message, run.reason)
    yield f"Run {run.instance} {terminal.state(run.state)}{took}{': ' if reason else ''}{reason.rstrip('.')}."
    if run.result is not None:
        yield f"It returned {shown(msgspec.json.encode(run.result).decode())}"


def _took(run: BatchRun) -> str:
    """What all attempts that have ended took."""
    seconds = [attempt.seconds for attempt in run.attempts if attempt.seconds is not None]
    return span(sum(seconds)) if seconds else ""


def _when(run: BatchRun, now: datetime) -> str:
    """When it began; of one that did not, when it was due."""
    when = run.attempts[0].began_at if run.attempts else run.due_at
    return "" if when is None else clock(when, now)


def _note(run: BatchRun) -> str:
    parts = [counted(len(run.attempts), "attempt")] if len(run.attempts) > 1 else []
    if reason := why_so(run.state, run.message, run.reason):
        parts.append(reason)
    return " · ".join(parts)


# -- the event ---------------------------------------------------------------------------------------------------------


def _json_in(text: str) -> Any:
    source = "--body"
    data = text.encode()
    if text.startswith("@"):
        source = text[1:]
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failed(f"{source} is not JSON: {error}") from error


def _parameters(options: list[str]) -> dict[str, str]:
    parameters = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise Misused(f"--query takes KEY=VALUE, not {option}")
        parameters[key] = value
    return parameters
