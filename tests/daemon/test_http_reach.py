"""What a token reaches: every address once, with the right token, a foreign one, a lesser one and none."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from msgspec import Struct

from leadline.adapters.http.confinement import NAME_DIGITS
from leadline.adapters.http.routes import ROUTES, Route, Special
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Cancel, Noop, Ping, Tokens, Upload
from tests.daemon.http import EVERY_SCOPE, Answer, Http, program, token, using
from tests.daemon.outreach import outreach
from tests.daemon.running import Place

CANARY = "canary-of-acme-7f3a"
"""Stands in everything of acme that has room for it."""

NOTICE = "6f9f5cf2-3c0c-4a3d-8a4b-3a1f0e8c1d11"
DAILY = {"repeat": "daily", "at": "02:30", "zone": "Europe/Berlin"}

Call = tuple[str, str, Mapping[str, Any], Any, int]
"""Method, path, query, body, and the status that acme's own token gets; an operator's where acme's reaches nothing."""

CALLS: Sequence[Call] = (
    ("GET", "/healthz", {}, None, 200),
    ("GET", "/readyz", {}, None, 200),
    ("GET", "/metrics", {}, None, 200),
    ("GET", "/v1/openapi.json", {}, None, 200),
    ("GET", "/v1/ping", {}, None, 200),
    ("GET", "/v1/status", {}, None, 200),
    ("GET", "/v1/teamspaces", {}, None, 200),
    ("GET", "/v1/providers", {}, None, 200),
    ("GET", "/v1/plans", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/usage", {"month": "2026-11", "teamspace": "acme"}, None, 200),
    ("GET", "/v1/notices", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/jobs", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/jobs/{job}", {}, None, 200),
    ("GET", "/v1/jobs/{job}/why", {}, None, 200),
    ("GET", "/v1/jobs/{job}/history", {}, None, 200),
    ("GET", "/v1/jobs/{job}/file", {}, None, 409),
    ("GET", "/v1/tables", {"teamspace": "acme"}, None, 200),
    ("PUT", "/v1/tables/{teamspace}/{table}", {}, {"columns": {"email": "text"}}, 200),
    ("GET", "/v1/tables/{teamspace}/{table}", {}, None, 200),
    ("GET", "/v1/modules", {"teamspace": "acme"}, None, 200),
    ("POST", "/v1/tables/{teamspace}/{table}/retain", {}, {"days": 30}, 200),
    ("PUT", "/v1/schedules/{teamspace}/{name}", {}, {"timetable": DAILY, "submission": {"kind": "noop"}}, 200),
    ("GET", "/v1/schedules", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/schedules/due", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/schedules/{teamspace}/{name}", {}, None, 200),
    ("POST", "/v1/schedules/preview", {}, {"timetable": DAILY}, 200),
    ("POST", "/v1/schedules/{teamspace}/{name}/pause", {}, None, 200),
    ("POST", "/v1/schedules/{teamspace}/{name}/resume", {}, None, 200),
    ("DELETE", "/v1/schedules/{teamspace}/{name}", {}, None, 200),
    ("PUT", "/v1/batch/{teamspace}/{name}", {}, {"settings": {"note": CANARY}}, 200),
    ("GET", "/v1/batch", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/batch/{teamspace}/{name}", {}, None, 200),
    ("PATCH", "/v1/batch/{teamspace}/{name}", {}, {"api": True}, 200),
    ("POST", "/v1/batch/{teamspace}/{name}/upload", {}, {"path": "code.zip"}, 422),
    ("POST", "/v1/batch/{teamspace}/{name}/publish", {}, None, 409),
    ("POST", "/v1/batch/{teamspace}/{name}/unpublish", {}, None, 409),
    ("GET", "/v1/batch/{teamspace}/{name}/archive", {}, None, 404),
    ("DELETE", "/v1/batch/{teamspace}/{name}", {}, None, 200),
    ("GET", "/v1/runs", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/runs/{instance}", {}, None, 404),
    ("GET", "/v1/runs/{instance}/logs", {}, None, 404),
    ("GET", "/v1/outreach/follow_ups", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/outreach/associates", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/outreach/scripts", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/outreach/suppressions", {"teamspace": "acme"}, None, 200),
    ("GET", "/v1/outreach/mails", {"teamspace": "acme"}, None, 200),
    ("POST", "/v1/outreach/{teamspace}/preview", {}, {}, 200),
    ("GET", "/v1/outreach/{teamspace}/follow_ups/{follow_up}", {}, None, 200),
    ("GET", "/v1/outreach/{teamspace}/follow_ups/{follow_up}/next_mail", {}, None, 200),
    ("POST", "/v1/outreach/{teamspace}/suppress", {}, {"domain": "gone.example"}, 200),
    ("POST", "/v1/outreach/{teamspace}/allow", {}, {"domain": "gone.example"}, 200),
    ("POST", "/v1/outreach/{teamspace}/associates/{associate}/pause", {}, None, 200),
    ("POST", "/v1/outreach/{teamspace}/associates/{associate}/resume", {}, None, 200),
    ("POST", "/v1/outreach/{teamspace}/mails/{mail}/resolve", {}, {"sent": True}, 404),
    ("POST", "/v1/outreach/{teamspace}/follow_ups/{follow_up}/stop", {}, None, 200),
    ("POST", "/v1/outreach/{teamspace}/queue", {}, {}, 200),
    ("POST", "/v1/outreach/{teamspace}/import", {}, {"rows": [{"type": "suppression", "domain": "no.example"}]}, 200),
    ("POST", "/v1/events", {}, {"teamspace": "acme", "event": "reply", "address": "x@y.example"}, 200),
    ("PUT", "/v1/files/{file}", {}, b"email\n", 201),
    ("GET", "/v1/files/{file}", {}, None, 404),
    ("POST", "/v1/jobs", {}, {"kind": "noop", "teamspace": "acme"}, 201),
    ("POST", "/v1/jobs/{job}/pause", {}, None, 200),
    ("POST", "/v1/jobs/{job}/resume", {}, None, 200),
    ("POST", "/v1/jobs/{job}/rerun", {}, None, 409),
    ("POST", "/v1/jobs/{job}/cancel", {}, None, 200),
    ("GET", "/v1/stream", {"job": "{job}"}, None, 200),
    ("POST", "/v1/pause", {}, {"scope": "teamspace", "name": "acme"}, 200),
    ("POST", "/v1/resume", {}, {"scope": "teamspace", "name": "acme"}, 200),
    ("POST", "/v1/notices/{again}/again", {}, None, 404),
    ("PATCH", "/v1/plans", {}, {"teamspace": "acme", "key": "slots.tables", "value": 2}, 403),
    ("POST", "/v1/providers/{name}/try", {}, {"lead": {}, "teamspace": "acme"}, 404),
    ("DELETE", "/v1/tables/{teamspace}/{table}", {}, None, 200),
    ("POST", "/v1/links", {}, {"teamspace": "acme", "person": "ann@acme.example", "role": "admin"}, 200),
    ("DELETE", "/v1/links", {"teamspace": "acme", "person": "ann@acme.example"}, None, 200),
    ("POST", "/v1/reload", {}, None, 200),
    ("POST", "/v1/drain", {}, None, 200),
)

OF_THE_WHOLE = {
    "/metrics",
    "/v1/status",
    "/v1/teamspaces",
    "/v1/providers",
    "/v1/providers/{name}/try",
    "/v1/notices/{again}/again",
    "/v1/reload",
    "/v1/drain",
}
"""Concern the daemon as a whole, or name what no teamspace is known of: only a token of all teamspaces gets there."""

OF_NOBODY = {"/v1/ping", "/v1/schedules/preview", "/v1/files/{file}"}
"""Name nothing that could be foreign: a program's own files are all that it can name."""

IMPORT = [
    {"type": "associate", "name": "jo", "address": "jo@acme.example", "signature": CANARY},
    {"type": "script", "name": "hello", "keyword": "Follow Up", "steps": [{"subject": CANARY, "text": CANARY}]},
    {"type": "follow_up", "associate": "jo", "address": "ann@x.example", "script": "hello", "fields": {"n": CANARY}},
]


class Scene(Struct, frozen=True):
    """A daemon with something of everything in acme."""

    place: Place
    client: Client
    values: Mapping[str, str]
    """What stands for the names in paths."""

    async def call(self, http: Http, call: Call) -> Answer:
        method, path, query, body, _ = call
        for name, value in self.values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        query = {name: value.format(**self.values) for name, value in query.items()}
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        return await http(method, path, params=query, **(sent if body is not None else {}))


@asynccontextmanager
async def scene(place: Place) -> AsyncIterator[Scene]:
    place.configure("[http]", "requests_per_second = 10000", "[plans.default.batch]", "enabled = true", *outreach())
    async with place.daemon() as (_, client):
        job = (await client.submit(Noop(teamspace="acme", delay=3600, ref=CANARY))).job
        async with using(place, client, "setting up", teamspace="acme") as http:
            answer = await http.post("/v1/outreach/acme/import", json={"rows": IMPORT})
            assert answer.json["imported"]["faults"] == []
            follow_ups = (await http.get("/v1/outreach/follow_ups")).json["follow_ups"]
        values = {
            "job": str(job),
            "instance": str(job),
            "teamspace": "acme",
            "table": "prospects",
            "name": "nightly",
            "again": NOTICE,
            "associate": "jo",
            "follow_up": str(follow_ups[0]["follow_up"]),
            "mail": "1",
            "file": "leads.csv",
        }
        yield Scene(place, client, values)


def route_of(call: Call) -> Route:
    (route,) = (route for route in ROUTES if (route.method, route.path) == call[:2])
    return route


def test_every_route_is_called() -> None:
    assert sorted((method, path) for method, path, *_ in CALLS) == sorted(
        (route.method, route.path) for route in ROUTES
    )


async def test_every_route_answers_those_whom_it_is_for(place: Place) -> None:
    async with scene(place) as acting, AsyncExitStack() as stack:
        own = await stack.enter_async_context(using(place, acting.client, "own", teamspace="acme"))
        operator = await stack.enter_async_context(using(place, acting.client, "operator"))
        for call in CALLS:
            answer = await acting.call(operator if call[1] in OF_THE_WHOLE else own, call)
            assert answer.status == call[4], (call, answer)


async def test_a_foreign_token_finds_nothing_at_any_route(place: Place) -> None:
    """The negative control is the test above: the same requests, with the token that they are for."""
    async with scene(place) as acting, using(place, acting.client, "foreign", teamspace="globex") as http:
        found = {}
        for call in CALLS:
            answer = await acting.call(http, call)
            assert CANARY.encode() not in answer.body, call
            if answer.status != 404 and route_of(call).scope is not None:
                found[call[1]] = answer.status
        assert found == {"/v1/ping": 200, "/v1/schedules/preview": 200, "/v1/files/{file}": 201}
        assert set(found) == OF_NOBODY
        assert (await acting.client.call(Ping())).version, "nor has it drained the daemon"


async def test_what_is_foreign_and_what_is_not_there_are_told_in_the_same_words(place: Place) -> None:
    async with scene(place) as acting, using(place, acting.client, "foreign", teamspace="globex") as http:
        job = acting.values["job"]
        foreign, absent = [await http.get(f"/v1/jobs/{number}/why") for number in (job, 4711)]
        assert foreign.body.replace(job.encode(), b"4711") == absent.body
        foreign, absent = [await http.get(f"/v1/tables/{name}/prospects") for name in ("acme", "nobody")]
        assert foreign.body == absent.body


async def test_without_a_good_token_every_route_is_closed(place: Place) -> None:
    async with scene(place) as acting:
        revoked = await token(acting.client, "revoked")
        await acting.client.call(Tokens(action="revoke", name="revoked"))
        for secret in (None, "ldl_" + "x" * 43, revoked, "ä", "a" * 5000):
            async with program(place, secret) as http:
                for call in CALLS:
                    answer = await acting.call(http, call)
                    if route_of(call).scope is None:
                        assert answer.status == 200, call
                    else:
                        assert (answer.status, answer.code) == (401, "unauthorized"), (secret, call)
                        assert answer.headers["WWW-Authenticate"] == "Bearer"
                        assert CANARY.encode() not in answer.body


@pytest.mark.parametrize("scope", EVERY_SCOPE)
async def test_a_scope_opens_its_own_routes_and_no_others(place: Place, scope: str) -> None:
    async with scene(place) as acting:
        others = [each for each in EVERY_SCOPE if each != scope]
        async with using(place, acting.client, "lesser", *others) as http:
            for call in CALLS:
                if route_of(call).scope == scope:
                    answer = await acting.call(http, call)
                    assert (answer.status, answer.code) == (403, "forbidden"), call


async def test_a_list_without_a_teamspace_is_that_of_the_tokens_own(place: Place) -> None:
    async with scene(place) as acting:
        other = (await acting.client.submit(Noop(teamspace="globex", delay=3600))).job
        async with using(place, acting.client, "own", teamspace="globex") as http:
            jobs = (await http.get("/v1/jobs")).json["jobs"]
            assert [job["job"] for job in jobs] == [other]
            for things in ("follow_ups", "associates", "scripts", "suppressions", "mails"):
                answer = await http.get(f"/v1/outreach/{things}")
                assert (answer.status, answer.json) == (200, {})


async def test_files_of_one_teamspace_are_not_there_for_another(place: Place) -> None:
    async with scene(place) as acting, AsyncExitStack() as stack:
        acme, globex = [
            await stack.enter_async_context(using(place, acting.client, name, teamspace=name))
            for name in ("acme", "globex")
        ]
        await acme.put("/v1/files/leads.csv", data=f"email,note\na@b.example,{CANARY}\n".encode())
        (stored,) = [path.name for path in (place.state / "incoming").iterdir()]
        for guess in ("leads.csv", stored):
            submission = {"kind": "upload", "table": "t", "path": guess}
            for wanted in (submission, {"kind": "chain", "steps": [submission]}):
                answer = await globex.post("/v1/jobs", json=wanted)
                assert (answer.status, answer.code) == (422, "bad_archive"), "by any name that it can say"
        own = await acme.post("/v1/jobs", json={"kind": "upload", "table": "t", "path": "leads.csv"})
        assert own.status == 201
        assert (await acting.client.wait(own.json["job"])).state == "completed"
        assert stored.startswith("h")
        assert stored.index("-") == 1 + NAME_DIGITS


async def test_the_file_of_an_export_is_fetched_by_its_job_by_those_whose_it_is(place: Place) -> None:
    async with scene(place) as acting, AsyncExitStack() as stack:
        acme, globex, operator = [
            await stack.enter_async_context(using(place, acting.client, name, teamspace=teamspace))
            for name, teamspace in (("acme", "acme"), ("globex", "globex"), ("operator", None))
        ]
        (place.state / "incoming" / "leads.csv").write_text(f"email,note\na@b.example,{CANARY}\n")
        upload = await acting.client.submit(Upload(teamspace="acme", table="t", path="leads.csv"))
        await acting.client.wait(upload.job)
        for path in ({}, {"path": "out.csv"}):
            answer = await acme.post("/v1/jobs", json={"kind": "export", "table": "t", **path})
            job = answer.json["job"]
            await acting.client.wait(job)
            fetched = await acme.get(f"/v1/jobs/{job}/file")
            assert (fetched.status, CANARY.encode() in fetched.body) == (200, True)
            assert f"t-{job}.csv" in fetched.headers["Content-Disposition"]
            assert (await globex.get(f"/v1/jobs/{job}/file")).status == 404
            assert (await operator.get(f"/v1/jobs/{job}/file")).body == fetched.body
        assert (await acme.get("/v1/files/out.csv")).body == fetched.body
        assert (await globex.get("/v1/files/out.csv")).status == 404


async def test_a_file_that_another_may_have_named_is_not_given_out(place: Place) -> None:
    """Names said on the sockets are shared: the file may by now be another teamspace's."""
    async with scene(place) as acting, AsyncExitStack() as stack:
        acme, operator = [
            await stack.enter_async_context(using(place, acting.client, name, teamspace=teamspace))
            for name, teamspace in (("acme", "acme"), ("operator", None))
        ]
        await acme.put("/v1/tables/acme/t", json={"columns": {"email": "text"}})
        job = (await operator.post("/v1/jobs", json=OUT | {"teamspace": "acme"})).json["job"]
        await acting.client.wait(job)
        assert (await operator.get(f"/v1/jobs/{job}/file")).status == 200
        assert (await acme.get(f"/v1/jobs/{job}/file")).status == 404


OUT = {"kind": "export", "table": "t", "path": "out.csv"}


async def test_what_a_schedule_submits_is_confined_too(place: Place) -> None:
    async with scene(place) as acting, using(place, acting.client, "own", teamspace="globex") as http:
        submission = {"kind": "upload", "table": "t", "path": "leads.csv"}
        wanted = {"timetable": DAILY, "submission": submission}
        foreign = await http.put(
            "/v1/schedules/globex/a", json=wanted | {"submission": submission | {"teamspace": "acme"}}
        )
        assert (foreign.status, foreign.code) == (404, "not_found")
        own = await http.put("/v1/schedules/globex/a", json=wanted)
        (view,) = own.json["schedules"]
        assert view["submission"]["path"].endswith("-leads.csv")
        assert view["submission"]["path"] != "leads.csv"


async def test_secrets_are_in_no_answer_log_or_number(place: Place) -> None:
    async with scene(place) as acting:
        await acting.client.call(Cancel(job=JobId(int(acting.values["job"]))))  # so that its stream ends
        with structlog.testing.capture_logs() as logs:
            secret = await token(acting.client, "watched")
            sealed = "not-a-real-secret-51c8"
            async with program(place, secret) as http:
                answers = [await http.put("/v1/batch/acme/sealed", json={"secrets": {"key": sealed}})]
                answers += [await acting.call(http, call) for call in CALLS if route_of(call).scope == "read"]
                answers.append(await http.get(f"/v1/jobs?state={secret}"))
        told = b"".join(answer.body + repr(answer.headers).encode() for answer in answers[:-1]) + repr(logs).encode()
        assert b"sealed" in told
        assert secret.encode() not in told
        assert sealed.encode() not in told
        listed = await acting.client.call(Tokens())
        assert secret not in repr(listed)


async def test_the_audit_trail_names_the_token(place: Place) -> None:
    async with scene(place) as acting, using(place, acting.client, "night shift", teamspace="acme") as http:
        job = acting.values["job"]
        await http.post(f"/v1/jobs/{job}/cancel")
        history = (await http.get(f"/v1/jobs/{job}/history")).json["history"]
        (asked,) = (entry["detail"] for entry in history if entry["event"] == "cancel asked")
        assert (asked["person"], asked["role"]) == ("token night shift", "super_admin")


async def test_roles_are_judged_by_the_tokens_and_nothing_that_is_sent(place: Place) -> None:
    async with scene(place) as acting, using(place, acting.client, "member", role="member") as http:
        answer = await http.put("/v1/batch/acme/nightly", json={"api": True})
        assert (answer.status, answer.code) == (403, "forbidden")
        claimed = {"as": {"person": "root", "role": "super_admin"}}
        answer = await http.put("/v1/batch/acme/nightly", json=claimed)
        assert (answer.status, answer.code) == (400, "bad_json"), "the field has been said already"


def test_the_routes_that_carry_no_operation_are_few() -> None:
    assert {route.means for route in ROUTES if isinstance(route.means, Special)} == set(Special)
