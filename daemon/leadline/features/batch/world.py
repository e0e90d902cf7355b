"""What one attempt may have of the daemon, from its plan, its batch job and the house (`request_ports.World`)."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from msgspec import Struct

from leadline.core.quota.quotas import Access
from leadline.features.batch.ports import (
    BatchJob,
    BatchPlan,
    BatchStore,
    Recipients,
    Seal,
    StoredRun,
    Tried,
    sealed_for,
)
from leadline.features.batch.request_ports import (
    Database,
    DatabaseName,
    Mail,
    NotAllowed,
    Providers,
    Query,
    Rows,
    World,
    Written,
)
from leadline.ports.work import Attempt

DatabaseOf = Callable[[str, DatabaseName], Awaitable[Database | None]]
"""A database of a teamspace, as far as its plan allows it now; None: there is none. Raises NotAllowed."""


ProvidersOf = Callable[[Attempt, StoredRun, Tried, Collection[int]], Providers]
"""The providers for an attempt at a run, of which these questions have led to calls before the daemon was restarted."""


class House(Struct, frozen=True):
    """Where what attempts ask for comes from."""

    store: BatchStore
    seal: Seal
    database_of: DatabaseOf
    providers_of: ProvidersOf
    sends_mail: Callable[[], bool]
    """Whether there is a mail server."""

    def world(
        self,
        attempt: Attempt,
        run: StoredRun,
        tried: Tried,
        batch_job: BatchJob | None,
        plan: BatchPlan,
        moved: Callable[[], None],
        called: Collection[int],
    ) -> World:
        """That of an attempt; `moved` is called when it says how far it is; `called`: see `ProvidersOf`."""
        allowed: Mapping[DatabaseName, Access] = {"own": plan.quotas.own_database, "etl": plan.quotas.etl_database}
        recipients = Recipients() if batch_job is None else batch_job.conduct.recipients
        return World(
            _Settings(self, batch_job),
            _Progress(attempt, moved),
            _Mails(self.store, attempt, tried, run, recipients) if self.sends_mail() else None,
            {
                name: _Database(self.database_of, run.teamspace, name)
                for name, access in allowed.items()
                if access is not Access.NONE
            },
            self.providers_of(attempt, run, tried, called),
        )


class _Settings:
    def __init__(self, house: House, batch_job: BatchJob | None) -> None:
        self._house = house
        self._batch_job = batch_job

    async def read(self) -> Mapping[str, object]:
        """All settings of the batch job, as they are now."""
        batch_job = self._batch_job
        if batch_job is None:
            return {}
        return {
            each.name: self._house.seal.open(each.sealed, of=sealed_for(batch_job, each.name))
            for each in await self._house.store.settings(batch_job.id)
        }


class _Progress:
    def __init__(self, attempt: Attempt, moved: Callable[[], None]) -> None:
        self._attempt = attempt
        self._moved = moved

    async def tell(self, done: float, total: float | None) -> None:
        """Show it to people."""
        self._moved()
        self._attempt.doing(f"{done:,.10g} done" if total is None else f"{done:,.10g} of {total:,.10g}")
        self._attempt.progressed(self._attempt.job.counts)  # which has it seen at once, and not with the next beat


class _Mails:
    def __init__(
        self, store: BatchStore, attempt: Attempt, tried: Tried, run: StoredRun, recipients: Recipients
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._tried = tried
        self._run = run
        self._recipients = recipients

    async def store(self, number: int, mail: Mail) -> None:
        """Put it into the outbox, for each who is named with the batch job. Raises NotAllowed where nobody is."""
        to = self._recipients.success if mail.type == "success" else self._recipients.failure
        if not to:
            raise NotAllowed(f"nobody is named with the batch job who is to have mails of {mail.type}")
        await self._store.keep_mail(self._run, self._attempt.number, self._tried.retry, number, mail, to)


class _Database:
    """Asked for anew with each query, as the plan may have changed."""

    def __init__(self, database_of: DatabaseOf, teamspace: str, name: DatabaseName) -> None:
        self._database_of = database_of
        self._teamspace = teamspace
        self._name = name

    async def run(self, query: Query) -> Rows | Written:
        """Run statements. Raises BadRequest, NotAllowed, QueryFailed."""
        database = await self._database_of(self._teamspace, self._name)
        if database is None:
            raise NotAllowed("no address of that database is set for the teamspace")
        return await database.run(query)
