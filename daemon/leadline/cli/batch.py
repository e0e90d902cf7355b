"""`batch`: a teamspace's own Python as jobs, from a draft to one that is published.

Beside what is here, `batch_code` sees to the code of a batch job, and `batch_runs` to its runs. Whatever changes a
batch job says what is to be done next, as long as it cannot run.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from cyclopts import App, Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.daemon import Failed, Misused, Place, Placed, control
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import clock, counted, number, shown, size, span
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import BatchDay, BatchJobs, BatchReply, BatchVersion, BatchView

batch = App(name="batch", help="Your own Python as jobs: create, upload, publish and run batch jobs.")

Name = Annotated[str, Parameter(name="NAME", help="The name of the batch job.")]
Teamspace = Annotated[str, Parameter(help="The teamspace that it belongs to.")]

_ELSEWHERE: Final = (
    ("pack", "batch_code:pack", "Pack a folder into a zip, and say whether it can be run: nothing in it is, now."),
    ("upload", "batch_code:upload", "Upload code, from a folder or a zip."),
    ("download", "batch_code:download", "Have code back as it was uploaded once."),
    ("invoke", "batch_runs:invoke", "Run a batch job now."),
    ("runs", "batch_runs:runs", "List runs, newest first."),
    ("logs", "batch_runs:logs", "Print what a run has printed."),
)

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a batch job is to be set to, as far as the command line says."""

    timeout: Annotated[str | None, Parameter(help="End an attempt after so long, such as 90s, 10m or 2h.")] = None
    retries: Annotated[int | None, Parameter(help="Try so often again, from the beginning, when it has failed.")] = None
    retry_timeouts: Annotated[bool | None, Parameter(help="Try again also when an attempt took too long.")] = None
    api: Annotated[bool | None, Parameter(help="Let it be run by submission, as `invoke` does.")] = None
    stall_after: Annotated[
        str | None,
        Parameter(help="End an attempt that has printed nothing, and reported no progress, for so long; or off."),
    ] = None
    interpreter: Annotated[
        str | None, Parameter(help="The Python that runs it, of those configured; empty: the machine's own.")
    ] = None
    mail_success: Annotated[
        list[str] | None,
        Parameter(help="Who has the mails of success that the code sends; as often as needed, or off.", negative=""),
    ] = None
    mail_failure: Annotated[
        list[str] | None, Parameter(help="Who has its mails of failure; as often as needed, or off.", negative="")
    ] = None
    setting: Annotated[
        list[str] | None, Parameter(help="NAME=VALUE, for the code to read; as often as needed.", negative="")
    ] = None
    secret: Annotated[
        list[str] | None,
        Parameter(
            help="NAME of a setting that is never shown: its value is asked for, or read from standard input.",
            negative="",
        ),
    ] = None


@batch.command(name="list")
def listing(
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="Only this teamspace.")] = None,
    json: Json = False,
) -> None:
    """List batch jobs; those of one teamspace with what they have used of the day."""
    views: list[BatchView] = []
    day = None
    asked = BatchJobs(teamspace=teamspace)
    with control(place) as daemon:
        while True:
            page = daemon.client.call(asked)
            views += page.batch_jobs
            day = page.day
            if page.next is None:
                break
            asked = replace(asked, after=page.next)
    if json:
        for view in views:
            terminal.json_line(view)
        return
    terminal.columns(
        ("TEAMSPACE", "BATCH JOB", "STATE", "VERSION", "TIMEOUT", "RETRIES", "RUN BY"),
        [
            (
                shown(view.teamspace),
                shown(view.name),
                terminal.state(view.state),
                str(view.version or ""),
                span(view.timeout_seconds),
                str(view.retries),
                shown(", ".join(_starters(view))),
            )
            for view in views
        ],
        right=("VERSION", "TIMEOUT", "RETRIES"),
    )
    if day is not None:
        terminal.say(f"{_used(day, terminal.now())}.")


