"""One real call on trial: what a module sends for a lead, what comes back, and what that is taken to mean.

Permits belong to attempts of jobs, and that is right for a call on trial too: it shares the account's limits with
everybody, is stored before it is sent, and counts after a crash. So a try is a small job of a kind of its own, which
nobody can submit, in the family `noop`, whose slots it shares with nobody's work. What it sees is not stored but
handed to whoever asked; a try that finds nobody waiting, because the daemon was restarted, calls nobody.

Nothing is repeated. Where the provider takes an order, its result is asked for as the module says, for a minute. A
module for bulk orders is tried with an order for one lead.

What a try costs is in the ledger as with any job, under a lead of the number 0, together with the end of its call.
"""

import secrets
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final

import anyio
import msgspec
from msgspec.structs import replace

from leadline.core.events import NOTHING, CallEnd
from leadline.core.model import SECOND, Counts, Family, JobState
from leadline.core.rate_limit import Cost
from leadline.features.tables import responses
from leadline.features.tables.asking import (
    ABOUT_THE_LEAD,
    Asker,
    Endpoint,
    ModuleAsker,
    PromptAsker,
    heard,
)
from leadline.features.tables.bulk import OrderAsker, bulk_of
from leadline.features.tables.columns import BadValueError, Cells, Column, ColumnType, cell_text, encode_cells
from leadline.features.tables.credits import charge_of
from leadline.features.tables.lead_course import Ask, Course
from leadline.features.tables.paging import PagedAsker, paging_of
from leadline.features.tables.ports import AnsweredCall, Charge, LeadStore, Passed
from leadline.features.tables.provider_modules import ProviderModule, selected
from leadline.features.tables.requests import input_values, missing_inputs
from leadline.features.tables.templates import parse_prompt
from leadline.features.tables.tokens import NoToken, Tokens
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent
from leadline.ports.work import AccountClosed, Attempt, Call, ChainNotes, Finished, NoPermit, Prepared, Rerun
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, LeadReason, Refused
from leadline_protocol.ids import Instant, LeadId

RESULT_SECONDS: Final = 60.0
"""So long the result of an order is asked for."""

SHOWN_CHARACTERS_MAX: Final = 4_000
"""How much of a body is shown."""

HIDDEN: Final = "***"

_NO_LEAD: Final = LeadId(0)
_NOBODY: Final = "whoever asked for this try is not there any more"


class TryOrder(msgspec.Struct, frozen=True, tag="try", tag_field="kind"):
    """The payload of such a job."""

    teamspace: str
    provider: str
    lead: Mapping[str, Any]
    token: str


class Trial:
    """A try on its way, for whoever waits for it."""

    def __init__(self, order: TryOrder, asker: Asker, course: Course) -> None:
        self.order: Final = order
        self.asker: Final = asker
        self.course: Final = course
        self.called = False
        """Whether there was leave to call."""
        self.ended: Final = anyio.Event()
        self.outcome: wire.Tried | Refused | None = None
        self._moved: Final = anyio.Event()

    def call(self) -> None:
        """There is leave to call."""
        self.called = True
        self._moved.set()

    def end(self, outcome: "wire.Tried | Refused | None") -> None:
        """It is over; None: it was stopped."""
        self.outcome = outcome
        self.ended.set()
        self._moved.set()

    async def until_called(self) -> None:
        """Wait until there was leave to call, or it is over."""
        await self._moved.wait()

    @property
    def payload(self) -> bytes:
        """What is stored as the job."""
        return msgspec.json.encode(self.order)


