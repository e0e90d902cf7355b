"""A lead whose answer is a long list: its pages are read one after the other, and then it is one answer.

A page is a call like any other, with a permit and a cost of its own. What the module's columns select from is made of
all of them: `items`, the list in full, and `first`, the first answer as it came. Pages end where an answer names no
next one, and in any case after `pages_max`, or when there are more items than anybody reads.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from leadline.core.events import CallEnd
from leadline.core.model import Now
from leadline.core.rate_limit import Cost
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint, Heard, ModuleAsker
from leadline.features.tables.columns import Cells, Column, JsonValue
from leadline.features.tables.lead_course import Ask, Course, Turn
from leadline.features.tables.provider_modules import PAGE, PagedList, ProviderModule
from leadline.features.tables.requests import Access
from leadline.ports.provider_client import Request, Response

ITEMS_MAX: Final = 10_000
"""What is behind so many items of a list is not read."""


def paging_of(module: ProviderModule) -> PagedList | None:
    """How the answers of a module are paged; None where they are not."""
    return None if module.response is None else module.response.paging


class PagedAsker(ModuleAsker):
    """Asks a provider that answers in pages."""

    def __init__(
        self,
        endpoint: Endpoint,
        values: Cells,
        into: tuple[Column, ...],
        outputs: Mapping[str, str],
        course: Course,
        **more: Any,
    ) -> None:
        paging = paging_of(endpoint.module)
        assert endpoint.module.response is not None, "a module with pages has a response"
        assert paging is not None, "only answers in pages are asked for so"
        whole = replace(endpoint.module, response=replace(endpoint.module.response, paging=None))
        super().__init__(replace(endpoint, module=whole), values, into, outputs, course, **more)
        self._paged = endpoint.module
        self._paging: Final = paging
        self._first: object = None
        self._items: list[JsonValue] = []
        self._pages = 0

    def request(self, ask: Ask, access: Access, call_id: str) -> Request:
        """The request for the first page, or for the one that the turn names."""
        first = "" if self._paging.count is None else str(self._paging.first)
        self._values = {**self._values, PAGE: first if ask.page is None else ask.page}
        return super().request(ask, access, call_id)

    def cost(self, ask: Ask) -> Cost:
        """What a request takes: a lead with its first page."""
        return self._paging.cost if ask.what == "read" else super().cost(ask)

    def hear(self, ask: Ask, response: Response, course: Course, now: Now, jitter: float) -> Heard:
        """What an answer comes to: another page to read, or all that there were."""
        verdict = responses.read_response(self._paged, response, "start", now.wall, pages_read=self._pages)
        if not isinstance(verdict, responses.Listed):
            return super().hear(ask, response, course, now, jitter)
        if self._pages == 0:
            self._first = responses.document_of(response)
        self._pages += 1
        self._items += verdict.items
        if verdict.next_page is not None and len(self._items) < ITEMS_MAX:
            turn: Turn = course.ready(verdict.next_page)
            return Heard(CallEnd(), turn, good=True)
        whole = msgspec.json.encode({"items": self._items, "first": self._first})
        return super().hear(ask, replace(response, body=whole), course, now, jitter)
