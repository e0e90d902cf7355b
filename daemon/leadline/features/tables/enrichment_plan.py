"""What an enrichment asks, whom and for what: a submission, checked against the table and the configured providers.

A plan has one source, a provider's module or a prompt to a model, or several that are asked in turn (waterfall.py).
Everything that can be wrong with a submission is found here, with its place, when it is handed in; an attempt makes the
same plan again from the columns and providers of its own time.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from leadline.core.events import NOTHING
from leadline.features.tables.answer_schemas import check_schema
from leadline.features.tables.asking import AI_PROMPT, Asker, Endpoint, ModuleAsker, PromptAsker, course_at
from leadline.features.tables.columns import Cells, Column, ColumnType, JsonValue, declared_columns
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.lead_course import Ask, Course
from leadline.features.tables.paging import PagedAsker, paging_of
from leadline.features.tables.prompts import NO_SCHEMAS, Schemas
from leadline.features.tables.requests import input_values, missing_inputs
from leadline.features.tables.responses import read_values
from leadline.features.tables.selection import compiled
from leadline.features.tables.templates import Template, parse_prompt
from leadline.features.tables.waterfall import WATERFALL, Member, WaterfallParams
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

LEADS_AT_ONCE: Final = 64
"""Leads of one job on their way at a time: enough to keep 3,000 calls a minute of one second each going."""

_PLACEHOLDER: Final = re.compile(r"\{\{([^{}]*)\}\}")

Endpoints = Callable[[], Mapping[str, Endpoint]]
"""The provider accounts that are configured now, by name."""


class ModuleParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a provider's module may be told."""

    inputs: dict[str, str] = {}
    """Input of the module → column it is read from; absent: its namesake."""
    outputs: dict[str, str] = {}
    """Column to fill → output of the module; absent: its namesake."""


class PromptParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `ai_prompt` is told."""

    prompt: str
    provider: str | None = None
    """The account to ask; absent: `openai`, or the only one there is."""
    schemas: dict[str, dict[str, Any]] = {}
    """Column of the type json → the JSON Schema that its document must be valid by."""


class Source(msgspec.Struct, frozen=True):
    """Where the columns come from: a provider account, and how it is asked."""

    endpoint: Endpoint
    params: ModuleParams
    prompt: Template | None = None
    schemas: Schemas = NO_SCHEMAS
    may_miss: bool = False
    """Whether a model may say that it has no answer: there may be others to ask."""

    def asker(self, cells: Cells, into: tuple[Column, ...], course: Course, *, answered: bool) -> Asker:
        """Who asks about a lead; `answered`: the provider has answered about it before."""
        if self.prompt is not None:
            return PromptAsker(
                self.endpoint, self.prompt, cells, into, self.schemas, answered=answered, may_miss=self.may_miss
            )
        asker = ModuleAsker if paging_of(self.endpoint.module) is None else PagedAsker
        return asker(self.endpoint, self.values(cells), into, self.params.outputs, course, answered=answered)

    def values(self, cells: Cells) -> Cells:
        """A lead's inputs of the module."""
        return input_values(self.endpoint.module, cells, self.params.inputs)

    def cells(self, into: tuple[Column, ...], values: dict[str, JsonValue]) -> Cells:
        """What outputs of the module write into a lead. Raises BadValueError."""
        return read_values(values, into, self.params.outputs)

    def missing(self, cells: Cells) -> Sequence[str]:
        """The inputs that a lead lacks."""
        if self.prompt is not None:
            return ()
        return missing_inputs(self.endpoint.module, self.values(cells))

    def course(self, task: str | None = None, waited_microseconds: int = 0) -> Course:
        """A lead's course at this provider; `task` was taken on so long ago."""
        return course_at(self.endpoint.module, task, waited_microseconds)


