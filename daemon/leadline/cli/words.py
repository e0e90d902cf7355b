"""Times, spans, amounts and jobs in words, as a person would say them. Pure: the present is an argument."""

import re
from datetime import datetime, timedelta
from typing import Final

from leadline_protocol.errors import JOB_REASONS, JobReason
from leadline_protocol.messages import Counts, Eta, JobView, LeadErrors, Wait

_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that would act on a terminal, or turn the text beside them round, instead of being shown."""


def shown(text: str) -> str:
    """A text from outside on one line, in which nothing acts on the terminal."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def number(amount: float) -> str:
    """An amount: 1,940 or 12.5."""
    if amount == round(amount):
        return f"{round(amount):,}"
    return f"{amount:,.1f}" if abs(amount) >= 0.1 else f"{amount:.2g}"


def counted(amount: float, thing: str) -> str:
    """So many things: `1 job`, `2 jobs`."""
    return f"{number(amount)} {thing}{'' if amount == 1 else 's'}"


def size(amount_bytes: float) -> str:
    """An amount of bytes: 4.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(amount_bytes) < 1000:
            return f"{amount_bytes:.3g} {unit}"
        amount_bytes /= 1000
    return f"{amount_bytes:,.3g} TB"


def span(seconds: float) -> str:
    """A duration, in its two largest units: 4 ms, 1.5 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 0.9995:
        return f"{max(0, round(1000 * seconds))} ms" if seconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    rest = round(seconds)
    for large, large_unit, small, small_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if rest >= large:
            more = rest % large // small
            return f"{rest // large} {large_unit}" + (f" {more} {small_unit}" if more else "")
    return f"{rest} s"


def clock(moment: datetime, now: datetime, *, seconds: bool = True) -> str:
    """A time in the zone of `now`: 14:02:11 today, 21 Nov 14:02 this year, else 2025-11-21 14:02."""
    local = moment.astimezone(now.tzinfo)
    if local.date() == now.date():
        return f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    if local.year == now.year:
        return f"{local.day} {_MONTHS[local.month - 1]} {local:%H:%M}"
    return f"{local:%Y-%m-%d %H:%M}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, or in what time: `3 min 20 s ago`, `in 12 s`."""
    seconds = (now - moment).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def seconds_between(earlier: datetime, later: datetime) -> float:
    """The time between, never negative."""
    return max(timedelta(), later - earlier).total_seconds()


def time_left(ends: Eta | None, now: datetime) -> str:
    """How long until something ends: `4 min to 5 min 10 s left`; empty where nobody knows, or knew better."""
    if ends is None or ends.latest <= now:
        return ""
    soonest, latest = span(seconds_between(now, ends.earliest)), span(seconds_between(now, ends.latest))
    return f"{latest} left" if soonest == latest else f"{soonest} to {latest} left"


def expected(eta: Eta, now: datetime) -> str:
    """When something is expected: `at 14:02:11, in 4 min`, `between 14:02:11 and 14:03:20: in 4 min to 5 min 9 s`."""
    soonest, latest = seconds_between(now, eta.earliest), seconds_between(now, eta.latest)
    if not latest:
        return "now"
    if eta.earliest == eta.latest:
        return f"at {clock(eta.latest, now)}, in {span(latest)}"
    return f"between {clock(eta.earliest, now)} and {clock(eta.latest, now)}: in {span(soonest)} to {span(latest)}"


def percent(part: float, whole: float) -> str:
    """A part of a whole, rounded down, so that 100 % means all: 38 %."""
    return f"{int(100 * part / whole)} %" if whole else "0 %"


def settled(counts: Counts) -> int:
    """Leads that need nothing more."""
    return counts.total - counts.pending


def progress(counts: Counts) -> str:
    """How far a job is, in a column: `1,940 of 5,000 38 %`; nothing where there are no leads."""
    if not counts.total:
        return ""
    if not counts.pending:
        return number(counts.total)
    return f"{number(settled(counts))} of {number(counts.total)} {percent(settled(counts), counts.total)}"


