"""`from helper import LS`: what a batch job's code can have of whoever runs it.

    LS.log.info("done", {"leads": 25})          a line of the run's log
    LS.settings.api_key                         a setting of the job
    LS.db.execute_DB_query("select ...")        a query to the teamspace's own leads
    LS.db.execute_ETL_query("select ...")       a query to its other database
    LS.email.send_email_notification("Success", "All done", "<p>25 leads</p>")
    LS.progress(25, 100)
    LS.provider("snov").call("POST", "/v1/get-emails", body={"domain": "example.com"})
    LS.job_name, LS.job_instance_id, LS.retry_attempt

Code that was written for LeadSquared's batch jobs runs as it is. Public there, in the package lsbatch 1.1.3 and its
description, are: `LS.log` with info, debug, warn, error and fatal, each of a message and something more, and the form
of their lines; settings as attributes; `send_email_notification` with its arguments, its recipients who are set with
the job, subjects that are cut at 255 characters and three mails a run; the two queries, with `multi` for several
statements, and a pandas DataFrame as their result; the names of the exceptions that begin with MX. Where the package
and its description differ, on whether a body is HTML where nothing is said, the description holds: it is.

Chosen here are: everything else, that is progress, providers, parameters of queries, levels, the other exceptions, and
that the result of a query is a list of dictionaries where there is no pandas.

All that is not a log is asked of the daemon, and waited for; it may be restarted meanwhile. Only the process that
main() was called in can ask, from any of its threads. It is the standard library of Python 3.9 that this needs.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import socket
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any

__all__ = [
    "LS",
    "BadRequest",
    "LSError",
    "LimitReached",
    "MXException",
    "MXInvalidDataException",
    "MXTooManyRequestsError",
    "MXUnauthorizedDBAccess",
    "NotAllowed",
    "ProviderFailed",
    "QueryFailed",
]

QUESTION_BYTES_MAX = 1 << 20
SUBJECT_CHARACTERS_MAX = 255

PROGRESS_SECONDS = 1.0
"""Progress is told so often at most; what was told last counts."""

LAST_WORDS_SECONDS = 1.0
"""So long a process that ends waits for its last progress to be heard."""


class LSError(Exception):
    """What was asked for cannot be had. The others are kinds of it."""

    def __init__(self, message: str = "Something went wrong") -> None:
        super().__init__(message)
        self.message = message


class BadRequest(LSError):
    """It makes no sense, or is too large."""


class NotAllowed(LSError):
    """The teamspace's plan has no such thing, or the job may not have it."""


class LimitReached(LSError):
    """There is no more of it: three mails a run."""


class QueryFailed(LSError):
    """The database refused the statement or took too long for it, or the result is too large."""


class ProviderFailed(LSError):
    """The provider gave no answer, or was not asked; the message says which. An error status of its is an answer."""


MXException = LSError
MXInvalidDataException = BadRequest
MXUnauthorizedDBAccess = NotAllowed
MXTooManyRequestsError = LimitReached

_ERRORS = {each.__name__: each for each in (BadRequest, NotAllowed, LimitReached, QueryFailed, ProviderFailed)}


