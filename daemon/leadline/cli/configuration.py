"""`config check` and `config show`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from leadline import config as configuration
from leadline.cli import terminal
from leadline.cli.daemon import NoDaemon, Place, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.words import shown
from leadline.config import Config
from leadline_protocol.errors import LeadlineError
from leadline_protocol.messages import Plans

config = App(name="config", help="Check the configuration, or show it.")


@config.command
def check(
    file: Annotated[Path | None, Parameter(help="The file, in place of the one that the daemon would read.")] = None,
    /,
    *,
    place: Placed,
) -> None:
    """Check the configuration file, and say everything that is wrong with it; the exit status is then 2."""
    loaded = configuration.load(file or place.config)
    check_providers(loaded)
    if loaded.path is None:
        terminal.say("There is no configuration file: everything is as it is built in.")
    else:
        terminal.say(f"{shown(str(loaded.path))} is sound.")
    if (warning := outreach_warning(loaded.outreach)) is not None:
        terminal.remark(f"Warning: {warning}.")


def outreach_warning(outreach: configuration.Outreach) -> str | None:
    """Whether what is queued at a time takes longer than until the next time; None: it does not."""
    from datetime import UTC, datetime
    from itertools import islice, pairwise

    from leadline.core.calendar.occurrences import occurrences
    from leadline.core.calendar.schedules import read_schedule
    from leadline_protocol.ids import Instant
    from leadline_protocol.schedules import Cron

    since = Instant(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000)
    times = [each.instant for each in islice(occurrences(read_schedule(Cron(outreach.queue_cron, "UTC")), since), 200)]
    gap = min((later - earlier for earlier, later in pairwise(times)), default=0) // 1_000_000
    takes = outreach.queue_limit * outreach.spacing_seconds
    if not gap or takes <= gap:
        return None
    return (
        f"outreach.queue_limit {outreach.queue_limit} times outreach.spacing_seconds {outreach.spacing_seconds} is"
        f" {takes} s, and outreach.queue_cron queues again after {gap} s: what is queued then joins a line that is not"
        " done yet"
    )


def check_providers(loaded: Config) -> None:
    """Read the modules of the providers, and ask those in Python. Raises ConfigError with every fault of them."""
    from leadline import accounts

    faults: list[configuration.Fault] = []
    try:
        accounts.endpoints_of(loaded)
    except configuration.ConfigError as error:
        faults += error.faults
    faults += accounts.module_faults(loaded)
    if faults:
        raise configuration.ConfigError(faults)


@config.command
def show(*, place: Placed, json: Json = False) -> None:
    """Show every key with its value and where that comes from: built-in, toml, or set in the running daemon."""
    overrides = _overrides(place)
    rows: list[tuple[str, Any, str]] = []
    for setting in configuration.describe(configuration.load(place.config)):
        value, source = overrides.get(setting.key, (setting.value, setting.source))
        rows.append((setting.key, value, source))
    if json:
        for key, value, source in rows:
            terminal.json_line({"key": key, "value": value, "source": source})
        return
    terminal.columns(
        ("KEY", "FROM", "VALUE"),
        [
            (shown(key), source, "(absent)" if value is None else shown(configuration.toml_text(value)))
            for key, value, source in rows
        ],
    )


def _overrides(place: Place) -> dict[str, tuple[Any, str]]:
    """The limits that were set in the daemon, if one can be asked."""
    try:
        with control(place) as daemon:
            plans = daemon.client.call(Plans()).plans
    except (NoDaemon, LeadlineError):
        return {}
    return {
        configuration.key_of("plans", plan.plan or "", limit.key): (limit.value, limit.source)
        for plan in plans
        for limit in plan.limits
        if limit.source == "override"
    }
