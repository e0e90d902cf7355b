"""Which leads of an enrichment are to be asked about, read right before their turn.

A lead that needs no asking is settled on the way: it is there no more, its condition is false, a job that this one
repeats has paid for it, or it lacks an input.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from leadline.features.tables.bulk import Settling
from leadline.features.tables.columns import Cells
from leadline.features.tables.enrichment_plan import Plan
from leadline.features.tables.lead_course import Settle
from leadline.features.tables.ports import Answers, JobList, LeadStore, Table
from leadline.ports.work import Attempt
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName, JobId, LeadId

PAGE_LEADS: Final = 64
"""Leads whose cells are read together."""


class Due(Struct, frozen=True):
    """A lead whose turn it is."""

    lead: LeadId
    cells: Cells
    answers: Mapping[AccountName, Answers] = {}
    """What accounts have said about it in earlier attempts."""
    ordered: AccountName | None = None
    """The account that an earlier attempt has ordered it of, together with others."""


class DueLeads:
    """The leads of one attempt."""

    def __init__(
        self,
        leads: LeadStore,
        attempt: Attempt,
        table: Table,
        plan: Plan,
        frozen: JobList,
        run: JobId,
        settle: Settling,
    ) -> None:
        """`run`: the first of the job and its reruns."""
        self._leads = leads
        self._attempt = attempt
        self._table = table
        self._plan = plan
        self._frozen = frozen
        self._run = run
        self._settle = settle

    async def answers(self, leads: Sequence[LeadId]) -> Mapping[LeadId, Mapping[AccountName, Answers]]:
        """What accounts have said about these leads in earlier attempts."""
        answers: dict[LeadId, dict[AccountName, Answers]] = {}
        if self._attempt.number > 1:
            for each in await self._leads.answers(self._attempt.job.id, leads):
                answers.setdefault(each.lead, {})[each.account] = each
        return answers

    async def pages(self, ordered: frozenset[LeadId]) -> AsyncIterator[Sequence[Due]]:
        """The leads to ask about, page by page in the order of the list.

        `ordered` are left out: they are in orders that the provider has already.
        """
        number = 0
        while chunk := await self._leads.chunk(self._frozen, number):
            number += 1
            unsettled = await self._leads.unsettled(self._attempt.job.id, chunk)
            open_leads = [lead for lead in unsettled if lead not in ordered]
            for start in range(0, len(open_leads), PAGE_LEADS):
                yield await self._page(open_leads[start : start + PAGE_LEADS])

    async def _page(self, page: Sequence[LeadId]) -> Sequence[Due]:
        leads, plan, job = self._leads, self._plan, self._attempt.job
        found = await leads.leads(self._table.id, page)
        wanted = None
        if plan.run_if is not None:
            wanted = await leads.matching(self._table, page, plan.run_if)
        paid: frozenset[LeadId] = frozenset()
        if job.rerun_of is not None:
            paid = await leads.paid_elsewhere(self._run, job.id, page)
        answers = await self.answers(page)
        due: list[Due] = []
        for lead in page:
            cells = found.get(lead)
            if cells is None:
                await self._settle(lead, Settle("skipped", LeadReason.DELETED))
            elif wanted is not None and lead not in wanted:
                await self._settle(lead, Settle("skipped", LeadReason.RUN_IF))
            elif lead in paid:
                await self._settle(lead, Settle("skipped", LeadReason.PAID_BEFORE))
            elif missing := plan.missing(cells):
                await self._settle(lead, Settle("skipped", LeadReason.MISSING_INPUT, ", ".join(missing)))
            else:
                due.append(Due(lead, cells, answers.get(lead, {})))
        return due
