"""What must hold whatever went wrong: plain functions of what was written down, each a list of sentences that should be
empty.

None of it comes from the daemon's answers to these questions: receipts are the clients' notes, calls the providers',
results and books are read from files and from the database itself when all is over.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.chaos.load import Chain, Diary, Quiet
from tests.chaos.services import Limit
from tests.world.behaviours import SECOND, company_of, score_of
from tests.world.log import Call
from tests.world.windows import worst_window

Calls = Mapping[str, Sequence[Call]]

STORED_WITHIN_US: Final = 5 * SECOND
"""What was answered so shortly before trouble began may not have been stored by then, where the machine is busy."""

HEARD_WITHIN_US: Final = 3 * SECOND
"""So late may a provider on a busy machine write down what had left before an acknowledgement; a long pause is longer.
"""

ARRIVED: Final = ("done", "failed", "throttled")
"""How a call is stored of which the daemon saw the answer."""


class Trouble(msgspec.Struct, frozen=True):
    """A fault from the moment it struck until the daemon took work again."""

    name: str
    began_us: int
    ended_us: int


class StoredJob(msgspec.Struct, frozen=True):
    """A job in the database, live or ended."""

    teamspace: str
    kind: str
    state: str
    live: bool


class Books(msgspec.Struct, frozen=True):
    """What the database holds when all is over."""

    jobs: Mapping[int, StoredJob]
    calls: Mapping[tuple[str, str], Counter[str]]
    """By account and e-mail address of the lead: how many in which state."""
    slots: int
    attempts: int


Query = Any


def read_books(query: Query) -> Books:
    """Read them; `query` asks the database itself."""
    jobs = {
        job: StoredJob(teamspace, kind, state, live)
        for job, teamspace, kind, state, live in query(
            "SELECT shown.id, shown.teamspace, shown.kind, shown.state::text, job.id IS NOT NULL"
            " FROM shown_job AS shown LEFT JOIN job ON job.id = shown.id"
        )
    }
    calls: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    rows = query(
        "SELECT call.account, lead.data->>'email', call.state, count(*) FROM call"
        " JOIN shown_job AS job ON job.id = call.job"
        " JOIN lead_table ON lead_table.teamspace = job.teamspace"
        " AND lead_table.name = convert_from(job.payload, 'UTF8')::jsonb->>'table'"
        " JOIN lead ON lead.table_id = lead_table.id AND lead.id = call.lead GROUP BY 1, 2, 3"
    )
    for account, email, state, count in rows:
        calls[account, email][state] += count
    ((slots, attempts),) = query("SELECT (SELECT count(*) FROM running_slot), (SELECT count(*) FROM attempt)")
    return Books(jobs, calls, slots, attempts)


def receipts(diary: Diary, jobs: Mapping[int, StoredJob]) -> Iterator[str]:
    """Every acknowledged job is there and has ended, each key has made one, and nothing is there that nobody sent."""
    for job in sorted(diary.unkeyed):
        yield from _is_there(job, jobs, "plain")
    plain = sum(stored.teamspace == "plain" for stored in jobs.values())
    most = len(diary.unkeyed) + diary.unkeyed_lost
    if not len(diary.unkeyed) <= plain <= most:
        yield f"{plain} unkeyed noops are stored: {len(diary.unkeyed)} have receipts, {diary.unkeyed_lost} were lost"
    for key, made in diary.keyed.items():
        if len(made) != 1:
            yield f"{key} made the jobs {sorted(made)}"
        for job in made:
            yield from _is_there(job, jobs, "keyed")
    keyed = sum(stored.teamspace == "keyed" for stored in jobs.values())
    if not len(diary.keyed) <= keyed <= len(diary.keys_sent):
        yield f"{keyed} keyed noops are stored: {len(diary.keys_sent)} keys were sent, {len(diary.keyed)} have receipts"
    workers = {chain.teamspace for chain in diary.chains}
    stored_chains = sum(stored.kind == "chain" and stored.teamspace in workers for stored in jobs.values())
    if stored_chains != sum(chain.job is not None for chain in diary.chains):
        yield f"{stored_chains} chains are stored, {len(diary.chains)} were submitted, each under a key"
    for chain in diary.chains:
        for promised in (chain.job, *chain.steps):
            if promised is not None and promised not in jobs:
                yield f"job {promised} of {chain.key} of {chain.teamspace} is gone"


def _is_there(job: int, jobs: Mapping[int, StoredJob], teamspace: str) -> Iterator[str]:
    stored = jobs.get(job)
    if stored is None:
        yield f"job {job} was acknowledged and is gone"
    elif (stored.teamspace, stored.kind) != (teamspace, "noop"):
        yield f"job {job}, acknowledged as a noop of {teamspace}, is {stored}"


def ends(diary: Diary, books: Books) -> Iterator[str]:
    """Nothing is left over, and whatever was not cancelled was completed."""
    live = [job for job, stored in books.jobs.items() if stored.live]
    if live:
        yield f"jobs {sorted(live)[:10]} have not ended"
    if books.slots or books.attempts:
        yield f"{books.slots} slots and {books.attempts} attempts are left over"
    for chain in diary.chains:
        if chain.state != "completed" and not (chain.to_cancel and chain.state == "cancelled"):
            yield f"{chain.key} of {chain.teamspace} (job {chain.job}) ended as {chain.state} ({chain.story})"


def windows(calls: Calls, limits: Mapping[str, Sequence[Limit]]) -> Iterator[str]:
    """No window of any provider has seen more than its limit, over all restarts and daemons."""
    for service, bounds in limits.items():
        for limit in bounds:
            counted = [call for call in calls[service] if limit.unit == "request" or call.method == "POST"]
            worst = worst_window([call.arrived_us for call in counted], limit.seconds)
            if worst > limit.amount:
                yield f"{service} saw {worst} {limit.unit}s within {limit.seconds:g} s, its limit is {limit.amount}"


def repeats(calls: Calls, troubles: Sequence[Trouble]) -> Iterator[str]:
    """A lead is asked about again only where trouble came between the question and the storing of its answer."""
    for service, made in calls.items():
        asked: dict[object, list[Call]] = defaultdict(list)
        for call in made:
            if call.method == "POST":
                asked[call.lead].append(call)
        for lead, same in asked.items():
            for before, again in pairwise(same):
                ended_us = before.ended_us or again.arrived_us
                if not any(
                    trouble.began_us <= min(again.arrived_us, ended_us + STORED_WITHIN_US)
                    and before.arrived_us <= trouble.ended_us
                    for trouble in troubles
                ):
                    between = (again.arrived_us - ended_us) / SECOND
                    yield f"{service} was asked about {lead} again {between:.2f} s after its answer, without need"


def quiet(calls: Calls, quiets: Sequence[Quiet]) -> Iterator[str]:
    """After a pause or a cancel was acknowledged no new call begins."""
    for each in quiets:
        for service, made in calls.items():
            if each.service not in (None, service):
                continue
            late = [
                call
                for call in made
                if call.arrived_us > each.from_us + HEARD_WITHIN_US
                and (each.until_us is None or call.arrived_us < each.until_us)
                and (each.emails is None or call.lead in each.emails)
            ]
            if late:
                after = (late[0].arrived_us - each.from_us) / SECOND
                yield f"{len(late)} calls reached {service} after the {each.why}, the first {after:.2f} s later"


def books_balance(calls: Calls, books: Books) -> Iterator[str]:
    """For each lead: what the provider saw is what was stored as answered, and at most what nobody knows besides."""
    seen: Counter[tuple[str, str]] = Counter()
    for service, made in calls.items():
        for call in made:
            seen[service, str(call.lead)] += 1
    for where in sorted(seen.keys() | books.calls.keys(), key=str):
        stored = books.calls.get(where, Counter())
        least = sum(stored[state] for state in ARRIVED)
        most = least + stored["unknown"]
        if stored["sent"]:
            yield f"a call to {where} is stored as sent although all is over"
        if not least <= seen[where] <= most:
            yield f"{where[0]} saw {seen[where]} calls about {where[1]}, stored are {dict(stored)}"


def tables(chains: Sequence[Chain], exports: Path) -> Iterator[str]:
    """The file that a completed chain has written holds each of its leads once, with everything that was asked for."""
    for chain in chains:
        if chain.state != "completed":
            continue
        path = exports / chain.export
        if not path.exists():
            yield f"the export of {chain.key} of {chain.teamspace} (job {chain.job}) does not exist"
            continue
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        found = sorted((row["email"], row) for row in rows)
        if sorted(row["email"] for row in rows) != sorted(chain.emails):
            yield f"{path.name} has {len(rows)} rows for {len(chain.emails)} leads"
            continue
        numbers = {email: n for n, email in enumerate(chain.emails)}
        for email, row in found:
            company = company_of(email)
            wanted = {
                "email": email,
                "n": str(numbers[email]),
                "twice": str(2 * numbers[email]),
                "company": company["company"],
                "country": company["country"],
                "score": str(score_of(email)),
            }
            if row != wanted:
                yield f"{path.name} says {row}, it should say {wanted}"
