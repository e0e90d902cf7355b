"""Submissions and lists over HTTP: one job for a key, an answer for each line, pages that link to the next."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from leadline.adapters.http import face, limits
from leadline.ports.store import OutcomeUnknown
from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages import Noop
from tests.daemon.http import using
from tests.daemon.running import Place

NOOP = {"kind": "noop", "teamspace": "acme"}


async def test_a_submission_that_comes_again_with_its_key_is_the_first_job(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        key = {"Idempotency-Key": "order-17"}
        first = await http.post("/v1/jobs", json=NOOP, headers=key)
        again = await http.post("/v1/jobs", json=dict(reversed(NOOP.items())), headers=key)
        other = await http.post("/v1/jobs", json=NOOP | {"priority_seconds": 5}, headers=key)
        assert (first.status, again.status, again.json["duplicate"]) == (201, 200, True)
        assert first.headers["Location"] == again.headers["Location"] == f"/v1/jobs/{first.json['job']}"
        assert (other.status, other.code) == (409, "conflict")
        assert (await http.get(first.headers["Location"])).json["view"]["job"] == first.json["job"]
        by_field = await http.post("/v1/jobs", json=NOOP | {"idempotency_key": "order-17"})
        assert by_field.json["job"] == first.json["job"], "the header and the field are the same key"
        unreadable = await http.post("/v1/jobs", json=NOOP, headers={"Idempotency-Key": "\udcff"})
        assert (unreadable.status, unreadable.code) == (400, "bad_request")
        twice = await http.post("/v1/jobs", json=NOOP | {"idempotency_key": "order-17"}, headers=key)
        assert (twice.status, twice.code) == (400, "bad_json")


async def test_many_submissions_are_answered_line_by_line_as_on_a_socket(place: Place) -> None:
    lines = [
        b'{"kind":"noop","teamspace":"acme","ref":"a"}',
        b'{"kind":"noop"}',
        b"nonsense",
        b'{"op":"drain"}',
        b'{"kind":"noop","teamspace":"acme","notify":true}',
        b"",
        b'{"kind":"noop","teamspace":"acme","dry_run":true}',
        b'{"kind":"noop","teamspace":"acme","ref":7}',
    ]
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        for ending in (b"", b"\n"):
            answer = await http.post(
                "/v1/jobs", data=b"\n".join(lines) + ending, headers={"Content-Type": "application/jsonl"}
            )
            assert (answer.status, answer.headers["Content-Type"]) == (200, "application/jsonl")
            replies = [json.loads(line) for line in answer.body.splitlines()]
            codes = [(reply["line"], reply.get("error", {}).get("code")) for reply in replies]
            assert codes == [
                (1, None),
                (2, "bad_request"),
                (3, "bad_json"),
                (4, "unknown_op"),
                (5, "bad_request"),
                (7, None),
                (8, None),
            ]
            assert (replies[0]["ref"], replies[-1]["ref"], "steps" in replies[5]) == ("a", 7, True)


async def test_thousands_of_lines_in_one_request_are_as_many_jobs(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a", teamspace="acme") as http:
        body = b'{"kind":"noop"}\n' * 3_000
        answer = await http.post("/v1/jobs", data=body, headers={"Content-Type": "application/x-ndjson"})
        jobs = [json.loads(line)["job"] for line in answer.body.splitlines()]
        assert (len(set(jobs)), jobs) == (3_000, sorted(jobs))


async def test_a_dry_run_tells_what_it_would_take_and_is_no_job(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        answer = await http.post("/v1/jobs", json=NOOP | {"dry_run": True})
        assert (answer.status, answer.json["steps"][0]["kind"]) == (200, "noop")
        assert (await http.get("/v1/jobs")).json["jobs"] == []


async def test_pages_link_to_the_next_one_until_there_is_none(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        for _number in range(5):
            await client.submit(Noop(teamspace="acme", delay=3600))
        seen: list[int] = []
        path = "/v1/jobs?state=delayed&limit=2&teamspace=acme"
        while path:
            answer = await http.get(path)
            seen += [job["job"] for job in answer.json["jobs"]]
            link = answer.headers.get("Link", "")
            path = link.partition(">")[0].removeprefix("<")
        assert seen == sorted(seen, reverse=True)
        assert len(seen) == 5
        for name in ("a b", "ü/ß", "c"):
            await http.put(f"/v1/tables/acme/{name.replace('/', '%2F')}", json={"columns": {"email": "text"}})
        names: list[str] = []
        path = "/v1/tables?limit=1"
        while path:
            answer = await http.get(path)
            names += [table["table"] for table in answer.json["tables"]]
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert sorted(names) == ["a b", "c", "ü/ß"]


@pytest.mark.parametrize(
    ("query", "body", "status", "code", "at"),
    [
        ("?limit=5000", None, 400, "bad_request", "limit"),
        ("?limit=many", None, 400, "bad_request", "limit"),
        ("?limit=1&limit=2", None, 400, "bad_request", "limit"),
        ("?colour=red", None, 400, "bad_request", "colour"),
        ("?op=drain", None, 400, "bad_request", "op"),
        ("?state=%FF", None, 400, "bad_request", None),
        ("", b"{}", 400, "bad_request", None),
    ],
)
async def test_a_query_is_read_as_strictly_as_a_line(
    place: Place, query: str, body: bytes | None, status: int, code: str, at: str | None
) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        answer = await http("GET", http.raw(f"/v1/jobs{query}"), data=body)
        assert (answer.status, answer.code, answer.json.get("at")) == (status, code, at), answer


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"kind":"noop","teamspace":"acme","teamspace":"globex"}', "bad_json"),
        (b'{"kind":"noop","teamspace":"a\\u0000b"}', "bad_json"),
        (
            b'{"kind":"enrich","teamspace":"a","table":"t","module":"m","into":{"x":"text"},"params":'
            + b'{"a":' * 40
            + b"1",
            "bad_json",
        ),
        (b'{"kind":"noop","teamspace":"acme","ref":123456789012345678901}', "bad_request"),
        (b"\xff\xfe{}", "bad_json"),
        (b"[]", "bad_json"),
        (b"", "bad_request"),
        (b'{"op":"drain"}', "unknown_op"),
        (b'{"kind":"noop","teamspace":"acme"} {"kind":"noop","teamspace":"acme"}', "bad_json"),
    ],
)
async def test_a_body_is_read_by_the_rules_of_the_sockets(place: Place, body: bytes, code: str) -> None:
    async with place.daemon() as (_, client):
        for teamspace in (None, "acme"):
            async with using(place, client, f"of {teamspace}", teamspace=teamspace) as http:
                answer = await http.post("/v1/jobs", data=body, headers={"Content-Type": "application/json"})
                assert answer.code == code, answer


async def test_a_body_beyond_its_bound_is_refused_before_it_is_held(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        long = b'{"kind":"noop","teamspace":"acme","ref":"' + b"x" * 300_000 + b'"}'
        for sent in (long, _pieces(long)):
            answer = await http.post("/v1/jobs", data=sent)
            assert (answer.status, answer.code) == (413, "too_large")
        packed = await http.post("/v1/jobs", data=b"x", headers={"Content-Encoding": "gzip"})
        assert packed.status == 415


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    """Is sent without saying how long it is."""
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]


async def test_who_sends_half_a_body_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "BODY_SECONDS_MAX", 0.2)

    async def half() -> AsyncIterator[bytes]:
        yield b'{"kind":"noop",'
        await asyncio.sleep(30)

    async with place.daemon() as (_, client), using(place, client, "a") as http:
        answer = await http.post("/v1/jobs", data=half())
        assert answer.status == 408


async def test_a_token_that_asks_too_often_is_told_when_to_come_again(place: Place) -> None:
    place.configure("[http]", "requests_per_second = 2")
    async with (
        place.daemon() as (running, client),
        using(place, client, "a") as http,
        using(place, client, "b") as other,
    ):
        running.http.face._rates = limits.Rates(lambda: 0.0)
        answers = [await http.get("/v1/ping") for _ in range(5)]
        late = answers[-1]
        assert [answer.status for answer in answers] == [200] * 4 + [429], "those of two seconds may come at once"
        assert late.code == "busy"
        assert int(late.headers["Retry-After"]) >= late.json["retry_after"] > 0
        assert (await other.get("/v1/ping")).status == 200, "each token for itself"


async def test_every_code_is_a_problem_that_says_the_same_as_its_status(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        answer = await http.get("/v1/tables/acme/nowhere")
        assert answer.json == {
            "type": "urn:leadline:error:unknown_table",
            "title": "The teamspace has no table of that name.",
            "status": 404,
            "detail": answer.json["detail"],
            "code": "unknown_table",
            "at": "table",
        }
        assert (await http.get("/v1/nothing/here")).code == ErrorCode.NOT_FOUND
        wrong = await http("DELETE", "/v1/jobs")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, POST")


async def test_no_other_site_is_let_in_and_nothing_is_kept_by_browsers(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        for path in ("/v1/ping", "/v1/nothing", "/healthz"):
            answer = await http.get(path, headers={"Origin": "https://evil.example"})
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        preflight = await http("OPTIONS", "/v1/jobs", headers={"Access-Control-Request-Method": "POST"})
        assert preflight.status == 405


async def test_a_daemon_that_is_not_ready_says_so_to_everybody(place: Place) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        opened, running.http.face._reach._opened = running.http.face._reach._opened, None
        answers = [await http.get(path) for path in ("/readyz", "/v1/jobs", "/healthz")]
        running.http.face._reach._opened = opened
        assert [answer.status for answer in answers] == [503, 503, 200]
        assert [answer.headers.get("Retry-After") for answer in answers] == ["1", "1", None]
        running.supervisor.dispatcher.scheduler.draining = True
        assert (await http.get("/readyz")).status == 503


async def test_a_reply_is_what_the_socket_says_without_its_line(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        answer = await http.get("/v1/ping")
        assert set(answer.json) == {"version", "protocol"}
        paused = await http.post("/v1/pause", data=b" {} ")
        assert (paused.status, paused.json["at"]) == (400, "scope")
        paused = await http.post("/v1/pause", json={"scope": "queue"})
        assert paused.json == {"message": "The queue is paused."}
        assert msgspec.json.decode((await http.get("/v1/status")).body)["paused"] == ["queue"]


async def test_tcp_is_listened_to_where_the_configuration_says_so(place: Place, unused_tcp_port: int) -> None:
    place.configure("[http]", f'listen = "127.0.0.1:{unused_tcp_port}"')
    async with place.daemon(), aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/readyz") as answer:
            assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/metrics") as answer:
            assert answer.status == 401, "a proxy before it makes everybody look near"


async def test_where_nobody_can_say_whether_it_took_place_nothing_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        await http.get("/v1/ping")
        operations = running.http.face._reach.desk.operations

        async def lost(*_: object) -> None:
            raise OutcomeUnknown("cut off")

        monkeypatch.setattr(operations, "submit", lost)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.post("/v1/jobs", json=NOOP)


async def test_a_fault_of_ours_costs_one_request_and_floods_no_log(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        await http.get("/v1/ping")

        async def broken(*_: object) -> None:
            raise ZeroDivisionError("secret in a local")

        monkeypatch.setattr(running.http.face._reach.desk.operations, "perform", broken)
        with capture_logs() as logs:
            for _ in range(50):
                answer = await http.get("/v1/status")
                assert (answer.status, answer.code) == (500, "internal")
                assert b"ZeroDivision" not in answer.body
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["request_failed"]
        assert (await http.post("/v1/jobs", json=NOOP)).status == 201
