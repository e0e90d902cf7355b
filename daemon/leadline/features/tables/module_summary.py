"""What a module will do, in sentences: for whoever wrote one and wants to see it read back."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, Cost, DailyLimit, Limit, WindowLimit
from leadline.features.tables.provider_modules import (
    Bearer,
    Bulk,
    ClientCredentials,
    Hint,
    KeyHeader,
    KeyQuery,
    Paging,
    ProviderModule,
    RequestTemplate,
    Signal,
)


def summary(module: ProviderModule) -> Iterator[tuple[str, str]]:
    """What a module does: a heading and a sentence each."""
    yield "calls", _calls(module)
    yield "key", _key(module)
    if module.inputs or module.optional_inputs:
        optional = [f"{name} (may be empty)" for name in module.optional_inputs]
        yield "needs", ", ".join([*module.inputs, *optional])
    if module.bulk is not None:
        yield "orders", _orders(module.bulk)
    if module.outputs:
        yield "gives", ", ".join(f"{name} ({output.type})" for name, output in module.outputs.items())
    for limit in module.limits:
        yield "limit", limit_words(limit)
    if not module.limits:
        yield "limit", "none: calls go out as fast as they are answered"
    yield "costs", _costs(module)
    yield "credits", _credits(module)
    yield "too fast", _signals([*module.throttled, *_by_custom(module, 429)])
    yield "come again", _hints(module.hints, "where it says nothing, after 1 s, and twice as long each time")
    yield "used up", _signals([*module.quota_gone, *_by_custom(module, 402)])
    if module.quota_hints:
        yield "comes back", _hints(module.quota_hints, "where it says nothing, when a person resumes it")
    yield "bad key", _signals([*module.invalid_key, *_by_custom(module, 401)])
    if module.not_found:
        yield "unknown lead", _signals(module.not_found) + ", or an answer in which nothing is found"
    if module.response is not None and module.response.failed:
        yield "failed", _signals(module.response.failed)
    yield "lost call", _AMBIGUOUS[module.ambiguous]
    if module.source:
        when = f", read {module.checked}" if module.checked else ""
        yield "source", f"{module.source}{when}; check it against your plan"


def limit_words(limit: Limit) -> str:
    """A limit in words: `15 leads in any 60 s`."""
    match limit:
        case WindowLimit(amount=amount, per_seconds=seconds, unit=unit):
            return f"{_counted(amount, unit)} in any {seconds:g} s"
        case ConcurrentLimit(amount=amount):
            return f"{_counted(amount, 'call')} at the same time"
        case DailyLimit(amount=amount, unit=unit, resets_at=resets_at, zone=zone):
            return f"{_counted(amount, unit)} a day, which begins at {resets_at} in {zone}"
        case BucketLimit(amount=amount, per_seconds=seconds, burst=burst, unit=unit):
            return f"{_counted(amount, unit)} per {seconds:g} s on average, {burst:,} at once"


def cost_words(cost: Cost) -> str:
    """A cost in words: `1 request, 1 lead`."""
    amounts = msgspec.to_builtins(cost)
    return ", ".join(_counted(amount, unit) for unit, amount in amounts.items()) or "nothing"


_AMBIGUOUS = {
    "retry_once": "asked once more, then left to a person as unknown",
    "hold": "never repeated: left to a person as unknown",
    "reuse_id": "repeated under the same id",
}


def _calls(module: ProviderModule) -> str:
    if module.chat is not None:
        return f"POST {module.base_url}{module.chat.path}, asked by ai_prompt"
    assert module.request is not None, "a judged module has a request, or chat"
    first = _request(module, module.request)
    if module.poll is None:
        return first + _pages(None if module.response is None else module.response.paging)
    poll = module.poll
    again = f"{first}; then {_request(module, poll.request)} every {poll.interval_seconds:g} s"
    if poll.first_seconds > poll.interval_seconds:
        again += f", first after {poll.first_seconds:g} s,"
    again += f" for {poll.max_wait_seconds:g} s"
    if module.bulk is None or module.bulk.results.request is None:
        return again
    results = module.bulk.results
    return f"{again}; then {_request(module, module.bulk.results.request)}{_pages(results.paging)}"


def _pages(paging: Paging | None) -> str:
    return "" if paging is None else f", up to {_counted(paging.pages_max, 'page')}"


def _orders(bulk: Bulk) -> str:
    text = f"up to {_counted(bulk.records_max, 'lead')} at a time"
    if bulk.orders_max is not None:
        text += f", {_counted(bulk.orders_max, 'order')} open at the provider at most"
    if bulk.results.key is None:
        return f"{text}; results come in their order"
    return f"{text}; a lead's result is the one whose {bulk.results.key} is {bulk.key}"


def _request(module: ProviderModule, request: RequestTemplate) -> str:
    return f"{request.method} {module.base_url}{request.path}"


def _key(module: ProviderModule) -> str:
    match module.auth:
        case None:
            return "none is sent"
        case Bearer():
            return "sent as Authorization: Bearer KEY"
        case ClientCredentials(path=path, cost=cost):
            what = f"id and secret go to POST {module.base_url}{path} for a token ({cost_words(cost)})"
            return f"{what}, which is sent as Authorization: Bearer TOKEN"
        case KeyHeader(name=name):
            return f"sent in the header {name}"
        case KeyQuery(name=name):
            return f"sent in the query, as {name}"


def _costs(module: ProviderModule) -> str:
    text = f"{cost_words(module.cost)} for a lead"
    if module.bulk is not None:
        cost = module.cost
        text = f"{cost_words(replace(cost, record=0, lead=0))} for an order"
        text += f", {cost_words(Cost(record=cost.record, lead=cost.lead))} for each lead in it"
    if module.chat is not None:
        text += ", and its tokens"
    if module.poll is not None:
        text += f"; {cost_words(module.poll.cost)} for each poll"
    if module.bulk is not None and module.bulk.results.request is not None:
        text += f"; {cost_words(module.bulk.results.cost)} for each page of results"
    return text if module.failed_count else f"{text}; calls that fail are given back"


def _credits(module: ProviderModule) -> str:
    if not module.credits_per_lead:
        return "none"
    when = "that brings a result" if module.charge_on == "result" else "that is asked about"
    return f"{module.credits_per_lead:g} for each lead {when}"


def _by_custom(module: ProviderModule, status: int) -> Sequence[Signal]:
    """What a status means by custom, unless the module says that it always means something else."""
    said = (*module.throttled, *module.quota_gone, *module.invalid_key, *module.not_found)
    return () if any(signal.status == status and signal.select is None for signal in said) else (Signal(status=status),)


def _signals(signals: Sequence[Signal]) -> str:
    return ", or ".join(map(_signal, signals)) or "nothing says so"


def _signal(signal: Signal) -> str:
    parts = [] if signal.status is None else [f"status {signal.status}"]
    if signal.select is not None:
        wanted = "is there" if signal.equals is UNSET else f"is {msgspec.json.encode(signal.equals).decode()}"
        parts.append(f"{signal.select} {wanted}")
    return " and ".join(parts)


def _hints(hints: Sequence[Hint], otherwise: str) -> str:
    places = [f"header {hint.header}" if hint.select is None else hint.select for hint in hints]
    return "; ".join([*([", or ".join(places)] if places else []), otherwise])


def _counted(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"
