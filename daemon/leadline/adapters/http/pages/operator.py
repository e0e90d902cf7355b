"""How the daemon is, for who runs it: what needs somebody, the queue, the providers, and who has most in the queue."""

from typing import Final, Literal, cast
from uuid import UUID

import msgspec
from aiohttp import web

from leadline.adapters.http.pages import foreign
from leadline.adapters.http.pages.attention import needs
from leadline.adapters.http.pages.rendering import span
from leadline.adapters.http.pages.schedules import MARKS
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS, ErrorCode, Refused

BUSIEST: Final = 10
"""Teamspaces that the overview shows."""

PROVIDERS_SHOWN: Final = 24
"""Provider accounts that the overview shows, those that are held back first."""

DUE_SHOWN: Final = 8
"""Of the times at which schedules fire, so many are on the overview."""

DUE_ON_PAGE: Final = 200

MAILBOXES_ASKED: Final = 200
MAILBOXES_SHOWN: Final = 12
"""Mailboxes that the overview asks for, and those of them that it shows: paused ones first, then the longest lines."""

PAGE: Final = 50
"""Teamspaces or notices on one page."""

_ORDER: Final = ("parked", "paused", "throttled", "trying", "open")


def check_operator(visit: Visit) -> None:
    """For customers none of this is there. Raises Refused."""
    if not visit.is_operator:
        raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")


def check_manager(visit: Visit) -> None:
    """Who only looks on changes nothing. Raises Refused."""
    check_operator(visit)
    visit.check_may_change()


async def overview(visit: Visit) -> web.StreamResponse:
    """All that there is on one screen."""
    check_operator(visit)
    status = await visit.ask(wire.Status())
    busiest: list[wire.TeamspaceView] = []
    coming: list[wire.DueOccurrence] = []
    boxes: list[wire.AssociateView] = []
    if status.state in {"ready", "draining"} and status.database.reachable:
        busiest = (await visit.ask(wire.Teamspaces(most=True, limit=BUSIEST))).teamspaces
        coming = (await visit.ask(wire.Schedules(action="due", limit=DUE_SHOWN))).due
        boxes = (await visit.ask(wire.FollowUps(action="associates", limit=MAILBOXES_ASKED))).associates
    return visit.page(
        "operator.html",
        status=200,
        daemon=status,
        needs=needs(status, boxes),
        due=coming,
        mailboxes=sorted(boxes, key=lambda box: (box.paused is None, -box.waiting))[:MAILBOXES_SHOWN],
        marks=MARKS,
        reasons=JOB_REASONS,
        providers=by_trouble(status.providers)[:PROVIDERS_SHOWN],
        more_providers=max(0, len(status.providers) - PROVIDERS_SHOWN),
        busiest=busiest,
        queue_paused="queue" in status.paused,
        families_paused={family.family for family in status.families if f"family {family.family}" in status.paused},
        may_change=visit.may_change,
        megabytes=megabytes,
        short=short,
        in_path=in_path,
        limit_name=limit_name,
    )


async def teamspaces(visit: Visit) -> web.StreamResponse:
    """All teamspaces by name, or those whose names begin in a way."""
    check_operator(visit)
    prefix = visit.query.get("prefix", "").strip()
    found = await visit.ask(wire.Teamspaces(limit=PAGE, after=visit.query.get("after") or None, prefix=prefix or None))
    return visit.page("operator_teamspaces.html", found=found, prefix=prefix, in_path=in_path)


async def providers(visit: Visit) -> web.StreamResponse:
    """All provider accounts."""
    check_operator(visit)
    found = await visit.ask(wire.Providers())
    return visit.page(
        "operator_providers.html", providers=by_trouble(found.providers), in_path=in_path, limit_name=limit_name
    )


