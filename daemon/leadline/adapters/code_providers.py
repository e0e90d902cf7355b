"""Providers as tenants' code calls them: the port of the batch slice, by what the tables slice knows of providers.

How a key travels, what an answer says about limits, which account is whose: all that is in the modules of providers,
which belong to tables; and slices know nothing of each other. So the one's port is carried out here, with the other's
knowledge, above both.

A call of code is one like any other: it waits for a permit of its account, is stored as sent before it leaves, and what
its answer says of the account holds for everybody. Three things are its own. Nobody knows what it orders, so it is
charged as a lead is, whatever it asks for. It is never repeated: the code is told what is known of it. And a pause does
not stop the code, so the call is refused.

What the code sees is the answer alone. The address and the key are the daemon's, and a key that is quoted in an answer
is blotted out.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

import anyio
import msgspec

from leadline.core.events import CallEnd
from leadline.core.rate_limit import Cost
from leadline.features.batch.ports import StoredRun, Tried
from leadline.features.batch.request_ports import (
    BadRequest,
    LimitReached,
    NotAllowed,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    mark_of,
)
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint, heard
from leadline.features.tables.lead_course import Course
from leadline.features.tables.provider_modules import ClientCredentials, KeyHeader, KeyQuery, ProviderModule
from leadline.features.tables.requests import Access, complete_request
from leadline.features.tables.tokens import NoToken, Tokens
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn
from leadline.ports.work import AccountClosed, Attempt, Call, NoPermit, Parked, Paused
from leadline_protocol.ids import LeadId

HIDDEN: Final = "***"

SECRET_CHARACTERS_MIN: Final = 6
"""What is shorter is in many an answer by chance, and keeps nobody out."""

_NO_LEAD: Final = LeadId(0)

UNKNOWN: Final = "it is not known whether this was carried out"

_UNANSWERED: Final[Mapping[type[Exception], tuple[CallEnd, str]]] = {
    Unsent: (CallEnd(unsent=True), "could not be reached, and nothing was sent"),
    Ambiguous: (CallEnd(lost=True), f"gave no answer, {UNKNOWN}"),
    BrokenResponse: (CallEnd(failed=True, broken=True), f"gave an answer that cannot be read, {UNKNOWN}"),
}
"""What ends a call without an answer, and what the code is told."""

_ABOUT_THE_ACCOUNT: Final = (
    responses.Throttled,
    responses.QuotaGone,
    responses.InvalidKey,
    responses.ServerError,
)


class CodeProviders:
    """Those that are configured, for every attempt that asks for them."""

    def __init__(self, endpoints: Callable[[], Mapping[str, Endpoint]], tokens: Tokens) -> None:
        self.endpoints: Final = endpoints
        self.tokens: Final = tokens

    def of(self, attempt: Attempt, run: StoredRun, tried: Tried, called: Collection[int]) -> "AttemptProviders":
        """For one attempt at a run."""
        return AttemptProviders(self, attempt, run.teamspace, tried.retry, called)


class AttemptProviders:
    """For one attempt at a run (`features.batch.request_ports.Providers`)."""

    def __init__(
        self, house: CodeProviders, attempt: Attempt, teamspace: str, retry: int, called: Collection[int]
    ) -> None:
        """`called` are the numbers of questions that have led to a call before."""
        self._house = house
        self._tokens = house.tokens
        self._attempt = attempt
        self._teamspace = teamspace
        self._retry = retry
        self._called = set(called)

    async def call(self, number: int, provider: str, request: ProviderRequest) -> ProviderResponse:
        """Send it when it is its turn; of one number once.

        Raises BadRequest, NotAllowed, LimitReached, ProviderFailed; Stopped where there is to be no answer from here.
        """
        if number in self._called:
            raise ProviderFailed(f"{provider} was called before the daemon was restarted: {UNKNOWN}")
        endpoint = self._endpoint(provider)
        check(endpoint.module, request)
        self._called.add(number)
        response: Response | None = None
        try:
            while response is None:
                response = await self._try(mark_of(self._retry, number), provider, endpoint, request)
        except NoPermit as error:
            raise LimitReached(str(error)) from None
        except Parked as error:
            raise LimitReached(f"{provider}: {error}") from None
        except Paused:
            raise ProviderFailed(f"{provider} is paused; try again later") from None
        except AccountClosed:
            message = f"{provider} has refused its key: nobody calls it until a person lets it go on"
            raise ProviderFailed(message) from None
        except NoToken as error:
            raise ProviderFailed(f"{provider}: {error.detail}") from None
        return _shown(response, self._secrets(endpoint))

    def _endpoint(self, provider: str) -> Endpoint:
        endpoint = self._house.endpoints().get(provider)
        if endpoint is None:
            raise NotAllowed(f"there is no provider {provider}")
        if endpoint.places is not None or endpoint.module.chat is not None:
            raise NotAllowed(f"{provider} is a module for tables, and has no requests that code could make")
        return endpoint.of(self._teamspace)

    def _secrets(self, endpoint: Endpoint) -> list[str]:
        """What must not be shown: the key, of an id and secret the secret, the token that was got for them."""
        key = endpoint.access.key or ""
        known = {key, self._tokens.access(endpoint, endpoint.access).key or ""}
        if isinstance(endpoint.module.auth, ClientCredentials):
            known.add(key.partition(":")[2])
        return sorted((each for each in known if len(each) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)

    async def _try(self, mark: LeadId, provider: str, endpoint: Endpoint, request: ProviderRequest) -> Response | None:
        """Make the call; None where it was certainly not made, and can be now."""
        attempt, access = self._attempt, endpoint.access
        wanted = cost_of(endpoint.module)

        async def permit(cost: Cost) -> Call:
            lead = mark if cost is wanted else _NO_LEAD  # the call for a token is not what the code has asked for
            return await attempt.permit(endpoint.account, lead, cost, patient=False)

        call = await self._tokens.permit(endpoint, access, attempt, wanted, permit)
        used = self._tokens.access(endpoint, access)
        try:
            response = await call.send(http_request(endpoint.module, used, request, str(call.id)))
        except Withdrawn:
            call.end(CallEnd(unsent=True))
            return None
        except (Unsent, Ambiguous, BrokenResponse) as error:
            end, says = _UNANSWERED[type(error)]
            call.end(end)
            raise ProviderFailed(_hidden(f"{provider} {says}: {error}", self._secrets(endpoint))) from None
        except anyio.get_cancelled_exc_class():
            call.end(CallEnd(lost=True))  # its run is over before its job is
            raise
        verdict = responses.read_response(endpoint.module, response, "start", attempt.wall())
        if isinstance(verdict, responses.InvalidKey) and self._tokens.refused(endpoint, used):
            call.end(CallEnd(failed=True))
            return None
        if isinstance(verdict, _ABOUT_THE_ACCOUNT):
            call.end(heard(verdict, Course("hold"), attempt.now(), 0.0).end)
        else:
            call.end(CallEnd(failed=True) if response.status >= 400 else CallEnd(done=True))
        if not isinstance(verdict, responses.InvalidKey):
            self._tokens.worked(endpoint)
        return response


def cost_of(module: ProviderModule) -> Cost:
    """What a call of code takes of the limits: as much as a lead's first request, and one of whatever is counted."""
    cost = module.cost
    return Cost(request=max(1, cost.request), record=max(1, cost.record), lead=max(1, cost.lead), job=max(1, cost.job))


