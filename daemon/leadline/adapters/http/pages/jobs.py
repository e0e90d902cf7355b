"""The jobs of a teamspace, and of one of its tables."""

from aiohttp import web

from leadline.adapters.http.pages.visit import Visit
from leadline_protocol import messages as wire


async def of_teamspace(visit: Visit) -> web.StreamResponse:
    """All jobs of a teamspace."""
    listed = await visit.ask(wire.Jobs(teamspace=visit.teamspace))
    return visit.page("jobs.html", jobs=listed.jobs)
