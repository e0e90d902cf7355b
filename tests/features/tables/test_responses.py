"""One answer, one verdict: what providers say, in all the ways in which they say it."""

import datetime as dt
import json
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leadline.features.tables.columns import BadValueError, Column, ColumnType
from leadline.features.tables.provider_modules import Hint, ProviderModule, Signal, preset, read_module
from leadline.features.tables.responses import (
    HINT_SECONDS_MAX,
    Done,
    Failed,
    InvalidKey,
    NotFound,
    Pending,
    QuotaGone,
    ServerError,
    Started,
    Throttled,
    Verdict,
    read_response,
    read_values,
    seconds_until,
)
from leadline.ports.provider_client import Response
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import Instant
from tests.features.tables.test_provider_modules import POLL, SYNC

PLAIN = read_module(SYNC, file="plain.toml")
SLOW = read_module(POLL, file="slow.toml")
WALL = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
NOW = Instant(int(WALL.timestamp()) * 1_000_000)


def verdict(
    module: ProviderModule = PLAIN,
    status: int = 200,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    poll: bool = False,
) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    return read_response(module, Response(status, headers or {}, raw), "poll" if poll else "start", NOW)


def test_a_good_answer_gives_the_values_that_the_module_selects() -> None:
    assert verdict(body={"data": {"company": "Acme", "size": "12"}}) == Done({"company": "Acme", "size": "12"})
    assert verdict(body={"data": {"company": "Acme"}}) == Done({"company": "Acme", "size": None})
    assert verdict(body=b'\xef\xbb\xbf{"data": {"size": 1}}') == Done({"company": None, "size": 1})


def test_an_answer_without_any_value_is_a_miss() -> None:
    assert verdict(body={"data": {"company": None, "size": ""}}) == NotFound()
    assert verdict(body=[]) == NotFound()


def test_a_start_names_its_task_and_a_poll_its_state() -> None:
    assert verdict(SLOW, body={"task_hash": "abc"}) == Started("abc")
    assert verdict(SLOW, body={"task_hash": 17}) == Started("17")
    assert verdict(SLOW, poll=True, body={"status": "in_progress"}) == Pending()
    assert verdict(SLOW, poll=True, body={"status": "completed", "data": {"company": "A"}}) == Done({"company": "A"})
    nameless: list[object] = [
        {},
        {"task_hash": None},
        {"task_hash": ""},
        {"task_hash": True},
        {"task_hash": "x" * 501},
        [],
    ]
    for body in nameless:
        said = verdict(SLOW, body=body)
        assert isinstance(said, Failed)
        assert said.reason is LeadReason.BAD_RESPONSE


def test_snov_is_understood_as_it_answers() -> None:
    snov = preset("snov")
    assert verdict(snov, body={"data": {"task_hash": "h"}}) == Started("h")
    assert verdict(snov, poll=True, body={"status": "in_progress", "data": []}) == Pending()
    found = {
        "status": "completed",
        "data": [{"people": "A", "result": [{"email": "a@b.example", "smtp_status": "valid"}]}],
    }
    assert verdict(snov, poll=True, body=found) == Done({"email": "a@b.example", "email_status": "valid"})
    assert verdict(snov, poll=True, body={"status": "completed", "data": [{"result": []}]}) == NotFound()


def test_a_completion_gives_its_text_and_what_it_took() -> None:
    openai = preset("openai")
    body: dict[str, object] = {
        "choices": [{"message": {"content": "7"}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 31},
    }
    assert verdict(openai, body=body) == Done({"content": "7"}, 31)
    assert isinstance(verdict(openai, body={"choices": []}), Failed)
    body["choices"] = [{"message": {"content": ""}, "finish_reason": "content_filter"}]
    assert verdict(openai, body=body) == Failed(
        LeadReason.REFUSED_BY_PROVIDER, "the provider's content filter cut the answer off"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, InvalidKey),
        (402, QuotaGone),
        (429, Throttled),
        (408, ServerError),
        (500, ServerError),
        (503, ServerError),
        (599, ServerError),
        (301, Failed),
        (400, Failed),
        (403, Failed),
        (404, Failed),
    ],
)
def test_without_a_word_of_the_module_the_status_means_what_it_means_by_custom(
    status: int, said: type[Verdict]
) -> None:
    assert type(verdict(status=status)) is said


def test_hunter_says_403_when_asked_too_fast_and_429_when_the_quota_is_gone() -> None:
    hunter = preset("hunter")
    assert verdict(hunter, 403) == Throttled(None)
    assert verdict(hunter, 429) == QuotaGone(None)
    assert verdict(hunter, 404) == NotFound()


def test_openai_tells_too_fast_from_not_paid_in_the_body() -> None:
    openai = preset("openai")
    fast = {"error": {"code": "rate_limit_exceeded", "type": "requests"}}
    assert verdict(openai, 429, fast, headers={"x-ratelimit-reset-requests": "6m0s"}) == Throttled(360.0)
    assert verdict(openai, 429, {"error": {"code": "insufficient_quota"}}) == QuotaGone(None)
    assert verdict(openai, 429, {"error": {"type": "insufficient_quota"}}) == QuotaGone(None)


