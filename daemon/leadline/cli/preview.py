"""What a submission would take, as a table: the end of `submit --dry-run` and `chain run --dry-run`."""

from collections.abc import Iterator

from leadline.cli import terminal
from leadline.cli.words import counted, number, per, shown, span
from leadline_protocol.messages import LimitNeed, Preview, StepPreview

VALUE_CHARACTERS_MAX = 40


def show(preview: Preview, *, json: bool) -> None:
    """Show what each step would take, and what a formula would write."""
    if json:
        terminal.json_line(preview)
        return
    terminal.columns(
        ("STEP", "KIND", "TABLE", "LEADS", "ASKED", "TAKES", "AT LEAST"),
        [
            (
                str(place),
                step.kind,
                shown(step.table or ""),
                _leads(step),
                _asked(step),
                ", ".join(counted(amount, unit) for unit, amount in step.units.items()),
                span(step.seconds_at_least) if step.units else "",
            )
            for place, step in enumerate(preview.steps, start=1)
        ],
        right=("STEP", "AT LEAST"),
    )
    for place, step in enumerate(preview.steps, start=1):
        for line in _remarks(step):
            terminal.say(f"Step {place}: {line}")
    for place, step in enumerate(preview.steps, start=1):
        if step.trials:
            terminal.say()
            terminal.say(f"Step {place} on the first {counted(len(step.trials), 'lead')}:")
            terminal.columns(
                ("LEAD", "BEFORE", "AFTER", "FAILS"),
                [(str(each.lead), _value(each.before), _value(each.after), each.reason or "") for each in step.trials],
                right=("LEAD",),
            )
    terminal.say()
    terminal.say(f"Nothing was submitted. It would take {span(preview.seconds_at_least)} at least.")


def _leads(step: StepPreview) -> str:
    if step.table is None or step.size_bytes is not None:
        return ""
    if step.leads is None:
        return "known when its turn comes"
    would = {"skip": " (its guard skips it)", "hold": " (its guard holds it)"}.get(step.guard or "", "")
    return number(step.leads) + would


def _asked(step: StepPreview) -> str:
    if step.provider is None:
        return ""
    if step.asked is None:
        return f"? of {shown(step.provider)}"
    about = "about " if step.sampled is not None else ""
    return f"{about}{number(step.asked)} of {shown(step.provider)}"


def _remarks(step: StepPreview) -> Iterator[str]:
    for limit in step.limits:
        if limit.needed > limit.amount:
            yield f"{shown(step.provider or 'the database')} allows {_limit(limit)}."
    if step.credits is not None:
        most = "about" if step.sampled is not None else "at most"
        yield f"{most} {step.credits:f} {'credit' if step.credits == 1 else 'credits'}."
    if step.sampled is not None:
        yield f"estimated from {counted(step.sampled, 'lead')}."
    for warning in step.warnings:
        yield f"{terminal.paint('Warning:', 'yellow')} {shown(warning.message)}"


def _limit(limit: LimitNeed) -> str:
    amount = counted(limit.amount, limit.unit)
    return f"{amount} a day" if limit.per_seconds is None else f"{amount} in any {per(limit.per_seconds)}"


def _value(value: object) -> str:
    """A cell; cut where it is long, as this is for a look."""
    import msgspec

    if value is None:
        return ""
    text = shown(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"
