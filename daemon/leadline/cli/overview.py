"""What there is: `status`, `teamspaces` and `plans`; and how providers are shown."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.words import ago, clock, counted, number, pace, per, shown, size, span
from leadline_protocol.messages import (
    FamilyStatus,
    LimitView,
    Plans,
    PlanView,
    ProviderView,
    Status,
    StatusReply,
    Teamspaces,
    TeamspaceView,
)


def status(*, place: Placed, json: Json = False) -> int:
    """Tell how the daemon is; the exit status is 1 if it is not ready."""
    with control(place) as daemon:
        reply = daemon.client.call(Status())
    if json:
        terminal.json_line(reply)
    else:
        for line in status_lines(reply, terminal.now()):
            terminal.say(line)
        terminal.say()
        families(reply.families)
        if reply.providers:
            terminal.say()
            provider_list(reply.providers, terminal.now())
    return int(reply.state != "ready")


def status_lines(reply: StatusReply, now: datetime) -> Iterator[str]:
    """How the daemon is, in sentences."""
    yield (
        f"Leadline {reply.version} is {terminal.state(reply.state)}: process {reply.pid}, up for "
        f"{span(reply.uptime_seconds)}, {size(reply.memory_bytes)} of memory, "
        f"{counted(reply.connections, 'connection')}."
    )
    rate = f"{number(reply.jobs_per_second)} jobs/s ended in the last minute"
    oldest = (
        "" if reply.oldest_queued_at is None else f"; the oldest queued job came {ago(reply.oldest_queued_at, now)}"
    )
    yield f"{counted(reply.teamspaces, 'teamspace')} with jobs, {rate}{oldest}."
    if reply.start_seconds_p50 is not None and reply.start_seconds_p99 is not None:
        p50, p99 = span(reply.start_seconds_p50), span(reply.start_seconds_p99)
        yield f"In the last minutes jobs started within {p50} of their time (99 of 100 within {p99})."
    yield _database(reply)
    if reply.memory_bound is not None:
        yield f"What holds a run of a batch job to its memory: {shown(reply.memory_bound)}."
    for paused in reply.paused:
        yield f"{terminal.paint('Paused:', 'yellow')} {shown(paused)} (`leadline resume {shown(paused)}`)"
    if reply.loop_lag_seconds >= 0.1:
        yield f"{terminal.paint('Slow:', 'yellow')} its event loop was late by up to {span(reply.loop_lag_seconds)}."
    for warning in reply.warnings:
        yield f"{terminal.paint('Warning:', 'yellow')} {shown(warning.message)}"


def _database(reply: StatusReply) -> str:
    database = reply.database
    name = "Its own Postgres" if database.embedded else "The Postgres"
    if database.version:
        name += f" {shown(database.version)}"
    if not database.reachable:
        return f"{name} {terminal.paint('cannot be reached', 'red')}."
    parts = [f"{name} answers"]
    if database.size_bytes is not None:
        parts.append(size(database.size_bytes))
    if database.commit_seconds_p50 is not None and database.commit_seconds_p99 is not None:
        p50, p99 = 1000 * database.commit_seconds_p50, 1000 * database.commit_seconds_p99
        parts.append(f"a commit takes {number(p50)} ms (99 of 100 at most {number(p99)} ms)")
    if database.records_available is not None:
        parts.append(f"{number(database.records_available)} records may be written at once")
    if database.records_per_hour and database.records_last_hour is not None:
        used, budget = number(database.records_last_hour), number(database.records_per_hour)
        parts.append(f"{used} of {budget} were written in the last hour")
    return ", ".join(parts) + "."


def families(rows: list[FamilyStatus]) -> None:
    """The families and how full each is."""
    terminal.columns(
        ("FAMILY", "DELAYED", "QUEUED", "RUNNING", "STOPPING", "IN HAND", "CAPACITY"),
        [
            (
                row.family,
                number(row.delayed),
                number(row.queued),
                number(row.running),
                number(row.stopping),
                number(row.in_hand),
                "no limit" if row.capacity is None else number(row.capacity),
            )
            for row in rows
        ],
        right=("DELAYED", "QUEUED", "RUNNING", "STOPPING", "IN HAND", "CAPACITY"),
    )


def teamspaces(*, place: Placed, json: Json = False) -> None:
    """List the teamspaces and what each has in the queue."""
    if json:
        for view in _teamspaces(place):
            terminal.json_line(view)
        return
    terminal.columns(
        ("TEAMSPACE", "PLAN", "DELAYED", "QUEUED", "RUNNING", "SLOTS"),
        [
            (
                shown(view.teamspace) + (f" ({terminal.state('paused')})" if view.paused else ""),
                shown(view.plan),
                number(view.delayed),
                number(view.queued),
                number(view.running),
                ", ".join(f"{family} {slots}" for family, slots in view.slots.items()),
            )
            for view in _teamspaces(place)
        ],
        right=("DELAYED", "QUEUED", "RUNNING"),
    )


def _teamspaces(place: Placed) -> Iterator[TeamspaceView]:
    with control(place) as daemon:
        after = None
        while True:
            page = daemon.client.call(Teamspaces(limit=1000, after=after))
            yield from page.teamspaces
            after = page.next
            if after is None:
                return


def provider_list(views: list[ProviderView], now: datetime) -> None:
    """Providers, a line for each limit."""
    rows = []
    for view in views:
        names = (shown(view.provider), terminal.state(view.state), number(view.in_flight), _waiting(view))
        limits = [limit_words(limit, now) for limit in view.limits]
        if view.pace_per_second:
            limits.append(pace(view.pace_per_second))
        limits = limits or ["no limits"]
        if trouble := provider_trouble(view, now):
            limits.insert(0, trouble)
        rows.append((*names, limits[0]))
        rows.extend(("", "", "", "", limit) for limit in limits[1:])
    terminal.columns(("PROVIDER", "STATE", "IN FLIGHT", "WAITING", "LIMITS"), rows, right=("IN FLIGHT",))


def _waiting(view: ProviderView) -> str:
    if not view.waiting:
        return "none"
    turn = f", next {shown(view.next)}" if view.next is not None and view.waiting_teamspaces > 1 else ""
    return f"{counted(view.waiting, 'call')} of {counted(view.waiting_teamspaces, 'teamspace')}{turn}"


def provider_trouble(view: ProviderView, now: datetime) -> str:
    """Why a provider is not simply open, and what helps; empty where it is."""
    parts = [shown(view.message)] if view.message else []
    if view.reason is not None and not view.message:
        parts.append(view.reason.replace("_", " "))
    ends = (view.throttled_until, view.parked_until)
    parts += [f"goes on {ago(until, now)} ({clock(until, now)})" for until in ends if until is not None]
    if view.canary is not None:
        parts.append(f"call {view.canary} is out to see")
    if view.state == "paused" or (view.state == "parked" and view.parked_until is None):
        parts.append(f"`leadline resume provider {shown(view.provider)}` lets it go on")
    return "; ".join(parts)


def limit_words(limit: LimitView, now: datetime) -> str:
    """A limit and how much of it is taken: `12 of 15 leads in any 60 s, the next frees in 12 s`."""
    taken = f"{number(limit.charged)} of {counted(limit.amount, limit.unit)}"
    frees = ""
    if limit.frees_at is not None and limit.frees_at > now:
        frees = f", the next frees {ago(limit.frees_at, now)}"
    match limit.shape:
        case "concurrent":
            return f"{number(limit.charged)} of {counted(limit.amount, 'call')} at a time"
        case "daily":
            return f"{taken} a day{frees}"
        case "window":
            return f"{taken} in any {per(limit.per_seconds or 0)}{frees}"
        case "bucket":
            return (
                f"{counted(limit.amount, limit.unit)} per {per(limit.per_seconds or 0)}, {number(limit.charged)} taken"
            )


def plans(
    *,
    place: Placed,
    plan: Annotated[str | None, Parameter(help="The limits of this plan.")] = None,
    teamspace: Annotated[str | None, Parameter(help="The limits of this teamspace.")] = None,
    provider: Annotated[str | None, Parameter(help="The limits of this provider, such as snov or snov@acme.")] = None,
    set_: Annotated[
        str | None,
        Parameter(name="--set", help="Put another limit in force: KEY=VALUE, such as slots.tables=2 or lead/60s=60."),
    ] = None,
    unset: Annotated[str | None, Parameter(help="Take back what was set for this key.")] = None,
    json: Json = False,
) -> None:
    """Show the limits in force and where each comes from; or put one in force, at once and across restarts."""
    named = [each for each in (plan, teamspace, provider) if each is not None]
    if len(named) > 1:
        raise Misused("Give one of --plan, --teamspace and --provider")
    if set_ is not None and unset is not None:
        raise Misused("Give --set or --unset, not both")
    if (set_ is not None or unset is not None) and not named:
        raise Misused("Say with --plan, --teamspace or --provider whose limit to set")
    asked = Plans(plan=plan, teamspace=teamspace, provider=provider)
    if set_ is not None:
        key, equals, value = set_.partition("=")
        if not key or not equals or not value:
            raise Misused("--set takes KEY=VALUE")
        asked = replace(asked, key=key, value=_value(value))
    elif unset is not None:
        asked = replace(asked, key=unset, value=None)
    with control(place) as daemon:
        views = daemon.client.call(asked).plans
    if json:
        for view in views:
            terminal.json_line(view)
        return
    whose = ("PLAN", "TEAMSPACE") if provider is None else ("PROVIDER",)
    terminal.columns((*whose, "LIMIT", "VALUE", "FROM"), [row for view in views for row in _limits(view)])


def _limits(view: PlanView) -> Iterator[tuple[str, ...]]:
    whose = (view.plan or "", view.teamspace or "") if view.provider is None else (view.provider,)
    for limit in view.limits:
        value = "no limit" if limit.value is None else _shown_value(limit.value)
        yield *map(shown, whose), limit.key, value, limit.source


def _shown_value(value: bool | float | str | list[str]) -> str:
    return shown(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def _value(text: str) -> Any:
    """A number, a truth value or a list where it is one, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, bool | int | float | list) else text
