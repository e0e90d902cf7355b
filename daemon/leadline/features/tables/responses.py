"""One HTTP answer → one verdict about the lead, and about the provider account.

The order of judging is the whole policy: first what the module says of this provider (its quota, its key, its throttle,
its "not found"), then what the status says by custom, then, of a good answer, what it holds. So Hunter's 403 throttles
and its 429 ends the quota, although by custom it is the other way round, and Findymail's "Not enough credits" is heard
although it comes with a 200.

A throttled answer may say when to come again: in seconds, as a date, as a moment in epoch time, as a duration such as
`6m0s`, in a header or in the body. What cannot be read counts as no hint, and no hint holds longer than an hour: one
trial call then finds out.
"""

import datetime as dt
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from leadline.features.tables.columns import BadValueError, Cells, Column, JsonValue
from leadline.features.tables.credits import Tokens
from leadline.features.tables.provider_modules import (
    Hint,
    Paging,
    ProviderModule,
    ResponseMapping,
    Signal,
    selected,
)
from leadline.ports.provider_client import Response
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import Instant

HINT_SECONDS_MIN: Final = 1.0
"""A hint of nothing, or of the past, would make a loop."""

HINT_SECONDS_MAX: Final = 3_600.0

QUOTA_HINT_SECONDS_MAX: Final = 31 * 86_400.0
"""A quota may come back with the month."""

TASK_CHARACTERS_MAX: Final = 500

DETAIL_CHARACTERS_MAX: Final = 300
"""How much of an answer is quoted to say why it was no good."""

SECOND: Final = 1_000_000


class Done(msgspec.Struct, frozen=True):
    """The provider has answered."""

    values: dict[str, JsonValue]
    """Output → what was found, as it came; an endpoint that is asked by prompts has the one output `content`."""
    tokens: int | None = None
    """What the call really took of limits in tokens, where the provider says so."""
    used: Tokens | None = None
    """The same as it is paid for."""


class Listed(msgspec.Struct, frozen=True):
    """A page of the results of a bulk order."""

    items: Sequence[JsonValue]
    next_page: str | None
    """None: it was the last."""


class Ready(msgspec.Struct, frozen=True):
    """The work of a bulk order is done; its results are to be read."""


class Started(msgspec.Struct, frozen=True):
    """The provider works on it, under this name."""

    task: str


class Pending(msgspec.Struct, frozen=True):
    """The provider still works on it."""


class NotFound(msgspec.Struct, frozen=True):
    """The provider knows nothing about this lead."""


class Throttled(msgspec.Struct, frozen=True):
    """Too fast: the account must wait, the lead loses nothing."""

    hint_seconds: float | None


class QuotaGone(msgspec.Struct, frozen=True):
    """The account has nothing left, for so long or until a person has paid."""

    hint_seconds: float | None


class InvalidKey(msgspec.Struct, frozen=True):
    """The provider does not take the key: no further call makes sense."""


class ServerError(msgspec.Struct, frozen=True):
    """The provider broke; the same call may succeed later."""

    detail: str
    hint_seconds: float | None = None


class Failed(msgspec.Struct, frozen=True):
    """This lead cannot be had, and asking again would not change it."""

    reason: LeadReason
    detail: str
    used: Tokens | None = None
    """Tokens that were used up all the same."""


Verdict: TypeAlias = (
    Done | Listed | Ready | Started | Pending | NotFound | Throttled | QuotaGone | InvalidKey | ServerError | Failed
)
Phase: TypeAlias = Literal["start", "poll", "read"]


def read_response(
    module: ProviderModule, response: Response, phase: Phase, now: Instant, *, pages_read: int = 0
) -> Verdict:
    """What an answer means.

    `phase`: whether the lead itself was asked for, its task, or a page of results; `now`: Unix time by the wall;
    `pages_read`: how many pages there were before this one.
    """
    parsed, document = _document(response.body)
    if (said := _by_signal(module, response, document, now)) is not None:
        return said
    if (said := _by_status(module, response, document, now)) is not None:
        return said
    if not parsed:
        return Failed(LeadReason.BAD_RESPONSE, f"is not JSON: {_quoted(response.body)}")
    if module.chat is not None:
        return _completion(document, response.body)
    assert module.response is not None
    if module.poll is not None and phase != "start" and _any(module.poll.pending, response.status, document):
        return Pending()
    if _any(module.response.failed, response.status, document):
        return Failed(LeadReason.REFUSED_BY_PROVIDER, _quoted(response.body))
    if module.poll is not None and phase == "start":
        return _started(selected(module.poll.task, document), response.body)
    if module.bulk is not None:
        if phase == "poll" and module.bulk.results.request is not None:
            return Ready()
        results = module.bulk.results
        return _listed(results.items, results.paging, document, response.body, pages_read)
    paging = module.response.paging
    if paging is not None:
        return _listed(paging.items, paging, document, response.body, pages_read)
    return found(module.response, document)


