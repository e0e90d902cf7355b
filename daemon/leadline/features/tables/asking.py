"""How a lead is asked about, by a provider's module or by a prompt to a model: requests out, turns back.

Both are the same to whoever drives a lead's course: a request for a turn, its cost, and what an answer to it means.
Everything here is a plain function of its arguments.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from leadline.core.events import NOTHING, CallEnd
from leadline.core.model import SECOND, Now
from leadline.core.rate_limit import Cost
from leadline.features.tables import responses
from leadline.features.tables.columns import BadValueError, Cells, Column
from leadline.features.tables.credits import charge_of, price_of
from leadline.features.tables.lead_course import Ask, Course, Turn
from leadline.features.tables.prompts import (
    NO_SCHEMAS,
    Message,
    Schemas,
    conversation,
    estimated_tokens,
    read_answer,
    repair,
    tokens_at_most,
)
from leadline.features.tables.provider_modules import ProviderModule
from leadline.features.tables.requests import (
    Access,
    chat_request,
    lead_request,
    poll_request,
)
from leadline.features.tables.templates import Template, fill_text
from leadline.ports.provider_client import Request, Response
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import AccountName, Instant


class Endpoint(Struct, frozen=True):
    """A provider account as configured: its name among the accounts, what it is, and how to reach it."""

    account: AccountName
    module: ProviderModule
    access: Access
    own: "Mapping[str, Endpoint]" = {}
    """The accounts of teamspaces that have a key of their own, by teamspace."""
    places: int | None = None
    """So many calls can be worked on at a time; None: nobody knows of a bound."""

    def of(self, teamspace: str) -> "Endpoint":
        """The account that a teamspace's calls are made with."""
        return self.own.get(teamspace, self)


def course_at(module: ProviderModule, task: str | None = None, waited_microseconds: int = 0) -> Course:
    """A lead's course at a provider, or an order's; `task` was taken on so long ago."""
    poll = module.poll
    return Course(
        module.ambiguous,
        poll_seconds=poll.interval_seconds if poll else 0.0,
        poll_first_seconds=poll.first_seconds if poll else 0.0,
        poll_wait_seconds=poll.max_wait_seconds if poll else 0.0,
        poll_reason=JobReason.POLL if module.bulk is None else JobReason.BULK_RESULT,
        task=task,
        waited_microseconds=waited_microseconds,
    )


ABOUT_THE_LEAD: Final = (responses.Done, responses.Started, responses.NotFound, responses.Failed)
"""The verdicts by which a provider has answered about a lead: what is due by request is due then."""


class Heard(Struct, frozen=True):
    """What an answer comes to."""

    end: CallEnd
    turn: Turn | None
    """None: the account's key was refused, and with that the job ends."""
    good: bool = False
    """Whether the call counts as done: its row is closed with the result it led to."""
    charge: Decimal = NOTHING
    """What the provider is owed for it."""


class Asker(Protocol):
    """Asks about one lead."""

    endpoint: Endpoint

    def request(self, ask: Ask, access: Access, call_id: str) -> Request:
        """The request for a turn. Raises BadValueError where a value cannot stand in it."""
        ...

    def cost(self, ask: Ask) -> Cost:
        """What that request takes of the account's limits."""
        ...

    def price(self, ask: Ask) -> Decimal:
        """What the provider may be owed at most, from that request on to the end of its work on the lead."""
        ...

    def hear(self, ask: Ask, response: Response, course: Course, now: Now, jitter: float) -> Heard:
        """What an answer comes to."""
        ...


class ModuleAsker:
    """Asks a provider by its module."""

    def __init__(
        self,
        endpoint: Endpoint,
        values: Cells,
        into: tuple[Column, ...],
        outputs: Mapping[str, str],
        course: Course,
        *,
        answered: bool = False,
    ) -> None:
        """`answered`: the provider has answered about the lead before."""
        self.endpoint = endpoint
        self._answered = answered
        self._values = values
        self._into = into
        self._outputs = dict(outputs)
        self._course = course

    def request(self, ask: Ask, access: Access, call_id: str) -> Request:
        """The request for a turn. Raises BadValueError where a value cannot stand in it."""
        module = self.endpoint.module
        if ask.what == "poll":
            assert self._course.task is not None, "only what was started is asked for"
            return poll_request(module, access, self._values, task=self._course.task, call_id=call_id)
        return lead_request(module, access, self._values, call_id=call_id)

    def cost(self, ask: Ask) -> Cost:
        """What that request takes: a lead with its first request, polls as the module says."""
        module = self.endpoint.module
        if ask.what == "poll":
            assert module.poll is not None, "only modules with polls are polled"
            return module.poll.cost
        return module.cost

    def price(self, ask: Ask) -> Decimal:  # noqa: ARG002  the same for an order and its polls
        """What the provider may be owed at most, from that request on to the end of its work on the lead."""
        return price_of(self.endpoint.module, first=not self._answered)

    def hear(self, ask: Ask, response: Response, course: Course, now: Now, jitter: float) -> Heard:
        """What an answer comes to."""
        module = self.endpoint.module
        phase: responses.Phase = "poll" if ask.what == "poll" else "start"
        verdict = responses.read_response(module, response, phase, now.wall)
        first, self._answered = not self._answered, self._answered or isinstance(verdict, ABOUT_THE_LEAD)
        if not isinstance(verdict, ABOUT_THE_LEAD):
            return heard(verdict, course, now.instant, jitter)
        charge = charge_of(module, found=isinstance(verdict, responses.Done), first=first)
        if not isinstance(verdict, responses.Done):
            return replace(heard(verdict, course, now.instant, jitter), charge=charge)
        try:
            cells = responses.read_values(verdict.values, self._into, self._outputs)
        except BadValueError as fault:
            return Heard(CallEnd(), course.failed(LeadReason.BAD_OUTPUT, str(fault)), good=True, charge=charge)
        found = not cells or any(value not in (None, "") for value in cells.values())
        return Heard(CallEnd(), course.done(cells) if found else course.not_found(), good=True, charge=charge)


