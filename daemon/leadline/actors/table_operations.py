"""The operation `tables`: what is done about a table, with what runs on it handled.

A table that jobs work on is not simply deleted. Either that is refused, naming them, or they are cancelled first, as a
person would, and waited for. Whether one is left is asked of the database in the transaction that deletes the table;
where a job came in meanwhile, it is cancelled as well.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, assert_never

import anyio

from leadline.actors.announcer import Listener
from leadline.actors.supervisor import Supervisor
from leadline.core.effects import EndedJob
from leadline.core.events import CancelAsked
from leadline.core.model import ENDED, JobState
from leadline.ports.store import JobFilter, Store, StoredJob
from leadline.ports.tables import Tables
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId, TableId

CANCEL_SECONDS_MAX: Final = 20.0
"""A peer does not wait longer for one answer. A call in flight may take a minute to its end: then it asks again."""

JOBS_SHOWN: Final = 10
JOBS_NAMED: Final = 5
JOBS_AT_ONCE: Final = 1_000

LIVE: Final = tuple(state for state in JobState if state not in ENDED)

Views = Callable[[Sequence[StoredJob]], Awaitable[list[wire.JobView]]]
Record = Callable[[str, str], Awaitable[None]]
"""Writes down what is about to be done: to what, and what exactly."""


class TableOperations:
    """Carries out `tables`."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: Store,
        tables: Tables,
        views: Views,
        modules: Callable[[], Sequence[wire.ModuleView]],
    ) -> None:
        """`modules`: those that there are now."""
        self._supervisor = supervisor
        self._store = store
        self._tables = tables
        self._views = views
        self._modules = modules

    async def perform(self, operation: wire.Tables, record: Record, line: int) -> wire.TablesReply:
        """Carry out one operation. Raises Refused."""
        if operation.action == "list":
            return await self._list(operation, line)
        if operation.action == "modules":
            return wire.TablesReply(line=line, tables=[], modules=list(self._modules()), ref=operation.ref)
        assert operation.teamspace is not None
        assert operation.table is not None
        teamspace, table = operation.teamspace, operation.table
        jobs: list[wire.JobView] = []
        match operation.action:
            case "create":
                await record(_target(operation), "create")
                view = await self._tables.create(teamspace, table, operation.columns, operation.key)
            case "describe":
                view = await self._tables.describe(teamspace, table)
                jobs = await self._newest(await self._tables.find(teamspace, table), ())
            case "retain":
                found = await self._tables.find(teamspace, table)
                await record(_target(operation), f"retain {operation.days or 'for ever'}")
                await self._tables.retain(found, operation.days)
                view = await self._one(teamspace, table)
            case "delete":
                view, jobs = await self._delete(operation, teamspace, table, record)
            case _:
                assert_never(operation.action)
        return wire.TablesReply(line=line, tables=[view], jobs=jobs, ref=operation.ref)

    async def _list(self, operation: wire.Tables, line: int) -> wire.TablesReply:
        found = list(
            await self._tables.page(operation.teamspace, operation.table, operation.after, operation.limit + 1)
        )
        page = found[: operation.limit]
        following = (page[-1].teamspace, page[-1].table) if len(found) > operation.limit else None
        return wire.TablesReply(line=line, tables=page, next=following, ref=operation.ref)

    async def _one(self, teamspace: str, table: str) -> wire.TableView:
        found = await self._tables.page(teamspace, table, None, 1)
        if not found:
            raise Refused(ErrorCode.UNKNOWN_TABLE, f"{teamspace} has no table {table}", at="table")
        return found[0]

    async def _delete(
        self, operation: wire.Tables, teamspace: str, table: str, record: Record
    ) -> tuple[wire.TableView, list[wire.JobView]]:
        found = await self._tables.find(teamspace, table)
        view = await self._one(teamspace, table)
        live = await self._newest(found, LIVE)
        if operation.dry_run:
            return view, live
        if live and not operation.cancel:
            raise _in_use(table, view.jobs, live, "")
        await record(_target(operation), "delete and cancel" if operation.cancel else "delete")
        told: set[JobId] = set()
        with anyio.move_on_after(CANCEL_SECONDS_MAX):
            while not await self._tables.delete(found):
                if not operation.cancel:
                    raise _in_use(table, 1, await self._newest(found, LIVE), "")
                await self._cancel(found, told)
            return view, live
        raise _in_use(table, len(told), await self._newest(found, LIVE), " yet; ask again")

    async def _newest(self, table: TableId, states: tuple[JobState, ...]) -> list[wire.JobView]:
        return await self._views(await self._store.jobs(JobFilter(table=table, states=states, limit=JOBS_SHOWN)))

    async def _cancel(self, table: TableId, told: set[JobId]) -> None:
        """Cancel some of the jobs on a table, and wait until they have ended."""
        live = {job.id for job in await self._store.jobs(JobFilter(table=table, states=LIVE, limit=JOBS_AT_ONCE))}
        left = set(live)
        over = anyio.Event()

        def ended(job: EndedJob) -> None:
            left.discard(job.id)
            if not left:
                over.set()

        announcer = self._supervisor.announcer
        dispatcher = self._supervisor.dispatcher
        listener = Listener(ended=ended)
        try:
            for job in live:
                announcer.listen(listener, job)
            left &= await dispatcher.look(lambda scheduler, _: {job for job in live if job in scheduler.jobs})
            for job in live - told:
                told.add(job)
                try:
                    await dispatcher.tell(CancelAsked(job, force=False))
                except Refused as refused:
                    if refused.code is not ErrorCode.NOT_FOUND:  # it has ended meanwhile
                        raise
            if left:
                await over.wait()
        finally:
            for job in live:
                announcer.forget(listener, job)


def _target(operation: wire.Tables) -> str:
    return f"table {operation.teamspace}/{operation.table}"


def _in_use(table: str, count: int, live: Sequence[wire.JobView], ending: str) -> Refused:
    named = ", ".join(str(job.job) for job in live[:JOBS_NAMED])
    more = f" and {count - JOBS_NAMED} more" if count > JOBS_NAMED else ""
    jobs = "1 job" if count == 1 else f"{count} jobs"
    has = "has" if count == 1 else "have"
    return Refused(ErrorCode.BAD_STATE, f"{jobs} on {table} {has} not ended{ending}: {named}{more}", at="table")
