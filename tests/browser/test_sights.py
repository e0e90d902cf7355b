"""The table of what is looked at leaves no page out."""

from leadline.adapters.http.pages.directory import PAGES
from tests.browser.sights import NO_PAGES, SIGHTS


def test_every_page_is_looked_at() -> None:
    pages = {page.path for page in PAGES if page.method == "GET"}
    seen = {sight.address for sight in SIGHTS if sight.address is not None}
    assert seen | NO_PAGES == pages
    assert not seen & NO_PAGES


def test_every_sight_has_a_name_of_its_own() -> None:
    names = [sight.name for sight in SIGHTS]
    assert len(set(names)) == len(names)