class _Waiting:
    """Somebody who waits for an answer."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None


class _Channel:
    """Questions to the daemon, and its answers."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._reader: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._leave)

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Ask, and wait for the answer. Raises LSError, and TypeError and ValueError for what is no JSON."""
        number = next(self._numbers)
        said = {"ask": number, "method": method, "params": params}
        line = json.dumps(said, allow_nan=False).encode() + b"\n"
        if len(line) > QUESTION_BYTES_MAX:
            raise BadRequest(f"{method} was given more than {QUESTION_BYTES_MAX} bytes")
        mine = self._waiting[number] = _Waiting()
        try:
            self._send(line)
            mine.done.wait()
        finally:
            self._waiting.pop(number, None)
        if mine.answer is None:
            raise LSError("nobody answers any more")
        error = mine.answer.get("error")
        if error is not None:
            raise _ERRORS.get(error["type"], LSError)(error["message"])
        return mine.answer["result"]

    def _send(self, line: bytes) -> None:
        with self._sending:
            if self._sock is None:
                raise LSError("nobody answers here: only the process that main() was called in can ask")
            if self._reader is None:
                reader = threading.Thread(target=self._read, args=(self._sock,), daemon=True)
                reader.start()
                self._reader = reader
            try:
                self._sock.sendall(line)
            except BaseException as error:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)  # half a line may have gone
                self._sock = None
                if isinstance(error, OSError):
                    raise LSError("nobody answers any more") from error
                raise

    def _read(self, sock: socket.socket) -> None:
        with suppress(OSError), sock.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                waiting = self._waiting.get(answer["answer"])
                if waiting is not None:
                    waiting.answer = answer
                    waiting.done.set()
        self._sock = None
        for each in list(self._waiting.values()):
            each.done.set()

    def _leave(self) -> None:
        """The answers are for the process that we were forked from."""
        self._sock = None
        self._sending = threading.Lock()


class _Progress:
    """Tells how far the code is, without keeping it waiting."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._newest: dict[str, Any] | None = None
        self._telling = False
        self._ending = False
        self._teller: threading.Thread | None = None

    def tell(self, done: float, total: float | None) -> None:
        """What is told now replaces what has not been heard yet."""
        with self._changed:
            self._newest = {"done": done, "total": total}
            if self._teller is None:
                teller = threading.Thread(target=self._run, daemon=True)
                with suppress(RuntimeError):  # it may have no more threads, and tries again when it is told more
                    teller.start()
                    self._teller = teller
                    atexit.register(self._end)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._telling = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._newest is not None)
                params, self._newest, self._telling = self._newest, None, True
            with suppress(Exception):  # nobody waits for it
                self._channel.ask("progress", params or {})
            with self._changed:
                self._changed.wait_for(lambda: self._ending, PROGRESS_SECONDS)

    def _end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            if self._teller is not None:
                self._changed.wait_for(lambda: self._newest is None and not self._telling, LAST_WORDS_SECONDS)


class _Log:
    """Lines of the run's log: moment, level, message and what belongs to it, as text or JSON.

    2026-03-01T12:00:00+0000 | Info | done | {"leads": 25}|
    """

    LEVELS = ("debug", "info", "warn", "error", "fatal")

    def __init__(self) -> None:
        self._least = 0

    def set_level(self, name: str) -> None:
        """Leave out what is below that level: debug, info, warn (warning), error, fatal (critical)."""
        self._least = self.LEVELS.index({"warning": "warn", "critical": "fatal"}.get(name.lower(), name.lower()))

    def debug(self, message: Any, input_data: Any = {}) -> None:  # noqa: B006  it is only read
        """Say what only helps to find a fault."""
        self._say(0, message, input_data)

    def info(self, message: Any, input_data: Any = {}) -> None:  # noqa: B006
        """Say what happens."""
        self._say(1, message, input_data)

    def warn(self, message: Any, input_data: Any = {}) -> None:  # noqa: B006
        """Say what may be a fault."""
        self._say(2, message, input_data)

    def error(self, message: Any, input_data: Any = {}) -> None:  # noqa: B006
        """Say what went wrong."""
        self._say(3, message, input_data)

    def fatal(self, message: Any, input_data: Any = {}) -> None:  # noqa: B006
        """Say what has ended the work."""
        self._say(4, message, input_data)

    warning, critical = warn, fatal

    def _say(self, level: int, message: Any, data: Any) -> None:
        if level >= self._least:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())
            sys.stdout.write(f"{moment} | {self.LEVELS[level].title()} | {_text(message)} | {_text(data)}|\n")


class Settings(Mapping[str, Any]):
    """The job's settings by their names, as attributes or as of a mapping. It shows their names only, never a value."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying and such look for before there is anything
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the job has no setting {name}") from None

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return Settings(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Settings({', '.join(self)})"


class _Email:
    """Mails about the run to those who are named with the job for it."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def send_email_notification(
        self,
        type: str,  # noqa: A002
        subject: str,
        message: str,
        isHtml: bool = True,  # noqa: N803
        attachments: Sequence[Any] = (),
        *,
        isHTML: bool | None = None,  # noqa: N803
    ) -> None:
        """Send a mail, once it is stored that it is to be sent; `type` is Success or Failure.

        Raises LimitReached at the fourth of a run, NotAllowed where the job names nobody, and for attachments.
        """
        if attachments:
            raise NotAllowed("a notification has no attachments")
        params = {
            "type": type.lower(),
            "subject": subject[:SUBJECT_CHARACTERS_MAX],
            "body": message,
            "html": bool(isHtml if isHTML is None else isHTML),
        }
        self._channel.ask("email", params)