class PromptAsker:
    """Asks a model by a prompt."""

    def __init__(
        self,
        endpoint: Endpoint,
        prompt: Template,
        cells: Cells,
        into: tuple[Column, ...],
        schemas: Schemas = NO_SCHEMAS,
        *,
        answered: bool = False,
        may_miss: bool = False,
    ) -> None:
        """`schemas`: what the JSON of a column must be like; `answered`: the model has answered about it before;
        `may_miss`: that it knows no answer is one, too.
        """
        self.endpoint = endpoint
        self._answered = answered
        self._may_miss = may_miss
        self._into = into
        self._schemas = schemas
        self._messages: tuple[Message, ...] = conversation(fill_text(prompt, cells), into, schemas, may_miss=may_miss)
        chat = endpoint.module.chat
        assert chat is not None, "ai_prompt is given chat endpoints only"
        self._answer_tokens_max = chat.answer_tokens_max

    def request(self, ask: Ask, access: Access, call_id: str) -> Request:  # noqa: ARG002  the messages know the turn
        """The request for a turn."""
        module = self.endpoint.module
        return chat_request(module, access, self._messages, answer_tokens_max=self._answer_tokens_max, call_id=call_id)

    def cost(self, ask: Ask) -> Cost:
        """What that request takes: tokens are charged as they may come to, and settled by the answer."""
        tokens = estimated_tokens(self._messages, self._answer_tokens_max)
        cost = replace(self.endpoint.module.cost, token=tokens)
        return replace(cost, lead=0) if ask.what == "repair" else cost

    def price(self, ask: Ask) -> Decimal:  # noqa: ARG002  the messages know the turn
        """What the provider may be owed at most for that request: each has a price of its own."""
        tokens = tokens_at_most(self._messages, self._answer_tokens_max)
        return price_of(self.endpoint.module, tokens, first=not self._answered)

    def hear(self, ask: Ask, response: Response, course: Course, now: Now, jitter: float) -> Heard:
        """What an answer comes to."""
        module = self.endpoint.module
        verdict = responses.read_response(module, response, "start", now.wall)
        first, self._answered = not self._answered, self._answered or isinstance(verdict, ABOUT_THE_LEAD)
        if isinstance(verdict, responses.Failed):
            charge = charge_of(module, verdict.used, found=False, first=first)
            return replace(heard(verdict, course, now.instant, jitter), charge=charge)
        if not isinstance(verdict, responses.Done):
            return heard(verdict, course, now.instant, jitter)
        end = CallEnd()
        if verdict.tokens is not None:
            end = CallEnd(cost=replace(self.cost(ask), token=verdict.tokens))
        used = verdict.used or tokens_at_most(self._messages, self._answer_tokens_max)
        answer = str(verdict.values["content"])
        try:
            cells = read_answer(answer, self._into, self._schemas, may_miss=self._may_miss)
        except BadValueError as fault:
            turn = course.unusable(str(fault))
            self._messages = repair(
                self._messages, answer, str(fault), self._into, self._schemas, may_miss=self._may_miss
            )
            return Heard(end, turn, good=True, charge=charge_of(module, used, found=False, first=first))
        if self._may_miss and all(value in (None, "") for value in cells.values()):
            charge = charge_of(module, used, found=False, first=first)
            return Heard(end, course.not_found(), good=True, charge=charge)
        turn = course.done(cells)
        return Heard(end, turn, good=True, charge=charge_of(module, used, found=True, first=first))


def heard(verdict: responses.Verdict, course: Course, instant: Instant, jitter: float) -> Heard:
    """What every verdict but a result, read at an instant, comes to, for the account and for the lead."""
    match verdict:
        case responses.Started(task=task):
            return Heard(CallEnd(), course.pending(task), good=True)
        case responses.Pending():
            return Heard(CallEnd(), course.pending(None), good=True)
        case responses.NotFound():
            return Heard(CallEnd(), course.not_found(), good=True)
        case responses.Throttled(hint_seconds=hint):
            return Heard(CallEnd(throttled=True, retry_after=_after(instant, hint)), course.thrown_back())
        case responses.QuotaGone(hint_seconds=hint):
            reason = JobReason.CREDITS if hint is None else JobReason.DAILY_CAP
            return Heard(CallEnd(failed=True, parked=reason, retry_after=_after(instant, hint)), course.thrown_back())
        case responses.InvalidKey():
            return Heard(CallEnd(failed=True, parked=JobReason.INVALID_KEY), None)
        case responses.ServerError(detail=detail):
            return Heard(CallEnd(failed=True), course.broke(LeadReason.SERVER_ERROR, detail, jitter))
        case responses.Failed(reason=reason_word, detail=detail):
            return Heard(CallEnd(failed=True), course.failed(reason_word, detail))
        case responses.Done() | responses.Listed() | responses.Ready():
            raise AssertionError("results are read by who asked for them")


def _after(instant: Instant, seconds: float | None) -> Instant | None:
    return None if seconds is None else Instant(instant + math.ceil(seconds * SECOND))


AI_PROMPT: Final = "ai_prompt"
"""The built-in module: a prompt to a model."""