def is_claimed(module: ProviderModule, response: Response) -> bool:
    """Whether the module itself says what an answer like this means."""
    return _by_signal(module, response, document_of(response), Instant(0)) is not None


def document_of(response: Response) -> object:
    """The JSON of an answer; None where it is not JSON."""
    return _document(response.body)[1]


def found(response: ResponseMapping, document: object) -> Done | NotFound:
    """What a document holds of what is wanted."""
    values = {name: selected(output.select, document) for name, output in response.columns.items()}
    return Done(values) if any(value not in (None, "") for value in values.values()) else NotFound()


def item_verdict(module: ProviderModule, item: JsonValue) -> Done | NotFound | Failed:
    """What an item of a bulk's results says of its lead."""
    assert module.bulk is not None, f"{module.name} takes no bulk orders"
    assert module.response is not None, "a judged module has request and response, or chat"
    if _any(module.bulk.results.failed, 200, item):
        return Failed(LeadReason.REFUSED_BY_PROVIDER, _quoted(msgspec.json.encode(item)))
    return found(module.response, item)


def _listed(selector: str, paging: Paging | None, document: object, body: bytes, pages_read: int) -> Listed | Failed:
    items = selected(selector, document)
    if not isinstance(items, list):
        return Failed(LeadReason.BAD_RESPONSE, f"holds no list of results: {_quoted(body)}")
    return Listed(items, _next_page(paging, document, pages_read + 1))


def _next_page(paging: Paging | None, document: object, pages_read: int) -> str | None:
    if paging is None or pages_read >= paging.pages_max:
        return None
    if paging.count is not None:
        count = selected(paging.count, document)
        more = isinstance(count, int | float) and pages_read < count
        return str(pages_read + paging.first) if more else None
    named = selected(paging.next or "", document)
    if isinstance(named, bool) or not isinstance(named, str | int) or named == "":
        return None
    return str(named)[:TASK_CHARACTERS_MAX]


def read_values(values: dict[str, JsonValue], into: tuple[Column, ...], outputs: dict[str, str]) -> Cells:
    """The cells that a provider's values fill; `outputs` says which output a column takes, else its namesake.

    Raises:
        BadValueError: a value is not of its column's declared type.

    """
    cells: Cells = {}
    for column in into:
        try:
            cells[column.name] = column.accept(values.get(outputs.get(column.name, column.name)))
        except BadValueError as fault:
            raise BadValueError(f"{column.name}: {fault}") from None
    return cells


def _by_signal(module: ProviderModule, response: Response, document: object, now: Instant) -> Verdict | None:
    """What the module says that this answer means."""
    status = response.status
    if _any(module.quota_gone, status, document):
        return _quota_gone(module, response, document, now)
    if _any(module.invalid_key, status, document):
        return InvalidKey()
    if _any(module.throttled, status, document):
        return Throttled(_hint(module.hints, response, document, now, HINT_SECONDS_MAX))
    if _any(module.not_found, status, document):
        return NotFound()
    return None


def _by_status(module: ProviderModule, response: Response, document: object, now: Instant) -> Verdict | None:
    """What the status means by custom; None where it is a success."""
    match response.status:
        case 401:
            return InvalidKey()
        case 402:
            return _quota_gone(module, response, document, now)
        case 429:
            return Throttled(_hint(module.hints, response, document, now, HINT_SECONDS_MAX))
        case status if status >= 500 or status in {408, 425}:
            hint = _hint(module.hints, response, document, now, HINT_SECONDS_MAX)
            return ServerError(f"status {status}: {_quoted(response.body)}", hint)
        case status if 300 <= status < 400:
            return Failed(LeadReason.BAD_RESPONSE, f"status {status}: redirects are not followed")
        case status if status >= 400:
            return Failed(LeadReason.REFUSED_BY_PROVIDER, f"status {status}: {_quoted(response.body)}")
        case _:
            return None


