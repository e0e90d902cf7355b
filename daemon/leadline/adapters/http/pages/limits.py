"""Limits of a teamspace or of a provider account, set while everything runs.

Nobody sets one by a slip: what was typed is shown again as `from … to …`, and only the second form is carried out. It
names the value that it was shown beside, so that two people who change one limit at the same time see each other.
"""

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages.operator import check_manager
from leadline.adapters.http.pages.rendering import number
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline.adapters.http.problems import STATUS
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

Value = bool | int | float | str | list[str]

_SEPARATORS: Final = re.compile(r"[,\s]+")
_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?", re.ASCII)


class Owner(Struct, frozen=True):
    """Whose limits are meant."""

    teamspace: str | None
    provider: str | None

    @property
    def name(self) -> str:
        """As people call it."""
        return self.teamspace or self.provider or ""

    @property
    def path(self) -> str:
        """Its page."""
        return f"/operator/{'teamspaces' if self.provider is None else 'providers'}/{in_path(self.name)}"


def owner(visit: Visit) -> Owner:
    """Whose limit the address is about. Raises Refused."""
    named = Owner(visit.query.get("teamspace") or None, visit.query.get("provider") or None)
    if (named.teamspace is None) == (named.provider is None):
        raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")
    return named


async def one(visit: Visit) -> web.StreamResponse:
    """The form for one limit."""
    check_manager(visit)
    whose = owner(visit)
    limits = await of(visit, whose)
    return _form(visit, whose, _find(visit, limits))


async def change(visit: Visit) -> web.StreamResponse:
    """Show from what to what a limit would be changed; with `confirmed`, change it."""
    check_manager(visit)
    whose = owner(visit)
    limit = _find(visit, await of(visit, whose))
    takes_back = visit.form.fields.get("take_back") == "yes"
    try:
        value = None if takes_back else read(visit.form.fields.get("value", ""), limit.value)
        seen = visit.form.fields.get("was")
        if visit.form.fields.get("confirmed") != "yes" or seen != shown(limit.value, limit.unit):
            return visit.page(
                "operator_limit_confirm.html",
                whose=whose,
                limit=limit,
                was=shown(limit.value, limit.unit),
                becomes=await _beneath(visit, whose, limit.key) if value is None else shown(value, limit.unit),
                typed=visit.form.fields.get("value", ""),
                takes_back=takes_back,
                overtaken=seen is not None and seen != shown(limit.value, limit.unit),
            )
        await visit.ask(wire.Plans(teamspace=whose.teamspace, provider=whose.provider, key=limit.key, value=value))
    except Refused as no:
        if no.at != "value":
            raise
        return _form(visit, whose, limit, no)
    return visit.see(whose.path, said="limit_taken_back" if takes_back else "limit_set")


async def of(visit: Visit, whose: Owner) -> Sequence[wire.PlanLimit]:
    """The limits in force of one. Raises Refused."""
    (view,) = (await visit.ask(wire.Plans(teamspace=whose.teamspace, provider=whose.provider))).plans
    return view.limits


def read(typed: str, now: object) -> Value:
    """What was typed for a limit that is `now` of that kind. Raises Refused."""
    typed = typed.strip()
    if isinstance(now, list):
        return [part for part in _SEPARATORS.split(typed) if part]
    if not typed:
        raise Refused(ErrorCode.BAD_REQUEST, "give a value", at="value")
    if isinstance(now, bool):
        return typed == "yes"
    if not isinstance(now, str) and _NUMBER.fullmatch(typed):
        return float(typed) if "." in typed else int(typed)
    return typed


def shown(value: object, unit: str | None = None) -> str:
    """A limit's value for people."""
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{number(value)} {unit}" if unit else number(value)
        case list():
            return ", ".join(map(str, value)) or "none"
        case _:
            return str(value)


def editable(value: object) -> str:
    """The same as it stands in a form."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


async def _beneath(visit: Visit, whose: Owner, key: str) -> str:
    """What is in force once what was set is taken back."""
    if whose.teamspace is None:
        return "what the configuration says"
    (view,) = (await visit.ask(wire.Plans(teamspace=whose.teamspace))).plans
    (plan,) = (await visit.ask(wire.Plans(plan=view.plan))).plans
    return next(shown(limit.value, limit.unit) for limit in plan.limits if limit.key == key)


def _find(visit: Visit, limits: Sequence[wire.PlanLimit]) -> wire.PlanLimit:
    key = visit.query.get("key", "")
    for limit in limits:
        if limit.key == key:
            return limit
    raise Refused(ErrorCode.NOT_FOUND, f"there is no limit {key}", at="key")


def _form(visit: Visit, whose: Owner, limit: wire.PlanLimit, refused: Refused | None = None) -> web.Response:
    return visit.page(
        "operator_limit.html",
        status=200 if refused is None else STATUS[refused.code],
        whose=whose,
        limit=limit,
        was=shown(limit.value, limit.unit),
        typed=visit.form.fields.get("value", editable(limit.value)),
        refused=refused,
    )