def test_a_refusal_in_the_body_of_a_200_is_heard() -> None:
    assert verdict(preset("findymail"), 200, {"error": "Not enough credits"}) == QuotaGone(None)
    assert verdict(preset("neverbounce"), 200, {"status": "throttle_triggered"}) == Throttled(None)
    assert verdict(preset("neverbounce"), 200, {"status": "auth_failure"}) == InvalidKey()
    said = verdict(preset("neverbounce"), 200, {"status": "general_failure", "message": "no"})
    assert isinstance(said, Failed)
    assert said.reason is LeadReason.REFUSED_BY_PROVIDER


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": format_datetime(WALL + dt.timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:01:00 GMT"}, 60.0),
        ({"retry-after": "2026-11-22T12:01:00Z"}, 60.0),
        ({"retry-after": "2026-11-22T13:01:00+01:00"}, 60.0),
        ({"retry-after": str(int(WALL.timestamp()) + 45)}, 45.0),
        ({"retry-after": str((int(WALL.timestamp()) + 45) * 1000)}, 45.0),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": "1h2m3s"}, 3_600.0),
        ({"retry-after": "500ms"}, 1.0),
        ({"retry-after": "1.5s"}, 1.5),
        ({"retry-after": "0"}, 1.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 1.0),
        ({"retry-after": "999999"}, HINT_SECONDS_MAX),
        ({"retry-after": "9" * 20}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, HINT_SECONDS_MAX),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Fri, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after": "٣٠"}, None),
        ({"retry-after": "x" * 10_000}, None),
        ({}, None),
    ],
)
def test_every_shape_of_a_hint_is_read_and_bounded(headers: dict[str, str], seconds: float | None) -> None:
    assert verdict(status=429, headers=headers) == Throttled(seconds)


def test_a_hint_may_be_a_number_or_a_text_in_the_body() -> None:
    module = replace(PLAIN, hints=[Hint(header="retry-after"), Hint(select="error.retry_after")])
    assert verdict(module, 429, {"error": {"retry_after": 12}}) == Throttled(12.0)
    assert verdict(module, 429, {"error": {"retry_after": "12"}}) == Throttled(12.0)
    assert verdict(module, 429, {"error": {"retry_after": True}}) == Throttled(None)
    assert verdict(module, 429, {"error": {"retry_after": 12}}, headers={"retry-after": "soon"}) == Throttled(12.0)
    assert verdict(module, 429, b"not json") == Throttled(None)


def test_a_hint_in_a_declared_form_is_read_in_no_other() -> None:
    assert seconds_until("1500", "milliseconds", NOW) == 1.5
    assert seconds_until("60", "seconds", NOW) == 60
    assert seconds_until("60", "duration", NOW) is None
    assert seconds_until("6m0s", "seconds", NOW) is None
    assert seconds_until(str(NOW // 1_000_000 + 5), "epoch", NOW) == 5
    assert seconds_until(str(NOW // 1_000 + 5_000), "epoch_milliseconds", NOW) == 5


def test_a_quota_may_say_until_when_it_is_gone() -> None:
    module = replace(PLAIN, quota_hints=[Hint(header="x-reset")])
    assert verdict(module, 402, headers={"x-reset": "7200"}) == QuotaGone(7_200)
    assert verdict(module, 402, headers={"x-reset": "1" + "0" * 8}) == QuotaGone(31 * 86_400)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1e999}', b"null x"])
def test_a_broken_body_fails_the_lead(body: bytes) -> None:
    said = verdict(body=body)
    assert isinstance(said, Failed)
    assert said.reason is LeadReason.BAD_RESPONSE
    assert len(said.detail) < 400


def test_a_signal_compares_values_of_one_kind() -> None:
    module = replace(PLAIN, not_found=[Signal(select="ok", equals=False)])
    assert verdict(module, body={"ok": False}) == NotFound()
    assert verdict(module, body={"ok": 0, "data": {"size": 1}}) == Done({"company": None, "size": 1})
    assert verdict(replace(PLAIN, not_found=[Signal(select="gone")]), body={"gone": "yes"}) == NotFound()
    assert isinstance(verdict(replace(PLAIN, not_found=[Signal(select="length(x)")]), body={"data": {"size": 1}}), Done)


def test_values_are_read_into_the_declared_columns() -> None:
    into = (Column("size", ColumnType.NUMBER), Column("firm", ColumnType.TEXT))
    assert read_values({"size": "12", "company": "Acme"}, into, {"firm": "company"}) == {"size": 12, "firm": "Acme"}
    with pytest.raises(BadValueError, match="size: 'many' is not a number"):
        read_values({"size": "many"}, into, {})


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "status", "error", "code", "choices", "message"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from([PLAIN, SLOW, *map(preset, ("snov", "openai", "hunter", "prospeo", "fullenrich"))]),
    st.integers(100, 599),
    st.binary(max_size=50) | ANY_JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset-tokens"]), st.text(max_size=30)),
    st.booleans(),
)
def test_any_answer_has_a_verdict(
    module: ProviderModule, status: int, body: bytes, headers: dict[str, str], poll: bool
) -> None:
    said = verdict(module, status, body, headers=headers, poll=poll)
    if isinstance(said, Throttled) and said.hint_seconds is not None:
        assert 1.0 <= said.hint_seconds <= HINT_SECONDS_MAX
