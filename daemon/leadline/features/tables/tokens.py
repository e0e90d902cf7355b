"""Access tokens: a provider that gives one for a client's id and secret is asked for it, once for all who need it.

A token belongs to an account and serves every job of every teamspace that uses it, until a minute before it expires.
Whoever finds none fetches one, by a call that waits for a permit and is charged like any other; the others wait for
that. It is kept in memory alone, like the secret that it was got for, and shown nowhere. A token may run out while its
user waits for leave to call; then the leave is given back, and both are waited for once more.

The complication is a 401. It may mean that the provider has forgotten a token before its time, or that it does not want
us any more. So a token that is refused is thrown away and one more is fetched; if that is refused as well, before it
was good for anything, the key is no good. Many leads come back with the refusal of one token: only the first throws it
away.

While none can be had, nobody asks for a while, each time for longer.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlencode

import anyio
import msgspec
from msgspec.structs import replace

from leadline.core.events import CallEnd
from leadline.core.model import SECOND, Now
from leadline.core.rate_limit import Cost
from leadline.core.retry import Backoff
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint, heard
from leadline.features.tables.lead_course import Course
from leadline.features.tables.provider_modules import ClientCredentials, ProviderModule, selected
from leadline.features.tables.requests import Access
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn
from leadline.ports.work import AccountClosed, Attempt, Call
from leadline_protocol.errors import JobReason, LeadlineError, LeadReason
from leadline_protocol.ids import AccountName, Instant

EARLY_SECONDS: Final = 60
"""A token is not used so close to its end; of one that lives for less than twice as long, half its life."""

LOOK_SECONDS: Final = 30
"""How often those who wait for a token look at least whether somebody still fetches it."""

REST: Final = Backoff(first_seconds=2.0, max_seconds=120.0, tries=100)
"""How long nobody asks for a token after one could not be had."""


class NoToken(LeadlineError):
    """No token could be had, and there may be one later."""

    def __init__(self, reason: LeadReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Final = reason
        self.detail: Final = detail


class Token(msgspec.Struct, frozen=True):
    """What a provider gives for an id and a secret."""

    text: str
    ends: Instant
    """Not used from then on."""

    def __repr__(self) -> str:
        return f"Token(***, ends={self.ends})"


def token_request(module: ProviderModule, access: Access) -> Request:
    """The request for a token. The key of the account is the client's id and secret, with a colon between them."""
    auth = _auth(module)
    client, _, secret = (access.key or "").partition(":")
    fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
    if auth.encoding == "json":
        body, kind = msgspec.json.encode(fields), "application/json"
    else:
        body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
    headers = {"Accept": "application/json", "Content-Type": kind}
    url = access.base_url.rstrip("/") + auth.path
    return Request("POST", url, headers, body, access.timeout_seconds, access.flight_seconds)


def read_token(module: ProviderModule, response: Response, now: Now) -> Token | responses.Verdict:
    """The token in an answer, or what else that means. Nothing of the answer is quoted."""
    auth = _auth(module)
    if response.status in {400, 403} and not responses.is_claimed(module, response):
        return responses.InvalidKey()  # RFC 6749 says 400 to a client that it does not know
    if not 200 <= response.status < 300:
        match responses.read_response(module, response, "start", now.wall):
            case responses.Throttled() | responses.QuotaGone() | responses.InvalidKey() as verdict:
                return verdict
            case _:
                return responses.ServerError(f"no token: status {response.status}")
    document = responses.document_of(response)
    text, seconds = selected(auth.token, document), selected(auth.expires, document)
    if not isinstance(text, str) or not text:
        return responses.ServerError("no token in the answer")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        seconds = auth.expires_seconds
    usable = seconds - min(EARLY_SECONDS, seconds / 2)
    return Token(text, Instant(now.instant + int(usable * SECOND)))


def _auth(module: ProviderModule) -> ClientCredentials:
    assert isinstance(module.auth, ClientCredentials), f"{module.name} has a key"
    return module.auth


class _Held:
    """What is known of one account's token."""

    def __init__(self) -> None:
        self.token: Token | None = None
        self.key: str | None = None
        """The id and secret that it was got for: others make it worthless."""
        self.proven = True
        """Whether something went well since a token was refused."""
        self.fetching = False
        self.waiting: set[anyio.CancelScope] = set()
        """Those who wait for whoever fetches one."""
        self.failures = 0
        self.rests_until = Instant(0)
        self.fault: NoToken | None = None


