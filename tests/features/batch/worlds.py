"""What runs may have of the daemon, for tests: all of it in memory, and told what was asked."""

from collections.abc import Mapping
from typing import Any

import msgspec

from leadline.features.batch.request_ports import (
    Mail,
    NotAllowed,
    ProviderRequest,
    ProviderResponse,
    Query,
    QueryFailed,
    Rows,
    World,
    Written,
)


def rows(*values: object) -> list[msgspec.Raw]:
    """Rows as a database gives them."""
    return [msgspec.Raw(msgspec.json.encode(each)) for each in values]


class Recorder:
    """Plays every role, and remembers."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self.values = settings or {}
        self.progress: list[tuple[float, float | None]] = []
        self.mails: dict[int, Mail] = {}
        self.queries: list[Query] = []
        self.calls: list[tuple[int, str, ProviderRequest]] = []
        self.result: Rows | Written = Written(0)
        self.trouble: Exception | None = None

    def world(self, **fields: Any) -> World:
        """All that there is, but for the fields that are named."""
        given: Mapping[str, Any] = {
            "mails": self, "databases": {"own": self, "etl": self}, "providers": self, **fields
        }  # fmt: skip
        return World(self, self, **given)

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def read(self) -> Mapping[str, object]:
        self._fail()
        return self.values

    async def tell(self, done: float, total: float | None) -> None:
        self.progress.append((done, total))

    async def store(self, number: int, mail: Mail) -> None:
        self._fail()
        self.mails[number] = mail

    async def run(self, query: Query) -> Rows | Written:
        self.queries.append(query)
        if query.sql == "bad":
            raise QueryFailed('syntax error at or near "bad"')
        return self.result

    async def call(self, number: int, provider: str, request: ProviderRequest) -> ProviderResponse:
        self.calls.append((number, provider, request))
        if provider != "snov":
            raise NotAllowed(f"there is no provider {provider}")
        return ProviderResponse(402, {"x-left": "0"}, msgspec.json.encode({"echo": request.body}).decode())
