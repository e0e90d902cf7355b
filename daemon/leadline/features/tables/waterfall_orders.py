"""The bulk orders of a waterfall: leads gather, are ordered together, and go on each by itself.

What an order brings about a lead is stored as it comes, by whoever has made the orders; here it is only told to whoever
follows the lead, which then has its result or goes to the next provider. After a restart the orders that an earlier
attempt has kept are gone on with at once, and their leads wait for them before they are asked about anywhere else.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from anyio.abc import TaskGroup

from leadline.features.tables.bulk import BulkOrders
from leadline.features.tables.columns import Cells
from leadline.features.tables.gathering import TOGETHER_MAX, Gathering, Together, Way
from leadline.features.tables.lead_course import Settle
from leadline.features.tables.ports import BulkOrder, CutOff
from leadline.ports.work import AccountClosed, Parked, Stopped
from leadline_protocol.ids import AccountName, LeadId


class WaterfallOrders:
    """Has leads ordered at the providers of a waterfall that take many at a time."""

    def __init__(
        self,
        tasks: TaskGroup,
        accounts: Sequence[AccountName],
        orders: Mapping[AccountName, BulkOrders],
        refused: Callable[[AccountName], None],
    ) -> None:
        """`accounts`: all that are asked, in their order; `refused` is told whose key was."""
        self._tasks = tasks
        self._accounts = accounts
        self._orders = orders
        self._refused = refused
        self._awaited: dict[AccountName, dict[LeadId, Together]] = {account: {} for account in orders}
        self.gathering = Gathering(len(accounts), self._begin)

    async def ask(self, place: int, lead: LeadId, cells: Cells, way: Way, onward: int) -> Settle | None:
        """What the account at a place says of a lead; None where it cannot be asked. Raises Stopped.

        `onward`: the place to which its way leads from there. Behind the places of all accounts they come once more,
        for those who wait until they can be asked.
        """
        account = self._accounts[place % len(self._accounts)]
        awaited = self._awaited[account]
        together = awaited.get(lead)
        if together is None:
            together = awaited[lead] = Together(lead, cells)
            self.gathering.join(place, together, min(TOGETHER_MAX, self._orders[account].size))
        way.leads_to(onward)  # not before it has joined: it may be the last that could
        try:
            return await together.end()
        finally:
            del awaited[lead]

    def awaits(self, account: AccountName, lead: LeadId) -> bool:
        """Whether anybody follows this lead at that account."""
        return lead in self._awaited[account]

    def came(self, account: AccountName, lead: LeadId, end: Settle) -> None:
        """An order has brought this about a lead, and it is on its way to be stored."""
        if (together := self._awaited[account].get(lead)) is not None:
            together.came_to(end)

    def resume(self, kept: BulkOrder, leads: Mapping[LeadId, Cells], cut_off: Sequence[CutOff]) -> None:
        """Go on with an order that an earlier attempt has kept; these of its leads will be asked about."""
        waiting = [Together(lead, cells) for lead, cells in leads.items()]
        self._awaited[kept.account].update((each.lead, each) for each in waiting)
        resume = partial(self._orders[kept.account].resume, kept, cut_off)
        self._tasks.start_soon(self._follow, kept.account, resume, waiting)

    def _begin(self, place: int, gathered: Sequence[Together]) -> None:
        account = self._accounts[place % len(self._accounts)]
        leads = [(each.lead, each.cells) for each in gathered]
        order = partial(self._orders[account].order, leads, patient=place >= len(self._accounts))
        self._tasks.start_soon(self._follow, account, order, gathered)

    async def _follow(
        self, account: AccountName, order: Callable[[], Awaitable[None]], leads: Sequence[Together]
    ) -> None:
        try:
            await order()
        except Stopped:
            for each in leads:
                each.stop()
        except AccountClosed:
            self._refused(account)
        except Parked:
            pass
        for each in leads:
            each.came_to(None)
