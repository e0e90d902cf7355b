"""The life of a batch job, and the operation `batch` by which people see to it.

    draft ──── publish ──▶ published ── unpublish ──▶ unpublished
                               ▲                          │
                               └──────── publish ─────────┘

Only what is published runs. It needs code and somebody who may run it: a schedule, or whoever submits. Code, settings
and conduct may be changed in any state, and hold from the next attempt on that begins; each zip is kept as a version.
Deleted it is gone with its code, its settings and its schedules; what has become of its runs stays with their jobs.

Those who manage batch jobs are admins or, where the plan says so, super-admins; anybody of the teamspace may look.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Final, Protocol, assert_never

import anyio
import anyio.to_thread
import msgspec

from leadline.core.model import ENDED, SECOND, JobState
from leadline.core.quota.days import day_of
from leadline.core.quota.quotas import check_archive, check_retries, check_timeout
from leadline.features.batch.attempts import Attempts
from leadline.features.batch.invocation import source_of
from leadline.features.batch.ports import (
    BatchJob,
    BatchPlan,
    BatchState,
    BatchStore,
    Conduct,
    PlanOf,
    Recipients,
    Seal,
    StoredRun,
    StoredSetting,
    Tried,
    Version,
    Workshop,
    sealed_for,
)
from leadline.ports.store import StoredJob
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant, JobId

NAME_CHARACTERS_MIN: Final = 3

TIMEOUT_SECONDS: Final = 600
"""Of a batch job whose timeout nobody has said; less where the plan's day is shorter."""

SETTINGS_MAX: Final = 200

PAGE_BYTES_MAX: Final = 8 << 20
"""So much of what tenants have written is on a page: it may be six times as long as JSON, and a client reads 64 MiB."""

MILLISECONDS: Final = 1_000

LOOKS: Final = frozenset({"list", "describe", "runs", "logs"})
"""What changes nothing."""

CREATED: Final = frozenset({BatchState.DRAFT, BatchState.UNPUBLISHED})

Record = Callable[[str, str], Awaitable[None]]
"""Writes down what is about to be done: to what, and what exactly."""

JobsById = Callable[[Sequence[JobId]], Awaitable[Mapping[JobId, StoredJob]]]


Ending = Callable[[JobId, Callable[[], None]], AbstractContextManager[None]]
"""Has something done when a job ends, as long as one is in there. Raises Refused where too many are."""


class Taken(Protocol):
    """Where files that were submitted come from."""

    async def take(self, path: str) -> "TakenZip":
        """Copy one to where only the daemon writes. Raises Refused with bad_archive, at `path`."""
        ...

    async def dispose(self, path: str, name: str) -> None:
        """Remove the copy, and the original where it was put into the common folder."""
        ...

    def path_of(self, name: str) -> Path:
        """Where the copy is."""
        ...


