"""What the daemon does by itself, in each reign: what is too old goes, and what was left undone is seen to."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import anyio
import structlog

from leadline.actors.announcer import Listener
from leadline.actors.supervisor import Supervisor
from leadline.adapters.postgres.batch import PostgresBatch
from leadline.adapters.postgres.control import PostgresControl
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.notices import PostgresNotices
from leadline.adapters.postgres.outreach import PostgresOutreach
from leadline.adapters.postgres.schedules import PostgresSchedules
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.tables import PostgresTables
from leadline.adapters.upload_folder import UploadFolder
from leadline.core.model import SECOND
from leadline.features.batch.attempts import Attempts
from leadline.features.batch.punctuality import Punctuality
from leadline.features.batch.workshop import CodeWorkshop
from leadline.features.tables.life import TableLife
from leadline.ports.store import Fenced, OutcomeUnknown, Unavailable
from leadline_protocol.errors import Refused
from leadline_protocol.ids import Instant, JobId

log = structlog.get_logger("leadline")

SECONDS_PER_DAY: Final = 86_400
HOUSEKEEPING_SECONDS: Final = SECONDS_PER_DAY
SWEEP_RETRY_SECONDS: Final = 10.0
SUBMISSION_SECONDS_MAX: Final = 3_600
"""Longer than it takes from the copy of an upload's file until its job is stored or refused."""


class Housekeeping:
    """What is kept for so long, and dropped afterwards."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: PostgresStore,
        control: PostgresControl,
        outbox: PostgresNotices,
        schedules: PostgresSchedules,
        table_store: PostgresTables,
        batch_store: PostgresBatch,
        outreach_store: PostgresOutreach,
        leads: PostgresLeads,
        workshop: CodeWorkshop,
        uploads: UploadFolder,
        history_days: Callable[[], int],
        started: datetime,
    ) -> None:
        """`started`: when the daemon was; it has left no copy of an upload's file behind since."""
        self._supervisor = supervisor
        self._store = store
        self._control = control
        self._outbox = outbox
        self._schedules = schedules
        self._table_store = table_store
        self._batch_store = batch_store
        self._outreach_store = outreach_store
        self._leads = leads
        self._workshop = workshop
        self._uploads = uploads
        self._history_days = history_days
        self._started = started

    async def keep_house(self) -> None:
        """When the queue takes work, and once a day: drop what is too old, and files that nobody will read."""
        while True:
            await self._supervisor.until_ready()
            try:
                await self._keep_house()
            except (Unavailable, OutcomeUnknown, OSError) as lost:  # no files to be had, or no room: the next day has
                log.warning("house_not_kept", error=str(lost))
            await anyio.sleep(HOUSEKEEPING_SECONDS)

    async def _keep_house(self) -> None:
        now = time.time()
        kept_since = Instant(int((now - self._history_days() * SECONDS_PER_DAY) * SECOND))
        dropped = await self._store.prune(kept_since)
        await self._control.forget(kept_since)
        await self._outbox.forget(datetime.fromtimestamp(kept_since / SECOND, UTC))
        await self._schedules.forget(kept_since)
        await self._table_store.forget(kept_since)
        await self._batch_store.forget(kept_since)
        await self._outreach_store.forget(kept_since)
        await self._workshop.keep_only(self._batch_store.digests)
        await self._leads.forget_orders(kept_since)
        copied_before = max(self._started.timestamp(), now - SUBMISSION_SECONDS_MAX)
        orphans = await self._uploads.keep_only(await self._leads.files_of_live_uploads(), copied_before)
        if dropped or orphans:
            log.info("kept_house", partitions=len(dropped), files=len(orphans))


async def sweep(supervisor: Supervisor, life: TableLife) -> None:
    """Remove the leads of deleted tables, and those that have outlived their retention: when told to, and daily."""
    while True:
        await supervisor.until_ready()
        try:
            if tables := await life.sweep():
                log.info("swept", tables=tables)
        except (Unavailable, OutcomeUnknown) as lost:
            log.warning("not_swept", error=str(lost))
            await anyio.sleep(SWEEP_RETRY_SECONDS)
            continue
        with anyio.move_on_after(HOUSEKEEPING_SECONDS):
            await life.to_sweep.wait()


async def be_punctual(supervisor: Supervisor, punctuality: Punctuality) -> None:
    """In each reign: let go of runs whose time is over."""
    while True:
        await supervisor.until_ready()
        with suppress(Unavailable, OutcomeUnknown, Fenced, Refused):
            await punctuality.keep()
        await anyio.sleep(SWEEP_RETRY_SECONDS)


async def see_to_orphans(supervisor: Supervisor, attempts: Attempts) -> None:
    """In each reign: end what no batch job waits for any more."""

    def when_ended(job: JobId, then: Callable[[], None]) -> None:
        supervisor.announcer.listen(Listener(ended=lambda _: then()), job)

    while True:
        await supervisor.until_ready()
        with suppress(Unavailable, OutcomeUnknown, Fenced, OSError):
            await attempts.see_to_orphans(when_ended)
        await anyio.sleep(SWEEP_RETRY_SECONDS)


async def settle_mails(supervisor: Supervisor, store: PostgresOutreach, wall: Callable[[], Instant]) -> None:
    """In each reign: see to mails whose attempts ended while they were on their way."""
    while True:
        await supervisor.until_ready()
        reign = supervisor.reign
        with suppress(Unavailable, OutcomeUnknown, Fenced):
            await store.settle_lost(None, wall())
        if supervisor.reign is reign:
            await supervisor.until_over()
