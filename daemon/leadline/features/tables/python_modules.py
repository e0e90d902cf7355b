"""A Python module as a provider: what it declares becomes a provider module like one from a file.

All that the queue does for providers then holds for it too: limits over all teamspaces, fair shares, permits, pauses,
retries, the books. Its requests go to `python://NAME`; the body is the lead and the settings, the key travels as it
does over HTTP, and the answer has the values under their own names. What a module can say of a failure are statuses
(see `leadline_protocol.modules`).

A module that takes a batch of leads is one for bulk orders that has their results in its answer.

One thing is added: a limit of as many leads, or batches, at the same time as its processes have places, so that jobs
wait for these in the queue, where the wait is shared fairly and has a name.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from leadline.core.rate_limit import ConcurrentLimit, Cost, Limit, Unit
from leadline.features.tables.columns import declared_columns
from leadline.features.tables.provider_modules import (
    RECORD,
    RECORDS,
    SETTINGS,
    Bearer,
    Bulk,
    BulkResults,
    Fault,
    Hint,
    ModuleFaultsError,
    Name,
    Output,
    ProviderModule,
    RequestTemplate,
    ResponseMapping,
    Seconds,
    Signal,
)
from leadline_protocol.errors import Refused
from leadline_protocol.messages import ColumnSpec

SCHEME: Final = "python"
"""Of the addresses of Python modules, which begin `python://`."""

BATCH_MAX: Final = 10_000


class Declared(Struct, frozen=True, kw_only=True):
    """What a module says of itself; a field that is unknown is one of a later version, and passed over."""

    version: Annotated[str, Meta(min_length=1, max_length=100)]
    title: Annotated[str, Meta(max_length=200)] = ""
    inputs: list[Name]
    optional_inputs: list[Name] = []
    outputs: Annotated[dict[Name, ColumnSpec], Meta(min_length=1, max_length=200)]
    settings: dict[Name, str] = {}
    limits: list[Limit] = []
    cost: dict[Unit, Annotated[int, Meta(ge=0)]] = {}
    credits_per_lead: Annotated[float, Meta(ge=0)] = 0.0
    charge_on: Literal["result", "request"] = "result"
    batch: Annotated[int, Meta(ge=1, le=BATCH_MAX)] | None = None
    leads_at_once: Annotated[int, Meta(ge=1, le=1_000)] = 1
    timeout_seconds: Seconds = 600.0


def read_declared(name: str, declared: bytes) -> Declared:
    """What a module declares. Raises ModuleFaultsError."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        fault = Fault("name", f"{name[:80]!r} is none: small letters, digits and underscores, a letter first")
        raise ModuleFaultsError(name, [fault]) from None
    try:
        found = msgspec.json.decode(declared, type=Declared)
        declared_columns(found.outputs, field="outputs")
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        path = place.rpartition("$")[2].strip(".`")
        raise ModuleFaultsError(name, [Fault(path, message[:1].lower() + message[1:])]) from None
    except Refused as refused:
        raise ModuleFaultsError(name, [Fault(refused.at or "outputs", refused.message)]) from None
    if both := sorted(set(found.inputs) & set(found.optional_inputs)):
        raise ModuleFaultsError(name, [Fault("optional_inputs", f"{both[0]!r} is also among inputs")])
    if found.batch is not None and RECORD in {*found.inputs, *found.optional_inputs}:
        raise ModuleFaultsError(name, [Fault("inputs", f"{RECORD!r} is what a batch calls each of its leads")])
    return found


def provider_module(name: str, declared: Declared) -> ProviderModule:
    """The module as a provider."""
    columns = {column.name: column for column in declared_columns(declared.outputs)}
    inputs = {each: f"{{{{{each}}}}}" for each in (*declared.inputs, *declared.optional_inputs)}
    settings = {each: f"{{{{{SETTINGS}{each}}}}}" for each in declared.settings}
    bulk, within = None, ""
    body: dict[str, Any] = {"lead": inputs, "settings": settings}
    if declared.batch is not None:
        results = BulkResults(items="results", failed=[Signal(select="error")])
        bulk = Bulk(records_max=declared.batch, record=inputs, results=results)
        body, within = {"leads": f"{{{{{RECORDS}}}}}", "settings": settings}, "values."
    return ProviderModule(
        name=name,
        title=declared.title,
        source=f"Python module, version {declared.version}",
        base_url=f"{SCHEME}://{name}",
        auth=Bearer(),
        settings=declared.settings,
        inputs=declared.inputs,
        optional_inputs=declared.optional_inputs,
        mode="sync" if bulk is None else "bulk",
        bulk=bulk,
        request=RequestTemplate(path="/", body=body),
        response=ResponseMapping(
            columns={
                each: Output(select=f'{within}"{each}"', type=column.type, allowed=list(column.allowed))
                for each, column in columns.items()
            }
        ),
        limits=declared.limits,
        cost=Cost(**declared.cost) if declared.cost else Cost(request=1, lead=1),
        credits_per_lead=declared.credits_per_lead,
        charge_on=declared.charge_on,
        call_timeout_seconds=declared.timeout_seconds,
        not_found=[Signal(status=404)],
        quota_hints=[Hint(header="retry-after")],
    )


def with_places(limits: Sequence[Limit], places: int) -> list[Limit]:
    """These limits, and that no more leads are in hand than there are places for."""
    given = [limit.amount for limit in limits if isinstance(limit, ConcurrentLimit)]
    others = [limit for limit in limits if not isinstance(limit, ConcurrentLimit)]
    return [*others, ConcurrentLimit(min([places, *given]))]