class Try:
    """Tries (`ports.work.JobKind`)."""

    name = "try"
    family = Family.NOOP

    def __init__(self, leads: LeadStore, endpoints: Callable[[], Mapping[str, Endpoint]], tokens: Tokens) -> None:
        self._leads = leads
        self._endpoints = endpoints
        self._tokens = tokens
        self._trials: dict[str, Trial] = {}

    def begin(self, provider: str, teamspace: str, lead: Mapping[str, Any]) -> Trial:
        """A try that can be made; it waits to be run as a job. Raises Refused."""
        endpoint = self._endpoints().get(provider)
        if endpoint is None:
            raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {provider}", at="name")
        endpoint = endpoint.of(teamspace)
        course = Course("hold")
        order = TryOrder(teamspace, provider, lead, secrets.token_hex(8))
        trial = self._trials[order.token] = Trial(order, _asker(endpoint, lead, course), course)
        return trial

    def forget(self, trial: Trial) -> None:
        """Nobody waits for it any more."""
        self._trials.pop(trial.order.token, None)

    async def prepare(
        self,
        teamspace: str,  # noqa: ARG002  the port's signature
        submission: wire.Submission,  # noqa: ARG002
        *,
        chain: ChainNotes | None,  # noqa: ARG002
        rerun: Rerun | None,  # noqa: ARG002
    ) -> Prepared:
        """Nobody can submit one, or run one again. Raises Refused."""
        raise Refused(ErrorCode.UNKNOWN_KIND, "a try is made by the operation providers", at="kind")

    async def run(self, attempt: Attempt) -> Finished:
        """Make the call, if whoever asked for it is still there. Raises Stopped."""
        order = msgspec.json.decode(attempt.job.payload, type=TryOrder)
        trial = self._trials.get(order.token)
        if trial is None:
            return Finished(JobState.FAILED, Counts(), JobReason.ERROR, _NOBODY)
        outcome: wire.Tried | Refused | None = None
        try:
            outcome = await _Trying(self._leads, attempt, trial, self._tokens).run()
        except NoPermit as error:
            outcome = Refused(ErrorCode.BAD_STATE, str(error), at="name")
        except AccountClosed as error:
            hint = f"`leadline resume provider {trial.asker.endpoint.account}` lets it go on"
            outcome = Refused(ErrorCode.BAD_STATE, f"{error}; {hint}", at="name")
        except Refused as refused:
            outcome = refused
        finally:
            trial.end(outcome)
        message = outcome.outcome if isinstance(outcome, wire.Tried) else str(outcome)
        return Finished(JobState.COMPLETED, Counts(), message=message)


def _asker(endpoint: Endpoint, lead: Mapping[str, Any], course: Course) -> Asker:
    module = endpoint.module
    known = [*module.inputs, *module.optional_inputs] if module.chat is None else ["prompt"]
    for name in lead:
        if name not in known:
            message = f"{module.name} has no input {name}; it has {', '.join(known)}"
            raise Refused(ErrorCode.BAD_REQUEST, message, at=f"lead.{name}")
    if module.chat is not None:
        prompt = parse_prompt(str(lead.get("prompt", "")), (), field="lead.prompt")
        return PromptAsker(endpoint, prompt, {}, (Column("content", ColumnType.TEXT),))
    values = input_values(module, lead, {})
    if missing := missing_inputs(module, values):
        raise Refused(ErrorCode.BAD_REQUEST, f"{module.name} needs {', '.join(missing)}", at="lead")
    if module.bulk is not None:
        return OrderAsker(endpoint, [(_NO_LEAD, values)], course)
    asker = ModuleAsker if paging_of(module) is None else PagedAsker
    return asker(endpoint, values, (), {}, course)


class _Answer(msgspec.Struct, frozen=True):
    """What came of a request."""

    response: Response | None
    end: CallEnd
    outcome: str
    verdict: str
    """The same in words."""
    values: Cells = {}
    owed: Decimal = NOTHING


