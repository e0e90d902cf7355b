"""How providers behave, without any I/O: a request and the time go in, a plan of the answer comes out.

A provider is an application (what it sells) wrapped in what stands between it and its customers, outermost first:

    Authorized(Limited(Faulty(Delayed(Enrichment()))))

Each layer answers for itself (a 401, a 429, a hang) or asks the layer within. The complication is time: a real provider
sleeps, drips and hangs, and code that sleeps cannot be asked "what would you do in an hour?". So nothing here sleeps. A
layer is given `Now` and returns a `Plan` that says what to send and when; `servers` carries it out over real HTTP, a
simulation carries it out on virtual time. The only state is what a provider would remember: its windows, its tasks, how
often it was called. Equal seeds and equal requests at equal times give equal answers, in every process: all that looks
random is a hash.
"""

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import cached_property
from hashlib import blake2b
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal, Protocol, assert_never
from urllib.parse import parse_qsl, unquote_plus

import msgspec

SECOND = 1_000_000
"""Microseconds, the unit of every instant here."""

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class Now(msgspec.Struct, frozen=True, gc=False):
    """One reading of both clocks, in microseconds: `instant` only ever grows, `wall` counts from 1970 in UTC."""

    instant: int
    wall: int


class Request(msgspec.Struct, dict=True):
    """What arrived. Header names are lower case; the query is decoded. The rest is read out of it once, on demand."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""

    @cached_property
    def document(self) -> dict[str, object]:
        """The body's JSON object; empty for any other body."""
        try:
            decoded = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return decoded if isinstance(decoded, dict) else {}

    @cached_property
    def leads(self) -> tuple[str, ...]:
        """The leads asked about: every distinct e-mail address in query and body, lower case, in order."""
        texts = list(self.query.values())
        if self.document:
            texts += _strings(self.document)
        elif self.body:
            texts.append(unquote_plus(self.body.decode("utf-8", "replace")))
        return tuple(dict.fromkeys(found.lower() for text in texts for found in _EMAIL.findall(text)))

    @property
    def lead(self) -> str | None:
        """The first lead asked about."""
        return self.leads[0] if self.leads else None

    @property
    def teamspace(self) -> str | None:
        """Whom the request is for: the header `x-teamspace`, else the body's `teamspace` or (OpenAI's) `user`."""
        named = self.headers.get("x-teamspace") or self.document.get("teamspace") or self.document.get("user")
        return named if isinstance(named, str) else None

    @property
    def credential(self) -> str | None:
        """The bearer token, or else the header `x-api-key`."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key")


class Drip(msgspec.Struct, frozen=True, gc=False):
    """A body sent in pieces of `size` bytes, `gap_us` before each."""

    size: int
    gap_us: int


Stop = Literal["hang_before_headers", "hang_after_headers", "cut_before_headers", "cut_in_body"]
"""Where an answer breaks off: silence with the connection open, or the connection torn down."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """An answer: what to send, when, and how it goes wrong. `outcome` and `notes` are for the log alone.

    `repeat` sends `body` that many times over (a huge body needs no huge memory). `lead` names the lead an answer is
    about where the request does not say it (a poll). With `cut_in_body` half the body leaves before the connection
    goes.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    repeat: int = 1
    delay_us: int = 0
    drip: Drip | None = None
    stop: Stop | None = None
    outcome: str = "ok"
    lead: str | None = None
    notes: Mapping[str, str | int] = {}


class Behaviour(Protocol):
    """One provider, or one layer of it."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The plan for a request that arrived at `now`. Calls come in the order of arrival; `now` never goes back."""
        ...


_JSON = {"content-type": "application/json"}


def json_plan(
    document: object,
    *,
    status: int = 200,
    outcome: str = "ok",
    lead: str | None = None,
    notes: Mapping[str, str | int] = MappingProxyType({}),
    stop: Stop | None = None,
) -> Plan:
    """A plan whose body is `document` as JSON."""
    body = msgspec.json.encode(document)
    return Plan(status=status, headers=_JSON, body=body, outcome=outcome, lead=lead, notes=notes, stop=stop)


