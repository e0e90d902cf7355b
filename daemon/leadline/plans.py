"""The limits in force: what the configuration says of plans, and what was set live over it.

Three layers, of which the highest that says something counts: what was set for the teamspace, what was set for its
plan, and the plan as the configuration file has it (with the built-in values below). A reload replaces the lowest
layer alone, so whatever somebody set in a hurry at night is still there when the file is next edited.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from leadline import config as configuration
from leadline.config import Config, Plan
from leadline.core.model import Limits
from leadline.ports.control import Override, Scope
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import PlanLimit, PlanView

_SLOTS: Final = "slots."


class Plans:
    """A configuration and what lies over it."""

    def __init__(self, config: Config, overrides: Iterable[Override] = ()) -> None:
        self._config = config
        self._set: dict[tuple[Scope, str], dict[str, int | float]] = {}
        for override in overrides:
            self._set.setdefault((override.scope, override.name), {})[override.key] = override.value

    def default(self) -> Limits:
        """The limits of teamspaces of which nothing is said."""
        return self._plan(self._config.queue.default_plan).limits()

    def named(self) -> Mapping[str, Limits]:
        """The limits of those of which something is said, by name."""
        names = self._config.teamspaces.keys() | {name for scope, name in self._set if scope == "teamspace"}
        return {name: self._of_teamspace(name).limits() for name in names}

    def view_of_plan(self, name: str) -> PlanView:
        """A plan, and where each of its limits comes from. Raises Refused with not_found."""
        self.check(name)
        return PlanView(plan=name, limits=self._limits(self._plan(name), name, None))

    def view_of_teamspace(self, teamspace: str) -> PlanView:
        """The same of a teamspace; what was set live for its plan comes from the plan."""
        plan = self._config.plan_of(teamspace)
        limits = self._limits(self._of_teamspace(teamspace), plan, teamspace)
        return PlanView(plan=plan, teamspace=teamspace, limits=limits)

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
        limits = []
        for setting in configuration.describe(self._config):
            if setting.key.startswith(prefix):
                key = setting.key.removeprefix(prefix)
                source = "override" if key in own else "plan" if key in of_plan else setting.source
                limits.append(PlanLimit(key=key, value=_value(in_force, key), source=source))
        return limits


def checked(key: str, value: Any) -> int | float | None:
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
    return _value(plan, key)


def _tree(key: str, value: Any) -> dict[str, Any]:
    return {"slots": {key.removeprefix(_SLOTS): value}} if key.startswith(_SLOTS) else {key: value}


def _value(plan: Plan, key: str) -> int | float | None:
    place, _, name = key.rpartition(".")
    found: int | float | None = getattr(plan.slots if place else plan, name)
    return found


def _overlaid(plan: Plan, limits: Mapping[str, int | float]) -> Plan:
    slots = {key.removeprefix(_SLOTS): value for key, value in limits.items() if key.startswith(_SLOTS)}
    others = {key: value for key, value in limits.items() if not key.startswith(_SLOTS)}
    return msgspec.structs.replace(plan, slots=msgspec.structs.replace(plan.slots, **slots), **others)