class TakenZip(Protocol):
    """A file that was taken."""

    @property
    def name(self) -> str:
        """What the copy is called."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...


class BatchLife:
    """Carries out the operation `batch`."""

    def __init__(
        self,
        store: BatchStore,
        workshop: Workshop,
        attempts: Attempts,
        plan_of: PlanOf,
        seal: Seal,
        files: Taken,
        exports: Path,
        jobs_by_id: JobsById,
        wall: Callable[[], Instant],
        schedule_changed: Callable[[str, str], None],
        sends_mail: Callable[[], bool],
        ending: Ending,
    ) -> None:
        """`exports` is the folder that downloads are written to; `sends_mail`: whether there is a mail server."""
        self._sends_mail = sends_mail
        self._ending = ending
        self._store = store
        self._workshop = workshop
        self._attempts = attempts
        self._plan_of = plan_of
        self._seal = seal
        self._files = files
        self._exports = exports
        self._jobs_by_id = jobs_by_id
        self._wall = wall
        self._schedule_changed = schedule_changed

    async def perform(self, operation: wire.BatchJobs, uid: int, record: Record, line: int) -> wire.BatchReply:
        """Carry out one operation of a user. Raises Refused."""
        if operation.action == "list":
            return await self._list(operation, line)
        if operation.action == "runs":
            return await self._runs(operation, line)
        if operation.action == "logs":
            return await self._logs(operation, line)
        assert operation.teamspace is not None
        assert operation.name is not None
        teamspace, name = operation.teamspace, operation.name
        plan = self._plan_of(teamspace)
        if operation.action not in LOOKS:
            _check_may_manage(operation, plan, teamspace)
        target = f"batch {teamspace}/{name}"
        if operation.action == "create":
            return await self._create(operation, plan, record, target, line)
        batch_job = await self._find(teamspace, name)
        warnings: list[wire.JobWarning] = []
        match operation.action:
            case "describe":
                pass
            case "upload":
                await self._upload(operation, batch_job, plan, uid, record, target)
            case "set":
                await self._set(operation, batch_job, plan, record, target)
            case "publish":
                await self._publish(batch_job, record, target)
            case "unpublish":
                await record(target, "unpublish")
                if not await self._store.move(batch_job.id, [BatchState.PUBLISHED], BatchState.UNPUBLISHED):
                    raise Refused(ErrorCode.BAD_STATE, f"{name} is not published", at="name")
            case "download":
                return await self._download(operation, batch_job, record, target, line)
            case "delete":
                await record(target, "delete")
                view = await self._view(batch_job)
                for schedule in await self._store.delete(batch_job.id):
                    self._schedule_changed(teamspace, schedule)
                return wire.BatchReply(line=line, batch_jobs=[view], ref=operation.ref)
            case _:
                assert_never(operation.action)
        return await self._described(operation, teamspace, name, line, warnings)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _list(self, operation: wire.BatchJobs, line: int) -> wire.BatchReply:
        found = list(
            await self._store.batch_jobs(operation.teamspace, operation.name, operation.after, operation.limit + 1)
        )
        views: list[wire.BatchView] = []
        size = 0
        for each in found[: operation.limit]:
            views.append(await self._view(each))
            size += sum(map(len, views[-1].settings.values()))
            if size > PAGE_BYTES_MAX:
                break
        following = int(found[len(views) - 1].id) if len(found) > len(views) else None
        day = None if operation.teamspace is None else await self._day(operation.teamspace)
        return wire.BatchReply(line=line, batch_jobs=views, day=day, next=following, ref=operation.ref)

    async def _described(
        self, operation: wire.BatchJobs, teamspace: str, name: str, line: int, warnings: list[wire.JobWarning]
    ) -> wire.BatchReply:
        batch_job = await self._find(teamspace, name)
        view = await self._view(batch_job)
        versions = [_version(each) for each in await self._store.versions(batch_job.id)]
        view = msgspec.structs.replace(view, versions=versions)
        day = await self._day(teamspace)
        return wire.BatchReply(line=line, batch_jobs=[view], day=day, warnings=warnings, ref=operation.ref)

    async def _find(self, teamspace: str, name: str) -> BatchJob:
        found = await self._store.batch_jobs(teamspace, name, 0, 1)
        if not found:
            raise Refused(ErrorCode.NOT_FOUND, f"{teamspace} has no batch job {name}", at="name")
        return found[0]

    async def _view(self, batch_job: BatchJob) -> wire.BatchView:
        conduct = batch_job.conduct
        settings = await self._store.settings(batch_job.id)
        return wire.BatchView(
            teamspace=batch_job.teamspace,
            name=batch_job.name,
            state=batch_job.state,
            version=batch_job.version,
            api=conduct.api,
            timeout_seconds=conduct.timeout_ms / MILLISECONDS,
            retries=conduct.retries,
            retry_timeouts=conduct.retry_timeouts,
            stall_after_seconds=conduct.stall_after_seconds,
            interpreter=conduct.interpreter,
            mail_success=list(conduct.recipients.success),
            mail_failure=list(conduct.recipients.failure),
            settings={each.name: self._open(batch_job, each) for each in settings if not each.secret},
            secrets=[each.name for each in settings if each.secret],
            schedules=list(batch_job.schedules),
            created_at=batch_job.created,
        )

    def _open(self, batch_job: BatchJob, setting: StoredSetting) -> str:
        return self._seal.open(setting.sealed, of=sealed_for(batch_job, setting.name))

    async def _day(self, teamspace: str) -> wire.BatchDay:
        plan, wall = self._plan_of(teamspace), self._wall()
        usage = (await self._store.used(teamspace, day_of(wall, plan.zone), wall)).usage
        return wire.BatchDay(
            executions=usage.executions,
            executions_max=plan.quotas.executions_per_day_max,
            seconds=usage.recorded_ms / MILLISECONDS,
            seconds_max=plan.quotas.milliseconds_per_day_max / MILLISECONDS,
            ends_at=_moment(usage.day.ends),
        )

    async def _runs(self, operation: wire.BatchJobs, line: int) -> wire.BatchReply:
        if operation.instance is not None:
            run = await self._store.run(operation.instance)
            if run is None or operation.teamspace not in {None, run.teamspace}:
                raise Refused(ErrorCode.NOT_FOUND, f"there is no run {operation.instance}", at="instance")
            page, following = [run], None
        else:
            batch_job = None
            if operation.name is not None:
                if operation.teamspace is None:
                    raise Refused(ErrorCode.BAD_REQUEST, "name the teamspace of the batch job", at="teamspace")
                batch_job = (await self._find(operation.teamspace, operation.name)).id
            before = JobId(operation.after) if operation.after else None
            found = list(await self._store.runs(operation.teamspace, batch_job, before, operation.limit + 1))
            page = found[: operation.limit]
            following = int(page[-1].job) if len(found) > operation.limit else None
        jobs = await self._jobs_by_id([each.job for each in page])
        runs = [_run(each, jobs.get(each.job), whole=operation.instance is not None) for each in page]
        return wire.BatchReply(line=line, runs=runs, next=following, ref=operation.ref)

    async def _logs(self, operation: wire.BatchJobs, line: int) -> wire.BatchReply:
        assert operation.instance is not None
        job = operation.instance
        if operation.wait_seconds:
            with anyio.move_on_after(operation.wait_seconds):
                while True:
                    # A run that is cancelled before it began prints nothing, and ends as a job alone.
                    with self._attempts.reading(job) as news, self._ending(job, news.set):
                        reply = await self._lines(operation, job, line)
                        if reply.lines or reply.ended:
                            return reply
                        await news.wait()
        return await self._lines(operation, job, line)

    async def _lines(self, operation: wire.BatchJobs, job: JobId, line: int) -> wire.BatchReply:
        run = await self._store.run(job)
        if run is None or operation.teamspace not in {None, run.teamspace}:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no run {job}", at="instance")
        retry, backwards = operation.retry_attempt, operation.before is not None
        if operation.before is not None:
            found = list(await self._store.last_lines(job, retry, operation.before, operation.limit + 1))[::-1]
        else:
            found = list(await self._store.lines(job, retry, operation.after, operation.limit + 1))
        ends = accumulate(len(each.text) for each in found)
        page = found[: min(operation.limit, max(1, sum(end <= PAGE_BYTES_MAX for end in ends)))]
        more = len(found) > len(page)
        following = page[-1].number if more else None
        tried = next((each for each in run.tried if each.retry == retry), None)
        over = await self._is_over(run) if tried is None else tried.real_ms is not None
        lines = [
            wire.BatchLine(retry_attempt=retry, number=each.number, at=_moment(each.at), text=each.text)
            for each in (reversed(page) if backwards else page)
        ]
        ended = over and (backwards or not more)
        return wire.BatchReply(line=line, lines=lines, ended=ended, next=following, ref=operation.ref)

    async def _is_over(self, run: StoredRun) -> bool:
        """Whether nothing of a run is to come: its job may have ended before it began."""
        if run.ended is not None:
            return True
        job = (await self._jobs_by_id([run.job])).get(run.job)
        return job is None or job.state in ENDED

    # -- changing -----------------------------------------------------------------------------------------------------

    async def _create(
        self, operation: wire.BatchJobs, plan: BatchPlan, record: Record, target: str, line: int
    ) -> wire.BatchReply:
        assert operation.teamspace is not None
        assert operation.name is not None
        teamspace, name = operation.teamspace, operation.name
        if len(name) < NAME_CHARACTERS_MIN or name != name.strip() or not name.isprintable():
            message = f"a name has {NAME_CHARACTERS_MIN} to 100 characters, which can be printed"
            raise Refused(ErrorCode.BAD_REQUEST, message, at="name")
        timeout_ms = min(TIMEOUT_SECONDS * MILLISECONDS, plan.quotas.milliseconds_per_day_max)
        conduct = Conduct(
            api=False,
            timeout_ms=timeout_ms,
            retries=0,
            retry_timeouts=False,
            stall_after_seconds=None,
            interpreter=None,
        )
        conduct = await self._changed(operation, conduct, plan)
        await record(target, "create")
        if not await self._store.add(teamspace, name, conduct, plan.quotas):
            raise Refused(ErrorCode.BAD_STATE, f"{teamspace} has a batch job {name} already", at="name")
        await self._change_settings(operation, await self._find(teamspace, name))
        return await self._described(operation, teamspace, name, line, [])

    async def _set(
        self, operation: wire.BatchJobs, batch_job: BatchJob, plan: BatchPlan, record: Record, target: str
    ) -> None:
        conduct = await self._changed(operation, batch_job.conduct, plan)
        if batch_job.state is BatchState.PUBLISHED and not conduct.api and not batch_job.schedules:
            message = f"{batch_job.name} has no schedule: unpublish it first, or nobody could run it"
            raise Refused(ErrorCode.BAD_STATE, message, at="api")
        await record(target, f"set {_what_is_set(operation)}")
        if conduct != batch_job.conduct:
            await self._store.change(batch_job.id, conduct)
        await self._change_settings(operation, batch_job)

    async def _changed(self, operation: wire.BatchJobs, conduct: Conduct, plan: BatchPlan) -> Conduct:
        """Raises Refused where the plan does not allow it; what is as it was is not asked about again."""
        if operation.api is not None:
            conduct = msgspec.structs.replace(conduct, api=operation.api)
        if operation.timeout_seconds is not None:
            timeout_ms = operation.timeout_seconds * MILLISECONDS
            check_timeout(plan.quotas, timeout_ms)
            conduct = msgspec.structs.replace(conduct, timeout_ms=timeout_ms)
        if operation.retries is not None:
            check_retries(plan.quotas, operation.retries)
            conduct = msgspec.structs.replace(conduct, retries=operation.retries)
        if operation.retry_timeouts is not None:
            conduct = msgspec.structs.replace(conduct, retry_timeouts=operation.retry_timeouts)
        if operation.stall_after_seconds is not None:
            conduct = msgspec.structs.replace(conduct, stall_after_seconds=operation.stall_after_seconds or None)
        if operation.mail_success is not None or operation.mail_failure is not None:
            conduct = msgspec.structs.replace(conduct, recipients=self._recipients(operation, conduct.recipients))
        if operation.interpreter is not None:
            known = await self._workshop.interpreters()
            if operation.interpreter and operation.interpreter not in known:
                there = ", ".join(known) or "none"
                message = f"there is no Python {operation.interpreter} here; there are {there}"
                raise Refused(ErrorCode.BAD_REQUEST, message, at="interpreter")
            conduct = msgspec.structs.replace(conduct, interpreter=operation.interpreter or None)
        return conduct

    def _recipients(self, operation: wire.BatchJobs, present: Recipients) -> Recipients:
        if not self._sends_mail() and (operation.mail_success or operation.mail_failure):
            at = "mail_success" if operation.mail_success else "mail_failure"
            raise Refused(ErrorCode.BAD_REQUEST, "no mail server is configured", at=at)
        return Recipients(
            present.success if operation.mail_success is None else tuple(operation.mail_success),
            present.failure if operation.mail_failure is None else tuple(operation.mail_failure),
        )

    async def _change_settings(self, operation: wire.BatchJobs, batch_job: BatchJob) -> None:
        if not operation.settings and not operation.secrets:
            return
        if both := operation.settings.keys() & operation.secrets.keys():
            raise Refused(ErrorCode.BAD_REQUEST, f"{min(both)} is a setting and a secret", at="secrets")
        present = {each.name for each in await self._store.settings(batch_job.id)}
        dropped = [name for name, value in operation.settings.items() if value is None]
        changed = [
            StoredSetting(name, secret, self._seal.seal(value, of=sealed_for(batch_job, name)))
            for secret, values in ((False, operation.settings), (True, operation.secrets))
            for name, value in values.items()
            if value is not None
        ]
        if len(present.union(each.name for each in changed).difference(dropped)) > SETTINGS_MAX:
            raise Refused(ErrorCode.TOO_LARGE, f"a batch job has at most {SETTINGS_MAX} settings", at="settings")
        await self._store.set_settings(batch_job.id, changed, dropped)

    async def _upload(
        self,
        operation: wire.BatchJobs,
        batch_job: BatchJob,
        plan: BatchPlan,
        uid: int,
        record: Record,
        target: str,
    ) -> None:
        assert operation.path is not None
        taken = await self._files.take(operation.path)
        path = self._files.path_of(taken.name)
        try:
            check_archive(plan.quotas, taken.size_bytes)
            code = await self._workshop.judge(path)
            archive = await anyio.Path(path).read_bytes()
            sha256 = hashlib.sha256(archive)
            await record(target, f"upload {taken.size_bytes} bytes, SHA-256 {sha256.hexdigest()}")
            await self._store.add_version(batch_job.id, code, archive, sha256.digest(), uid)
        except Refused as refused:
            at = "path" if refused.at is None else f"path:{refused.at}"
            raise Refused(refused.code, refused.message, at=at, retry_after=refused.retry_after) from refused
        finally:
            await self._files.dispose(operation.path, taken.name)

    async def _publish(self, batch_job: BatchJob, record: Record, target: str) -> None:
        name = batch_job.name
        if batch_job.version == 0:
            raise Refused(ErrorCode.BAD_STATE, f"{name} has no code: upload it first", at="name")
        if not batch_job.conduct.api and not batch_job.schedules:
            message = f"nobody could run {name}: add a schedule, or allow it to be run by submission (api)"
            raise Refused(ErrorCode.BAD_STATE, message, at="name")
        await record(target, "publish")
        if not await self._store.move(batch_job.id, list(CREATED), BatchState.PUBLISHED):
            raise Refused(ErrorCode.BAD_STATE, f"{name} is published", at="name")

    async def _download(
        self, operation: wire.BatchJobs, batch_job: BatchJob, record: Record, target: str, line: int
    ) -> wire.BatchReply:
        version = operation.version or batch_job.version
        code = await self._store.code(batch_job.id, version)
        if code is None:
            raise Refused(ErrorCode.NOT_FOUND, f"{batch_job.name} has no version {version}", at="version")
        await record(target, f"download version {version}")
        path = self._exports / f"batch-{batch_job.id}-v{version}.zip"
        await anyio.to_thread.run_sync(_write, path, code.archive)
        return wire.BatchReply(line=line, path=str(path), ref=operation.ref)


def _check_may_manage(operation: wire.BatchJobs, plan: BatchPlan, teamspace: str) -> None:
    someone = operation.as_
    if someone is not None:
        allowed = {"super_admin"} if plan.super_admin_only else {"admin", "super_admin"}
        if someone.role not in allowed:
            who = "super-admins" if plan.super_admin_only else "admins"
            raise Refused(ErrorCode.FORBIDDEN, f"only {who} manage batch jobs, and {someone.person} is none", at="as")
    if not plan.enabled and operation.action not in {"unpublish", "delete", "download"}:
        message = f"batch jobs are not enabled for {teamspace}: its plan says batch.enabled = false"
        raise Refused(ErrorCode.FORBIDDEN, message, at="teamspace")


def _what_is_set(operation: wire.BatchJobs) -> str:
    """Without any value that might be a secret."""
    conduct = ("api", "timeout_seconds", "retries", "retry_timeouts", "stall_after_seconds", "interpreter")
    words = (*conduct, "mail_success", "mail_failure")
    said = [f"{word} = {value}" for word in words if (value := getattr(operation, word)) is not None]
    return ", ".join([*said, *operation.settings, *operation.secrets])


def _version(version: Version) -> wire.BatchVersion:
    return wire.BatchVersion(
        version=version.version,
        size_bytes=version.size_bytes,
        sha256=version.sha256.hex(),
        files=version.files,
        requirements=version.requirements,
        uploaded_at=version.uploaded,
    )


def _run(run: StoredRun, job: StoredJob | None, *, whole: bool) -> wire.BatchRun:
    ending = run.ending
    state = job.state if job is not None else ending.state if ending is not None else JobState.CANCELLED
    reason = ending.reason if ending is not None else None
    if reason is None and job is not None and job.reason is not None:
        reason = JobReason(job.reason)
    return wire.BatchRun(
        instance=run.job,
        teamspace=run.teamspace,
        batch_job=run.name,
        version=run.version,
        source=source_of(run),
        due_at=None if run.due is None else _moment(run.due),
        state=state,
        reason=reason,
        message=(ending.message if ending is not None else job.message if job is not None else "") or None,
        attempts=[_attempt(each) for each in run.tried],
        result=msgspec.json.decode(ending.result) if whole and ending is not None and ending.result else None,
    )


def _attempt(tried: Tried) -> wire.BatchAttempt:
    return wire.BatchAttempt(
        retry_attempt=tried.retry,
        began_at=_moment(tried.began),
        cap_seconds=tried.cap_ms / MILLISECONDS,
        seconds=None if tried.real_ms is None else tried.real_ms / MILLISECONDS,
        end=tried.ending,
    )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o640)
        file.write(content)


def _moment(instant: Instant) -> datetime:
    return datetime.fromtimestamp(instant / SECOND, UTC)