class Tokens:
    """The tokens of all accounts."""

    def __init__(self) -> None:
        self._held: dict[AccountName, _Held] = {}

    async def permit(
        self,
        endpoint: Endpoint,
        access: Access,
        attempt: Attempt,
        cost: Cost,
        permit: Callable[[Cost], Awaitable[Call]],
    ) -> Call:
        """Leave for one request, and, where the account needs one, a token that is good for it.

        Raises NoToken; AccountClosed, where the id and the secret are refused; and what `permit` raises.
        """
        if not isinstance(endpoint.module.auth, ClientCredentials):
            return await permit(cost)
        held = self._held.setdefault(endpoint.account, _Held())
        while True:
            await self._ensure(held, endpoint, access, attempt, permit)
            call = await permit(cost)
            if self._usable(held, access, attempt.now()):
                return call
            call.end(CallEnd(unsent=True))

    async def _ensure(
        self,
        held: _Held,
        endpoint: Endpoint,
        access: Access,
        attempt: Attempt,
        permit: Callable[[Cost], Awaitable[Call]],
    ) -> None:
        while not self._usable(held, access, attempt.now()):
            if held.fetching:
                with anyio.CancelScope() as scope:
                    held.waiting.add(scope)
                    try:
                        until = Instant(attempt.now() + LOOK_SECONDS * SECOND)
                        await attempt.wait(JobReason.LIMIT, until, {"provider": endpoint.account})
                    finally:
                        held.waiting.discard(scope)
                continue
            if held.fault is not None and attempt.now() < held.rests_until:
                raise held.fault
            held.fetching = True
            try:
                await self._fetch(held, endpoint, access, attempt, permit)
            finally:
                held.fetching = False
                for waiting in held.waiting:
                    waiting.cancel()

    def access(self, endpoint: Endpoint, access: Access) -> Access:
        """The access with the token in the place of id and secret."""
        held = self._held.get(endpoint.account)
        if held is None or held.token is None or not isinstance(endpoint.module.auth, ClientCredentials):
            return access
        return replace(access, key=held.token.text)

    def refused(self, endpoint: Endpoint, used: Access) -> bool:
        """A request was answered that its key is no good: whether it is worth asking again with another token."""
        held = self._held.get(endpoint.account)
        if held is None or not isinstance(endpoint.module.auth, ClientCredentials):
            return False
        if held.token is None or held.token.text != used.key:
            return True
        held.token = None
        again, held.proven = held.proven, False
        return again

    def worked(self, endpoint: Endpoint) -> None:
        """A request was answered in another way: the token is good."""
        if (held := self._held.get(endpoint.account)) is not None and held.token is not None:
            held.proven = True

    @staticmethod
    def _usable(held: _Held, access: Access, instant: Instant) -> bool:
        return held.token is not None and held.key == access.key and instant < held.token.ends

    async def _fetch(
        self,
        held: _Held,
        endpoint: Endpoint,
        access: Access,
        attempt: Attempt,
        permit: Callable[[Cost], Awaitable[Call]],
    ) -> None:
        module = endpoint.module
        call = await permit(_auth(module).cost)
        try:
            response = await call.send(token_request(module, access))
        except Withdrawn:
            call.end(CallEnd(unsent=True))
            return
        except (Unsent, Ambiguous, BrokenResponse) as error:
            call.end(_ENDS[type(error)])
            raise self._rest(held, attempt, LeadReason.UNREACHABLE, f"no token: {error}") from None
        found = read_token(module, response, Now(attempt.now(), attempt.wall()))
        if isinstance(found, Token):
            call.end(CallEnd(done=True))
            held.token, held.key = found, access.key
            held.failures, held.fault = 0, None
            return
        said = heard(found, Course("hold"), attempt.now(), 0.0)
        call.end(said.end)
        if said.turn is None:
            raise AccountClosed(f"{endpoint.account} refused the id or the secret")
        if isinstance(found, responses.ServerError):
            raise self._rest(held, attempt, LeadReason.SERVER_ERROR, found.detail)

    @staticmethod
    def _rest(held: _Held, attempt: Attempt, reason: LeadReason, detail: str) -> NoToken:
        held.failures = min(held.failures + 1, REST.tries - 1)
        delay = REST.delay_microseconds(held.failures, 0.0)
        assert delay is not None, "it is tried for ever"
        held.rests_until = Instant(attempt.now() + delay)
        held.fault = NoToken(reason, detail)
        return held.fault


_ENDS: Final[Mapping[type[Exception], CallEnd]] = {
    Unsent: CallEnd(unsent=True),
    Ambiguous: CallEnd(lost=True),
    BrokenResponse: CallEnd(failed=True),
}
