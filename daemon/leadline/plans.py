"""The limits in force: what the configuration says of plans, and what was set live over it.

Three layers, of which the highest that says something counts: what was set for the teamspace, what was set for its
plan, and the plan as the configuration file has it (with the built-in values below). A reload replaces the lowest
layer alone, so whatever somebody set in a hurry at night is still there when the file is next edited.

Provider accounts are the same with two layers: what was set, and what the file or the module says. Only amounts are
set live, one for each limit there is; such a change keeps every charge, so it is exact from the next call on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from leadline import config as configuration
from leadline.config import Config, Plan
from leadline.core.model import Family, Limits
from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, DailyLimit, Limit, WindowLimit
from leadline.ports.control import Override, Scope
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import PlanLimit, PlanView

Value = bool | int | float | str | list[str]
"""What a limit may be set to."""


class Plans:
    """A configuration and what lies over it."""

    def __init__(self, config: Config, overrides: Iterable[Override] = ()) -> None:
        self._config = config
        self._set: dict[tuple[Scope, str], dict[str, Value]] = {}
        for override in overrides:
            self._set.setdefault((override.scope, override.name), {})[override.key] = override.value

    def default(self) -> Limits:
        """The limits of teamspaces of which nothing is said."""
        return self._plan(self._config.queue.default_plan).limits()

    def named(self, mailboxes: Mapping[str, int]) -> Mapping[str, Limits]:
        """The limits of those of which something is said, or that have mailboxes, by name."""
        names = self._config.teamspaces.keys() | {name for scope, name in self._set if scope == "teamspace"}
        return {
            name: _with_mailboxes(self._of_teamspace(name).limits(), mailboxes.get(name, 0))
            for name in names | mailboxes.keys()
        }

    def retention_days(self, teamspace: str) -> int | None:
        """How long the leads of a teamspace stay; None: for ever."""
        return self._of_teamspace(teamspace).retention_days

    def of(self, teamspace: str) -> Plan:
        """The plan of a teamspace, with all that was set live."""
        return self._of_teamspace(teamspace)

    @property
    def have_batch_jobs(self) -> bool:
        """Whether anybody may have some."""
        plans = [self._plan(name) for name in self._config.plans]
        plans += [self._of_teamspace(name) for scope, name in self._set if scope == "teamspace"]
        return any(plan.batch.enabled for plan in plans)

    def view_of_plan(self, name: str) -> PlanView:
        """A plan, and where each of its limits comes from. Raises Refused with not_found."""
        self.check(name)
        return PlanView(plan=name, limits=self._limits(self._plan(name), name, None))

    def view_of_teamspace(self, teamspace: str) -> PlanView:
        """The same of a teamspace; what was set live for its plan comes from the plan."""
        plan = self._config.plan_of(teamspace)
        limits = self._limits(self._of_teamspace(teamspace), plan, teamspace)
        return PlanView(plan=plan, teamspace=teamspace, limits=limits)

    def limits_of(self, account: str, limits: Iterable[Limit]) -> list[Limit]:
        """A provider account's limits in force, over those that are configured."""
        amounts = self._set.get(("provider", account), {})
        return [
            msgspec.structs.replace(limit, amount=amount)
            if isinstance(amount := amounts.get(limit_key(limit)), int)
            else limit
            for limit in limits
        ]

    def view_of_provider(self, account: str, limits: Iterable[Limit], source: Literal["toml", "built-in"]) -> PlanView:
        """The limits of a provider account, and where each comes from; `source` says where what is not set does."""
        amounts = self._set.get(("provider", account), {})
        shown = [
            PlanLimit(
                key=limit_key(limit), value=limit.amount, source="override" if limit_key(limit) in amounts else source
            )
            for limit in self.limits_of(account, limits)
        ]
        return PlanView(provider=account, limits=shown)

    def check(self, plan: str) -> None:
        """Raises Refused with not_found where there is no such plan."""
        if plan not in self._config.plans:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no plan {plan}", at="plan")

    def _plan(self, name: str) -> Plan:
        return _overlaid(self._config.plans[name], self._set.get(("plan", name), {}))

    def _of_teamspace(self, teamspace: str) -> Plan:
        plan = self._plan(self._config.plan_of(teamspace))
        return _overlaid(plan, self._set.get(("teamspace", teamspace), {}))

    def _limits(self, in_force: Plan, plan: str, teamspace: str | None) -> list[PlanLimit]:
        of_plan = self._set.get(("plan", plan), {})
        own = of_plan if teamspace is None else self._set.get(("teamspace", teamspace), {})
        prefix = configuration.key_of("plans", plan, "")
        keys = {key.name: key for key in configuration.limits()}
        limits = []
        for setting in configuration.describe(self._config):
            if setting.key.startswith(prefix):
                key = setting.key.removeprefix(prefix)
                source = "override" if key in own else "plan" if key in of_plan else setting.source
                value = _value(in_force, key)
                about, unit = keys[key].sentence, keys[key].unit or None
                limits.append(PlanLimit(key=key, value=value, source=source, about=about, unit=unit))
        return limits