@batch.command
def describe(name: Name, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Show a batch job: how it is run, its settings, and each version of its code."""
    _show(told(place, BatchJobs(action="describe", teamspace=teamspace, name=name)), json=json)


@batch.command
def create(
    name: Name, /, *, place: Placed, teamspace: Teamspace, wanted: Wanted = Wanted(), json: Json = False
) -> None:
    """Make a batch job. It is a draft, without code, until that is uploaded and it is published."""
    reply = told(place, _setting(BatchJobs(action="create", teamspace=teamspace, name=name), wanted))
    conclude(reply, f"{shown(teamspace)} has a batch job {shown(name)} now: a draft.", json=json)


@batch.command(name="set")
def change(
    name: Name,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    wanted: Wanted = Wanted(),
    unset: Annotated[
        list[str] | None, Parameter(help="NAME of a setting, or secret, to be taken away.", negative="")
    ] = None,
    json: Json = False,
) -> None:
    """Change how a batch job is run, and what its code finds as settings."""
    unchanged = BatchJobs(action="set", teamspace=teamspace, name=name)
    asked = _setting(unchanged, wanted, unset or [])
    if asked == unchanged:
        raise Misused("say what to set: --timeout, --api, --setting or another option")
    _show(told(place, asked), json=json)


@batch.command
def publish(name: Name, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Let a batch job run: by its schedules, and by submission where it may be run so."""
    reply = told(place, BatchJobs(action="publish", teamspace=teamspace, name=name))
    (view,) = reply.batch_jobs
    conclude(reply, f"{shown(name)} is published. {_run_by(view)}", json=json)


@batch.command
def unpublish(name: Name, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Have a batch job run no more, until it is published again; what runs goes on."""
    reply = told(place, BatchJobs(action="unpublish", teamspace=teamspace, name=name))
    conclude(reply, f"{shown(name)} is unpublished: it does not start any more.", json=json)


@batch.command
def delete(
    name: Name,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    yes: Annotated[Flag, Parameter(help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete a batch job with its code, its settings and its schedules. What has become of its runs stays."""
    if not yes:
        what = f"the batch job {shown(name)} of {shown(teamspace)} with its code, settings and schedules"
        _confirm(f"Delete {what}? It cannot be had back.")
    reply = told(place, BatchJobs(action="delete", teamspace=teamspace, name=name))
    if json:
        terminal.json_line(reply)
        return
    terminal.say(f"{shown(name)} is deleted.")
    _warn(reply)


for _name, _target, _help in _ELSEWHERE:
    batch.command(f"leadline.cli.{_target}", name=_name, help=_help)


def told(place: Place, asked: BatchJobs) -> BatchReply:
    """What the daemon says to that."""
    with control(place) as daemon, saying_how_to_enable(asked.teamspace):
        return daemon.client.call(asked)


@contextmanager
def saying_how_to_enable(teamspace: str | None) -> Iterator[None]:
    """Tell whoever controls the daemon, to whom all else is allowed, what it takes that this is, too. Raises Failed."""
    try:
        yield
    except Refused as refused:
        if refused.code is not ErrorCode.FORBIDDEN:
            raise
        how = f"leadline plans --teamspace {shlex.quote(teamspace or '')} --set batch.enabled=true"
        raise Failed(f"{refused}; `{how}` enables them") from refused


def conclude(reply: BatchReply, sentence: str, *, json: bool) -> None:
    """Tell what was done to one batch job, with warnings, and what is to be done next."""
    if json:
        terminal.json_line(reply)
        return
    terminal.say(sentence)
    _warn(reply)
    if step := _next_step(reply.batch_jobs[0]):
        terminal.say(f"Next: {shown(step)}")


def _next_step(view: BatchView) -> str:
    """The command that brings a batch job nearer to a run; empty where its schedules see to that."""
    name, teamspace = shlex.quote(view.name), f"--teamspace {shlex.quote(view.teamspace)}"
    if not view.version:
        return f"leadline batch upload {name} FOLDER {teamspace}"
    if not _starters(view):
        return f"leadline batch set {name} --api {teamspace}, or a schedule that runs it: leadline schedule add --help"
    if view.state != "published":
        return f"leadline batch publish {name} {teamspace}"
    return f"leadline batch invoke {name} {teamspace} --wait" if view.api else ""


def _show(reply: BatchReply, *, json: bool) -> None:
    if json:
        terminal.json_line(reply)
        return
    (view,) = reply.batch_jobs
    now = terminal.now()
    for line in _described(view, reply.day, now):
        terminal.say(line)
    _warn(reply)
    if view.settings or view.secrets:
        terminal.say()
        known = [(shown(name), shown(value)) for name, value in view.settings.items()]
        terminal.columns(("SETTING", "VALUE"), [*known, *((shown(name), "(secret)") for name in view.secrets)])
    if view.versions:
        terminal.say()
        _show_versions(view.versions, now)
    if step := _next_step(view):
        terminal.say()
        terminal.say(f"Next: {shown(step)}")


def _described(view: BatchView, day: BatchDay | None, now: datetime) -> Iterator[str]:
    code = f"version {view.version}" if view.version else "no code yet"
    yield f"Batch job {shown(view.name)} of {shown(view.teamspace)}: {terminal.state(view.state)}, {code}."
    yield f"  {_run_by(view)}"
    yield f"  An attempt is ended after {span(view.timeout_seconds)}; {_retried(view)}."
    if view.stall_after_seconds is not None:
        yield f"  It is ended when it has been silent for {span(view.stall_after_seconds)}."
    if view.interpreter is not None:
        yield f"  It is run by the Python {shown(view.interpreter)}."
    for kind, addresses in (("success", view.mail_success), ("failure", view.mail_failure)):
        if addresses:
            yield f"  Its mails of {kind} go to {shown(', '.join(addresses))}."
    if day is not None:
        yield f"  The batch jobs of {shown(view.teamspace)} today: {_used(day, now)}."


def _retried(view: BatchView) -> str:
    if not view.retries:
        return "it is not tried again"
    which = "failed or took too long" if view.retry_timeouts else "failed, but not when it took too long"
    return f"it is tried {counted(view.retries, 'time')} more when it has {which}"


def _starters(view: BatchView) -> list[str]:
    """What starts it: its schedules by name, and the API."""
    return [*view.schedules, *(["API"] if view.api else [])]


def _run_by(view: BatchView) -> str:
    starters = _starters(view)
    return f"It is run by: {shown(', '.join(starters))}." if starters else "Nothing runs it: no schedule, and no API."


def _used(day: BatchDay, now: datetime) -> str:
    minutes = f"{number(day.seconds / 60)} of {number(day.seconds_max / 60)} minutes"
    ends = f"the day ends at {day.ends_at.astimezone(now.tzinfo):%H:%M}"
    return f"{number(day.executions)} of {number(day.executions_max)} executions, {minutes} used; {ends}"


def _show_versions(versions: Iterable[BatchVersion], now: datetime) -> None:
    terminal.columns(
        ("VERSION", "UPLOADED", "SIZE", "FILES", "SHA-256"),
        [
            (
                str(version.version),
                clock(version.uploaded_at, now),
                size(version.size_bytes),
                number(version.files),
                shown(version.sha256),
            )
            for version in versions
        ],
        right=("VERSION", "SIZE", "FILES"),
    )


def _warn(reply: BatchReply) -> None:
    for warning in reply.warnings:
        terminal.warn(shown(warning.message))


# -- what is to be set -------------------------------------------------------------------------------------------------


def _setting(asked: BatchJobs, wanted: Wanted, unset: Iterable[str] = ()) -> BatchJobs:
    """The request with all that is wanted; secrets are read now."""
    settings: dict[str, str | None] = {}
    for option in wanted.setting or []:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise Misused(f"--setting takes NAME=VALUE, not {option}")
        settings[name] = value
    settings |= dict.fromkeys(unset)
    secrets = wanted.secret or []
    if both := set(secrets) & set(settings):
        raise Misused(f"{min(both)} is given twice")
    return replace(
        asked,
        api=wanted.api,
        timeout_seconds=None if wanted.timeout is None else _seconds(wanted.timeout, "--timeout"),
        retries=wanted.retries,
        retry_timeouts=wanted.retry_timeouts,
        stall_after_seconds=_stall_after(wanted.stall_after),
        interpreter=wanted.interpreter,
        mail_success=_addresses(wanted.mail_success),
        mail_failure=_addresses(wanted.mail_failure),
        settings=settings,
        secrets=_values_of(secrets),
    )


def _addresses(texts: list[str] | None) -> list[str] | None:
    """None: they stay as they are; none: nobody."""
    return [] if texts == ["off"] else texts


def _stall_after(text: str | None) -> int | None:
    """None: it stays as it is; 0: it may be silent."""
    if text is None:
        return None
    return 0 if text == "off" else _seconds(text, "--stall-after")


def _seconds(text: str, option: str) -> int:
    parts = re.findall(r"(\d+)([smhd])", text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise Misused(f"{option} takes a duration such as 90s, 10m or 1h30m, not {text}")
    return sum(int(amount) * _SECONDS[unit] for amount, unit in parts)


def _values_of(names: list[str]) -> dict[str, str]:
    """The value of each secret, from a person who is asked, or from whoever writes into the pipe."""
    if not sys.stdin.isatty():
        if len(names) > 1:
            raise Misused("standard input holds one secret: give one --secret at a time")
        return {name: _checked(name, _piped()) for name in names}
    from getpass import getpass

    try:
        return {name: _checked(name, getpass(f"{shown(name)}: ")) for name in names}
    except EOFError as error:
        raise Failed("no secret was given: nothing was set") from error


def _piped() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise Failed(f"The secret is no text in UTF-8: {error}") from error


def _checked(name: str, value: str) -> str:
    if not value:
        raise Failed(f"The secret {name} is empty: nothing was set")
    return value


def _confirm(question: str) -> None:
    """Go on only where a person says so. Raises Failed where she does not."""
    if not sys.stdin.isatty():
        raise Misused("nobody can be asked here: say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failed("nothing was deleted")