def check(module: ProviderModule, request: ProviderRequest) -> None:
    """Whether a request stays within its provider, and leaves to the daemon what is the daemon's. Raises BadRequest."""
    path, _, query = request.path.partition("?")
    if "#" in request.path or "\\" in request.path:
        raise BadRequest("neither # nor \\ can stand in a path")
    if {".", ".."} & {unquote(part) for part in path.split("/")}:
        raise BadRequest("neither . nor .. can stand in a path")
    headers = {name.lower() for name in request.headers}
    own = {name.lower() for name in (module.id_header,) if name is not None}
    match module.auth:
        case KeyHeader(name=name):
            own.add(name.lower())
        case KeyQuery(name=name):
            asked = {key for key, _ in parse_qsl(query, keep_blank_values=True)} | request.query.keys()
            if name in asked:
                raise BadRequest(f"not yours to set: {name}")
        case _:
            pass
    if own & headers:
        raise BadRequest(f"not yours to set: {', '.join(sorted(own & headers))}")


def http_request(module: ProviderModule, access: Access, request: ProviderRequest, call_id: str) -> Request:
    """A request of code, complete with what is the daemon's."""
    path, mark, query = request.path.partition("?")
    body = None if bytes(request.body) == b"null" else request.body
    headers = {"Accept" if name.lower() == "accept" else name: text for name, text in request.headers.items()}
    whole = complete_request(module, access, request.method, path, request.query, headers, body, call_id)
    if not mark:
        return whole
    url = whole.url + ("&" if "?" in whole.url else "?") + query
    return msgspec.structs.replace(whole, url=url)


def _shown(response: Response, secrets: Collection[str]) -> ProviderResponse:
    headers = {name: _hidden(value, secrets) for name, value in response.headers.items()}
    return ProviderResponse(response.status, headers, _hidden(response.body.decode(errors="replace"), secrets))


def _hidden(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        for form in (secret, urlencode({"": secret})[1:]):
            text = text.replace(form, HIDDEN)
    return text
