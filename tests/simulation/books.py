"""When everything is over: what the providers logged against what the store holds, and what became of each lead.

A provider's log cannot be talked out of anything. Every line of it must be a call that was stored beforehand, and have
come to the end there that the provider gave it, or to none that anybody knows; every end that was stored must be in
it. And whoever was called twice had a reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec

from leadline.core.model import JobState
from leadline.core.rate_limit import Cost
from leadline.features.tables.lead_course import LOST
from leadline_protocol.ids import JobId, LeadId
from tests.simulation.provider import Provider
from tests.simulation.store import Store
from tests.simulation.violation import Violation
from tests.simulation.witness import Witness

_ENDS: Final = {
    "throttled": {"throttled", "unknown"},
    "server_error": {"failed", "unknown"},
    "hang": {"unknown"},
    "cut": {"unknown"},
}
"""As what a call may be stored that a provider ended so."""
_GOOD: Final = {"done", "unknown"}
"""As what one may be that it answered well."""


def check_books(store: Store, witness: Witness, providers: Iterable[Provider]) -> None:
    """Raises Violation."""
    _check_receipts(store, witness)
    seen: dict[int, str] = {}
    for provider in providers:
        _check_log(store, provider, seen)
    for call, stored in store.calls.items():
        if stored.state in {"done", "failed", "throttled"} and call not in seen:
            raise Violation(f"call {call} is stored as {stored.state}, and no provider has seen it")
    _check_leads(store, providers)


def _check_receipts(store: Store, witness: Witness) -> None:
    for job, key in witness.receipts.items():
        if job not in store.ended:
            raise Violation(f"job {job} was acknowledged (under {key}) and has not ended")
    keys = Counter(new.key.key_hash for new in store.submitted.values() if new.key is not None)
    if keys and max(keys.values()) > 1:
        raise Violation(f"one key made several jobs: {keys.most_common(1)}")
    for key in witness.refused:
        if key.encode() in keys:
            raise Violation(f"{key} was refused, and there is a job under it")
    if store.slots:
        raise Violation(f"slots {store.slots} are held by nobody")


def _check_log(store: Store, provider: Provider, seen: dict[int, str]) -> None:
    for line in provider.log:
        name = provider.offer.name
        stored = store.calls.get(line.call)
        if line.call in seen:
            raise Violation(f"{name} saw call {line.call} twice")
        if stored is None or stored.state not in _ENDS.get(line.outcome, _GOOD):
            raise Violation(f"{name} saw call {line.call} ({line.outcome}), which is stored as {stored}")
        seen[line.call] = line.outcome


def _check_leads(store: Store, providers: Iterable[Provider]) -> None:
    """Whoever was called twice had a reason; who completed left no lead out."""
    good = Counter(
        (line.job, line.lead)
        for provider in providers
        for line in provider.log
        if line.is_lead and line.outcome not in _ENDS
    )
    by_lead: defaultdict[tuple[JobId, LeadId], list[str]] = defaultdict(list)
    for call in store.calls.values():
        polled = call.row.account == "snov" and not msgspec.json.decode(call.row.cost, type=Cost).lead
        by_lead[call.row.job, call.row.lead].append("poll" if polled else f"{call.state} {call.cause}".strip())
    for (job, lead), ends in by_lead.items():
        story = f"job {job}, lead {lead}: {ends}"
        if "done" in ends[:-1] and any(end != "poll" for end in ends[ends.index("done") + 1 :]):
            raise Violation(f"called again after a good answer: {story}")
        if ends.count(f"unknown {LOST}") > 2:
            raise Violation(f"called again after two lost calls: {story}")
        if "sent" in ends:
            raise Violation(f"a call that never ended: {story}")
        unknown = sum(end.startswith("unknown") for end in ends)
        if good[job, lead] > 1 + unknown:
            raise Violation(f"charged {good[job, lead]} times: {story}")
    for (job, lead), state in store.results.items():
        if state == "done" and not good[job, lead]:
            raise Violation(f"job {job}, lead {lead} is done, and no provider has answered: {by_lead[job, lead]}")
    for job, ended in store.ended.items():
        if ended.state in {JobState.COMPLETED, JobState.PARTIAL} and store.submitted[job].payload:
            counts = store.counts(job, store.plan(job).leads)
            if counts.pending:
                raise Violation(f"job {job} is {ended.state} with {counts}")
