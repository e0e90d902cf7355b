"""Databases as tenants' code queries them."""

from leadline.adapters.postgres.batch_access import BatchAccess
from leadline.adapters.postgres.batch_database import BatchDatabase
from leadline.core.quota.quotas import Access as DatabaseAccess
from leadline.features.batch.request_ports import Database as CodeDatabase
from leadline.features.batch.request_ports import DatabaseName, NotAllowed
from leadline.live_config import LiveConfig


class CodeDatabases:
    """What plans and the configuration allow now."""

    def __init__(self, live: LiveConfig, access: BatchAccess) -> None:
        self._live = live
        self._access = access

    async def of(self, teamspace: str, name: DatabaseName) -> CodeDatabase | None:
        """What a teamspace's code may query now. Raises NotAllowed."""
        quotas = self._live.batch_plan(teamspace).quotas
        access = quotas.own_database if name == "own" else quotas.etl_database
        if access is DatabaseAccess.NONE:
            raise NotAllowed("the plan does not allow that any more")
        write = access is DatabaseAccess.WRITE
        if name == "own":
            return await self._access.open(teamspace, write=write)
        known = self._live.config.teamspaces.get(teamspace)
        if known is None or known.etl.secret is None:
            return None
        return BatchDatabase(known.etl.secret.reveal(), write=write)
