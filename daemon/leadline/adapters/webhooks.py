"""Notices to webhooks (`ports.notices.Courier`): one POST to an address that somebody else has chosen.

Whoever names a URL decides where the daemon connects to, and the daemon stands inside. So the host is resolved once,
every address that comes back is judged, and the connection goes to these very addresses: a name that resolves to
something else a moment later gains nothing by it. What is not on the public internet is refused, also where an IPv6
address carries a private IPv4 one within; networks of one's own can be allowed. There are no redirects, no proxies, no
cookies; the answer is read for its status alone, of its body a bounded piece for people.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from leadline.ports.notices import Notice, Outcome
from leadline_protocol.errors import LeadlineError
from leadline_protocol.signature import HEADER, sign

SECONDS_MAX: Final = 15.0
"""From the look-up of the name to the end of the answer."""

SHOWN_BYTES: Final = 300
"""How much of an answer is kept to say why it was no success."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_NOWHERE: Final = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "::/96", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
"""What is not on the public internet."""


class ForbiddenAddress(LeadlineError, OSError):
    """The host is, or is also, at an address that may not be connected to."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, and so is the IPv4 address that it may carry within."""
    if isinstance(address, IPv6Address) and (within := _carried(address)) is not None:
        return is_public(within)
    return not any(address in network for network in _NOWHERE if network.version == address.version)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


class _Guard(AbstractResolver):
    """Resolves a name once, and gives only addresses that may be connected to."""

    def __init__(self, allowed: Callable[[], Sequence[Network]]) -> None:
        self._allowed = allowed

    def judge(self, address: Address) -> None:
        """Raises ForbiddenAddress."""
        allowed = any(address in network for network in self._allowed() if network.version == address.version)
        if not (allowed or is_public(address)):
            raise ForbiddenAddress(f"{address} is no address on the public internet")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for at, _, protocol, _, (address, *_) in found:
            self.judge(ip_address(str(address).partition("%")[0]))
            results.append(
                ResolveResult(
                    hostname=host, host=str(address), port=port, family=at, proto=protocol, flags=socket.AI_NUMERICHOST
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is kept."""


class Webhooks:
    """Posts notices."""

    def __init__(self, session: aiohttp.ClientSession, guard: _Guard, secret_of: Callable[[str], str | None]) -> None:
        self._session = session
        self._guard = guard
        self._secret_of = secret_of

    async def bring(self, notice: Notice, body: bytes) -> Outcome:
        """Post a notice: any success is one; all else may pass."""
        headers = {"Content-Type": "application/json", "User-Agent": "Leadline", "Leadline-Notice": str(notice.id)}
        secret = self._secret_of(notice.teamspace)
        if secret is not None:
            headers[HEADER] = sign(secret, body, now=time.time())
        try:
            self._judge_literal(notice.target)
            async with (
                asyncio.timeout(SECONDS_MAX),
                self._session.post(notice.target, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return Outcome("sent", f"status {answer.status}")
                said = (await answer.content.read(SHOWN_BYTES)).decode(errors="replace").strip()
                return Outcome("again", f"status {answer.status}: {said}" if said else f"status {answer.status}")
        except (ForbiddenAddress, aiohttp.InvalidURL) as error:
            return Outcome("failed", str(error))
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                return Outcome("failed", str(error.os_error))
            return Outcome("again", str(error))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Outcome("again", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _judge_literal(self, url: str) -> None:
        """A host that is an address already is never resolved."""
        host = urlsplit(url).hostname or ""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return
        self._guard.judge(address)


@asynccontextmanager
async def webhooks(
    *, allowed: Callable[[], Sequence[Network]], secret_of: Callable[[str], str | None]
) -> AsyncIterator[Webhooks]:
    """For as long as the context is open. `allowed` are the networks that may be connected to although private."""
    guard = _Guard(allowed)
    connector = aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, force_close=True, limit=0)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,
    ) as session:
        yield Webhooks(session, guard, secret_of)