def number_of(*parts: str | int) -> int:
    """A number below 2**64 that depends on `parts` alone: the same in every process, evenly spread."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest())


def _strings(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in _strings(item)]
        case dict():
            return [text for item in value.values() for text in _strings(item)]
        case _:
            return []


# --- what is sold -----------------------------------------------------------------------------------------------------

_INDUSTRIES = ("Logistics", "Software", "Textiles", "Optics", "Brewing", "Insurance", "Robotics", "Publishing")
_COUNTRIES = ("DE", "FR", "JP", "IL", "BR", "NO", "PL", "US")


def company_of(email: str) -> dict[str, str | int]:
    """The company behind an address, made up from its domain: every provider and every test agrees about it."""
    domain = email.rpartition("@")[2].lower()
    return {
        "domain": domain,
        "company": domain.partition(".")[0].replace("-", " ").title(),
        "industry": _INDUSTRIES[number_of("industry", domain) % len(_INDUSTRIES)],
        "employees": 1 + number_of("employees", domain) % 5_000,
        "country": _COUNTRIES[number_of("country", domain) % len(_COUNTRIES)],
    }


class Enrichment:
    """Sells company data by one synchronous call; the lead's address may stand anywhere in query or body."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The lead's company; 400 for a request that names no lead."""
        if request.lead is None:
            return json_plan({"error": "no e-mail address in the request"}, status=400, outcome="bad_request")
        return json_plan({"email": request.lead, "data": company_of(request.lead)})


class Polling:
    """Sells the same in two steps, as Snov does: POST starts a task and answers its `task_hash`, GET asks for it.

    The answer is `in_progress` until both `polls` results were asked for in vain and `seconds` have passed since the
    start. The task may be named by the query (`?task_hash=`) or by the path's last part.
    """

    def __init__(self, *, polls: int = 0, seconds: float = 0.0, seed: int = 0) -> None:
        self._polls, self._ready_after_us, self._seed = polls, round(seconds * SECOND), seed
        self._tasks: dict[str, tuple[str, int]] = {}
        self._asked: Counter[str] = Counter()

    def respond(self, request: Request, now: Now) -> Plan:
        """A new task for a POST, the state of a known one for a GET."""
        if request.method == "POST":
            if request.lead is None:
                return json_plan({"error": "no e-mail address in the request"}, status=400, outcome="bad_request")
            task_hash = f"{number_of('task', self._seed, len(self._tasks), request.lead):016x}"
            self._tasks[task_hash] = (request.lead, now.instant + self._ready_after_us)
            return json_plan({"task_hash": task_hash}, outcome="started", notes={"task_hash": task_hash})
        task_hash = request.query.get("task_hash") or request.path.rpartition("/")[2]
        if task_hash not in self._tasks:
            return json_plan({"error": "unknown task_hash"}, status=404, outcome="not_found")
        lead, ready = self._tasks[task_hash]
        self._asked[task_hash] += 1
        if now.instant < ready or self._asked[task_hash] <= self._polls:
            document: dict[str, object] = {"status": "in_progress"}
        else:
            document = {"status": "completed", "data": company_of(lead)}
        return json_plan(document, outcome=str(document["status"]), lead=lead, notes={"task_hash": task_hash})


class BulkJobs:
    """Sells the same for many leads at a time: POST takes `records`, GET `…/ID` says how far it is, and
    GET `…/ID/results?page=N` reads what came of it.

    A record has an `id`, which its result repeats, and an `email`. A job is done `seconds` after it was taken; from
    `finish` on all are. Leads whose address begins with `unknown` are in the results without data; those that begin
    with `forgotten` are not in them. More than `open_max` jobs at a time are refused with 409.
    """

    def __init__(self, *, seconds: float = 0.0, page: int = 1_000, open_max: int | None = None) -> None:
        self._seconds_us, self._page, self._open_max = round(seconds * SECOND), page, open_max
        self._jobs: dict[str, tuple[list[dict[str, str]], int]] = {}
        self._finished = False

    def finish(self) -> None:
        """Every job is done from now on, however long it should have taken."""
        self._finished = True

    def respond(self, request: Request, now: Now) -> Plan:
        """A new job for a POST, else the state or a page of the results of a known one."""
        if request.method == "POST":
            return self._take(request, now)
        parts = request.path.strip("/").split("/")
        name = parts[-2] if parts[-1] == "results" else parts[-1]
        if name not in self._jobs:
            return json_plan({"error": "unknown job"}, status=404, outcome="not_found")
        records, ready = self._jobs[name]
        if now.instant < ready and not self._finished:
            return json_plan({"id": name, "state": "running"}, outcome="running", notes={"job": name})
        if parts[-1] != "results":
            return json_plan({"id": name, "state": "done"}, outcome="done", notes={"job": name})
        told = [record for record in records if not record["email"].startswith("forgotten")]
        page = int(request.query.get("page") or 1)
        results = [
            {"id": record["id"], "data": None if record["email"].startswith("unknown") else company_of(record["email"])}
            for record in told[(page - 1) * self._page : page * self._page]
        ]
        pages = max(1, math.ceil(len(told) / self._page))
        document = {"state": "done", "results": results, "pages": pages}
        return json_plan(document, outcome="results", notes={"job": name, "page": page})

    def _take(self, request: Request, now: Now) -> Plan:
        records = request.document.get("records")
        if not isinstance(records, list) or not records:
            return json_plan({"error": "no records"}, status=400, outcome="bad_request")
        if (
            self._open_max is not None
            and sum(now.instant < ready for _, ready in self._jobs.values()) >= self._open_max
        ):
            return json_plan({"error": "too many jobs"}, status=409, outcome="too_many")
        name = f"{number_of('job', len(self._jobs), str(records)):016x}"
        self._jobs[name] = (records, now.instant + self._seconds_us)
        return json_plan({"id": name}, outcome="taken", notes={"job": name, "records": len(records)})


def score_of(subject: str) -> int:
    """The AI's verdict on a lead (or any text), 1 to 10, evenly spread."""
    return 1 + number_of("score", subject.lower()) % 10


