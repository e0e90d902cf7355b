"""Somebody at a browser, and what went wrong there while they used it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, WebError

WINDOW = {"width": 1280, "height": 800}
PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}
"""The narrowest that is promised; a page that does not say it fits a phone is laid out wider there."""

PATIENCE_MS = 60_000
"""So long a page may take to show what is waited for: a page asks for itself again at most every four seconds, and a
machine may be busy."""

ABORTED = "net::ERR_ABORTED"
"""The browser itself gave up: it went to another page, or saves what came instead of showing it."""


class Watch:
    """Gathers what a browser complains of, from its first request on.

    A violation of the content security policy and a response of 400 or more are errors on the console.
    """

    def __init__(self, origin: str) -> None:
        self.faults: list[str] = []
        self._origin = origin

    def over(self, context: BrowserContext) -> None:
        """Listen to all pages of a context."""
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("request", self._request)
        context.on("requestfailed", self._failed)

    def take(self, pattern: str) -> None:
        """Expect a fault, and have it count no more. Raises AssertionError where there was none."""
        rest = [fault for fault in self.faults if not re.search(pattern, fault)]
        assert len(rest) < len(self.faults), f"nothing like {pattern!r} in {self.faults}"
        self.faults = rest

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            where = message.location.get("url", "")
            self.faults.append(f"console: {message.text} ({where})")

    def _error(self, error: WebError) -> None:
        self.faults.append(f"script: {error.error}")

    def _request(self, request: Request) -> None:
        scheme = request.url.partition(":")[0]
        if scheme in {"http", "https", "ws", "wss"} and not request.url.startswith(f"{self._origin}/"):
            self.faults.append(f"elsewhere: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != ABORTED:
            self.faults.append(f"failed: {request.url} {request.failure}")


@asynccontextmanager
async def visiting(browser: Browser, origin: str, **context_: Any) -> AsyncIterator[tuple[Page, Watch]]:
    """A page of a browser that nobody has used before, and what it complains of.

    Raises AssertionError at the end where it complained; where the block failed by itself, this stands in its notes.
    """
    options = {"base_url": origin, "viewport": WINDOW, "reduced_motion": "reduce", **context_}
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    watch = Watch(origin)
    watch.over(context)
    try:
        yield await context.new_page(), watch
    except BaseException as error:
        for fault in watch.faults:
            error.add_note(fault)
        raise
    finally:
        await context.close()
    assert not watch.faults, watch.faults