class Plan(msgspec.Struct, frozen=True):
    """A checked submission: whom to ask, for what, and for whom."""

    sources: tuple[Source, ...]
    """Asked in this order, until one has a result."""
    into: tuple[Column, ...]
    run_if: Compiled | None
    answered_by: str | None = None
    """The column for the name of the provider that had the result."""

    def missing(self, cells: Cells) -> Sequence[str]:
        """What a lead lacks, where nobody can be asked without it: what the first of them needs."""
        lacks = [source.missing(cells) for source in self.sources]
        return lacks[0] if all(lacks) else ()

    def price(self, cells: Cells) -> Decimal:
        """What a lead costs at most, repairs apart: of those that are paid for results one has it, the dearest."""
        by_request, by_result = NOTHING, NOTHING
        for source in self.sources:
            if not source.missing(cells):
                price = source.asker(cells, self.into, source.course(), answered=False).price(Ask("start"))
                if source.endpoint.module.charge_on == "request":
                    by_request += price
                else:
                    by_result = max(by_result, price)
        return by_request + by_result

    def places(self) -> int:
        """So many leads at a time make sense: a source that has room for few is not the only one of several."""
        return max(source.endpoint.places or LEADS_AT_ONCE for source in self.sources)

    def records_max(self) -> int:
        """The leads of the largest order that a source takes; 0: all are asked lead by lead."""
        bulks = [source.endpoint.module.bulk for source in self.sources]
        return max((bulk.records_max for bulk in bulks if bulk is not None), default=0)

    def named(self) -> str:
        """Whom it asks, for people."""
        return ", ".join(source.endpoint.account for source in self.sources)


def plan_of(
    teamspace: str,
    submission: wire.Enrich,
    columns: Mapping[str, Column],
    endpoints: Mapping[str, Endpoint],
    *,
    open_table: bool = False,
) -> Plan:
    """A submission, checked against the table's columns and the configured providers. Raises Refused.

    `open_table`: an earlier step of the chain adds columns that are not known yet, so a missing one is no fault.
    """
    into = declared_columns(submission.into)
    types = {column.name: column.type for column in columns.values()}
    run_if = compiled(submission.run_if, types, None, "run_if", unknown_allowed=open_table)
    if submission.module == AI_PROMPT:
        told = _params(submission.params, PromptParams)
        prompted = _Prompted(teamspace, columns, endpoints, open_table)
        return Plan((prompted.source(told, into, "params"),), into, run_if)
    present = None if open_table else columns
    if submission.module == WATERFALL:
        prompted = _Prompted(teamspace, columns, endpoints, open_table)
        told = _params(submission.params, WaterfallParams)
        return _waterfall(teamspace, told, into, run_if, present, endpoints, prompted)
    found = _module_endpoint(submission.module, endpoints, (AI_PROMPT, WATERFALL), "module")
    params = _params(submission.params, ModuleParams)
    _check_names(found, params, into, present, "params")
    return Plan((Source(found.of(teamspace), params),), into, run_if)


class _Prompted(msgspec.Struct, frozen=True):
    """Makes sources of prompts."""

    teamspace: str
    columns: Mapping[str, Column]
    endpoints: Mapping[str, Endpoint]
    open_table: bool

    def source(self, told: PromptParams, into: Sequence[Column], at: str, *, may_miss: bool = False) -> Source:
        """The source for a prompt that stands at a place of the submission. Raises Refused."""
        names = {*self.columns, *_placeholders(told.prompt)} if self.open_table else set(self.columns)
        prompt = parse_prompt(told.prompt, names, field=f"{at}.prompt")
        endpoint = _chat_endpoint(told.provider, self.endpoints, at).of(self.teamspace)
        _check_schemas(told.schemas, into, f"{at}.schemas")
        return Source(endpoint, ModuleParams(), prompt, told.schemas, may_miss)


def _check_schemas(schemas: Schemas, into: Sequence[Column], place: str) -> None:
    documents = {column.name for column in into if column.type is ColumnType.JSON}
    for name, schema in schemas.items():
        at = f"{place}.{name}"
        if name not in documents:
            raise Refused(ErrorCode.BAD_REQUEST, f"into has no column {name} of the type json", at=at)
        check_schema(schema, at)