class _Trying:
    """One try while it is made."""

    def __init__(self, leads: LeadStore, attempt: Attempt, trial: Trial, tokens: Tokens) -> None:
        self._leads = leads
        self._tokens = tokens
        self._attempt = attempt
        self._trial = trial
        self._endpoint = trial.asker.endpoint
        self._calls: list[wire.TriedCall] = []
        self._answered = False
        """Whether the provider has answered about the lead."""

    async def run(self) -> wire.Tried:
        """Make the call, and those that ask for its result. Raises Stopped, NoPermit, AccountClosed."""
        poll = self._endpoint.module.poll
        until = self._attempt.now() + RESULT_SECONDS * SECOND
        outcome, values = await self._call(Ask("start"))
        while outcome == "pending" and poll is not None and self._attempt.now() < until:
            again = Instant(self._attempt.now() + int(poll.interval_seconds * SECOND))
            await self._attempt.wait(JobReason.POLL, again, {"provider": self._endpoint.account})
            outcome, values = await self._call(Ask("poll"))
            if outcome == "ready":
                outcome, values = await self._call(Ask("read"))
        return wire.Tried(
            job=self._attempt.job.id,
            provider=self._endpoint.account,
            outcome=outcome,
            calls=self._calls,
            values=msgspec.json.decode(encode_cells(values)),
        )

    async def _call(self, ask: Ask) -> tuple[str, Cells]:
        attempt, asker = self._attempt, self._trial.asker
        at_most = asker.price(ask) if ask.what == "start" else NOTHING  # the others order nothing
        permit = partial(self._permit, at_most)
        try:
            call = await self._tokens.permit(self._endpoint, self._endpoint.access, attempt, asker.cost(ask), permit)
        except NoToken as error:
            raise Refused(ErrorCode.BAD_STATE, error.detail, at="name") from None
        access = self._tokens.access(self._endpoint, self._endpoint.access)
        try:
            request = asker.request(ask, access, str(call.id))
            seen = asker.request(ask, replace(access, key=access.key and HIDDEN), str(call.id))
        except BadValueError as fault:
            call.end(CallEnd(unsent=True))
            raise Refused(ErrorCode.BAD_REQUEST, str(fault), at="lead") from None
        began = attempt.now()
        answer = await self._answer(call, request, ask, at_most)
        ended = attempt.now()
        if answer.owed:
            charge = Charge(self._endpoint.account, answer.owed, attempt.wall(), "open")
            async with self._leads.work(attempt.job.id, attempt.number) as work:
                await work.note([Passed(_NO_LEAD, charge, AnsweredCall(call.id, ended))])
                await work.owe(attempt.job.id, attempt.job.teamspace, [(_NO_LEAD, charge)])
        call.end(answer.end)
        response = answer.response
        self._calls.append(
            wire.TriedCall(
                method=seen.method,
                url=seen.url.replace("%2A%2A%2A", HIDDEN),
                headers=dict(seen.headers),
                body=_shown(seen.body, access.key),
                status=None if response is None else response.status,
                answer=None if response is None else _shown(response.body, access.key),
                seconds=(ended - began) / SECOND,
                verdict=_hidden(answer.verdict, access.key),
            )
        )
        return answer.outcome, answer.values

    async def _permit(self, at_most: Decimal, cost: Cost) -> Call:
        call = await self._attempt.permit(self._endpoint.account, _NO_LEAD, cost, credits_max=at_most)
        self._trial.call()
        return call

    async def _answer(self, call: Call, request: Request, ask: Ask, at_most: Decimal) -> _Answer:
        """Send the request, which may cost so much at most, and look at what comes."""
        try:
            response = await call.send(request)
        except Unsent as error:
            return _Answer(None, CallEnd(unsent=True), "failed", f"nothing was sent: {error}")
        except Ambiguous as error:
            return _Answer(None, CallEnd(lost=True), "unknown", f"nobody knows whether it arrived: {error}")
        except BrokenResponse as error:
            return _Answer(None, CallEnd(failed=True, broken=True), "failed", f"the answer is broken: {error}")
        module, attempt = self._endpoint.module, self._attempt
        phase: responses.Phase = ask.what if ask.what in ("poll", "read") else "start"
        verdict = responses.read_response(module, response, phase, attempt.wall())
        good = isinstance(verdict, responses.Ready | responses.Listed)
        if isinstance(verdict, responses.Listed):
            verdict = _only_one(module, verdict) if module.bulk is not None else _first_page(module, verdict, response)
        outcome, text = in_words(verdict)
        owed = self._owed(verdict, at_most)
        if isinstance(verdict, responses.Done):
            try:
                return _Answer(response, CallEnd(done=True), outcome, text, self._values(verdict), owed)
            except BadValueError as fault:
                text = f"found, but not as the module says: {fault}"
                return _Answer(response, CallEnd(done=True), "failed", text, owed=owed)
        if isinstance(verdict, responses.Started):
            self._trial.course.task = verdict.task
        if good:
            return _Answer(response, CallEnd(done=True), outcome, text, owed=owed)
        said = heard(verdict, Course("hold"), attempt.now(), 0.0)
        return _Answer(response, replace(said.end, done=said.good), outcome, text, owed=owed)

    def _owed(self, verdict: responses.Verdict, at_most: Decimal) -> Decimal:
        """What the provider is owed for an answer; an order that it takes on is one."""
        if not isinstance(verdict, ABOUT_THE_LEAD):
            return NOTHING
        module = self._endpoint.module
        first, self._answered = not self._answered, True
        used = verdict.used if isinstance(verdict, responses.Done | responses.Failed) else None
        if isinstance(verdict, responses.Done) and module.chat is not None and used is None:
            return at_most
        return charge_of(module, used, found=isinstance(verdict, responses.Done), first=first)

    def _values(self, verdict: responses.Done) -> Cells:
        outputs = self._endpoint.module.outputs
        if not outputs:
            return {"content": verdict.values["content"]}
        return responses.read_values(verdict.values, tuple(each.column(name) for name, each in outputs.items()), {})


