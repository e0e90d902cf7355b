"""What is sent to a provider for a lead: nothing a tenant wrote decides where it goes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leadline.features.tables.bulk import records_of
from leadline.features.tables.columns import BadValueError, Cells
from leadline.features.tables.prompts import Message
from leadline.features.tables.provider_modules import Bearer, KeyHeader, KeyQuery, preset, preset_names, read_module
from leadline.features.tables.requests import (
    Access,
    chat_request,
    input_values,
    lead_request,
    missing_inputs,
    order_request,
    poll_request,
)
from leadline_protocol.ids import LeadId
from tests.features.tables.test_provider_modules import POLL, SYNC

PLAIN = read_module(SYNC, file="plain.toml")
SLOW = read_module(POLL, file="slow.toml")
ACCESS = Access("https://host.example/base", "canary-key", {}, 60.0)


def test_values_stand_encoded_in_the_path() -> None:
    request = lead_request(PLAIN, ACCESS, {"email": "a/b?c#d@x.example"}, call_id="1")
    assert request.url == "https://host.example/base/v1/enrich/a%2Fb%3Fc%23d%40x.example"
    assert request.body == b""


@pytest.mark.parametrize("dots", [".", ".."])
def test_a_value_cannot_climb_up_the_path(dots: str) -> None:
    with pytest.raises(BadValueError):
        lead_request(PLAIN, ACCESS, {"email": dots}, call_id="1")


def test_values_stand_as_json_in_the_body() -> None:
    request = lead_request(SLOW, ACCESS, {"email": 'x", "admin": true, "y": "'}, call_id="1")
    assert json.loads(request.body) == {"email": 'x", "admin": true, "y": "'}
    assert request.headers["Content-Type"] == "application/json"
    assert request.method == "POST"


@pytest.mark.parametrize(
    "template",
    [
        'path = "/v1/{{Email}}"',
        'path = "/v1"\nquery = { who = "{{ EMAIL }}" }',
        'path = "/v1"\nbody = { who = ["{{eMail}}"] }',
    ],
)
def test_a_placeholder_stands_for_its_input_however_it_is_written(template: str) -> None:
    text = f"""
        name = "free"
        base_url = "https://host.example"
        inputs = ["email"]
        [request]
        {template}
        [response.columns]
        company = {{ select = "company" }}
    """
    request = lead_request(read_module(text, file="free.toml"), ACCESS, {"email": "ada"}, call_id="1")
    assert request.url.count("ada") + request.body.count(b"ada") == 1


def test_a_poll_names_its_task() -> None:
    request = poll_request(SLOW, ACCESS, {"email": "a"}, task="a b&c", call_id="1")
    assert (request.method, request.url) == ("GET", "https://host.example/base/result?task_hash=a+b%26c")


def test_the_key_travels_as_the_module_says() -> None:
    values = {"email": "a"}
    assert lead_request(replace(PLAIN, auth=Bearer()), ACCESS, values, call_id="1").headers["Authorization"] == (
        "Bearer canary-key"
    )
    assert lead_request(replace(PLAIN, auth=KeyHeader("X-Key")), ACCESS, values, call_id="1").headers["X-Key"]
    assert lead_request(replace(PLAIN, auth=KeyQuery("key")), ACCESS, values, call_id="1").url.endswith(
        "?key=canary-key"
    )
    assert "canary-key" not in str(lead_request(PLAIN, ACCESS, values, call_id="1"))
    assert "canary-key" not in repr(ACCESS)


def test_a_provider_that_takes_an_id_gets_the_id_of_the_call() -> None:
    module = replace(PLAIN, ambiguous="reuse_id", id_header="Idempotency-Key")
    assert lead_request(module, ACCESS, {"email": "a"}, call_id="17").headers["Idempotency-Key"] == "17"


def test_inputs_are_read_from_the_columns_that_the_job_names() -> None:
    cells = {"work_email": "a@b.example", "email": "other"}
    assert input_values(PLAIN, cells, {"email": "work_email"}) == {"email": "a@b.example"}
    assert input_values(PLAIN, cells, {}) == {"email": "other"}
    assert missing_inputs(PLAIN, {"email": " "}) == ("email",)
    assert missing_inputs(PLAIN, {"email": 0}) == ()


def test_a_conversation_becomes_a_request_for_a_completion() -> None:
    openai = preset("openai")
    access = Access("http://127.0.0.1:1", "k", {"model": "small"}, 60.0)
    request = chat_request(openai, access, [Message("user", "hi")], answer_tokens_max=9, call_id="1")
    assert request.url == "http://127.0.0.1:1/v1/chat/completions"
    assert json.loads(request.body) == {
        "model": "small",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 9,
    }


def test_every_preset_makes_requests() -> None:
    for name in sorted({*preset_names()} - {"openai"}):
        module = preset(name)
        values: Cells = dict.fromkeys(module.inputs, "x")
        if module.bulk is None:
            request = lead_request(module, ACCESS, values, call_id="1")
        else:
            records, keys = records_of(module, ACCESS, [(LeadId(7), values)])
            assert keys == ["7"]
            request = order_request(module, ACCESS, records, call_id="1")
        assert request.url.startswith("https://host.example/base/")
        assert "x" in request.url.removeprefix(ACCESS.base_url) or b'"x"' in request.body


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_value_changes_host_or_shape_of_a_request(value: str) -> None:
    try:
        request = lead_request(PLAIN, ACCESS, {"email": value}, call_id="1")
    except BadValueError:
        return
    assert request.url.startswith("https://host.example/base/v1/enrich/")
    assert request.url.count("/") == 6
    assert set(request.headers) == {"Accept"}
    assert request.url.isascii()
