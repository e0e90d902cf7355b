"""A browser of Debian's, which finds nothing but this machine.

It is Chromium without its windows: the same engine with less than half the work, and what Playwright itself takes where
nobody looks on.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

FLAGS = (
    "--disable-gpu",
    # What a page would fetch elsewhere fails at once, and the same on every machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
)
"""Playwright adds what keeps a browser from asking its maker for updates, and gives each start a folder of its own."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser for as long as the context is open. It starts in about a second."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell"),
            args=FLAGS,
            # Its sandbox refuses to work for root; what is looked at here is our own.
            chromium_sandbox=False,
        )
        try:
            yield browser
        finally:
            await browser.close()
