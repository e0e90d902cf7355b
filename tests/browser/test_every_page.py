"""Every page is read by everybody: on a phone, in the dark, without a script, with a screen reader."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser, Page

from leadline_protocol.messages import Role
from tests.browser.accessibility import axe_violations
from tests.browser.furniture import furnished, mark_of
from tests.browser.house import House, apart
from tests.browser.layout import clipped_text, scrolled_sideways
from tests.browser.shots import shot
from tests.browser.sights import SIGHTS, Sight, Who
from tests.browser.visits import PHONE, visiting
from tests.daemon.running import Place, remove, short_folder
from tests.ports import held_port
from tests.postgres import server

# The first of them waits for the furniture.
pytestmark = [
    pytest.mark.needs("chromium-headless-shell", "bwrap"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]


FOREIGN: Final = "globex"
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


class Scene(Struct, frozen=True):
    """A furnished daemon, and those who have signed in there."""

    house: House
    things: Mapping[str, str]
    signed_in: Mapping[Who | None, Any]
    """By who it is: what their browser keeps."""

    @asynccontextmanager
    async def visit(self, browser: Browser, sight: Sight, **context: Any) -> AsyncIterator[Page]:
        """Look at a page. Raises AssertionError where it does not show what it should, or shows what it must not."""
        state = self.signed_in[sight.who]
        async with visiting(browser, self.house.origin, storage_state=state, **context) as (page, watch):
            response = await page.goto(sight.at.format_map(self.things))
            assert response is not None
            assert response.status == sight.status
            if sight.status >= 400:
                watch.take(f"status of {sight.status}")
            text = " ".join((await page.inner_text("body")).split())
            for words in sight.shows:
                assert words.format_map(self.things) in text, f"{words!r} is not in {text}"
            if sight.who != "operator":
                assert mark_of(FOREIGN) not in await page.content()
            assert await page.locator("[onclick]").count() == 0, "what somebody has written became a part of the page"
            yield page


async def layout_faults(page: Page) -> list[str]:
    return [*await scrolled_sideways(page), *await clipped_text(page)]


@pytest.fixture(scope="module")
def furnished_place() -> Iterator[Place]:
    name, folder = server().create(), short_folder()
    yield Place(server().url(name), folder)
    server().drop(name)
    remove(folder)


@asynccontextmanager
async def playing(browser: Browser, place: Place, port: int) -> AsyncIterator[Scene]:
    """A scene of two teamspaces: ann has signed in to the first."""
    async with furnished(place, port, "acme", FOREIGN) as (home, things):
        signed_in: dict[Who | None, Any] = {None: None}
        people: Sequence[tuple[Who, str | None, Role]] = (("ann", "acme", "admin"), ("operator", None, "super_admin"))
        for who, teamspace, role in people:
            context = await browser.new_context(base_url=home.origin)
            await home.sign_in(await context.new_page(), teamspace, person=who, role=role)
            signed_in[who] = await context.storage_state()
            await context.close()
        yield Scene(home, things, signed_in)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(browser: Browser, furnished_place: Place) -> AsyncIterator[Scene]:
    with held_port() as port:
        async with apart(playing(browser, furnished_place, port)) as entered:
            yield entered


@pytest.mark.parametrize("sight", SIGHTS, ids=lambda sight: sight.name)
async def test_a_page_is_read_by_everybody(browser: Browser, scene: Scene, sight: Sight) -> None:
    faults: list[str] = []
    async with scene.visit(browser, sight) as page:
        faults += [f"in a wide window: {each}" for each in await layout_faults(page)]
        for theme in THEMES:
            await page.emulate_media(color_scheme=theme)
            faults += [f"{theme}: {each}" for each in await axe_violations(page)]
            await shot(page, f"{sight.name}-{theme}")
    async with scene.visit(browser, sight, **PHONE) as page:
        faults += [f"on a phone: {each}" for each in await layout_faults(page)]
        await shot(page, f"{sight.name}-phone")
    async with scene.visit(browser, sight, java_script_enabled=False) as page:
        faults += [f"without scripts: {each}" for each in await layout_faults(page)]
    assert faults == []
