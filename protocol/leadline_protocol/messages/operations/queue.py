"""The queue, whose it is and what bounds it: pauses, teamspaces, providers, plans."""

from typing import Annotated, Any, Literal, assert_never

from msgspec import UNSET, Meta, UnsetType

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.base import Done
from leadline_protocol.messages.replies.plans import PlansReply
from leadline_protocol.messages.replies.providers import ProvidersReply
from leadline_protocol.messages.replies.status import TeamspacesReply
from leadline_protocol.messages.words import Id, Name

Scope = Literal["queue", "family", "teamspace", "provider", "job"]
"""What can be paused."""


class Pause(ControlOperation[Done], tag="pause", frozen=True, kw_only=True):
    """Begin nothing new there; calls in flight finish."""

    scope: Scope
    name: Name | Id | None = None
    """Of the family, teamspace or provider; the id of the job; nothing for the queue."""

    def __post_init__(self) -> None:
        _check_target(self.scope, self.name)


class Resume(ControlOperation[Done], tag="resume", frozen=True, kw_only=True):
    """Take a pause back; a job that a guard holds, or that is quarantined, is let go too."""

    scope: Scope
    name: Name | Id | None = None

    def __post_init__(self) -> None:
        _check_target(self.scope, self.name)


def _check_target(scope: Scope, name: str | int | None) -> None:
    match scope:
        case "queue":
            if name is not None:
                raise ValueError("the queue has no name")
        case "job":
            if not isinstance(name, int):
                raise ValueError("the name of a job is its number")  # noqa: TRY004  msgspec reports a ValueError
        case "family" | "teamspace" | "provider":
            if not isinstance(name, str):
                raise ValueError(f"name the {scope}")  # noqa: TRY004  msgspec reports a ValueError
        case _:
            assert_never(scope)


class Teamspaces(ControlOperation[TeamspacesReply], tag="teamspaces", frozen=True, kw_only=True):
    """The teamspaces and what each has in the queue."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Name | None = None
    """The `next` of the page before."""
    prefix: Name | None = None
    """Only those whose names begin so."""
    most: bool = False
    """Those with the most work, delayed, queued or running; who has none is left out, and there is no next page."""

    def __post_init__(self) -> None:
        if self.most and self.after is not None:
            raise ValueError("after goes with teamspaces by name")


class Providers(ControlOperation[ProvidersReply], tag="providers", frozen=True, kw_only=True):
    """The provider accounts, their limits and who waits; with `action` try, first one real call to one of them.

    The call waits for a permit and is charged like any other. The answer comes when there is one, or refused as busy
    where there is no permit for ten seconds.
    """

    name: Name | None = None
    action: Literal["list", "try"] = "list"
    lead: dict[str, Any] | None = None
    """To try: the module's inputs by name; an endpoint that is asked by prompts has the input `prompt`."""
    teamspace: Name | None = None
    """To try: as a call of this teamspace, with its own key where it has one; absent: `leadline`."""

    def __post_init__(self) -> None:
        if self.action == "try" and (self.name is None or self.lead is None):
            raise ValueError("to try a provider give name and lead")
        if self.action != "try" and (self.lead is not None or self.teamspace is not None):
            raise ValueError("lead and teamspace go with action = try")


class Plans(ControlOperation[PlansReply], tag="plans", frozen=True, kw_only=True):
    """The limits in force; with `key` and `value`, first set an override.

    The limits are those of `teamspace`, of the plan `plan`, or of the account `provider`. The value null takes an
    override back.
    """

    plan: Name | None = None
    teamspace: Name | None = None
    provider: Name | None = None
    key: Name | None = None
    value: bool | int | float | str | list[str] | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        named = [each for each in (self.plan, self.teamspace, self.provider) if each is not None]
        if len(named) > 1:
            raise ValueError("give one of plan, teamspace and provider")
        if (self.key is None) != (self.value is UNSET):
            raise ValueError("to set a limit give key and value")
        if self.key is not None and not named:
            raise ValueError("to set a limit name the plan, the teamspace or the provider")