def outcome(counts: Counts) -> str:
    """What became of the leads: `4,940 of 5,000 done, 60 failed`."""
    if not counts.total:
        return "0 leads"
    parts = [
        f"{number(getattr(counts, word))} {word}"
        for word in ("failed", "skipped", "unknown", "pending")
        if getattr(counts, word)
    ]
    whole = "all " if counts.done == counts.total else f"{number(counts.done)} of "
    return ", ".join([f"{whole}{number(counts.total)} done", *parts])


def errors_sentence(errors: LeadErrors) -> str:
    """Why leads were not done: `312 leads failed: not found; e.g. lead 41: no such domain, lead 42.`"""
    rows = any(sample.row is not None for sample in errors.samples)
    thing = "row" if rows else "lead"
    samples = [
        f"{thing} {sample.row if rows else sample.lead}" + (f": {shown(sample.detail)}" if sample.detail else "")
        for sample in errors.samples
    ]
    told = f"{counted(errors.leads, thing)} {errors.state}: {errors.reason.replace('_', ' ')}"
    return f"{told}; e.g. {', '.join(samples)}."


def title(view: JobView) -> str:
    """What a job is: `enrich of prospects for acme`."""
    table = f" of {shown(view.table)}" if view.table else ""
    return f"{view.kind}{table} for {shown(view.teamspace)}"


def why_so(state: str, message: str | None, reason: str | None) -> str:
    """Why a job ended as it did, where that says more than the state: `the provider refused the credential`."""
    text = shown(message or JOB_REASONS.get(reason) or reason or "")  # type: ignore[call-overload]  # a newer word may come
    return "" if text == state else text


def wait_sentence(wait: Wait, now: datetime) -> str:
    """What a job waits for, and until when, in full sentences with the numbers."""
    sentence = shown(wait.message or JOB_REASONS.get(wait.reason) or str(wait.reason)).rstrip(".")
    if wait.until is None:
        return f"{sentence}."
    seconds = seconds_between(now, wait.until)
    if not seconds:
        return f"{sentence}; that is over now."
    match wait.reason:
        case JobReason.LIMIT if "pace_per_second" in wait.numbers:
            ending = "the next call goes"
        case JobReason.LIMIT:
            ending = "the next frees"
        case JobReason.DELAYED:
            ending = "it comes"
        case _:
            ending = "it goes on"
    return f"{sentence}; {ending} in {span(seconds)} ({clock(wait.until, now)})."


def wait_note(wait: Wait, now: datetime) -> str:
    """The same in short, with the time first: what comes last may be cut."""
    sentence = shown(wait.message or JOB_REASONS.get(wait.reason) or str(wait.reason)).rstrip(".")
    seconds = 0.0 if wait.until is None else seconds_between(now, wait.until)
    return f"in {span(seconds)} · {sentence}" if seconds else sentence


def per(seconds: float) -> str:
    """A period that amounts are counted in: `60 s`, `hour`."""
    return {3600: "hour", 86_400: "day"}.get(round(seconds)) or (f"{seconds:g} s" if seconds <= 600 else span(seconds))


def pace(per_second: float) -> str:
    """How evenly calls are spread: `a call every 2 s`, `20 calls a second, evenly`."""
    if per_second > 1:
        return f"{per_second:g} calls a second, evenly"
    return f"a call every {per(round(1 / per_second, 2))}"


def note(view: JobView, now: datetime) -> str:
    """The one thing worth saying of a job in a list."""
    parts = []
    if view.chain is not None:
        parts.append(f"step {view.step} of {view.chain}")
    if view.stalled:
        parts.append("STALLED")
    if view.ended_at is not None:
        if reason := why_so(view.state, view.message, view.reason):
            parts.append(reason)
        elif view.counts.failed:
            parts.append(f"{number(view.counts.failed)} failed")
        parts.extend(shown(warning.message) for warning in view.warnings)
    elif view.waits:
        parts.append(wait_note(view.waits[0], now))
        if len(view.waits) > 1:
            parts.append(f"and {len(view.waits) - 1} more: leadline why {view.job}")
    else:
        if view.activity:
            parts.append(shown(view.activity))
        if view.leads_per_second:
            parts.append(f"{number(view.leads_per_second)}/s")
    return " · ".join(parts)
