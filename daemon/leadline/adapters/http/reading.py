"""A request as the line that would say the same on a socket.

What may be said over HTTP is exactly what may be said there, and every rule of that has one home, the codec: depth,
duplicate keys, NULs, types, bounds. So the fields of a request are put together into one JSON object, the body's text
as it came behind those that the address says, and the codec reads that. A field that is said twice is a duplicate key.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from leadline.adapters.http.routes import Route
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.errors import ErrorCode, Refused

JSON: Final = "application/json"

_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FIELDS: Final[dict[type[Struct], dict[str, Any]]] = {}


def fields_of(struct: type[Struct]) -> Mapping[str, Any]:
    """The fields of a message with their types."""
    if struct not in _FIELDS:
        _FIELDS[struct] = {each.name: each.type for each in msgspec.structs.fields(struct)}
    return _FIELDS[struct]


def read_operation(
    decoder: RequestDecoder,
    route: Route,
    in_path: Sequence[str],
    query: Sequence[tuple[str, str]],
    body: bytes,
    person: wire.Person,
) -> wire.Operation[wire.Reply]:
    """The operation that a request asks for, on behalf of a person. Raises Refused."""
    means = route.means
    assert isinstance(means, type)
    types = fields_of(means)
    said: dict[str, Any] = {"op": means.__struct_config__.tag, **route.fixed}
    if "as_" in types:
        said["as"] = person
    for name, text in zip(route.in_path, in_path, strict=True):
        field = route.renamed.get(name, name)
        said[field] = _value(text, types if field == name else {field: wire.Id}, field)
    said |= read_query(query, {} if route.in_body else {name: types[name] for name in route.takes})
    if not route.in_body and body:
        raise Refused(ErrorCode.BAD_REQUEST, f"a {route.method} has no body")
    request = decoder.decode(line_of(said, body))
    if isinstance(request, LineFault):
        raise refused(request)
    if body:
        for name in _PARTS.decode(body):
            if name not in route.takes:
                raise Refused(ErrorCode.BAD_REQUEST, f"object contains unknown field `{name}`", at=name)
    assert isinstance(request, wire.Operation)
    return request


def read_query(query: Sequence[tuple[str, str]], types: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a query. Raises Refused."""
    said: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in query):
        if name not in types:
            known = ", ".join(types) or "none"
            raise Refused(ErrorCode.BAD_REQUEST, f"there is no parameter {name!r} here; there are {known}", at=name)
        values = [value for key, value in query if key == name]
        if len(values) == 1:
            said[name] = _value(values[0], types, name)
        else:  # said several times, which only a list can be
            said[name] = values
    return said


def line_of(said: Mapping[str, Any], body: bytes) -> bytes:
    """One object of the fields that an address says and those of a body. Raises Refused where that is no object."""
    text = body.strip()
    try:
        head = msgspec.json.encode(said)
    except UnicodeEncodeError:  # a header may hold any bytes
        raise Refused(ErrorCode.BAD_REQUEST, f"{', '.join(said)}: not UTF-8") from None
    if not text:
        return head
    if not text.startswith(b"{"):
        raise Refused(ErrorCode.BAD_JSON, "the body is one JSON object")
    if not said:
        return text
    rest = text[1:].lstrip()
    return head[:-1] + (b"" if rest.startswith(b"}") else b",") + rest


def refused(fault: LineFault) -> Refused:
    """A line's fault as it is raised."""
    return Refused(fault.code, fault.message, at=fault.at, retry_after=fault.retry_after)


def _value(text: str, types: Mapping[str, Any], name: str) -> Any:
    """What a text in an address stands for: itself where the field is a text, else a number, a word, or JSON.

    What it cannot stand for is left as it is, for the codec to refuse in its words.
    """
    wanted = types[name]
    for strict in (True, False):
        try:
            return msgspec.convert(text, wanted, strict=strict)
        except msgspec.ValidationError:
            continue
    if isinstance(msgspec.inspect.type_info(wanted), msgspec.inspect.ListType):
        return [text]
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return text
