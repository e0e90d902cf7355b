"""A browser for the tests of a module, which share a loop with it."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.chromium import chromium
from tests.browser.visits import PATIENCE_MS
from tests.daemon.conftest import place  # noqa: F401
from tests.postgres import database  # noqa: F401

expect.set_options(timeout=PATIENCE_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started
