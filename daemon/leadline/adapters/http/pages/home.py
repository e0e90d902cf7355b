"""Where somebody comes in."""

from aiohttp import web

from leadline.adapters.http.pages.visit import Visit


async def home(visit: Visit) -> web.StreamResponse:
    """The first page that there is for whoever has signed in."""
    return visit.see("/operator" if visit.is_operator else "/jobs")