def _waterfall(
    teamspace: str,
    told: WaterfallParams,
    into: tuple[Column, ...],
    run_if: Compiled | None,
    present: Mapping[str, Column] | None,
    endpoints: Mapping[str, Endpoint],
    prompted: _Prompted,
) -> Plan:
    names = [column.name for column in into]
    if told.answered_by is not None and told.answered_by not in names:
        message = f"into has no column {told.answered_by}; it is filled like the others"
        raise Refused(ErrorCode.BAD_REQUEST, message, at="params.answered_by")
    filled = tuple(column for column in into if column.name != told.answered_by)
    if not filled:
        raise Refused(ErrorCode.BAD_REQUEST, "there is no column for what the modules find", at="into")
    sources: list[Source] = []
    for place, each in enumerate(told.modules):
        member = Member(each) if isinstance(each, str) else each
        at = f"params.modules[{place}]"
        if member.module == AI_PROMPT:
            told_model = PromptParams(_prompt_of(member, at), member.provider, member.schemas)
            source = prompted.source(told_model, filled, at, may_miss=True)
        else:
            if member.prompt is not None or member.provider is not None or member.schemas:
                message = f"only {AI_PROMPT} is told a prompt, a provider and schemas"
                raise Refused(ErrorCode.BAD_REQUEST, message, at=at)
            found = _module_endpoint(member.module, endpoints, (AI_PROMPT,), at)
            params = ModuleParams(member.inputs, member.outputs)
            _check_names(found, params, filled, present, at)
            source = Source(found.of(teamspace), params)
        if any(source.endpoint.account == other.endpoint.account for other in sources):
            raise Refused(ErrorCode.BAD_REQUEST, f"{member.module} is asked before already", at=at)
        sources.append(source)
    return Plan(tuple(sources), filled, run_if, told.answered_by)


def _prompt_of(member: Member, at: str) -> str:
    if member.prompt is None:
        raise Refused(ErrorCode.BAD_REQUEST, f"{AI_PROMPT} needs a prompt", at=f"{at}.prompt")
    if member.inputs or member.outputs:
        message = f"{AI_PROMPT} names the columns in its prompt, and fills those of into"
        raise Refused(ErrorCode.BAD_REQUEST, message, at=at)
    return member.prompt


def _module_endpoint(name: str, endpoints: Mapping[str, Endpoint], besides: Sequence[str], at: str) -> Endpoint:
    found = endpoints.get(name)
    if found is None or found.module.chat is not None:
        known = ", ".join([*besides, *sorted(name for name, each in endpoints.items() if each.module.chat is None)])
        raise Refused(ErrorCode.UNKNOWN_MODULE, f"there is no module {name}; there are {known}", at=at)
    return found


def _params(params: Mapping[str, Any], wanted: type[Any]) -> Any:
    try:
        return msgspec.convert(params, wanted)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise Refused(ErrorCode.BAD_REQUEST, message, at="params" + place.removesuffix("`")) from None


def _placeholders(text: str) -> set[str]:
    return {name.strip() for name in _PLACEHOLDER.findall(text)}


def _chat_endpoint(name: str | None, endpoints: Mapping[str, Endpoint], at: str) -> Endpoint:
    chats = {each: endpoint for each, endpoint in endpoints.items() if endpoint.module.chat is not None}
    if name is None:
        name = "openai" if "openai" in chats else next(iter(chats), "openai")
    if name not in chats:
        known = ", ".join(sorted(chats)) or "none is configured"
        message = f"no AI endpoint {name} is configured ({known})"
        raise Refused(ErrorCode.UNKNOWN_PROVIDER, message, at=f"{at}.provider")
    return chats[name]


def _check_names(
    endpoint: Endpoint, params: ModuleParams, into: Sequence[Column], columns: Mapping[str, Column] | None, at: str
) -> None:
    module = endpoint.module
    needed = {*module.inputs, *module.optional_inputs}
    for name, column in params.inputs.items():
        if name not in needed:
            message = f"{module.name} has no input {name}; it has {', '.join(sorted(needed))}"
            raise Refused(ErrorCode.BAD_REQUEST, message, at=f"{at}.inputs.{name}")
        if columns is not None and column not in columns:
            raise Refused(ErrorCode.UNKNOWN_COLUMN, f"the table has no column {column}", at=f"{at}.inputs.{name}")
    for name in module.inputs:
        if columns is not None and name not in params.inputs and name not in columns:
            message = f"{module.name} needs {name}, and the table has no such column; name another in {at}.inputs"
            raise Refused(ErrorCode.UNKNOWN_COLUMN, message, at=f"{at}.inputs")
    for filled in into:
        output = params.outputs.get(filled.name, filled.name)
        if output not in module.outputs:
            message = f"{module.name} has no output {output}; it has {', '.join(module.outputs)}"
            raise Refused(ErrorCode.BAD_REQUEST, message, at=f"into.{filled.name}")