async def notices(visit: Visit) -> web.StreamResponse:
    """Mails and webhooks about jobs that did not reach anybody."""
    check_operator(visit)
    found = await visit.ask(wire.Notices(limit=PAGE + 1))
    notices = [
        msgspec.structs.replace(each, target=foreign.webhook(each.target)) if each.medium == "webhook" else each
        for each in found.notices[:PAGE]
    ]
    more = len(found.notices) > PAGE
    return visit.page("operator_notices.html", notices=notices, more=more, may_change=visit.may_change)


async def send_again(visit: Visit) -> web.StreamResponse:
    """Send a notice once more."""
    check_manager(visit)
    try:
        notice = UUID(visit.form.fields.get("notice", ""))
    except ValueError:
        raise Refused(ErrorCode.NOT_FOUND, "there is no such notice", at="notice") from None
    await visit.ask(wire.Notices(again=notice, limit=1))
    return visit.see("/operator/notices", said="sent_again")


async def due(visit: Visit) -> web.StreamResponse:
    """What schedules fire within a day."""
    check_operator(visit)
    found = await visit.ask(wire.Schedules(action="due", limit=DUE_ON_PAGE))
    return visit.page(
        "operator_due.html",
        due=found.due,
        full=len(found.due) == DUE_ON_PAGE,
        marks=MARKS,
        reasons=JOB_REASONS,
        in_path=in_path,
    )


async def mailboxes(visit: Visit) -> web.StreamResponse:
    """The mailboxes of all teamspaces."""
    check_operator(visit)
    found = await visit.ask(wire.FollowUps(action="associates", limit=PAGE, after=visit.number("after")))
    return visit.page("operator_mailboxes.html", mailboxes=found.associates, next=found.next)


async def pause(visit: Visit) -> web.StreamResponse:
    """Begin nothing new in the queue, a family, a teamspace or at a provider."""
    return await _set_pause(visit, wire.Pause, "paused")


async def resume(visit: Visit) -> web.StreamResponse:
    """Take a pause back."""
    return await _set_pause(visit, wire.Resume, "resumed")


async def _set_pause(visit: Visit, operation: type[wire.Pause | wire.Resume], said: str) -> web.StreamResponse:
    check_manager(visit)
    scope = visit.form.fields.get("scope", "")
    name = visit.form.fields.get("name") or None
    if scope not in {"queue", "family", "teamspace", "provider"}:
        raise Refused(ErrorCode.BAD_REQUEST, "say what is to be paused", at="scope")
    scope = cast("Literal['queue', 'family', 'teamspace', 'provider']", scope)
    if (name is None) != (scope == "queue"):
        raise Refused(ErrorCode.BAD_REQUEST, f"say which {scope}", at="name")
    await visit.ask(operation(scope=scope, name=name))
    place = f"/operator/{scope}s/{in_path(name)}" if name is not None and scope in _WITH_PAGE else "/operator"
    return visit.see(place, said=said)


_WITH_PAGE: Final = frozenset({"teamspace", "provider"})


def by_trouble(views: list[wire.ProviderView]) -> list[wire.ProviderView]:
    """Those that are held back first, then those that most calls wait for."""
    return sorted(views, key=lambda view: (_ORDER.index(view.state), -view.waiting, view.provider))


def limit_name(limit: wire.LimitView) -> str:
    """What a meter of a limit is called: `leads in any 1 min`."""
    match limit.shape:
        case "concurrent":
            return "calls at a time"
        case "daily":
            return f"{limit.unit}s a day"
        case "window":
            return f"{limit.unit}s in any {span(limit.per_seconds or 0)}"
        case "bucket":
            return f"{limit.unit}s in {span(limit.per_seconds or 0)}"


def short(seconds: float) -> str:
    """A length of time that is mostly below a second: `4 ms`, `1 min 20 s`."""
    return f"{max(1, round(seconds * 1000))} ms" if seconds < 1 else span(seconds)


def megabytes(size: int) -> str:
    """A size for people: `94 MB`."""
    return f"{size / 1_000_000:,.0f} MB"