_OPENERS = ("I noticed", "I enjoyed reading about", "Congratulations on", "A colleague told me about")
_SUBJECTS = ("your new depot", "the launch in spring", "your team's growth", "the prize you won", "your open positions")


def line_of(subject: str) -> str:
    """The AI's opening line for a lead."""
    opener = _OPENERS[number_of("opener", subject.lower()) % len(_OPENERS)]
    return f"{opener} {_SUBJECTS[number_of('subject', subject.lower()) % len(_SUBJECTS)]} ({subject.lower()})."


class ChatCompletions:
    """Sells answers in OpenAI's form. What is asked is told from the prompt's words, what is answered from the lead
    in it.

    A prompt that says "personalise" (or "personalize") gets an opening line, else one that says "score" gets a whole
    number from 1 to 10, and any other its own words back. The lead is the prompt's first e-mail address, else the
    whole prompt.
    """

    def __init__(self, path: str = "/v1/chat/completions") -> None:
        self._path = path

    def respond(self, request: Request, now: Now) -> Plan:
        """The completion; 404 off the path, 400 without messages."""
        if (request.method, request.path) != ("POST", self._path):
            return openai_error(404, "not_found", "no such method and path")
        messages = request.document.get("messages")
        if not isinstance(messages, list) or not messages:
            return openai_error(400, "invalid_request_error", "messages are missing")
        prompt = "\n".join(_strings([message.get("content") for message in messages if isinstance(message, dict)]))
        found = _EMAIL.search(prompt)
        subject = found[0].lower() if found else prompt
        notes: dict[str, str | int] = {}
        if "personali" in (words := prompt.lower()):
            content = line_of(subject)
            notes = {"task": "personalise", "line": content}
        elif "score" in words:
            content = str(score_of(subject))
            notes = {"task": "score", "score": int(content)}
        else:
            content = prompt
        spent = (1 + len(prompt) // 4, 1 + len(content) // 4)
        completion = {
            "id": f"chatcmpl-{number_of('completion', prompt):016x}",
            "object": "chat.completion",
            "created": now.wall // SECOND,
            "model": request.document.get("model"),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": spent[0], "completion_tokens": spent[1], "total_tokens": sum(spent)},
        }
        return json_plan(completion, lead=found and found[0].lower(), notes=notes)


# --- limits -----------------------------------------------------------------------------------------------------------

Hint = Literal["seconds", "http_date", "epoch", "duration", "body_field", "none", "garbage", "absurd"]
"""How a throttled customer is told when to come again; the last two are lies met in practice."""


class Throttle(msgspec.Struct, frozen=True):
    """The way a provider says "too fast": some by 403, some in the body of a 200."""

    hint: Hint = "seconds"
    status: int = 429
    body: Mapping[str, object] = MappingProxyType({"error": "too many requests"})

    def plan(self, wait_us: int, now: Now) -> Plan:
        """The refusal of a request that would be welcome after `wait_us`; every hint rounds up to whole seconds."""
        seconds = math.ceil(wait_us / SECOND)
        free_at = math.ceil((now.wall + wait_us) / SECOND)
        headers: dict[str, str] = {}
        body = dict(self.body)
        match self.hint:
            case "seconds":
                headers["retry-after"] = str(seconds)
            case "http_date":
                headers["retry-after"] = formatdate(free_at, usegmt=True)
            case "epoch":
                headers["x-ratelimit-reset"] = str(free_at)
            case "duration":
                headers["x-ratelimit-reset-requests"] = f"{seconds // 60}m{seconds % 60}s"
            case "body_field":
                body["retry_after"] = seconds
            case "garbage":
                headers["retry-after"] = "in a while"
            case "absurd":
                headers["retry-after"] = "99999999999"
            case "none":
                pass
            case never:
                assert_never(never)
        plan = json_plan(body, status=self.status, outcome="throttled")
        return msgspec.structs.replace(plan, headers={**plan.headers, **headers})


class Window(msgspec.Struct, frozen=True, gc=False):
    """At most `amount` units in `seconds`: in any window of that length, or (`aligned`) in each that the clock cuts.

    A unit is a request, or a lead: then a request costs as many as it names, so that polls, which name none, are free.
    """

    amount: int
    seconds: float
    unit: Literal["request", "lead"] = "request"
    aligned: bool = False


class Meter:
    """What one window remembers: how much was charged, and when it is forgotten."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._width_us = round(window.seconds * SECOND)
        self._charges: deque[tuple[int, int]] = deque()
        self._counted = 0

    def wait_us(self, cost: int, now: Now) -> int:
        """How long until `cost` units fit; 0 when they fit now; a whole window for what never fits."""
        self._forget(now)
        excess = self._counted + cost - self.window.amount
        if cost == 0 or excess <= 0:
            return 0
        for leaves, charged in self._charges:
            excess -= charged
            if excess <= 0:
                return leaves - self._time(now)
        return self._width_us

    def charge(self, cost: int, now: Now) -> None:
        """Count `cost` units that arrived now."""
        time = self._time(now)
        begin = time - time % self._width_us if self.window.aligned else time
        if cost:
            self._charges.append((begin + self._width_us, cost))
            self._counted += cost

    def _time(self, now: Now) -> int:
        return now.wall if self.window.aligned else now.instant

    def _forget(self, now: Now) -> None:
        while self._charges and self._charges[0][0] <= self._time(now):
            self._counted -= self._charges.popleft()[1]


class Limited:
    """Holds a provider's windows. Enforced, a request that does not fit into every one of them is refused and costs
    nothing; silent, as Snov is, it goes through and the log notes `over_limit`.
    """

    def __init__(
        self, inner: Behaviour, *windows: Window, enforce: bool = True, throttle: Throttle | None = None
    ) -> None:
        self._inner, self._enforce, self._throttle = inner, enforce, throttle or Throttle()
        self._meters = [Meter(window) for window in windows]

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal, or the inner answer with the request charged."""
        costs = [1 if meter.window.unit == "request" else len(request.leads) for meter in self._meters]
        wait_us = max((meter.wait_us(cost, now) for meter, cost in zip(self._meters, costs, strict=True)), default=0)
        if wait_us and self._enforce:
            return self._throttle.plan(wait_us, now)
        for meter, cost in zip(self._meters, costs, strict=True):
            meter.charge(cost, now)
        plan = self._inner.respond(request, now)
        return msgspec.structs.replace(plan, notes={**plan.notes, "over_limit": 1}) if wait_us else plan


class ByMethod:
    """Different limits for different calls: by the method, and by what the path ends with where that is named."""

    def __init__(self, **layers: Behaviour) -> None:
        """`POST=…`, `GET=…`; `GET_results=…` is for paths that end with `results`."""
        self._layers = layers

    def respond(self, request: Request, now: Now) -> Plan:
        """The answer of the layer that the call is for."""
        last = request.path.rpartition("/")[2]
        layer = self._layers.get(f"{request.method}_{last}") or self._layers[request.method]
        return layer.respond(request, now)


class InFlight:
    """Takes `amount` calls at a time; one more is refused at once, and may come again at once."""

    def __init__(self, inner: Behaviour, amount: int, *, throttle: Throttle | None = None) -> None:
        self._inner, self._amount, self._throttle = inner, amount, throttle or Throttle("none")
        self._ends: list[int] = []
        self.worst = 0
        """The most that were in flight at a time."""

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal, or the inner answer."""
        self._ends = [end for end in self._ends if end > now.instant]
        if len(self._ends) >= self._amount:
            return self._throttle.plan(0, now)
        plan = self._inner.respond(request, now)
        self._ends.append(now.instant + plan.delay_us)
        self.worst = max(self.worst, len(self._ends))
        return plan


class Spoken:
    """Wraps what is sold into the words of a provider: `words` makes its document of ours."""

    def __init__(self, inner: Behaviour, words: Callable[[Request, dict[str, object]], object]) -> None:
        self._inner, self._words = inner, words

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer, in other words where it is a success."""
        plan = self._inner.respond(request, now)
        if plan.status != 200:
            return plan
        document = self._words(request, msgspec.json.decode(plan.body))
        return msgspec.structs.replace(plan, body=msgspec.json.encode(document))


class Exhausted:
    """A balance of `calls`: once so many were answered with success, every later request gets `plan`."""

    def __init__(self, inner: Behaviour, *, calls: int, plan: Plan) -> None:
        self._inner, self._left, self._plan = inner, calls, plan

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer while the balance lasts."""
        if self._left <= 0:
            return self._plan
        plan = self._inner.respond(request, now)
        self._left -= plan.status < 400
        return plan


def openai_error(status: int, code: str, message: str) -> Plan:
    """An error in OpenAI's form; its code is the log's outcome too."""
    return json_plan({"error": {"message": message, "type": code, "code": code}}, status=status, outcome=code)


OPENAI_THROTTLE = Throttle(body={"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}})
"""OpenAI's "slow down": a 429 that passes by itself."""

OPENAI_QUOTA = openai_error(429, "insufficient_quota", "You exceeded your current quota")
"""OpenAI's "pay first": a 429 that never passes by itself."""


# --- what goes wrong --------------------------------------------------------------------------------------------------


class Authorized:
    """Lets only known keys in; `refusal` is the answer to the others."""

    def __init__(self, inner: Behaviour, *keys: str, refusal: Plan | None = None) -> None:
        self._inner, self._keys = inner, frozenset(keys)
        self._refusal = refusal or openai_error(401, "invalid_api_key", "Incorrect API key provided")

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal, or the inner answer."""
        return self._inner.respond(request, now) if request.credential in self._keys else self._refusal


class Tokens:
    """Gives out access tokens for `client` and `secret`, and lets only those in that are good.

    A token lives for `seconds`; after `forgets` requests with one it is forgotten before its time. The log's note
    `token` is the number of the token, from 1.
    """

    def __init__(
        self,
        inner: Behaviour,
        *,
        path: str = "/oauth/token",
        client: str = "client",
        secret: str = "secret",
        seconds: int = 3_600,
        forgets: int | None = None,
    ) -> None:
        self._inner, self._path, self._pair, self._seconds, self._forgets = (
            inner,
            path,
            (client, secret),
            seconds,
            forgets,
        )
        self.given: list[str] = []
        self._ends = 0
        self._used = 0

    def respond(self, request: Request, now: Now) -> Plan:
        """A token, or the inner answer for who has one."""
        if request.path == self._path:
            fields = request.document or dict(parse_qsl(request.body.decode()))
            if (fields.get("client_id"), fields.get("client_secret")) != self._pair:
                return json_plan({"error": "invalid_client"}, status=401, outcome="invalid_client")
            self.given.append(f"token-{number_of('token', len(self.given)):016x}")
            self._ends, self._used = now.instant + self._seconds * SECOND, 0
            document = {"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self._seconds}
            return json_plan(document, outcome="token", notes={"token": len(self.given)})
        forgotten = self._forgets is not None and self._used >= self._forgets
        if not self.given or request.credential != self.given[-1] or now.instant >= self._ends or forgotten:
            return json_plan({"error": "invalid_token"}, status=401, outcome="invalid_token")
        self._used += 1
        return self._inner.respond(request, now)


class Delayed:
    """Makes answers take time: log-normal round `median_us`, never above `max_us`.

    A delay depends on the seed, on what is asked and on how often it was asked before, so that it is the same
    whatever else goes on at once.
    """

    def __init__(
        self, inner: Behaviour, *, median_us: int, sigma: float = 0.5, max_us: int = 60 * SECOND, seed: int = 0
    ) -> None:
        self._inner, self._median_us, self._max_us, self._seed = inner, median_us, max_us, seed
        self._spread = NormalDist(0.0, sigma) if sigma else None
        self._asked: Counter[int] = Counter()

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer, later."""
        plan = self._inner.respond(request, now)
        question = number_of(request.method, request.path, *request.query.values(), request.body.hex())
        self._asked[question] += 1
        share = (number_of("delay", self._seed, question, self._asked[question]) + 0.5) / 2**64
        factor = math.exp(self._spread.inv_cdf(share)) if self._spread else 1.0
        delay_us = plan.delay_us + min(self._max_us, round(self._median_us * factor))
        return msgspec.structs.replace(plan, delay_us=delay_us)


class Fault(msgspec.Struct, frozen=True):
    """The first `times` calls about `lead` (None: any call) get `plan` and do not reach the provider's application."""

    plan: Plan
    lead: str | None = None
    times: int = 1


class Faulty:
    """Plays faults, in the order given; a call takes at most one, and faults for any call count all calls alike."""

    def __init__(self, inner: Behaviour, faults: Sequence[Fault]) -> None:
        self._inner = inner
        self._faults = tuple(faults)
        self._left = [fault.times for fault in faults]

    def respond(self, request: Request, now: Now) -> Plan:
        """The first fault that still applies, else the inner answer."""
        for number, fault in enumerate(self._faults):
            if self._left[number] > 0 and (fault.lead is None or fault.lead.lower() in request.leads):
                self._left[number] -= 1
                return fault.plan
        return self._inner.respond(request, now)


def hang() -> Plan:
    """Silence: not even headers."""
    return Plan(stop="hang_before_headers", outcome="hang")


def hang_after_headers() -> Plan:
    """Headers, then silence."""
    return json_plan({"data": "never"}, stop="hang_after_headers", outcome="hang")


def cut(*, in_body: bool = False) -> Plan:
    """A connection torn down before the headers, or half-way through the body they announced."""
    if in_body:
        return json_plan({"data": "x" * 64}, stop="cut_in_body", outcome="cut")
    return Plan(stop="cut_before_headers", outcome="cut")


def server_error(status: int = 503) -> Plan:
    """A failure the provider admits to."""
    return json_plan({"error": "try again later"}, status=status, outcome="server_error")


def invalid_json() -> Plan:
    """A success whose body breaks off in the middle of a string."""
    return Plan(headers=_JSON, body=b'{"data": {"company": "No', outcome="invalid_json")


def huge_body(size: int) -> Plan:
    """A success with `size` bytes (rounded down to 64 KiB, at least that) of one endless JSON string."""
    piece = b"x" * 65_536
    return Plan(headers=_JSON, body=piece, repeat=max(1, size // len(piece)), outcome="huge_body")


def redirect(location: str, status: int = 302) -> Plan:
    """Elsewhere, please."""
    return Plan(status=status, headers={"location": location}, outcome="redirect")


def dripping(plan: Plan, *, size: int = 1, gap_seconds: float = 10.0) -> Plan:
    """The same answer, `size` bytes at a time."""
    return msgspec.structs.replace(plan, drip=Drip(size, round(gap_seconds * SECOND)))
