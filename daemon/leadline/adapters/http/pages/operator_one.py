"""One teamspace and one provider account, as who runs the daemon sees them."""

from aiohttp import web

from leadline.adapters.http.pages import limits
from leadline.adapters.http.pages.operator import check_operator, limit_name
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused


async def teamspace(visit: Visit) -> web.StreamResponse:
    """What a teamspace has in the queue, and its limits in force."""
    check_operator(visit)
    (name,) = visit.values
    (plan,) = (await visit.ask(wire.Plans(teamspace=name))).plans
    found = (await visit.ask(wire.Teamspaces(prefix=name, limit=1))).teamspaces
    known = next((each for each in found if each.teamspace == name), None)
    return visit.page(
        "operator_teamspace.html",
        name=name,
        known=known,
        plan=plan.plan,
        limits=plan.limits,
        owner=limits.Owner(name, None),
        may_change=visit.may_change,
        shown=limits.shown,
        in_path=in_path,
    )


async def provider(visit: Visit) -> web.StreamResponse:
    """How a provider account is, who waits for it, and its limits in force."""
    check_operator(visit)
    (name,) = visit.values
    (view,) = (await visit.ask(wire.Providers(name=name))).providers
    return visit.page(
        "operator_provider.html",
        view=view,
        limits=await _limits(visit, name),
        owner=limits.Owner(None, name),
        may_change=visit.may_change,
        shown=limits.shown,
        in_path=in_path,
        limit_name=limit_name,
    )


async def _limits(visit: Visit, name: str) -> list[wire.PlanLimit] | None:
    """None of our own database, and of an account that is configured no more: nothing is set live there."""
    try:
        return list(await limits.of(visit, limits.Owner(None, name)))
    except Refused as no:
        if no.code is not ErrorCode.UNKNOWN_PROVIDER:
            raise
        return None
