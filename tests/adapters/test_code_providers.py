"""A request of code goes where its provider is and nowhere else, with the daemon's key, which the code never sees."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from leadline.adapters.code_providers import AttemptProviders, CodeProviders, check, cost_of, http_request
from leadline.core.events import CallEnd
from leadline.core.rate_limit import Cost
from leadline.features.batch.request_ports import (
    BadRequest,
    LimitReached,
    NotAllowed,
    ProviderFailed,
    ProviderRequest,
    mark_of,
)
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.provider_modules import Bearer, KeyHeader, KeyQuery, ProviderModule, preset
from leadline.features.tables.requests import Access
from leadline.features.tables.tokens import Tokens
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn
from leadline.ports.work import AccountClosed, NoPermit, Parked, Paused, Stopped
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant

KEY = "canary-secret-key"
BASE = "https://api.provider.example/v2"


def module(**changed: Any) -> ProviderModule:
    return msgspec.structs.replace(preset("findymail"), auth=Bearer(), **changed)


def sent(request: Mapping[str, Any], auth: Any = Bearer()) -> Request:  # noqa: B008  frozen
    asked = msgspec.convert({"method": "GET", "path": "/", **request}, ProviderRequest)
    judged = msgspec.structs.replace(module(), auth=auth)
    check(judged, asked)
    return http_request(judged, Access(BASE, KEY, {}, 60.0), asked, "7")


def test_the_path_is_joined_to_the_address_and_the_key_is_the_daemons() -> None:
    request = sent({"method": "POST", "path": "/find?a=b", "query": {"c": "d e"}, "body": msgspec.Raw(b"[1]")})
    url = urlsplit(request.url)
    assert (url.scheme, url.netloc, url.path) == ("https", "api.provider.example", "/v2/find")
    assert parse_qs(url.query) == {"a": ["b"], "c": ["d e"]}
    assert (request.method, request.body) == ("POST", b"[1]")
    assert request.headers["Authorization"] == f"Bearer {KEY}"


PATHS = st.from_regex(r"\A/(?!/)[!-~]{0,40}\Z")


@given(path=PATHS)
@example("/@elsewhere.example/")
@example("/..;/x")
def test_whatever_the_path_the_request_stays_under_the_address(path: str) -> None:
    try:
        request = sent({"path": path})
    except BadRequest:
        assume(False)
    url = urlsplit(request.url)
    assert url.netloc == "api.provider.example"
    assert url.path.startswith("/v2/")


@pytest.mark.parametrize("path", ["/../admin", "/a/./b", "/%2e%2e/admin", "/a/%2E./b", "/a#b", "/a\\..\\b", "/..?a=b"])
def test_a_path_that_climbs_is_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        sent({"path": path})


@pytest.mark.parametrize(
    ("auth", "request_"),
    [
        (KeyHeader("X-Key"), {"headers": {"x-key": "another"}}),
        (KeyQuery("api_key"), {"query": {"api_key": "another"}}),
        (KeyQuery("api_key"), {"path": "/a?api_key=another"}),
        (KeyQuery("api_key"), {"path": "/a?api%5Fkey"}),
    ],
)
def test_where_the_key_stands_nothing_else_does(auth: Any, request_: Mapping[str, Any]) -> None:
    with pytest.raises(BadRequest, match="not yours to set"):
        sent(request_, auth)


def test_a_call_is_charged_as_a_leads_first_request_and_once_for_whatever_is_counted() -> None:
    assert cost_of(module(cost=Cost(request=1))) == Cost(request=1, record=1, lead=1, job=1)
    assert cost_of(module(cost=Cost(request=2, lead=1))) == Cost(request=2, record=1, lead=1, job=1)


# -- what comes of a call -------------------------------------------------------------------------------------------


class Attempting:
    """An attempt whose calls come to what a test says, and which notes what was asked for."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[str, int, Cost]] = []
        self.requests: list[Request] = []
        self.ends: list[CallEnd] = []
        self.id = CallId(1)

    async def permit(self, account: str, lead: int, cost: Cost, *, patient: bool) -> "Attempting":
        assert not patient
        self.asked.append((account, lead, cost))
        if isinstance(self.outcomes[0], Stopped | NoPermit | Parked | Paused | AccountClosed):
            raise self.outcomes.pop(0)
        return self

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Response)
        return outcome

    def end(self, end: CallEnd) -> None:
        self.ends.append(end)

    def now(self) -> Instant:
        return Instant(0)

    def wall(self) -> Instant:
        return Instant(0)


def providers(attempt: Attempting, *, called: tuple[int, ...] = (), teamspace: str = "acme") -> AttemptProviders:
    access = Access(BASE, KEY, {}, 60.0)
    own = Endpoint(AccountName("find@own"), module(), msgspec.structs.replace(access, key="own-secret-key"))
    endpoints = {
        "find": Endpoint(AccountName("find"), module(), access, {"own": own}),
        "openai": Endpoint(AccountName("openai"), preset("openai"), access),
        "python": Endpoint(AccountName("python"), module(), access, places=4),
    }
    return AttemptProviders(CodeProviders(lambda: endpoints, Tokens()), attempt, teamspace, 2, called)  # type: ignore[arg-type]


