"""A provider module and the values of one lead → one complete HTTP request.

Nothing a tenant wrote decides where a request goes or which headers it has: values stand percent-encoded in one segment
of the path or in the query, or as JSON strings in the body, and the host is the provider's alone.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from leadline.core.rate_limit import FLIGHT_SECONDS
from leadline.features.tables.columns import BadValueError, Cells, JsonValue, cell_text
from leadline.features.tables.prompts import Message
from leadline.features.tables.provider_modules import (
    PAGE,
    RECORDS,
    SETTINGS,
    TASK,
    Bearer,
    ClientCredentials,
    KeyHeader,
    KeyQuery,
    ProviderModule,
    RequestTemplate,
)
from leadline.features.tables.templates import Template, fill_json, fill_text, parse_template
from leadline.ports.provider_client import Request

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class Access(msgspec.Struct, frozen=True):
    """One provider account as it is in force: where it is, with which key, under which settings."""

    base_url: str
    key: str | None
    settings: Mapping[str, str]
    timeout_seconds: float
    flight_seconds: float = FLIGHT_SECONDS

    def __repr__(self) -> str:
        return f"Access({self.base_url!r}, key={'***' if self.key else None})"


def input_values(module: ProviderModule, cells: Mapping[str, JsonValue], columns: Mapping[str, str]) -> Cells:
    """The module's inputs from a lead's cells; `columns` says which column an input is read from, else its namesake."""
    names = (*module.inputs, *module.optional_inputs)
    return {name: cells[column] for name in names if (column := columns.get(name, name)) in cells}


def missing_inputs(module: ProviderModule, values: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The inputs that the module needs and this lead does not have."""
    return tuple(name for name in module.inputs if not cell_text(values.get(name)).strip())


def lead_request(module: ProviderModule, access: Access, values: Mapping[str, JsonValue], *, call_id: str) -> Request:
    """The first request for a lead: the whole of a synchronous call, or the start of a task.

    Raises:
        BadValueError: a value cannot stand where the module puts it; the lead has no usable input.

    """
    assert module.request is not None, f"{module.name} is asked by prompts"
    return _request(module, module.request, access, values, call_id)


def poll_request(
    module: ProviderModule, access: Access, values: Mapping[str, JsonValue], *, task: str, call_id: str
) -> Request:
    """The request for the result of a task. Raises BadValueError as `lead_request` does."""
    assert module.poll is not None, f"{module.name} has no polls"
    return _request(module, module.poll.request, access, {**values, TASK: task}, call_id)


def order_request(module: ProviderModule, access: Access, records: Sequence[JsonValue], *, call_id: str) -> Request:
    """The order of a bulk: one request for many leads. Raises BadValueError as `lead_request` does."""
    assert module.request is not None, f"{module.name} is asked by prompts"
    return _request(module, module.request, access, {RECORDS: list(records)}, call_id)


def read_request(module: ProviderModule, access: Access, *, task: str, page: str, call_id: str) -> Request:
    """The request for a page of a bulk's results. Raises BadValueError as `lead_request` does."""
    assert module.bulk is not None, f"{module.name} takes no bulk orders"
    assert module.bulk.results.request is not None, f"{module.name} answers its polls with the results"
    return _request(module, module.bulk.results.request, access, {TASK: task, PAGE: page}, call_id)


def chat_request(
    module: ProviderModule, access: Access, messages: Sequence[Message], *, answer_tokens_max: int, call_id: str
) -> Request:
    """One turn of a conversation with a model."""
    chat = module.chat
    assert chat is not None, f"{module.name} is no chat endpoint"
    body: dict[str, Any] = {
        "model": fill_text(_text(chat.model), with_settings(access, {})),
        "messages": messages,
        chat.limit_key: answer_tokens_max,
    }
    if chat.temperature is not None:
        body["temperature"] = chat.temperature
    return complete_request(module, access, "POST", chat.path, {}, {}, body, call_id)


def _request(
    module: ProviderModule, template: RequestTemplate, access: Access, values: Mapping[str, JsonValue], call_id: str
) -> Request:
    templates = template.templates
    values = with_settings(access, values)
    path = templates.path.fill(lambda name: quote(cell_text(values.get(name)), safe=""))
    if {".", ".."} & set(path.split("/")):
        raise BadValueError("a dot or two dots cannot stand in the path of a request")
    query = {name: text for name, each in templates.query.items() if (text := fill_text(each, values))}
    body = fill_json(templates.body, values)
    return complete_request(module, access, template.method, path, query, template.headers, body, call_id)


def complete_request(
    module: ProviderModule,
    access: Access,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: object,
    call_id: str,
) -> Request:
    """A request with what the account adds to each: where it goes, and its key."""
    sent = {"Accept": "application/json", **headers}
    asked = dict(query)
    if body is not None:
        sent["Content-Type"] = "application/json"
    if module.id_header is not None:
        sent[module.id_header] = call_id
    if access.key is not None:
        match module.auth:
            case Bearer() | ClientCredentials():
                sent["Authorization"] = f"Bearer {access.key}"
            case KeyHeader(name=name):
                sent[name] = access.key
            case KeyQuery(name=name):
                asked[name] = access.key
            case None:
                pass
    url = access.base_url.rstrip("/") + path + ("?" + urlencode(asked) if asked else "")
    payload = b"" if body is None else _ENCODER.encode(body)
    return Request(method, url, sent, payload, access.timeout_seconds, access.flight_seconds)


def with_settings(access: Access, values: Mapping[str, JsonValue]) -> Cells:
    """Values, and the settings of the account under the names by which templates know them."""
    return {**values, **{SETTINGS + name: value for name, value in access.settings.items()}}


@lru_cache(maxsize=1_024)
def _text(text: str) -> Template:
    """A string of a module that was judged when it was read."""
    return parse_template(text, None)
