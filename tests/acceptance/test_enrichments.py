"""Which leads an enrichment asks about, when its list is long and the table changes meanwhile."""

from collections import Counter
from typing import Final

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason, LeadReason
from tests.acceptance.stage import World, people, provider, stage
from tests.world import behaviours

LEADS: Final = 300
FIRST: Final = 290
"""The test run takes so many."""

BEHIND: Final = range(280, FIRST)
"""Leads whose turn does not come before some of those before them are done."""


def test_the_list_stays_as_it_was_frozen_and_each_lead_is_taken_as_it_is_when_its_turn_comes(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="company")
    gone, unmatched, renamed, odd = BEHIND[0], BEHIND[2], BEHIND[4], BEHIND[6]
    with stage(provider("company", served)) as daemon:
        daemon.table("acme", "people", [{**each, "wanted": int(str(each["n"])) % 2 == 0} for each in people(LEADS)])
        daemon.ask(wire.Pause(scope="provider", name="company"))
        job = daemon.submit(
            wire.Enrich(
                teamspace="acme",
                table="people",
                module="company",
                into={"company": "text"},
                where="n >= 0",
                run_if="wanted",
                first=FIRST,
            )
        ).job
        (table,) = daemon.ask(wire.Tables(teamspace="acme", table="people")).tables
        assert "company" in {column.name for column in table.columns}, "from the receipt on, and empty"
        daemon.until(job, lambda view: JobReason.PAUSED in {wait.reason for wait in view.waits})
        daemon.query("DELETE FROM lead WHERE data->>'n' = $1", str(gone))
        for n, change in (
            (unmatched, '{"n": -1}'),
            (renamed, '{"email": "renamed@example.com"}'),
            (odd, '{"wanted": false}'),
        ):
            daemon.query("UPDATE lead SET data = data || $2::text::jsonb WHERE data->>'n' = $1", str(n), change)
        daemon.query(
            'INSERT INTO lead SELECT table_id, 9999, data || \'{"email": "late@example.com"}\' FROM lead WHERE id = 1'
        )
        daemon.ask(wire.Resume(scope="provider", name="company"))
        view = daemon.ended(job)
        reasons = Counter(
            reason
            for (reason,) in daemon.query("SELECT reason FROM lead_result WHERE job = $1 AND reason IS NOT NULL", job)
        )
        assert (view.state, view.counts.total) == ("completed", FIRST)
        assert reasons == {LeadReason.DELETED: 1, LeadReason.RUN_IF: FIRST // 2 + 1}
        assert view.counts.done == FIRST // 2 - 2
        asked = Counter(call.lead for call in served.calls)
        wanted = {str(each["email"]) for each in people(FIRST)[::2]}
        left_out = {str(people(LEADS)[n]["email"]) for n in (gone, renamed, odd)}
        assert asked == Counter(wanted - left_out | {"renamed@example.com"})
        assert str(people(LEADS)[unmatched]["email"]) in asked, "it matched when the list was frozen"
