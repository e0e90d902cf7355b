"""Which accounts there are at providers, under which limits: from the configuration, the modules and what was set live.

A provider is a module with a key. Modules that are data come as presets and files, those in Python by packages that
are installed. Each has one account that all teamspaces share, and one more for each teamspace with a key of its own.
Our own database is one of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import anyio
import msgspec

from leadline import config as configuration
from leadline.adapters.python_workers.discovery import discover
from leadline.adapters.python_workers.pool import Allowed, Offer
from leadline.config import Config
from leadline.core.calendar.occurrences import occurrences
from leadline.core.calendar.schedules import read_schedule
from leadline.core.events import AccountLearned
from leadline.core.rate_limit import BucketLimit, DailyLimit, Limit, Unit
from leadline.features.tables.asking import AI_PROMPT, Endpoint
from leadline.features.tables.provider_modules import (
    ClientCredentials,
    ModuleFaultsError,
    preset,
    preset_names,
    read_module,
)
from leadline.features.tables.python_modules import provider_module, read_declared, with_places
from leadline.features.tables.requests import Access
from leadline.features.tables.waterfall import WATERFALL
from leadline.plans import Plans
from leadline_protocol.ids import AccountName, Instant
from leadline_protocol.schedules import Daily

DATABASE: Final = AccountName("database")
PRICES: Final = ("credits_per_lead", "credits_per_1000_input_tokens", "credits_per_1000_output_tokens")
"""What a configuration may say in the place of a provider's module."""
SECONDS_PER_HOUR: Final = 3_600


class Offered(msgspec.Struct, frozen=True):
    """The Python modules that are installed and can be used, and what is wrong with the others."""

    offers: Mapping[str, Offer]
    modules: Mapping[str, Endpoint]
    faults: Sequence[configuration.Fault]


async def modules_of(config: Config) -> Offered:
    """The Python modules that are installed, as they are configured."""
    discovered = await discover(config.files.module_folders)
    faults = [configuration.Fault(_module_key(name), fault) for name, fault in discovered.faults.items()]
    offers: dict[str, Offer] = {}
    modules: dict[str, Endpoint] = {}
    for name, (installed, said) in discovered.modules.items():
        settings = config.modules.get(name, configuration.PythonModule())
        if name in {AI_PROMPT, WATERFALL, DATABASE} or name in config.providers:
            faults.append(configuration.Fault(_module_key(name), "its name is that of another module or provider"))
            continue
        try:
            declared = read_declared(name, said)
        except ModuleFaultsError as error:
            faults += [configuration.Fault(_module_key(name), f"{each.path}: {each.message}") for each in error.faults]
            continue
        module = provider_module(name, declared)
        places = settings.processes * declared.leads_at_once
        access = Access(
            module.base_url,
            None if settings.secret is None else settings.secret.reveal(),
            {**module.settings, **settings.settings},
            settings.timeout_seconds or module.call_timeout_seconds,
        )
        modules[name] = Endpoint(AccountName(name), module, access, places=places)
        offers[name] = Offer(
            installed, said, Allowed(settings.processes, declared.leads_at_once, settings.memory_bytes_max)
        )
    for name in config.modules.keys() - discovered.modules.keys() - discovered.faults.keys():
        faults.append(configuration.Fault(_module_key(name), "no package that is installed provides it"))
    return Offered(offers, modules, faults)


def module_faults(config: Config) -> Sequence[configuration.Fault]:
    """What is wrong with the Python modules that are installed; asks each of them, in a process of its own."""
    return anyio.run(modules_of, config).faults


def _module_key(name: str) -> str:
    return configuration.key_of("modules", name)


def endpoints_of(config: Config, modules: Mapping[str, Endpoint] = MappingProxyType({})) -> Mapping[str, Endpoint]:
    """The provider accounts that are configured, and those of Python modules.

    Raises ConfigError with every fault of the providers' modules.
    """
    found: dict[str, Endpoint] = dict(modules)
    faults: list[configuration.Fault] = []
    for name, provider in config.providers.items():
        try:
            found[name] = _endpoint(name, provider)
            faults += _secret_faults(name, found[name])
        except ModuleFaultsError as error:
            path = f"providers.{name}.module"
            faults += [configuration.Fault(path, str(fault)) for fault in error.faults]
        except KeyError:
            message = f"there is no preset {provider.preset}; there are {', '.join(preset_names())}"
            faults.append(configuration.Fault(f"providers.{name}.preset", message))
    if faults:
        raise configuration.ConfigError(faults)
    return found


