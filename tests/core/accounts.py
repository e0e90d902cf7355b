"""Provider accounts as tests make them, and what they ask of them."""

from leadline.core.provider_account import ProviderAccount
from leadline.core.rate_limit import (
    Cost,
    Limit,
    Unit,
    WindowLimit,
)
from leadline_protocol.ids import AccountName, CallId, Instant, TeamspaceId
from tests.core.provider_side import SECOND, START

A, B = TeamspaceId(1), TeamspaceId(2)
REQUEST = Cost(request=1)
LEAD = Cost(request=1, lead=1)
SNOV = (WindowLimit(60, 60), WindowLimit(15, 60, Unit.LEAD))


def instant(seconds: float) -> Instant:
    return Instant(START + round(seconds * SECOND))


def account(*limits: Limit, interactive_share: float = 0.0, pace_per_second: float | None = None) -> ProviderAccount:
    return ProviderAccount(
        AccountName("x"), limits, interactive_share=interactive_share, pace_per_second=pace_per_second
    )


def paced(per_second: float) -> ProviderAccount:
    return account(pace_per_second=per_second)


def leaving(account: ProviderAccount, second: float) -> list[CallId]:
    """The calls that are granted at that time, and leave at once."""
    granted = account.grants(instant(second))
    for call in granted:
        account.sent(call, instant(second))
    return granted


def asking(account: ProviderAccount, *calls: int, teamspace: TeamspaceId = A, cost: Cost = REQUEST) -> None:
    for call in calls:
        assert account.ask(CallId(call), teamspace=teamspace, order=0, cost=cost) is None


def flying(*calls: int) -> ProviderAccount:
    """An account without limits and with these calls sent."""
    fresh = account()
    asking(fresh, *calls)
    for call in fresh.grants(instant(0)):
        fresh.sent(call, instant(0))
    return fresh
