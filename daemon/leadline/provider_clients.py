"""How requests get to providers: over HTTP, or to the processes of modules in Python."""

from collections.abc import Callable

from leadline.features.tables.python_modules import SCHEME
from leadline.ports.provider_client import ProviderClient, Request, Response


class ProviderClients:
    """How requests get to whom they are for (`ports.provider_client.ProviderClient`)."""

    def __init__(self, http: ProviderClient, python: ProviderClient) -> None:
        self._http = http
        self._python = python

    async def send(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None],
    ) -> Response:
        """Send the request, and read the response."""
        client = self._python if request.url.startswith(f"{SCHEME}:") else self._http
        return await client.send(request, may_send=may_send, began=began, beat=beat)