def _with_mailboxes(limits: Limits, mailboxes: int) -> Limits:
    """One slot of outreach for each mailbox, where nothing else is said."""
    if limits.slots[Family.OUTREACH] is not None or not mailboxes:
        return limits
    return msgspec.structs.replace(limits, slots={**limits.slots, Family.OUTREACH: mailboxes})


def checked(key: str, value: Any) -> Value | None:
    """What a limit may be set to, and None to take that back.

    Raises Refused, at `key` where there is no limit of that name, else at `value`.
    """
    known = [each.name for each in configuration.limits()]
    if key not in known:
        raise Refused(ErrorCode.BAD_REQUEST, f"there is no limit {key}; there are {', '.join(known)}", at="key")
    if value is None:
        return None
    try:
        plan = configuration.plan(_tree(key, value))
    except configuration.ConfigError as error:
        message = "; ".join(f"{fault.path} {fault.message}" for fault in error.faults)
        raise Refused(ErrorCode.BAD_REQUEST, message, at="value") from None
    found: Value | None = _value(plan, key)
    return found


def checked_amount(limits: Sequence[Limit], key: str, value: Any) -> int | None:
    """What the amount of one of a provider's limits may be set to, and None to take that back.

    Raises Refused, at `key` where there is no such limit, else at `value`.
    """
    known = [limit_key(limit) for limit in limits]
    if key not in known:
        there = f"there are {', '.join(known)}" if known else "it has none"
        raise Refused(ErrorCode.BAD_REQUEST, f"there is no limit {key}; {there}", at="key")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refused(ErrorCode.BAD_REQUEST, "must be a whole number of at least 1", at="value")
    return value


def limit_key(limit: Limit) -> str:
    """What a limit of a provider is called: `lead/60s`, `record/day`, `concurrent`; its amount is not part of it."""
    match limit:
        case ConcurrentLimit():
            return "concurrent"
        case DailyLimit():
            return f"{limit.unit}/day"
        case WindowLimit() | BucketLimit():
            return f"{limit.unit}/{limit.per_seconds:g}s"


def _tree(key: str, value: Any) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    return {group: {name: value}} if group else {name: value}


def _value(plan: Plan, key: str) -> Any:
    group, _, name = key.rpartition(".")
    return getattr(getattr(plan, group) if group else plan, name)


def _overlaid(plan: Plan, limits: Mapping[str, Value]) -> Plan:
    fields: dict[str, Any] = {}
    for key, value in limits.items():
        group, _, name = key.rpartition(".")
        if group:
            fields[group] = msgspec.structs.replace(fields.get(group) or getattr(plan, group), **{name: value})
        else:
            fields[name] = value
    return msgspec.structs.replace(plan, **fields)
