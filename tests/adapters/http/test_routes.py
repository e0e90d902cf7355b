"""How an address finds its route, and how its request becomes a line."""

from typing import Any

import pytest

from leadline.adapters.http.problems import STATUS
from leadline.adapters.http.reading import fields_of, line_of, read_operation, read_query
from leadline.adapters.http.routes import OPERATIONS, ROUTES, AddressTable, Route, Special
from leadline_protocol import messages as wire
from leadline_protocol.codec import RequestDecoder
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

table = AddressTable(ROUTES)
decoder = RequestDecoder(wire.SUBMISSION_TYPES, OPERATIONS)
JO = wire.Person(person="token jo", role="member")


def found(method: str, path: str) -> tuple[str | None, list[str]]:
    routes, values = table.find(path)
    route = routes.get(method)
    return (None if route is None else route.path), values


@pytest.mark.parametrize(
    ("path", "route", "values"),
    [
        ("/v1/jobs", "/v1/jobs", []),
        ("/v1/jobs/41/why", "/v1/jobs/{job}/why", ["41"]),
        ("/v1/tables/a%2Fb/c%20d", "/v1/tables/{teamspace}/{table}", ["a/b", "c d"]),
        ("/v1/tables/..%2F..%2Fetc/x", "/v1/tables/{teamspace}/{table}", ["../../etc", "x"]),
        ("/v1/tables/%FF/x", None, []),
        ("/v1/tables//x", None, []),
        ("/v1/jobs/", None, []),
        ("//v1/jobs", None, []),
        ("/v1/jobs/41/why/not", None, []),
        ("*", None, []),
        ("", None, []),
    ],
)
def test_an_address_is_taken_apart_before_it_is_decoded(path: str, route: str | None, values: list[str]) -> None:
    assert found("GET", path) == (route, values)


def test_a_word_goes_before_a_name() -> None:
    assert found("POST", "/v1/schedules/preview") == ("/v1/schedules/preview", [])
    assert found("GET", "/v1/outreach/mails") == ("/v1/outreach/mails", [])
    assert found("GET", "/v1/jobs/41/file") == ("/v1/jobs/{job}/file", ["41"])


def test_a_name_may_be_what_is_elsewhere_a_word() -> None:
    assert found("POST", "/v1/outreach/mails/queue") == ("/v1/outreach/{teamspace}/queue", ["mails"])


def test_every_route_names_fields_that_its_operation_has_and_each_once() -> None:
    for route in ROUTES:
        if isinstance(route.means, Special):
            continue
        said = [*route.takes, *route.fixed, *(route.renamed.get(name, name) for name in route.in_path)]
        assert len(said) == len(set(said)), route
        assert set(said) <= set(fields_of(route.means)), route


def test_every_operation_of_the_sockets_is_there_but_those_about_connections_and_tokens() -> None:
    assert set(wire.CONTROL_OPERATIONS) - set(OPERATIONS) == {wire.Get, wire.Follow, wire.Watch, wire.Tokens}


def test_what_changes_something_needs_more_than_the_scope_to_read() -> None:
    for route in ROUTES:
        if route.method != "GET" and route.path != "/v1/schedules/preview":
            assert route.scope in {"submit", "control"}, route


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)


def read(method: str, path: str, query: list[tuple[str, str]] | None = None, body: bytes = b"") -> Any:
    routes, values = table.find(path)
    return read_operation(decoder, routes[method], values, query or [], body, JO)


def test_the_parts_of_a_request_become_one_operation() -> None:
    assert read("GET", "/v1/jobs", [("limit", "5"), ("state", "queued")]) == wire.Jobs(limit=5, state="queued", as_=JO)
    assert read("POST", "/v1/jobs/7/pause") == wire.Pause(scope="job", name=JobId(7), as_=JO)
    assert read("POST", "/v1/pause", body=b'{"scope":"teamspace","name":"7"}').name == "7"
    assert read("GET", "/v1/tables", [("after", '["acme","t"]')]).after == ("acme", "t")
    assert read("GET", "/v1/usage", [("month", "2026-11"), ("by", "teamspace")]).by == ["teamspace"]
    both = [("month", "2026-11"), ("by", "teamspace"), ("by", "provider")]
    assert read("GET", "/v1/usage", both).by == ["teamspace", "provider"]
    assert read("GET", "/v1/notices", [("all", "true")]).all is True
    assert read("GET", "/v1/jobs", [("teamspace", "null")]).teamspace == "null", "a text is that text"
    assert read("DELETE", "/v1/tables/acme/t", [("dry_run", "true")]).dry_run is True


@pytest.mark.parametrize(
    ("method", "path", "body", "at"),
    [
        ("POST", "/v1/jobs/7/cancel", b'{"job":8}', None),
        ("POST", "/v1/jobs/7/cancel", b'{"as":{"person":"x","role":"super_admin"}}', None),
        ("POST", "/v1/jobs/7/cancel", b'{"op":"drain"}', None),
        ("POST", "/v1/jobs/7/cancel", b'{"ref":"x"}', "ref"),
        ("PUT", "/v1/batch/acme/nightly", b'{"version":3}', "version"),
        ("POST", "/v1/jobs/x/cancel", b"", "job"),
        ("POST", "/v1/jobs/99999999999999999999999999/cancel", b"", None),
        ("GET", "/v1/jobs", b"{}", None),
    ],
)
def test_a_body_says_what_the_address_leaves_open_and_nothing_more(
    method: str, path: str, body: bytes, at: str | None
) -> None:
    with pytest.raises(Refused) as no:
        read(method, path, body=body)
    assert (no.value.code in {ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST}, no.value.at) == (True, at), no.value


def test_a_query_takes_what_is_known_of_it_alone() -> None:
    types = fields_of(wire.Jobs)
    with pytest.raises(Refused):
        read_query([("limits", "5")], types)
    assert read_query([("limit", "many")], types) == {"limit": "many"}, "the codec says what is wrong with it"


@pytest.mark.parametrize(
    ("said", "body", "line"),
    [
        ({}, b' {"a":1} ', b'{"a":1}'),
        ({"x": 1}, b"{ }", b'{"x":1}'),
        ({"x": 1}, b' {\n"a":1}', b'{"x":1,"a":1}'),
        ({"x": 1}, b"", b'{"x":1}'),
    ],
)
def test_fields_go_before_those_of_the_body(said: dict[str, object], body: bytes, line: bytes) -> None:
    assert line_of(said, body) == line


def test_two_routes_at_one_address_are_a_mistake() -> None:
    with pytest.raises(AssertionError):
        AddressTable((*ROUTES, Route("GET", "/v1/jobs/{id}", wire.Ping, "read", "Twice.")))
