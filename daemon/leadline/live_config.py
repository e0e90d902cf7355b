"""What is configured now: the file, the modules that are installed, and what was set live; and how that is changed.

Nobody keeps any of it: whoever needs it asks here each time. The queue, which does, is told of a change before the call
that makes it returns.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import anyio
import msgspec
import structlog

from leadline import config as configuration
from leadline import plans
from leadline.accounts import (
    DATABASE,
    Configured,
    Offered,
    account_of,
    accounts_of,
    configured_accounts,
    database_limit,
    endpoints_of,
    modules_of,
)
from leadline.actors.supervisor import Setting, Supervisor
from leadline.adapters.http.reach import Numbers as HttpNumbers
from leadline.adapters.interpreters import Interpreters
from leadline.adapters.interpreters import find as find_interpreters
from leadline.adapters.postgres.control import PostgresControl
from leadline.adapters.python_workers.pool import PythonModules
from leadline.adapters.systemd import ServiceManager
from leadline.config import Config
from leadline.core.events import AccountLearned
from leadline.core.quota.quotas import Access as DatabaseAccess
from leadline.core.quota.quotas import Quotas
from leadline.features.batch.ports import BatchPlan
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.module_views import module_views
from leadline.features.tables.selection import Allowance
from leadline.outreach import OutreachOffice
from leadline.plans import Plans
from leadline.ports.control import Act, Scope
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import AccountName

log = structlog.get_logger("leadline")

MILLISECONDS: Final = 1_000


class LiveConfig:
    """The configuration, the provider accounts and the limits in force."""

    def __init__(
        self,
        config: Config,
        config_path: Path | None,
        control: PostgresControl,
        modules: PythonModules,
        service: ServiceManager,
        supervisor: Callable[[], Supervisor],
        outreach_office: Callable[[], OutreachOffice],
    ) -> None:
        self.config = config
        self._config_path = config_path
        self._control = control
        self._modules = modules
        self._service = service
        self._supervisor = supervisor
        self._outreach_office = outreach_office
        self._endpoints: Mapping[str, Endpoint] = {}
        self._plans = Plans(config)
        self._interpreters: tuple[Mapping[str, Path], Interpreters] | None = None
        """Those that were found, and for which configuration."""
        self._changing = anyio.Lock()

    def endpoints(self) -> Mapping[str, Endpoint]:
        """The provider accounts that are configured now."""
        return self._endpoints

    def modules(self) -> Sequence[wire.ModuleView]:
        """The modules that fill columns, as they are configured now."""
        return module_views(self._endpoints)

    def database_allowance(self) -> Allowance | None:
        """What bounds the records that jobs read and write."""
        limit = database_limit(self.config)
        return None if limit is None else Allowance(DATABASE, limit.burst)

    def account(self, account: AccountName) -> AccountLearned | None:
        """What is in force for a provider account, or for our own database; None where it is not there."""
        return account_of(account, self.config, self._plans, self._endpoints)

    def plans(self, plan: str | None, teamspace: str | None, provider: str | None) -> Sequence[wire.PlanView]:
        """Limits in force. Raises Refused."""
        if teamspace is not None:
            return [self._plans.view_of_teamspace(teamspace)]
        if provider is not None:
            found = self._configured(provider)
            return [self._plans.view_of_provider(provider, found.limits, found.source)]
        names = sorted(self.config.plans) if plan is None else [plan]
        return [self._plans.view_of_plan(name) for name in names]

    async def set_limit(self, wanted: wire.Plans, act: Act) -> None:
        """Set a limit live, or take back what was set; in force when this returns. Raises Refused."""
        assert wanted.key is not None
        value: plans.Value | None
        scope: Scope
        if wanted.provider is not None:
            scope, name = "provider", wanted.provider
            value = plans.checked_amount(self._configured(name).limits, wanted.key, wanted.value)
        elif wanted.plan is not None:
            scope, name = "plan", wanted.plan
            self._plans.check(name)
            value = plans.checked(wanted.key, wanted.value)
        else:
            assert wanted.teamspace is not None
            scope, name = "teamspace", wanted.teamspace
            value = plans.checked(wanted.key, wanted.value)
        async with self._changing:
            await self._control.override(scope, name, wanted.key, value, act)
            await self._supervisor().reload(await self.setting())

    def _configured(self, provider: str) -> Configured:
        found = configured_accounts(self.config, self._endpoints).get(AccountName(provider))
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {provider}", at="provider")
        return found

    async def setting(self) -> Setting:
        """What binds the queue now: the configuration, and over it what was set live."""
        self._plans = Plans(self.config, await self._control.overrides())
        return setting_of(self.config, self._plans, self._endpoints, await self._outreach_office().store.mailboxes())

    async def limits_changed(self) -> None:
        """What bounds a teamspace may not be as it was."""
        async with self._changing:
            await self._supervisor().reload(await self.setting())

    def allows(self, uid: int, teamspace: str) -> bool:
        """Whether a user id may submit for a teamspace."""
        return self.config.submit.allows(uid, teamspace)

    def retention_days(self, teamspace: str) -> int | None:
        """How long the leads of a teamspace stay in tables that say nothing themselves; None: for ever."""
        return self._plans.retention_days(teamspace)

    async def interpreters(self) -> Interpreters:
        """The Pythons that batch jobs can choose from."""
        configured = self.config.batch.interpreters
        if self._interpreters is None or self._interpreters[0] != configured:
            self._interpreters = (configured, await find_interpreters(configured))
        return self._interpreters[1]

    def history_days(self) -> int:
        """How long what ended jobs have left is kept."""
        return self.config.queue.history_days

    def plan_of(self, teamspace: str) -> str:
        """The name of a teamspace's plan."""
        return self.config.plan_of(teamspace)

    async def reload(self) -> None:
        """Read the configuration file again. Raises Refused with every fault."""
        self._service.reloading()
        try:
            config = configuration.load(self._config_path)
            offered = await modules_of(config)
            endpoints = endpoints_of(config, offered.modules)
        except configuration.ConfigError as error:
            raise Refused(ErrorCode.BAD_REQUEST, str(error), at="config") from error
        finally:
            self._service.ready()
        async with self._changing:
            self._offer(config, endpoints, offered)
            await self._supervisor().reload(await self.setting())
        log.info("reloaded")

    async def offer_modules(self) -> None:
        """Before anything runs: find out which modules there are. Raises ConfigError."""
        offered = await modules_of(self.config)
        self._offer(self.config, endpoints_of(self.config, offered.modules), offered)

    def _offer(self, config: Config, endpoints: Mapping[str, Endpoint], offered: Offered) -> None:
        for fault in offered.faults:
            log.error("module_unusable", module=fault.path, fault=fault.message)
        self.config = config
        self._endpoints = endpoints
        self._modules.offer(offered.offers)

    def http_numbers(self) -> HttpNumbers:
        """What the configuration says of HTTP, now."""
        http = self.config.http
        return HttpNumbers(http.requests_per_second, http.upload_bytes_max)

    def batch_plan(self, teamspace: str) -> BatchPlan:
        """What a teamspace's plan says of batch jobs, now."""
        plan = self._plans.of(teamspace)
        batch = plan.batch
        quotas = Quotas(
            jobs_max=batch.jobs_max,
            executions_per_day_max=batch.executions_per_day,
            invocations_per_day_max=batch.invocations_per_day,
            milliseconds_per_day_max=batch.seconds_per_day * MILLISECONDS,
            reserve=batch.reserve,
            retries_max=batch.retries_max,
            schedule_gap_minutes_min=batch.gap_minutes,
            archive_bytes_max=batch.archive_bytes_max,
            own_database=DatabaseAccess(batch.own_database),
            etl_database=DatabaseAccess(batch.etl_database),
        )
        return BatchPlan(
            batch.enabled,
            batch.super_admin_only,
            quotas,
            ZoneInfo(plan.zone),
            tuple(batch.reaches),
            batch.builds,
            batch.memory_bytes_max,
            batch.scratch_bytes_max,
            batch.processes_max,
            batch.log_bytes_max,
        )

    @property
    def have_batch_jobs(self) -> bool:
        """Whether anybody may have some."""
        return self._plans.have_batch_jobs

    def plan_in_force(self, teamspace: str) -> configuration.Plan:
        """What holds for a teamspace, with all that was set live."""
        return self._plans.of(teamspace)


def setting_of(
    config: Config, plans: Plans, endpoints: Mapping[str, Endpoint], mailboxes: Mapping[str, int]
) -> Setting:
    """What a configuration says about the queue, with the limits in force; `mailboxes`: how many each teamspace has."""
    rules = msgspec.structs.replace(config.rules(), default_limits=plans.default())
    return Setting(rules, plans.named(mailboxes), accounts_of(config, plans, endpoints))
