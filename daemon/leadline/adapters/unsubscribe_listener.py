"""The small web server to which mail programs post when a contact leaves (RFC 8058).

    POST /…/<token>   the contact leaves; as often as it is posted
    GET  /…/<token>   a page with a button that posts: what scanners and previews fetch must change nothing

What stands before the token is whatever a proxy in front of it leaves there. Nobody is asked who they are, so nothing
is told: a token that is not one of ours is not found. The body is not read, as the token says it all. Who floods it
finds it short of words: no log, small headers, connections that are closed soon.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from leadline.features.outreach.unsubscribe import Wish
from leadline.ports.store import Unavailable

HEADER_BYTES_MAX: Final = 4 * 1024
"""Of the request's line, and of each header."""
BODY_BYTES_MAX: Final = 4 * 1024
RETRY_AFTER_SECONDS: Final = 60
KEEP_SECONDS: Final = 5.0
"""How long a connection is kept for another request, and for the rest of a body that nobody reads."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Unsubscribe</title><p>{}</p></html>\n"
)
_BUTTON: Final = (
    'Do you want no more mails?</p><form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">'
    "<button>Unsubscribe</button></form><p>"
)


class _Listener:
    def __init__(self, read: Callable[[str], Wish | None], unsubscribed: Callable[[Wish], Awaitable[None]]) -> None:
        self._read = read
        self._unsubscribed = unsubscribed

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        if request.method not in ("GET", "HEAD", "POST"):
            return _page(405, "This is not how to unsubscribe.", Allow="GET, HEAD, POST")
        wish = self._read(request.path.rpartition("/")[2])
        if wish is None:
            return _page(404, "There is nothing here.")
        if request.method != "POST":
            return _page(200, _BUTTON)
        if (request.content_length or 0) > BODY_BYTES_MAX:
            return _page(413, "That is too much.")
        try:
            await self._unsubscribed(wish)
        except Unavailable:
            return _page(503, "Please try again in a minute.", **{"Retry-After": str(RETRY_AFTER_SECONDS)})
        return _page(200, "You will get no more mails.")


def _page(status: int, words: str, **headers: str) -> web.Response:
    return web.Response(
        status=status, text=_PAGE.format(words), content_type="text/html", headers={**_HEADERS, **headers}
    )


@asynccontextmanager
async def unsubscribe_listener(
    *,
    host: str = "127.0.0.1",
    port: int,
    read: Callable[[str], Wish | None],
    unsubscribed: Callable[[Wish], Awaitable[None]],
) -> AsyncIterator[int]:
    """Listen for as long as the context is open; gives the port, which the system chooses for 0.

    `read` tells what a token says. `unsubscribed` stores the wish, which may have been stored before, and raises
    Unavailable where that must be tried later. Raises OSError where the address is taken.
    """
    server = web.Server(
        _Listener(read, unsubscribed).answer,
        access_log=None,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        keepalive_timeout=KEEP_SECONDS,
        lingering_time=KEEP_SECONDS,
    )
    runner = web.ServerRunner(server, shutdown_timeout=KEEP_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        (at, *_) = runner.addresses
        yield at[1]
    finally:
        await runner.cleanup()
