"""Every page, in one table: its address, and what answers it."""

from typing import Final

from msgspec import Struct

from leadline.adapters.http.pages import home, jobs
from leadline.adapters.http.pages.visit import Handler


class Page(Struct, frozen=True):
    """One method at one address: GET shows something, POST takes a form."""

    method: str
    path: str
    """A name in braces is one of the visit's values."""
    handler: Handler


PAGES: Final[tuple[Page, ...]] = (
    Page("GET", "/", home.home),
    # jobs
    Page("GET", "/jobs", jobs.of_teamspace),
    # one job
    # tables
    # the operator's
    # batch jobs and schedules
    # outreach
)