GET = ProviderRequest("GET", "/find")


def answered(status: int = 200, body: bytes = b"{}", **headers: str) -> Response:
    return Response(status, headers, body)


async def test_a_call_is_stored_under_its_question_and_made_with_the_teamspaces_own_key() -> None:
    attempt = Attempting(answered(), answered())
    await providers(attempt).call(5, "find", GET)
    await providers(attempt, teamspace="own").call(6, "find", GET)
    assert [(account, lead) for account, lead, _ in attempt.asked] == [
        ("find", mark_of(2, 5)), ("find@own", mark_of(2, 6))
    ]  # fmt: skip
    keys = [request.headers["Authorization"] for request in attempt.requests]
    assert keys == [f"Bearer {KEY}", "Bearer own-secret-key"]


async def test_a_key_that_an_answer_quotes_is_blotted_out() -> None:
    attempt = Attempting(answered(200, f'{{"sent": "Bearer {KEY}"}}'.encode(), echo=f"a {KEY}"), Unsent(f"to {KEY}"))
    found = await providers(attempt).call(1, "find", GET)
    assert (found.text, found.headers) == ('{"sent": "Bearer ***"}', {"echo": "a ***"})
    with pytest.raises(ProviderFailed, match=r"nothing was sent: to \*\*\*"):
        await providers(attempt).call(2, "find", GET)


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (200, CallEnd(done=True)),
        (404, CallEnd(failed=True)),
        (503, CallEnd(failed=True)),
        (429, CallEnd(throttled=True)),
        (402, CallEnd(failed=True, parked=JobReason.CREDITS)),
        (401, CallEnd(failed=True, parked=JobReason.INVALID_KEY)),
    ],
)
async def test_what_an_answer_says_of_the_account_holds_for_all_and_the_code_has_the_answer(
    status: int, end: CallEnd
) -> None:
    attempt = Attempting(answered(status, b"oh"))
    found = await providers(attempt).call(1, "find", GET)
    assert (found.status, found.text) == (status, "oh")
    assert attempt.ends == [end]


@pytest.mark.parametrize(
    ("outcome", "kind", "says", "ends"),
    [
        (Unsent("no route"), ProviderFailed, "nothing was sent", [CallEnd(unsent=True)]),
        (Ambiguous("cut"), ProviderFailed, "not known whether this was carried out", [CallEnd(lost=True)]),
        (BrokenResponse("cut"), ProviderFailed, "not known whether", [CallEnd(failed=True, broken=True)]),
        (Paused("paused"), ProviderFailed, "find is paused; try again later", []),
        (AccountClosed("refused"), ProviderFailed, "refused its key", []),
        (Parked(JobReason.CREDITS), LimitReached, "find: ", []),
        (NoPermit("never fits"), LimitReached, "never fits", []),
    ],
)
async def test_what_comes_of_a_call_without_an_answer_is_told(
    outcome: Exception, kind: type[Exception], says: str, ends: list[CallEnd]
) -> None:
    attempt = Attempting(outcome)
    with pytest.raises(kind, match=says):
        await providers(attempt).call(1, "find", GET)
    assert attempt.ends == ends


async def test_a_permit_that_was_withdrawn_is_asked_for_again() -> None:
    attempt = Attempting(Withdrawn("a pause"), answered())
    assert (await providers(attempt).call(1, "find", GET)).status == 200
    assert attempt.ends == [CallEnd(unsent=True), CallEnd(done=True)]


async def test_a_stop_is_nobodys_answer() -> None:
    with pytest.raises(Stopped):
        await providers(Attempting(Stopped("told to stop"))).call(1, "find", GET)


async def test_what_has_led_to_a_call_does_not_lead_to_another() -> None:
    attempt = Attempting(answered())
    these = providers(attempt, called=(3,))
    with pytest.raises(ProviderFailed, match="not known whether this was carried out"):
        await these.call(3, "find", GET)
    await these.call(4, "find", GET)
    with pytest.raises(ProviderFailed):
        await these.call(4, "find", GET)
    assert len(attempt.requests) == 1


@pytest.mark.parametrize("name", ["nobody", "openai", "python", "find@own"])
async def test_who_has_no_requests_for_code_is_not_called(name: str) -> None:
    with pytest.raises(NotAllowed):
        await providers(Attempting()).call(1, name, GET)


@given(st.integers(0, 100), st.integers(1, 1 << 53), st.integers(0, 100), st.integers(1, 1 << 53))
def test_every_question_has_a_mark_of_its_own(retry: int, number: int, other: int, another: int) -> None:
    assert (mark_of(retry, number) == mark_of(other, another)) == ((retry, number) == (other, another))
    assert -(1 << 63) <= mark_of(retry, number) < 0