class _Db:
    """Databases, as far as the plan allows. They are Postgres."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def execute_DB_query(self, query: str, multi: bool = False, parameters: Sequence[Any] | None = None) -> Any:  # noqa: N802
        """Run a statement on the teamspace's own leads; `parameters` are its $1, $2 and so on.

        Rows come as a DataFrame, or as a list of dictionaries where there is no pandas; of a statement that returns
        none, the number of those that it has changed. `multi`: several statements, all or none; what the last returns
        counts. Raises NotAllowed, QueryFailed.
        """
        return self._query("own", query, multi, parameters)

    def execute_ETL_query(self, query: str, multi: bool = False, parameters: Sequence[Any] | None = None) -> Any:  # noqa: N802
        """Run a statement on the database that is set for the teamspace; else as `execute_DB_query`."""
        return self._query("etl", query, multi, parameters)

    def _query(self, database: str, sql: str, multi: bool, parameters: Sequence[Any] | None) -> Any:
        given = [_parameter(each) for each in parameters or ()]
        params = {"database": database, "sql": sql, "multi": bool(multi), "parameters": given}
        found = self._channel.ask("query", params)
        if "written" in found:
            return found["written"]
        names = [name for name, _ in found["columns"]]
        readers = [(place, _READERS[kind]) for place, (_, kind) in enumerate(found["columns"]) if kind in _READERS]
        for row in found["rows"]:
            for place, read in readers:
                if row[place] is not None:
                    row[place] = read(row[place])
        try:
            import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            return [dict(zip(names, row)) for row in found["rows"]]  # noqa: B905  Python 3.9
        return pd.DataFrame(found["rows"], columns=names)


class Response:
    """What a provider has answered."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.status: int = said["status"]
        self.headers: dict[str, str] = said["headers"]
        """Their names are in lower case."""
        self.text: str = said["text"]

    def json(self) -> Any:
        """Its body, read as JSON. Raises ValueError."""
        return json.loads(self.text)

    def __repr__(self) -> str:
        return f"Response({self.status})"


class Provider:
    """A data provider, called under its rate limits and with the keys of whoever runs this: they are not seen here."""

    def __init__(self, channel: _Channel, name: str) -> None:
        self._channel = channel
        self.name = name

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request to a path of the provider, and wait for its turn and the answer; `body` is sent as JSON.

        Raises NotAllowed, LimitReached, ProviderFailed.
        """
        request = {
            "method": method,
            "path": path,
            "query": {name: str(value) for name, value in (query or {}).items()},
            "headers": dict(headers or {}),
            "body": body,
        }
        return Response(self._channel.ask("call", {"provider": self.name, "request": request}))


class Leadline:
    """What `LS` is."""

    def __init__(self, sock: socket.socket | None, event: Any) -> None:
        known = event if isinstance(event, dict) else {}
        self._channel = _Channel(sock)
        self._progress = _Progress(self._channel)
        self._settings: Settings | None = None
        self.log = _Log()
        self.email = _Email(self._channel)
        self.db = _Db(self._channel)
        self.execute_DB_query = self.db.execute_DB_query
        self.execute_ETL_query = self.db.execute_ETL_query
        self.job_name: str | None = known.get("job_name")
        self.job_instance_id: int | None = known.get("job_instance_id")
        self.retry_attempt: int = known.get("retry_attempt", 0)
        """0 at the first try."""

    @property
    def settings(self) -> Settings:
        """The job's settings; asked for once."""
        if self._settings is None:
            self._settings = Settings(self._channel.ask("settings", {}))
        return self._settings

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far the work is, for those who watch. Never waits, never fails."""
        self._progress.tell(done, total)

    def provider(self, name: str) -> Provider:
        """A provider by its name."""
        return Provider(self._channel, name)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return repr(value)
    return getattr(value, "__dict__", None) or str(value)


def _parameter(value: Any) -> Any:
    """As JSON has it: moments and decimals are texts there."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


_READERS: dict[str, Callable[[Any], Any]] = {
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "bytes": b64decode,
}
"""From JSON to what a column holds, by the kind of the column; others are as JSON has them."""

_run = sys.modules.get("leadline_run")  # which there is in the process that main() is called in, and nowhere else

LS = Leadline(getattr(_run, "questions", None), getattr(_run, "event", None))
