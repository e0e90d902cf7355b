"""A provider as data: one TOML file says what to send, what it costs, what the answers mean.

    name, base_url, auth            who it is and how a key travels
    limits, cost, poll.cost         what it allows, and what a lead and a poll take of that
    credits_per_..., charge_on      what a lead costs, and when that is due
    [request] [poll] [response]     one call for a lead, or a start and polls; what of the answer goes into columns
    [bulk]                          one order for many leads: what a lead is in it, and where its result is found again
    [chat]                          instead of these: an OpenAI-compatible endpoint, asked by the module `ai_prompt`
    throttled, quota_gone, ...      how it says no: by status, by a header, or in the body of a 200
    ambiguous                       what to do when nobody knows whether a call arrived

Strings of a request are templates over the module's inputs; what reads an answer is JMESPath. A file is judged as a
whole: all its faults at once, each with its path. Presets for well-known providers lie in providers/; where their
numbers come from, and when, is in each file.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args, get_origin

import jmespath
import jmespath.exceptions
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from leadline.core.rate_limit import FLIGHT_SECONDS, Cost, Limit
from leadline.features.tables.columns import Column, ColumnType, JsonValue
from leadline.features.tables.module_lines import line_of, lines_of
from leadline.features.tables.templates import (
    JsonTemplate,
    Template,
    TemplateFaultError,
    names_in,
    parse_json_template,
    parse_template,
)
from leadline_protocol.errors import LeadlineError

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Selector = Annotated[str, Meta(min_length=1, max_length=1_000)]
"""A JMESPath expression over the body of an answer."""
Path = Annotated[str, Meta(pattern=r"^/[^\s?#]*$", max_length=2_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Status = Annotated[int, Meta(ge=100, le=599)]
Credits = Annotated[float, Meta(ge=0, le=1_000_000)]
"""A price: the decimal that is written (credits.py)."""
JsonScalar: TypeAlias = str | int | float | bool | None
Mode: TypeAlias = Literal["sync", "poll", "bulk"]

TASK: Final = "task"
"""The placeholder of a poll that stands for what the start answered."""

RECORDS: Final = "records"
"""The placeholder of a bulk order that stands for the list of its leads."""

RECORD: Final = "record"
"""The placeholder that stands for the number of a lead, by which its result can be found again."""

PAGE: Final = "page"
"""The placeholder that stands for the page of results to read."""

SETTINGS: Final = "settings."
"""Placeholders of this beginning stand for the settings of the provider, such as `{{settings.model}}`."""


class Bearer(Struct, frozen=True, tag="bearer", tag_field="kind", forbid_unknown_fields=True):
    """The key in `Authorization: Bearer KEY`."""


class KeyHeader(Struct, frozen=True, tag="header", tag_field="kind", forbid_unknown_fields=True):
    """The key in a header of its own."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class KeyQuery(Struct, frozen=True, tag="query", tag_field="kind", forbid_unknown_fields=True):
    """The key in the query, where the provider knows no better way."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class ClientCredentials(Struct, frozen=True, tag="client_credentials", tag_field="kind", forbid_unknown_fields=True):
    """A token in `Authorization: Bearer TOKEN`, which the provider gives for a client's id and secret (OAuth 2).

    The secret of the account is both, with a colon between them.
    """

    path: Path
    """Where the token is asked for."""
    encoding: Literal["form", "json"] = "form"
    token: Selector = "access_token"  # noqa: S105  where it is, not what
    expires: Selector = "expires_in"
    """Where the answer says how many seconds it lives."""
    expires_seconds: Seconds = 3_600.0
    """What it lives where the answer does not say so."""
    cost: Cost = Cost(request=1)


class Signal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer that means something: one of this status, in whose body `select` finds `equals`.

    Without `equals`, `select` must find something that is true in the sense of JMESPath: not null, false or empty.
    """

    status: Status | None = None
    select: Selector | None = None
    equals: JsonScalar | UnsetType = UNSET


class Hint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider says when to come again: a header, or a place in the body."""

    header: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    """In lower case."""
    select: Selector | None = None
    form: Literal["auto", "seconds", "milliseconds", "epoch", "epoch_milliseconds", "date", "duration"] = "auto"


FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"})
"""Headers by which a connection knows one message from the next."""


class RequestTemplate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One request. Strings of path, query and body are templates."""

    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    path: Path
    query: dict[str, str] = {}
    headers: dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")], str] = {}
    body: dict[str, Any] | None = None
    """A JSON object; absent: no body."""

    @cached_property
    def templates(self) -> "RequestTemplates":
        """Its strings as templates. Raises TemplateFaultError where they have not been judged."""
        query = {name: parse_template(text, None) for name, text in self.query.items()}
        return RequestTemplates(parse_template(self.path, None), query, parse_json_template(self.body, None))


