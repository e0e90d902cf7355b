"""Changing what goes on: `cancel`, `rerun`, `pause` and `resume`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed, control
from leadline.cli.files import Wait, conclude
from leadline.cli.jobs import Flag, JobNumber, Json
from leadline.cli.words import outcome, shown, title
from leadline_protocol.ids import JobId
from leadline_protocol.messages import ENDED_STATES, Cancel, Done, Job, JobView, Pause, Rerun, Resume, Scope


def cancel(
    id_: JobNumber,
    /,
    *,
    place: Placed,
    force: Annotated[Flag, Parameter(help="Cut calls in flight too; answers that come later are refused.")] = False,
    dry_run: Annotated[Flag, Parameter(help="Only say what would happen.")] = False,
) -> None:
    """End a job: it begins nothing more, and what it has done stays."""
    job = JobId(id_)
    with control(place) as daemon:
        if dry_run:
            terminal.say(_would_cancel(daemon.client.call(Job(job=job)).view, force=force))
            return
        changed = daemon.client.call(Cancel(job=job, force=force))
    if changed.state in ENDED_STATES:
        terminal.say(f"Job {changed.job} is {terminal.state(changed.state)}.")
    else:
        ends = "ends at once" if force else "ends when its calls in flight have"
        hint = "" if force else "; with --force it ends at once"
        terminal.say(
            f"Job {changed.job} is {terminal.state(changed.state)}: it begins nothing more, and {ends}. "
            f"`leadline watch {changed.job}` waits for that{hint}."
        )


def _would_cancel(view: JobView, *, force: bool) -> str:
    name = f"job {view.job} ({title(view)}, {view.shown})"
    if view.state in ENDED_STATES:
        return f"Nothing would happen: {name} has ended."
    if view.state in ("queued", "delayed"):
        return f"This would end {name} at once: it has not started."
    flight = "calls in flight would be cut and late answers refused" if force else "calls in flight could finish"
    counts = f"; {outcome(view.counts)}, and what is done stays" if view.counts.total else ""
    return f"This would end {name}: {flight}{counts}."


def rerun(
    id_: JobNumber,
    /,
    *,
    place: Placed,
    leads: Annotated[
        Literal["unfinished", "failed", "all"],
        Parameter(help="Over which leads of the job: `unfinished` are all that are neither done nor skipped."),
    ] = "unfinished",
    from_step: Annotated[
        int | None, Parameter(help="Of a chain: the step to begin with; otherwise the first that is not finished.")
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> int:
    """Submit a job that has ended again, as a new job over its unfinished leads, its failed ones, or all."""
    if from_step is not None and from_step < 1:
        raise Misused("--from-step counts from 1")
    with control(place) as daemon:
        receipt = daemon.client.call(Rerun(job=JobId(id_), leads=leads, from_step=from_step))
        return conclude(daemon, receipt, wait=wait, json=json)


Where = Annotated[Scope, Parameter(help="What: the queue, or one family, teamspace, provider or job.")]
Name = Annotated[str | None, Parameter(help="Which: its name, or the number of the job.")]


def pause(scope: Where, name: Name = None, /, *, place: Placed) -> None:
    """Begin nothing new there until it is resumed; calls in flight finish."""
    target = _target(scope, name)
    with control(place) as daemon:
        done = daemon.client.call(Pause(scope=scope, name=target))
    what = " ".join(filter(None, (scope, name)))
    _say_done(done, f"Paused: {shown(what)}. Nothing new begins there until `leadline resume {shown(what)}`.")


def resume(scope: Where, name: Name = None, /, *, place: Placed) -> None:
    """Let go on what was paused, and a job that a guard holds."""
    target = _target(scope, name)
    with control(place) as daemon:
        done = daemon.client.call(Resume(scope=scope, name=target))
    _say_done(done, f"Resumed: {shown(' '.join(filter(None, (scope, name))))}.")


def _target(scope: Scope, name: str | None) -> str | JobId | None:
    """The name as the operation wants it."""
    if scope == "queue":
        if name is not None:
            raise Misused("The queue has no name")
        return None
    if name is None:
        raise Misused(f"Name the {scope}")
    if scope != "job":
        return name
    if not (name.isascii() and name.isdecimal()):
        raise Misused(f"The name of a job is its number, not {name!r}")
    return JobId(int(name))


def _say_done(done: Done, otherwise: str) -> None:
    terminal.say(shown(done.message) if done.message else otherwise)