def _quota_gone(module: ProviderModule, response: Response, document: object, now: Instant) -> QuotaGone:
    return QuotaGone(_hint(module.quota_hints, response, document, now, QUOTA_HINT_SECONDS_MAX))


def _started(task: JsonValue, body: bytes) -> Verdict:
    if isinstance(task, int) and not isinstance(task, bool):
        task = str(task)
    if isinstance(task, str) and 0 < len(task) <= TASK_CHARACTERS_MAX:
        return Started(task)
    return Failed(LeadReason.BAD_RESPONSE, f"names no task: {_quoted(body)}")


def _completion(document: object, body: bytes) -> Verdict:
    content = selected("choices[0].message.content", document)
    used = selected("usage.total_tokens", document)
    tokens = used if isinstance(used, int) and not isinstance(used, bool) and used >= 0 else None
    paid = _tokens(document)
    if not isinstance(content, str):
        return Failed(LeadReason.BAD_RESPONSE, f"holds no message: {_quoted(body)}", paid)
    if selected("choices[0].finish_reason", document) == "content_filter":
        return Failed(LeadReason.REFUSED_BY_PROVIDER, "the provider's content filter cut the answer off", paid)
    return Done({"content": content}, tokens, paid)


def _tokens(document: object) -> Tokens | None:
    """What an answer says it is to be paid for; None where it does not say."""
    usage = selected("usage.{input: prompt_tokens, output: completion_tokens}", document)
    try:
        return msgspec.convert(usage, Tokens)
    except msgspec.ValidationError:
        return None


def _any(signals: list[Signal], status: int, document: object) -> bool:
    return any(_matches(signal, status, document) for signal in signals)


def _matches(signal: Signal, status: int, document: object) -> bool:
    if signal.status is not None and signal.status != status:
        return False
    if signal.select is None:
        return True
    found = selected(signal.select, document)
    if signal.equals is UNSET:
        return found is not None and found is not False and found not in ("", [], {})
    return type(found) is type(signal.equals) and found == signal.equals


def _document(body: bytes) -> tuple[bool, object]:
    """Whether a body is JSON, and the document that it is."""
    try:
        return True, msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError):
        return False, None


def _quoted(body: bytes) -> str:
    """The beginning of a body, to be shown to a person."""
    text = body[: 4 * DETAIL_CHARACTERS_MAX].decode(errors="replace").replace("\0", "\ufffd").strip()
    return text if len(text) <= DETAIL_CHARACTERS_MAX else text[: DETAIL_CHARACTERS_MAX - 3] + "..."


# Hints.

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_DURATION_UNITS: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)


def _hint(hints: list[Hint], response: Response, document: object, now: Instant, seconds_max: float) -> float | None:
    """Seconds until the provider wants to hear of us again: the first hint that can be read, bounded."""
    for hint in hints:
        if hint.header is not None:
            found: object = response.headers.get(hint.header)
        else:
            found = selected(hint.select or "", document)
        if isinstance(found, str | int | float) and not isinstance(found, bool):
            seconds = seconds_until(str(found), hint.form, now)
            if seconds is not None:
                return min(max(seconds, HINT_SECONDS_MIN), seconds_max)
    return None


def seconds_until(text: str, form: str, now: Instant) -> float | None:
    """The seconds from `now` that a hint in this form stands for, unbounded; None where it cannot be read."""
    text = text.strip()[:100]
    wall = now / SECOND
    if _NUMBER.fullmatch(text):
        number = float(text)
        match form:
            case "seconds":
                return number
            case "milliseconds":
                return number / 1_000
            case "epoch":
                return number - wall
            case "epoch_milliseconds":
                return number / 1_000 - wall
            case "auto" if number < 1e9:
                return number
            case "auto" if number < 1e11:
                return number - wall
            case "auto" if number < 1e14:
                return number / 1_000 - wall
            case _:
                return None
    if form in {"auto", "duration"} and (parts := _DURATION.fullmatch(text)) and text:
        amounts = zip(parts.groups(), _DURATION_UNITS, strict=True)
        return sum(float(amount) * unit for amount, unit in amounts if amount is not None)
    if form in {"auto", "date"} and (moment := _date(text)) is not None:
        return moment.timestamp() - wall
    return None


def _date(text: str) -> dt.datetime | None:
    """A date as HTTP writes it, or as ISO 8601 does; without a zone it is in UTC."""
    for read in (parsedate_to_datetime, dt.datetime.fromisoformat):
        try:
            moment = read(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
            moment.timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        return moment
    return None