class RequestTemplates(Struct, frozen=True):
    """What stands for the values of a lead in a request."""

    path: Template
    query: Mapping[str, Template]
    body: JsonTemplate


class Poll(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to ask for the result of work that was started."""

    task: Selector
    """Where the answer to the start names the task: the placeholder `{{task}}` of this request."""
    request: RequestTemplate
    pending: list[Signal]
    """Answers that mean: not yet."""
    first_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """So long after the start it makes no sense to ask; `interval_seconds` where that is longer."""
    interval_seconds: Seconds = 5.0
    max_wait_seconds: Seconds = 600.0
    """So long after the start a task is given up as timed out."""
    cost: Cost = Cost(request=1)


class Paging(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a long list is read page by page: what stands for `{{page}}` in the request for the next one."""

    next: Selector | None = None
    """Where an answer names the next page; nothing there: it was the last."""
    count: Selector | None = None
    """Instead of that: where an answer says how many pages there are, numbered from `first`."""
    first: Annotated[int, Meta(ge=0, le=1)] = 1
    pages_max: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """What is behind so many pages is not read: a provider that names next pages for ever ends there."""


class PagedList(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer about one lead that comes in pages."""

    items: Selector
    """Of which each answer has a part. Columns select from `items`, all of it, and `first`, the first answer."""
    cost: Cost = Cost(request=1)
    """Of each page but the first."""


class BulkResults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the results of a bulk order are, and whose each of them is."""

    items: Selector
    """The list of them."""
    key: Selector | None = None
    """Where an item names its lead; absent: items come in the order of the leads."""
    failed: list[Signal] = []
    """Items that say that the provider failed at this lead."""
    request: RequestTemplate | None = None
    """A request of its own for them; absent: they are in the answer that says that the work is done."""
    cost: Cost = Cost(request=1)
    paging: Paging | None = None


class Bulk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many leads are ordered together."""

    records_max: Annotated[int, Meta(ge=1, le=10_000)]
    record: dict[str, Any] | list[Any]
    """One lead in the list that `{{records}}` of the request stands for."""
    key: Annotated[str, Meta(min_length=1, max_length=500)] = "{{record}}"
    """By which text of its own a lead's result is recognised: its number, or an input that the results repeat."""
    orders_max: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """So many orders of the account the provider works on at a time, over all jobs; absent: any number."""
    results: BulkResults


class Output(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that the provider has to offer."""

    select: Selector
    type: ColumnType = ColumnType.TEXT
    allowed: list[str] = []

    def column(self, name: str) -> Column:
        """The column that would hold it."""
        return Column(name, self.type, tuple(self.allowed))


class ResponseMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a good answer goes where."""

    columns: Annotated[dict[Name, Output], Meta(min_length=1, max_length=200)]
    failed: list[Signal] = []
    """Good answers by their status that say the request failed."""
    paging: PagedList | None = None


class Chat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that speaks as OpenAI's chat completions do."""

    path: Path = "/v1/chat/completions"
    model: str
    """May be `{{settings.model}}`."""
    answer_tokens_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that bound."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class ProviderModule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is known of one provider's one service."""

    name: Name
    title: Annotated[str, Meta(max_length=200)] = ""
    source: Annotated[str, Meta(max_length=1_000)] = ""
    """Where limits and signals were read, and by whom they are vouched for."""
    checked: Annotated[str, Meta(max_length=20)] = ""
    """When."""
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*[^\s/?#])?$")]
    auth: Bearer | KeyHeader | KeyQuery | ClientCredentials | None = None
    settings: dict[Name, str] = {}
    """Settings with their defaults; the configuration may give others."""
    mode: Mode = "sync"
    inputs: list[Name] = []
    """What a lead must have; a lead without is skipped (`missing_input`)."""
    optional_inputs: list[Name] = []
    request: RequestTemplate | None = None
    poll: Poll | None = None
    bulk: Bulk | None = None
    response: ResponseMapping | None = None
    chat: Chat | None = None
    limits: list[Limit] = []
    cost: Cost = Cost(request=1, lead=1)
    """What the first request of a lead takes of the limits; of a bulk order `record` and `lead` once for each lead."""
    credits_per_lead: Credits = 0.0
    charge_on: Literal["result", "request"] = "result"
    """When they are due: with a lead's result, or once the provider has answered about it, found or not."""
    credits_per_1000_input_tokens: Credits = 0.0
    """For an endpoint that is asked by prompts: due with every answer, usable or not."""
    credits_per_1000_output_tokens: Credits = 0.0
    call_timeout_seconds: Seconds = 60.0
    flight_seconds: Annotated[float, Meta(gt=0, le=600)] = FLIGHT_SECONDS
    failed_count: bool = True
    """Whether calls that it answers with an error, or throws back, take from its limits."""
    throttled: list[Signal] = []
    """Beside the status 429, which always means it unless another signal claims it."""
    quota_gone: list[Signal] = []
    """Beside the status 402."""
    invalid_key: list[Signal] = []
    """Beside the status 401."""
    not_found: list[Signal] = []
    """Answers that mean: nothing is known about this lead."""
    hints: list[Hint] = msgspec.field(default_factory=lambda: [Hint(header="retry-after")])
    """When to come again after `throttled`; the first that can be read counts."""
    quota_hints: list[Hint] = []
    """The same after `quota_gone`."""
    ambiguous: Literal["retry_once", "hold", "reuse_id"] = "retry_once"
    """After a call of which nobody knows whether it arrived: repeat it once, leave it to a person, or repeat it freely
    because the provider recognises its id."""
    id_header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    """The header that carries a call's id, with `reuse_id`."""
    notes: Annotated[str, Meta(max_length=4_000)] = ""

    @property
    def outputs(self) -> Mapping[str, Output]:
        """What it can fill in; nothing for an endpoint that is asked by prompts."""
        return self.response.columns if self.response else {}


class Fault(Struct, frozen=True):
    """What is wrong in a module file, and where."""

    path: str
    message: str
    line: int | None = None
    """From 1; None where it is not the fault of one."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ModuleFaultsError(LeadlineError):
    """A module file that cannot be used; holds all its faults."""

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        places = [file if fault.line is None else f"{file}:{fault.line}" for fault in faults]
        super().__init__("\n".join(f"{place}: {fault}" for place, fault in zip(places, faults, strict=True)))
        self.file: Final = file
        self.faults: Final = tuple(faults)


def read_module(text: str, *, file: str) -> ProviderModule:
    """The module that a TOML file describes.

    Raises:
        ModuleFaultsError: it is not TOML, or not a module; with every fault, each with its path and line.

    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModuleFaultsError(file, [Fault("", f"is not TOML: {error}")]) from None
    faults = list(_type_faults(ProviderModule, document, ""))
    if not faults:
        module = msgspec.convert(document, ProviderModule)
        faults = [*_shape_faults(module), *_template_faults(module)]
        if not faults:
            return module
    lines = lines_of(text)
    raise ModuleFaultsError(file, [replace(fault, line=line_of(fault.path, lines)) for fault in faults])


def preset_names() -> tuple[str, ...]:
    """The modules that come with Leadline."""
    names = (entry.name for entry in files(__package__).joinpath("providers").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@cache
def preset(name: str) -> ProviderModule:
    """A module that comes with Leadline. Raises KeyError where there is none of the name."""
    if name not in preset_names():
        raise KeyError(name)
    text = files(__package__).joinpath("providers", f"{name}.toml").read_text(encoding="utf-8")
    return read_module(text, file=f"{name}.toml")


_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


@lru_cache(maxsize=4_096)
def selector(text: str) -> "jmespath.parser.ParsedResult":
    """A JMESPath expression, compiled. Raises jmespath.exceptions.JMESPathError."""
    return jmespath.compile(text)


def selected(text: str, document: object) -> JsonValue:
    """What a selector finds in a document; None where it finds nothing or does not fit the document."""
    steps = _steps(text)
    if steps is not None:
        return _reached(document, steps)
    try:
        found: JsonValue = selector(text).search(document)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError, RecursionError):
        return None
    return found


@lru_cache(maxsize=1_024)
def _steps(text: str) -> Sequence[str] | None:
    """The names of which a selector consists where it only goes from object to object, as most do; else None."""
    return text.split(".") if _NAMES.fullmatch(text) else None


def _reached(document: Any, steps: Sequence[str]) -> JsonValue:
    """What stands at the end of such a way, at a tenth of the time that JMESPath takes."""
    for step in steps:
        if not isinstance(document, dict):
            return None
        document = document.get(step)
    return cast("JsonValue", document)


def _type_faults(wanted: Any, found: object, path: str) -> Iterator[Fault]:
    """Every value that is not of its type, every key that is missing or does not exist."""
    bare = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    arguments = [argument for argument in get_args(bare) if argument not in {type(None), UnsetType}]
    if isinstance(bare, type) and issubclass(bare, Struct):
        yield from _struct_faults(bare, found, path)
    elif len(arguments) == 1 and get_origin(bare) is not list and found is not None:
        yield from _type_faults(arguments[0], found, path)  # Something | None
    elif get_origin(bare) is list and isinstance(found, list):
        for position, item in enumerate(found):
            yield from _type_faults(arguments[0], item, f"{path}[{position}]")
    elif get_origin(bare) is dict and isinstance(found, dict):
        for key, item in found.items():
            yield from _leaf_faults(arguments[0], key, f"{path}.{key}")
            yield from _type_faults(arguments[1], item, f"{path}.{key}")
        if not found:
            yield from _leaf_faults(wanted, found, path)
    else:
        yield from _leaf_faults(wanted, found, path)


def _struct_faults(wanted: type[Struct], found: object, path: str) -> Iterator[Fault]:
    if not isinstance(found, dict):
        yield Fault(path, "must be a table of keys")
        return
    fields = {field.name: field for field in msgspec.structs.fields(wanted)}
    for key, value in found.items():
        place = f"{path}.{key}" if path else key
        if key in fields:
            yield from _type_faults(fields[key].type, value, place)
        else:
            yield Fault(place, f"there is no such key; there are {', '.join(fields)}")
    for name, field in fields.items():
        if field.required and name not in found:
            yield Fault(f"{path}.{name}" if path else name, "is missing")


def _leaf_faults(wanted: Any, found: object, path: str) -> Iterator[Fault]:
    try:
        msgspec.convert(found, wanted)
    except msgspec.ValidationError as error:
        message, _, inner = str(error).partition(" - at `$")
        yield Fault(path + inner.removesuffix("`"), message[:1].lower() + message[1:])
        return
    if wanted == Selector:
        try:
            selector(str(found))
        except jmespath.exceptions.JMESPathError as error:
            yield Fault(path, f"is not JMESPath: {str(error).splitlines()[0]}")


def _shape_faults(module: ProviderModule) -> Iterator[Fault]:
    """What contradicts itself."""
    for place, request in (
        ("request", module.request),
        ("poll.request", module.poll and module.poll.request),
        ("bulk.results.request", module.bulk and module.bulk.results.request),
    ):
        for name in request.headers if request else ():
            if name.lower() in FRAMING:
                yield Fault(f"{place}.headers.{name}", "says where a request ends, which is for the daemon to say")
    for key, given in (("request", module.request), ("response", module.response)):
        if module.chat is None and given is None:
            yield Fault(key, "is missing; a module has request and response, or chat")
        if module.chat is not None and given is not None:
            yield Fault(key, "cannot stand beside chat")
    for key in ("credits_per_1000_input_tokens", "credits_per_1000_output_tokens"):
        if module.chat is None and getattr(module, key):
            yield Fault(key, "is for an endpoint with chat only")
    if module.chat is not None and module.mode != "sync":
        yield Fault("mode", "a chat is always 'sync'")
    if module.mode == "poll" and module.poll is None:
        yield Fault("poll", "must be there with mode = 'poll'")
    if module.mode == "sync" and module.poll is not None:
        yield Fault("poll", "cannot be there with mode = 'sync'")
    if (module.mode == "bulk") != (module.bulk is not None):
        yield Fault("bulk", "must be there with mode = 'bulk', and only then")
    if module.bulk is not None:
        yield from _bulk_faults(module, module.bulk.results)
    if module.response is not None and module.response.paging is not None:
        if module.mode != "sync":
            yield Fault("response.paging", "goes with mode = 'sync'; a bulk has bulk.results.paging")
        yield from _paging_faults("response.paging", module.response.paging)
    if (module.ambiguous == "reuse_id") != (module.id_header is not None):
        yield Fault("id_header", "must be there with ambiguous = 'reuse_id', and only then")
    for key in sorted(set(module.inputs) & set(module.optional_inputs)):
        yield Fault("optional_inputs", f"{key!r} is also among inputs")
    for path, signal in _signals(module):
        if signal.status is None and signal.select is None:
            yield Fault(path, "needs a status or a select")
        if signal.equals is not UNSET and signal.select is None:
            yield Fault(path, "has equals without select")
    for path, hint in _hints(module):
        if (hint.header is None) == (hint.select is None):
            yield Fault(path, "needs either a header or a select")


def _bulk_faults(module: ProviderModule, results: BulkResults) -> Iterator[Fault]:
    if results.request is not None and module.poll is None:
        yield Fault("bulk.results.request", "needs poll: what would it ask for?")
    if results.paging is None:
        return
    if results.request is None:
        yield Fault("bulk.results.paging", "needs bulk.results.request, by which the pages are read")
    yield from _paging_faults("bulk.results.paging", results.paging)


def _paging_faults(path: str, paging: Paging) -> Iterator[Fault]:
    if (paging.next is None) == (paging.count is None):
        yield Fault(path, "needs either next or count")


def _template_faults(module: ProviderModule) -> Iterator[Fault]:
    """Templates that do not parse, or name what the module does not have."""
    used: dict[str, set[str]] = {}
    for path, text, known in _templates(module):
        try:
            names = names_in(parse_json_template(text, known))
        except TemplateFaultError as fault:
            yield Fault(path, str(fault).replace("there is no column", "there is no input or setting"))
        else:
            place = "request" if path.startswith(("request.", "bulk.record")) else path.rpartition("request.")[0]
            used.setdefault(place, set()).update(names)
    if module.request is not None:
        for position, name in enumerate(module.inputs):
            if name not in used.get("request", ()):
                yield Fault(f"inputs[{position}]", f"{name!r} is nowhere in the request")
    if module.response is not None and module.response.paging is not None and PAGE not in used.get("request", ()):
        yield Fault("request", "does not say which {{page}} it asks for")
    if module.poll is not None and TASK not in used.get("poll.", ()):
        yield Fault("poll.request", "does not say which {{task}} it asks for")
    if module.bulk is None:
        return
    if RECORDS not in used.get("request", ()):
        yield Fault("request", "does not say where the {{records}} go")
    if module.bulk.results.request is not None:
        wanted = {TASK, PAGE} if module.bulk.results.paging is not None else {TASK}
        for name in sorted(wanted - used.get("bulk.results.", set())):
            yield Fault("bulk.results.request", f"does not say which {{{{{name}}}}} it asks for")


def _templates(module: ProviderModule) -> Iterator[tuple[str, object, Sequence[str]]]:
    """Every template with its path, and the names that may stand in it."""
    settings = [SETTINGS + name for name in module.settings]
    names = [*module.inputs, *module.optional_inputs, *settings]
    asked = names if module.bulk is None else [RECORDS, *settings]
    if module.response is not None and module.response.paging is not None:
        asked = [*asked, PAGE]
    requests = [("request", module.request, asked)]
    if module.poll is not None:
        known = names if module.bulk is None else settings
        requests.append(("poll.request", module.poll.request, [*known, TASK]))
    if module.bulk is not None:
        requests.append(("bulk.results.request", module.bulk.results.request, [*settings, TASK, PAGE]))
        yield "bulk.record", module.bulk.record, [*names, RECORD]
        yield "bulk.key", module.bulk.key, [*names, RECORD]
    for place, request, known in requests:
        if request is not None:
            yield f"{place}.path", request.path, known
            for key, value in request.query.items():
                yield f"{place}.query.{key}", value, known
            for key, value in (request.body or {}).items():
                yield f"{place}.body.{key}", value, known
    if module.chat is not None:
        yield "chat.model", module.chat.model, names


def _signals(module: ProviderModule) -> Iterator[tuple[str, Signal]]:
    lists = {
        "throttled": module.throttled,
        "quota_gone": module.quota_gone,
        "invalid_key": module.invalid_key,
        "not_found": module.not_found,
        "poll.pending": module.poll.pending if module.poll else [],
        "response.failed": module.response.failed if module.response else [],
        "bulk.results.failed": module.bulk.results.failed if module.bulk else [],
    }
    for path, signals in lists.items():
        for position, signal in enumerate(signals):
            yield f"{path}[{position}]", signal


def _hints(module: ProviderModule) -> Iterator[tuple[str, Hint]]:
    for path, hints in (("hints", module.hints), ("quota_hints", module.quota_hints)):
        for position, hint in enumerate(hints):
            yield f"{path}[{position}]", hint