def _only_one(module: ProviderModule, page: responses.Listed) -> responses.Done | responses.NotFound | responses.Failed:
    """What the results of an order for one lead say of it."""
    key = bulk_of(module).results.key
    if not page.items:
        return responses.Failed(LeadReason.BAD_RESPONSE, "the results name no lead")
    if key is not None and not cell_text(selected(key, page.items[0])):
        return responses.Failed(LeadReason.BAD_RESPONSE, f"the result names its lead nowhere: {key} finds nothing")
    return responses.item_verdict(module, page.items[0])


def _first_page(
    module: ProviderModule, page: responses.Listed, response: Response
) -> responses.Done | responses.NotFound:
    """What the first page of an answer says; a try reads no more of them."""
    assert module.response is not None, "only an answer has pages"
    return responses.found(module.response, {"items": page.items, "first": responses.document_of(response)})


def in_words(verdict: responses.Verdict) -> tuple[str, str]:
    """What a verdict comes to, in a word and in a sentence."""
    match verdict:
        case responses.Done():
            return "done", "found"
        case responses.Listed(items=items):
            return "done", f"{len(items)} results"
        case responses.Ready():
            return "ready", "the provider has done it; its results can be read"
        case responses.Started(task=task):
            return "pending", f"the provider works on it, as {task}"
        case responses.Pending():
            return "pending", "the provider still works on it"
        case responses.NotFound():
            return "not_found", "the provider knows nothing of this lead"
        case responses.Throttled(hint_seconds=hint):
            return "throttled", f"too fast: {_come_again(hint, 'it does not say for how long')}"
        case responses.QuotaGone(hint_seconds=hint):
            return "used_up", f"the quota is used up: {_come_again(hint, 'until a person resumes the account')}"
        case responses.InvalidKey():
            return "invalid_key", "the provider does not take the key: nobody calls until a person resumes the account"
        case responses.ServerError(detail=detail):
            return "failed", f"the provider broke: {detail}; a job would ask again"
        case responses.Failed(reason=reason, detail=detail):
            return "failed", f"{reason}: {detail}"


def _come_again(hint_seconds: float | None, otherwise: str) -> str:
    return otherwise if hint_seconds is None else f"everybody waits for {hint_seconds:g} s"


def _shown(body: bytes, key: str | None) -> str | None:
    text = body[: 4 * SHOWN_CHARACTERS_MAX].decode(errors="replace").replace("\0", "\ufffd")
    return _hidden(text[:SHOWN_CHARACTERS_MAX], key) or None


def _hidden(text: str, key: str | None) -> str:
    """The text without the key: some providers quote it back."""
    return text.replace(key, HIDDEN) if key else text
