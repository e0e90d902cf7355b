"""Where a webhook may go: to the public internet, whatever a name resolves to and however an address is written."""

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import pytest

from leadline.adapters import webhooks as adapter
from leadline.adapters.webhooks import is_public, webhooks
from leadline.ports.notices import Notice
from leadline_protocol.ids import JobId
from tests.world import behaviours
from tests.world.servers import serving

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001::1", "2001:db8::1", "fc00::1", "fd12::1", "fe80::1",
    "fec0::1", "ff02::1", "100::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "::ffff:1.1.1.1",
    "2002:101:101::1",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_what_is_not_public_is_known_in_every_form(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_is_not_refused(text: str) -> None:
    assert is_public(ip_address(text))


def notice(url: str) -> Notice:
    return Notice(UUID(int=7), JobId(1), "acme", "completed", "webhook", url, 0, datetime.now(UTC))


@pytest.fixture
def flipping(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name server that says something else each time; what it was asked."""
    asked: list[str] = []

    class Loop:
        async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            address = "10.0.0.1" if len(asked) == 1 else "127.0.0.1"
            return [(2, 1, 6, "", (address, port))]

    class Asyncio:
        timeout = staticmethod(asyncio.timeout)
        get_running_loop = staticmethod(Loop)

    monkeypatch.setattr(adapter, "asyncio", Asyncio)
    return asked


async def test_the_connection_goes_to_the_address_that_was_judged(flipping: list[str]) -> None:
    allowed = [ip_network("127.0.0.0/8")]
    async with serving(behaviours.Enrichment()) as served:
        port = served.url.rpartition(":")[2]
        async with webhooks(allowed=lambda: allowed, secret_of=lambda _: None) as hooks:
            url = f"http://flips.example:{port}/?email=a@b.example"
            refused = await hooks.bring(notice(url), b"{}")
            assert (refused.state, served.calls) == ("failed", []), refused
            taken = await hooks.bring(notice(url), b"{}")
    assert taken.state == "sent", taken
    assert flipping == ["flips.example"] * 2, "each is resolved once"


async def test_an_allowed_network_is_allowed_from_the_next_notice_on() -> None:
    allowed: list[Any] = []
    async with serving(behaviours.Enrichment()) as served:
        async with webhooks(allowed=lambda: allowed, secret_of=lambda _: None) as hooks:
            assert (await hooks.bring(notice(f"{served.url}/?email=a@b.example"), b"{}")).state == "failed"
            allowed.append(ip_network("127.0.0.0/8"))
            assert (await hooks.bring(notice(f"{served.url}/?email=a@b.example"), b"{}")).state == "sent"