def _secret_faults(name: str, endpoint: Endpoint) -> Iterator[configuration.Fault]:
    """Where a token is to be had, the secret is an id and a secret."""
    if not isinstance(endpoint.module.auth, ClientCredentials):
        return
    keys = {f"providers.{name}": endpoint.access.key}
    keys |= {f"providers.{name}.own.{teamspace}": own.access.key for teamspace, own in endpoint.own.items()}
    for path, key in keys.items():
        if key is not None and not all(key.partition(":")):
            yield configuration.Fault(f"{path}.secret", "must be the client's id and its secret: ID:SECRET")


def _endpoint(name: str, provider: configuration.Provider) -> Endpoint:
    if provider.module is not None:
        module = read_module(provider.module.read_text(encoding="utf-8"), file=str(provider.module))
    else:
        module = preset(provider.preset or name)
    prices = {key: price for key in PRICES if (price := getattr(provider, key)) is not None}
    module = msgspec.structs.replace(module, **prices)

    def access(secret: configuration.Secret | None) -> Access:
        return Access(
            provider.base_url or module.base_url,
            None if secret is None else secret.reveal(),
            {**module.settings, **provider.settings},
            provider.call_timeout_seconds or module.call_timeout_seconds,
            provider.flight_seconds or module.flight_seconds,
        )

    own = {
        teamspace: Endpoint(AccountName(f"{name}@{teamspace}"), module, access(key.secret))
        for teamspace, key in provider.own.items()
    }
    return Endpoint(AccountName(name), module, access(provider.secret), own)


def database_limit(config: Config) -> BucketLimit | None:
    """So many records an hour, a minute's worth of them at once; None: any number."""
    records = config.database.records_per_hour
    return BucketLimit(records, SECONDS_PER_HOUR, max(1, records // 60), Unit.RECORD) if records else None


def _database_account(config: Config) -> AccountLearned:
    """Our own database as a provider.

    It is there without a limit as well: jobs that wait for one that a reload takes away go on by that.
    """
    limit = database_limit(config)
    limits = () if limit is None else (limit,)
    share = config.database.interactive_share
    return AccountLearned(DATABASE, limits, interactive_share=share, recorded=False)


class Configured(msgspec.Struct, frozen=True):
    """A provider account as the configuration has it."""

    endpoint: Endpoint
    limits: Sequence[Limit]
    source: Literal["toml", "built-in"]
    """Who says so: the configuration, or the module."""
    pace_per_second: float | None


def configured_accounts(config: Config, endpoints: Mapping[str, Endpoint]) -> Mapping[AccountName, Configured]:
    """Every provider account: the shared one of each provider, and those of teamspaces with a key of their own."""
    accounts: dict[AccountName, Configured] = {}
    for name, provider in config.providers.items():
        shared = endpoints[name]
        given = [(shared, provider.limits), *((shared.own[each], key.limits) for each, key in provider.own.items())]
        for endpoint, own in given:
            limits = provider.limits if own is None else own
            accounts[endpoint.account] = Configured(
                endpoint,
                endpoint.module.limits if limits is None else limits,
                "built-in" if limits is None else "toml",
                provider.pace_per_second,
            )
    for name, endpoint in endpoints.items():
        if endpoint.places is not None:
            settings = config.modules.get(name, configuration.PythonModule())
            limits = endpoint.module.limits if settings.limits is None else settings.limits
            accounts[endpoint.account] = Configured(
                endpoint,
                with_places(limits, endpoint.places),
                "built-in" if settings.limits is None else "toml",
                settings.pace_per_second,
            )
    return accounts


def accounts_of(config: Config, plans: Plans, endpoints: Mapping[str, Endpoint]) -> list[AccountLearned]:
    """All of them, as the queue is told."""
    configured = configured_accounts(config, endpoints)
    return [_database_account(config), *(_learned(account, each, plans) for account, each in configured.items())]


def account_of(
    account: AccountName, config: Config, plans: Plans, endpoints: Mapping[str, Endpoint]
) -> AccountLearned | None:
    """One of them; None: there is none of that name."""
    if account == DATABASE:
        return _database_account(config)
    configured = configured_accounts(config, endpoints).get(account)
    return None if configured is None else _learned(account, configured, plans)


def _learned(account: AccountName, configured: Configured, plans: Plans) -> AccountLearned:
    return AccountLearned(
        account,
        tuple(plans.limits_of(account, configured.limits)),
        flight_seconds=configured.endpoint.access.flight_seconds,
        failed_count=configured.endpoint.module.failed_count,
        pace_per_second=configured.pace_per_second,
    )


def next_reset(limit: DailyLimit, instant: Instant) -> Instant:
    """The first reset of a daily limit after an instant: its wall time in its zone, as a schedule would meet it."""
    timetable = read_schedule(Daily(limit.resets_at, limit.zone))
    return next(occurrences(timetable, instant)).instant
