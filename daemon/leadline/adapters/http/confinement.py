"""What a token of one teamspace reaches: the one place that every request of such a token passes.

For such a token nothing exists outside its teamspace. A foreign teamspace, a foreign job and the daemon as a whole are
answered like something that is not there, and alike: nobody learns which it was. A teamspace that is not named is the
token's own. What is not known here to be of one teamspace is refused, so that an operation that is added later reaches
nothing before somebody has decided whose it is.

Files are put into folders that all share. So the names that such a token uses stand for names that begin with a part
which nobody else can guess (`Namespace`).
"""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

_PREFIX: Final = re.compile(r"\bh[0-9a-f]{24}-", re.ASCII)

TeamspaceOf = Callable[[JobId], Awaitable[str | None]]
"""Whose a job is; None where there is no such job. Raises Refused with unavailable."""

S = TypeVar("S", bound=Struct)

NAME_DIGITS: Final = 24
FILE_NAME_BYTES_MAX: Final = 150
"""Of a name as it is said over HTTP; with what stands before it, it is still one that the rest of the daemon takes."""

_OF_ONE_JOB: Final = (wire.Get, wire.Job, wire.Why, wire.History, wire.Cancel, wire.Rerun)
_OF_ONE_TEAMSPACE: Final = (
    *(wire.Jobs, wire.Usage, wire.Tables, wire.Schedules, wire.FollowUps, wire.ContactEvent),
    wire.Links,
)


class Namespace:
    """The names of files of one teamspace's tokens, in the folders that all share."""

    def __init__(self, key: bytes, teamspace: str) -> None:
        """`key` is the daemon's own secret."""
        digest = hmac.new(key, b"http files of " + teamspace.encode(), hashlib.sha256).hexdigest()
        self._prefix: Final = f"h{digest[:NAME_DIGITS]}-"

    def inside(self, name: str) -> str:
        """The file's name in the common folder. Raises Refused."""
        return self._prefix + plain(name, "path")

    def has(self, file: str) -> bool:
        """Whether a file of the common folder is one of its."""
        return file.startswith(self._prefix)


def without_prefixes(text: str) -> str:
    """A text for people in which files have the names that were given to them, and not those in the common folder."""
    return _PREFIX.sub("", text)


def plain(name: str, at: str) -> str:
    """The same name, if it is a mere name, which leads out of no folder. Raises Refused."""
    is_plain = "/" not in name and "\0" not in name and not name.startswith(".") and name.isprintable()
    if not name or not is_plain or len(name.encode("utf-8", "surrogatepass")) > FILE_NAME_BYTES_MAX:
        message = f"the name of a file: no slash, no leading dot, at most {FILE_NAME_BYTES_MAX} bytes"
        raise Refused(ErrorCode.BAD_REQUEST, message, at=at)
    return name


class Confinement:
    """The reach of a token of one teamspace."""

    def __init__(self, teamspace: str, namespace: Namespace, teamspace_of: TeamspaceOf) -> None:
        self.teamspace: Final = teamspace
        self.namespace: Final = namespace
        self._teamspace_of = teamspace_of

    async def operation(
        self, asked: wire.Operation[wire.Reply], decode: Callable[[Mapping[str, Any]], wire.Submission]
    ) -> wire.Operation[wire.Reply]:
        """The operation as it may be carried out; `decode` reads what a schedule submits. Raises Refused."""
        match asked:
            case wire.Ping():
                return asked
            case wire.Pause() | wire.Resume():
                if asked.scope == "job":
                    assert isinstance(asked.name, int)
                    await self.check_job(asked.name)
                elif asked.scope != "teamspace" or asked.name != self.teamspace:
                    raise nothing()
                return asked
            case wire.Notices():
                if asked.again is not None:
                    raise nothing()
                if asked.job is not None:
                    await self.check_job(asked.job)
                return self._own(asked)
            case wire.Plans():
                if asked.plan is not None or asked.provider is not None:
                    raise nothing()
                own = self._own(asked)
                if asked.key is not None:
                    raise Refused(ErrorCode.FORBIDDEN, "the limits of a teamspace are set by the operator", at="key")
                return own
            case wire.BatchJobs():
                if asked.instance is not None:
                    await self.check_job(asked.instance, at="instance")
                return self._with_own_path(self._own(asked))
            case wire.Schedules() if asked.action == "preview" and asked.submission is None:
                return asked  # the calendar alone, which is nobody's
            case wire.Schedules() if asked.submission is not None:
                return self._schedule(self._own(asked), asked.submission, decode)
            case _ if isinstance(asked, _OF_ONE_TEAMSPACE):
                return self._own(asked)
            case _ if isinstance(asked, _OF_ONE_JOB):
                await self.check_job(asked.job)
                return asked
            case _:
                raise nothing()

    def submission(self, asked: wire.Submission) -> wire.Submission:
        """The submission as it may be taken. Raises Refused."""
        self.check_teamspace(asked.teamspace)
        if isinstance(asked, wire.Chain):
            steps = [self._with_own_path(step) for step in asked.steps]
            return msgspec.structs.replace(asked, steps=steps)
        return self._with_own_path(asked)

    def check_teamspace(self, teamspace: str) -> None:
        """Raises Refused where a teamspace is not the token's."""
        if teamspace != self.teamspace:
            raise nothing()

    async def check_job(self, job: JobId, *, at: str = "job") -> None:
        """Raises Refused where a job is not of the token's teamspace, in the words for one that is not there."""
        if await self._teamspace_of(job) != self.teamspace:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no job {job}", at=at)

    def _own(self, asked: S) -> S:
        named: str | None = getattr(asked, "teamspace")  # noqa: B009  of one of many types that have it
        if named is None:
            return msgspec.structs.replace(asked, teamspace=self.teamspace)
        self.check_teamspace(named)
        return asked

    def _schedule(
        self,
        own: wire.Schedules,
        submission: Mapping[str, Any],
        decode: Callable[[Mapping[str, Any]], wire.Submission],
    ) -> wire.Schedules:
        submitted = self.submission(decode({"teamspace": self.teamspace, **submission}))
        return msgspec.structs.replace(own, submission=msgspec.to_builtins(submitted))

    def _with_own_path(self, work: S) -> S:
        path = getattr(work, "path", None)
        return work if path is None else _with_path(work, self.namespace.inside(path))


def _with_path(work: S, path: str) -> S:
    return msgspec.structs.replace(work, path=path)


def nothing() -> Refused:
    """What is said of all that is not the token's."""
    return Refused(ErrorCode.NOT_FOUND, "there is nothing here that this token reaches")
