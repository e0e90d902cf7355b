"""How one request gets to a provider, and the three ways in which it may fail.

What matters to the caller is not what went wrong but what the provider may have seen: nothing (`Unsent`), perhaps the
whole request (`Ambiguous`), or certainly the whole request (`BrokenResponse`). The first may be repeated freely, the
second only under the provider's policy.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from leadline.core.rate_limit import FLIGHT_SECONDS
from leadline_protocol.errors import LeadlineError


class Unsent(LeadlineError):
    """Certain: no byte of the request left. No connection could be made, or leave to send was withdrawn."""


class Withdrawn(Unsent):
    """Leave to send was withdrawn at the last look: a stop or a pause has come, or it is too old."""


class Ambiguous(LeadlineError):
    """The request or a part of it left, and no response headers came."""


class BrokenResponse(LeadlineError):
    """Response headers came, but the body is broken, too large, or did not end in time."""


class Request(Struct, frozen=True):
    """One HTTP request, complete."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    timeout_seconds: float = 60.0
    """From the first byte sent to the last byte of the response."""
    flight_seconds: float = FLIGHT_SECONDS
    """What has not been acknowledged so long after it was sent is given up, and cannot arrive later."""


class Response(Struct, frozen=True):
    """One HTTP response, complete."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a repeated header the last value."""
    body: bytes


class ProviderClient(Protocol):
    """Sends requests: each exactly once, without retries of its own and without following redirects."""

    async def send(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None],
    ) -> Response:
        """Send the request and read the response.

        `may_send` is asked synchronously right before the first byte is written; where it says no, Withdrawn is raised.
        `began` is called when the response's headers have arrived. `beat` is called when a process of our own takes
        the request in hand, and with each of its signs of life; never where it is a provider's server that does, of
        which there are none. Raises Unsent, Ambiguous or BrokenResponse.
        """
        ...
