"""What tenants' code asks while it runs, and what it is answered: the daemon's half of `from helper import LS`.

    settings    {}                                          an object: the job's settings
    progress    {done, total}                               null
    email       {type, subject, body, html}                 null: it is stored that it is to be sent
    query       {database, sql, multi, parameters}          {columns, rows} or {written}
    call        {provider, request}                         {status, headers, text}

Nothing in a question is believed. Whatever comes of one, it is answered, so that the code does not wait in vain; what
it may not have is declined with the name of an exception that the code knows.

A question may be put again, when the daemon died before its answer: its number is handed on to whatever must not be
done twice.
"""

from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Annotated, Final, Literal

import anyio
import msgspec
import structlog
from msgspec import Meta, Struct

from leadline.features.batch.request_ports import (
    SUBJECT_CHARACTERS_MAX,
    BadRequest,
    DatabaseName,
    Declined,
    LimitReached,
    Mail,
    NotAllowed,
    ProviderFailed,
    ProviderRequest,
    Query,
    QueryFailed,
    World,
)
from leadline.ports.runner import ANSWER_BYTES_MAX, Answer, Failure, Question, Result, Run
from leadline.ports.work import Stopped

log = structlog.get_logger(__name__)

MAILS_MAX: Final = 3
"""A run may send so many."""

AT_ONCE: Final = 4
"""So many questions of a run are seen to at a time, until their answers are taken: each may be a large one."""

WITHHELD_HEADERS: Final = frozenset(
    {"authorization", "connection", "content-length", "content-type", "cookie", "expect", "host", "proxy-authorization"}
    | {"te", "trailer", "transfer-encoding", "upgrade", "x-api-key"}
)
"""Those of a request to a provider that are the daemon's to set."""

_Amount = Annotated[float, Meta(ge=0, le=1e15)]


class _Nothing(Struct, forbid_unknown_fields=True):
    pass


class _Progress(Struct, forbid_unknown_fields=True):
    done: _Amount
    total: _Amount | None = None


class _Email(Struct, forbid_unknown_fields=True):
    type: Literal["success", "failure"]
    subject: str
    body: str
    html: bool = True


class _Query(Struct, forbid_unknown_fields=True):
    database: DatabaseName
    sql: str
    multi: bool = False
    parameters: list[str | int | float | bool | None] = []


class _Call(Struct, forbid_unknown_fields=True):
    provider: Annotated[str, Meta(min_length=1, max_length=100)]
    request: ProviderRequest


_Params = _Nothing | _Progress | _Email | _Query | _Call

_METHODS: Final[Mapping[str, type[_Params]]] = {
    "settings": _Nothing,
    "progress": _Progress,
    "email": _Email,
    "query": _Query,
    "call": _Call,
}


class Requests:
    """Answers what one run asks."""

    def __init__(self, world: World, mailed: Collection[int] = ()) -> None:
        """`mailed` are the numbers of questions that have led to a mail before the daemon was restarted."""
        self._world = world
        self._mailed = set(mailed)
        self._calls = 0
        """So many calls of providers are on their way, until their answers are taken."""
        self._finishing = False
        self._over = anyio.Event()
        """Set whenever one is not on its way any more."""

    @property
    def calling(self) -> bool:
        """Whether it waits for a provider."""
        return self._calls > 0

    async def finish(self) -> None:
        """Take up no new call of a provider, and wait until those that were have been answered, or cannot be."""
        self._finishing = True
        while self._calls:
            self._over = anyio.Event()
            await self._over.wait()

    async def see_to(self, question: Question, run: Run) -> None:
        """Do what is asked, and answer it; but for what is left to whoever comes after the attempt was stopped."""
        if question.method != "call":
            await run.answer(question.number, await self.answer(question))
            return
        if self._finishing:
            return
        self._calls += 1
        try:
            await run.answer(question.number, await self.answer(question))
        except Stopped:
            pass
        finally:
            self._calls -= 1
            self._over.set()

    async def answer(self, question: Question) -> Answer:
        """Do what is asked. Raises Stopped where there is to be no answer from here."""
        try:
            value = await self._do(question.number, _read(question))
            text = msgspec.json.encode(value)
            if len(text) > ANSWER_BYTES_MAX:
                failed = ProviderFailed if question.method == "call" else QueryFailed
                raise failed(f"the result is larger than {ANSWER_BYTES_MAX} bytes")
        except Stopped:
            raise
        except Declined as error:
            return Failure(type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001  whoever asks shall not wait for ever
            log.error("question_failed", method=question.method, error=type(error).__name__)
            return Failure("LSError", "this could not be done now")
        return Result(msgspec.Raw(text))

    async def _do(self, number: int, params: _Params) -> object:
        match params:
            case _Nothing():
                return await self._world.settings.read()
            case _Progress(done, total):
                await self._world.progress.tell(done, total)
                return None
            case _Email():
                await self._send(number, params)
                return None
            case _Query(name, sql, multi, parameters):
                database = self._world.databases.get(name)
                if database is None:
                    raise NotAllowed(f"the plan has no {'database access' if name == 'own' else 'ETL database'}")
                return await database.run(Query(sql, parameters, multi))
            case _Call(provider, request):
                withheld = WITHHELD_HEADERS & {name.lower() for name in request.headers}
                if withheld:
                    raise BadRequest(f"not yours to set: {', '.join(sorted(withheld))}")
                if self._world.providers is None:
                    raise NotAllowed("the plan has no providers for batch jobs")
                return await self._world.providers.call(number, provider, request)

    async def _send(self, number: int, email: _Email) -> None:
        if self._world.mails is None:
            raise NotAllowed("no mail is sent from here")
        if number in self._mailed:
            return
        if len(self._mailed) >= MAILS_MAX:
            raise LimitReached(f"a run may send {MAILS_MAX} mails, and has")
        self._mailed.add(number)  # before somebody else asks
        try:
            subject = _line(email.subject)[:SUBJECT_CHARACTERS_MAX]
            await self._world.mails.store(number, Mail(email.type, subject, email.body, email.html))
        except Declined:
            self._mailed.discard(number)  # any other error may come of one that was stored
            raise


async def attend(run: Run, requests: Requests) -> None:
    """Answer a run until its end; what it still waits for then is given up."""
    room = anyio.Semaphore(AT_ONCE)

    async def see_to(question: Question) -> None:
        async with room:
            await requests.see_to(question, run)

    async with anyio.create_task_group() as tasks:
        async with aclosing(run.questions()) as questions:
            async for question in questions:
                tasks.start_soon(see_to, question)
        tasks.cancel_scope.cancel()


def _read(question: Question) -> _Params:
    kind = _METHODS.get(question.method)
    if kind is None:
        raise BadRequest(f"there is no {question.method!r} here")
    try:
        return msgspec.json.decode(question.params, type=kind)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{question.method}: {error}") from error


def _line(text: str) -> str:
    """The text as one line that could be a header: whatever ends lines or is not seen becomes a space."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
