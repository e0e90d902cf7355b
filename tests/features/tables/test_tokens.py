"""Access tokens: how one is asked for, and what an answer to that means."""

from urllib.parse import parse_qsl

import msgspec
import pytest
from msgspec.structs import replace

from leadline.core.model import SECOND, Now
from leadline.features.tables import responses
from leadline.features.tables.provider_modules import ClientCredentials, ProviderModule, Signal, read_module
from leadline.features.tables.requests import Access
from leadline.features.tables.tokens import Token, read_token, token_request
from leadline.ports.provider_client import Response
from leadline_protocol.ids import Instant
from tests.features.tables.test_provider_modules import SYNC

AUTH = ClientCredentials("/oauth/token")
MODULE = replace(read_module(SYNC, file="m.toml"), auth=AUTH)
ACCESS = Access("https://host.example/base/", "id:se:cret", {}, 60.0)
FIELDS = {"grant_type": "client_credentials", "client_id": "id", "client_secret": "se:cret"}


def read(status: int, document: object, module: ProviderModule = MODULE) -> Token | responses.Verdict:
    return read_token(module, Response(status, {}, msgspec.json.encode(document)), Now(Instant(0), Instant(0)))


def test_id_and_secret_go_into_the_body_and_nowhere_else() -> None:
    request = token_request(MODULE, ACCESS)
    assert (request.method, request.url) == ("POST", "https://host.example/base/oauth/token")
    assert dict(parse_qsl(request.body.decode())) == FIELDS
    assert "Authorization" not in request.headers
    as_json = token_request(replace(MODULE, auth=ClientCredentials("/oauth/token", "json")), ACCESS)
    assert msgspec.json.decode(as_json.body) == FIELDS


@pytest.mark.parametrize(
    ("expires_in", "seconds"), [(3600, 3540), (100, 50), ("soon", 3540), (None, 3540), (True, 3540), (-1, 3540)]
)
def test_a_token_is_used_until_shortly_before_its_end(expires_in: object, seconds: int) -> None:
    found = read(200, {"access_token": "canary", "expires_in": expires_in})
    assert found == Token("canary", Instant(seconds * SECOND))
    assert "canary" not in repr(found)


def test_an_answer_without_a_token_is_no_verdict_about_the_key() -> None:
    assert isinstance(read(200, {"error": "later"}), responses.ServerError)
    assert isinstance(read(503, {}), responses.ServerError)
    assert isinstance(read(404, {}), responses.ServerError)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_client_that_is_not_known_has_no_valid_key(status: int) -> None:
    assert read(status, {"error": "invalid_client"}) == responses.InvalidKey()


def test_a_throttle_is_one_here_too_also_by_a_status_of_the_modules_own() -> None:
    assert read(429, {}) == responses.Throttled(None)
    assert read(403, {}, replace(MODULE, throttled=[Signal(status=403)])) == responses.Throttled(None)


def test_nothing_of_an_answer_is_quoted() -> None:
    found = read(500, {"message": "canary-secret is wrong"})
    assert "canary" not in str(found)
