"""The description of the API as OpenAPI 3.1, made of the table of routes and of the messages of the sockets."""

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from leadline.adapters.http.problems import CONTENT_TYPE, STATUS, Problem
from leadline.adapters.http.routes import ROUTES, Route, Special
from leadline_protocol import messages as wire
from leadline_protocol.messages import REPLY_TYPES, SUBMISSION_TYPES

JSON: Final = "application/json"
JSONL: Final = "application/jsonl"
_NOT_OVER_HTTP: Final = ("ok", "line", "ref")
"""What pairs a reply with its request on a socket."""

_TEXT: Final = {"type": "string"}
_NOTICES: Final = (wire.Queued, wire.Started, wire.Progress, wire.Ended, wire.Missed)


class FileReceipt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A file has come in whole and is on the disk."""

    name: str
    """What a submission names as `path`."""
    size_bytes: int


@functools.cache
def document(version: str, routes: Sequence[Route] = ROUTES) -> bytes:
    """The description as JSON, as `/v1/openapi.json` serves it."""
    return msgspec.json.encode(describe(version, routes))


def describe(version: str, routes: Sequence[Route] = ROUTES) -> dict[str, Any]:
    """The description."""
    operations = [*dict.fromkeys(route.means for route in routes if isinstance(route.means, type))]
    replies: list[type] = [*dict.fromkeys(REPLY_TYPES[each] for each in operations)]
    types = [*SUBMISSION_TYPES, *_by_name(operations), *_by_name([*replies, wire.Receipt, wire.Preview])]
    _, schemas = msgspec.json.schema_components(
        [*types, *_NOTICES, Problem, FileReceipt], ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        if "description" in schema:  # Python 3.13 takes the indentation out of docstrings, 3.11 does not
            schema["description"] = inspect.cleandoc(schema["description"])
    for reply in (*replies, wire.Receipt, wire.Preview):
        _drop(schemas[reply.__name__], _NOT_OVER_HTTP)
    for submission in SUBMISSION_TYPES:
        _drop(schemas[submission.__name__], ("op", "ref", "notify"))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for operation in operations:
        schemas.pop(operation.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Leadline",
            "version": version,
            "description": "The operations of the queue over HTTP; daemon/docs/http.md tells how to begin.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _by_name(types: Iterable[type]) -> list[type]:
    return sorted(types, key=lambda each: each.__name__)


def _drop(schema: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        schema["properties"].pop(name, None)
        if name in schema.get("required", ()):
            schema["required"].remove(name)


def _operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _id_of(route),
        "summary": route.summary,
        "responses": {**_responses(route), "default": _refused()},
    }
    if route.scope is None:
        described["security"] = []
    else:
        described["security"] = [{"token": []}]
        described["x-scope"] = route.scope
    parameters = [*_in_path(route, schemas), *_in_query(route, schemas), *_in_headers(route)]
    if parameters:
        described["parameters"] = parameters
    body = _body(route, schemas)
    if body is not None:
        described["requestBody"] = body
    return described


def _id_of(route: Route) -> str:
    words = [part.strip("{}").replace(".", "_") for part in route.path.split("/") if part and part != "v1"]
    return "_".join([route.method.lower(), *words])


def _properties(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(route.means, type):
        found: dict[str, Any] = schemas[route.means.__name__]["properties"]
        return found
    return {
        "file": {"type": "string", "minLength": 1, "maxLength": 150, "pattern": r"^[^./\\][^/\\]*$"},
        "job": schemas["Job"]["properties"]["job"],
        "teamspace": schemas["BatchJobs"]["properties"]["teamspace"]["anyOf"][0],
        "name": schemas["BatchJobs"]["properties"]["name"]["anyOf"][0],
        "version": schemas["BatchJobs"]["properties"]["version"],
    }


def _in_path(route: Route, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    properties = _properties(route, schemas)
    parameters = []
    for name in route.in_path:
        schema = properties[name] if name not in route.renamed else schemas["Job"]["properties"]["job"]
        alternatives = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        wanted = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
        parameters.append({"name": name, "in": "path", "required": True, "schema": _without_default(wanted)})
    return parameters


def _in_query(route: Route, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if route.means is Special.STREAM:
        of_jobs = schemas["Jobs"]["properties"]
        return [
            {"name": "teamspace", "in": "query", "schema": of_jobs["teamspace"]["anyOf"][0]},
            {"name": "job", "in": "query", "schema": schemas["Job"]["properties"]["job"]},
        ]
    if route.in_body or not route.takes:
        return []
    properties = _properties(route, schemas)
    required = schemas[route.means.__name__].get("required", ()) if isinstance(route.means, type) else ()
    parameters: list[dict[str, Any]] = []
    for name in route.takes:
        schema = properties[name]
        if "anyOf" in schema:  # what is absent is not said at all
            alternatives = [each for each in schema["anyOf"] if each.get("type") != "null"]
            schema = alternatives[0] if len(alternatives) == 1 else {**schema, "anyOf": alternatives}
        schema = _without_default(schema)
        parameter: dict[str, Any] = {"name": name, "in": "query"}
        if name in required:
            parameter["required"] = True
        if "prefixItems" in schema:
            parameter["description"] = "As JSON: the `next` of the page before."
            parameter["content"] = {JSON: {"schema": schema}}
        else:
            parameter["schema"] = schema
        parameters.append(parameter)
    return parameters


def _in_headers(route: Route) -> list[dict[str, Any]]:
    match route.means:
        case Special.SUBMIT:
            key = {**_TEXT, "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"}
            return [{"name": "Idempotency-Key", "in": "header", "schema": key}]
        case Special.STREAM:
            return [{"name": "Last-Event-ID", "in": "header", "schema": {**_TEXT, "pattern": r"^[\x21-\x7e]+$"}}]
        case _:
            return []


def _without_default(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "default"}


def _body(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any] | None:
    match route.means:
        case Special.SUBMIT:
            kinds = {str(each.__struct_config__.tag): _ref(each) for each in SUBMISSION_TYPES}
            one = {
                "oneOf": [{"$ref": ref} for ref in kinds.values()],
                "discriminator": {"propertyName": "kind", "mapping": kinds},
            }
            return {"required": True, "content": {JSON: {"schema": one}, JSONL: {"schema": _TEXT}}}
        case Special.PUT_FILE:
            return {"required": True, "content": {"application/octet-stream": {"schema": {}}}}
        case Special():
            return None
        case means:
            if not route.in_body:
                return None
            whole = schemas[means.__name__]
            required = [name for name in whole.get("required", ()) if name in route.takes]
            fields = {name: whole["properties"][name] for name in route.takes}
            schema: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
            if required:
                schema["required"] = required
            return {"required": bool(required), "content": {JSON: {"schema": schema}}}


def _ref(each: type) -> str:
    return f"#/components/schemas/{each.__name__}"


def _says(what: str, each: type, **headers: str) -> dict[str, Any]:
    said: dict[str, Any] = {"description": what, "content": {JSON: {"schema": {"$ref": _ref(each)}}}}
    if headers:
        said["headers"] = {name: {"description": text, "schema": _TEXT} for name, text in headers.items()}
    return said


def _carries(what: str, content_type: str) -> dict[str, Any]:
    return {"description": what, "content": {content_type: {"schema": _TEXT}}}


def _responses(route: Route) -> dict[str, Any]:
    match route.means:
        case Special.SUBMIT:
            known = {"anyOf": [{"$ref": _ref(wire.Receipt)}, {"$ref": _ref(wire.Preview)}]}
            lines = "The job that its key has made before, what a dry run would take, or an answer for each line."
            return {
                "200": {"description": lines, "content": {JSON: {"schema": known}, JSONL: {"schema": _TEXT}}},
                "201": _says("The job is stored durably.", wire.Receipt, Location="The job."),
            }
        case Special.PUT_FILE:
            return {"201": _says("The file is stored durably.", FileReceipt)}
        case Special.GET_FILE | Special.JOB_FILE | Special.BATCH_ARCHIVE:
            return {"200": _carries("The file.", "application/octet-stream")}
        case Special.STREAM:
            events = _carries("Notices, as they happen, for as long as somebody listens.", "text/event-stream")
            return {"200": events, "204": {"description": "The job has ended, and that was heard."}}
        case Special.OPENAPI:
            return {"200": {"description": "OpenAPI 3.1.", "content": {JSON: {"schema": {"type": "object"}}}}}
        case Special.METRICS:
            return {"200": _carries("The text format of Prometheus.", "text/plain")}
        case Special.HEALTH | Special.READY:
            return {"200": _carries("It does.", "text/plain")}
        case means:
            reply = REPLY_TYPES[means]
            if reply is wire.Receipt:
                return {"201": _says("The job is stored durably.", reply, Location="The job.")}
            link = {"Link": "The next page, where there is one."} if route.cursor is not None else {}
            return {"200": _says("What was asked for.", reply, **link)}


def _refused() -> dict[str, Any]:
    statuses = ", ".join(f"{status} {code}" for code, status in STATUS.items())
    return {
        "description": f"It was not carried out. Status by code: {statuses}.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
        "content": {CONTENT_TYPE: {"schema": {"$ref": _ref(Problem)}}},
    }
