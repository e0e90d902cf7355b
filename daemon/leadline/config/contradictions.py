"""Rules that join several keys; they are judged where none of these keys is at fault by itself."""

from collections.abc import Iterator

from leadline.config.faults import Fault, joined, listed
from leadline.config.keys import Config, Notices, Outreach, OwnKey, Provider, PythonModule
from leadline.core.rate_limit import RateLimiter
from leadline_protocol.errors import Refused


def contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], Fault]]:
    """What is wrong with keys together: the fault, and the keys that must each be right by themselves to judge it."""
    queue = config.queue
    plans = listed(config.plans)
    if queue.default_plan not in config.plans:
        yield ("queue.default_plan",), Fault("queue.default_plan", f"must be one of the plans {plans}")
    if queue.warn_after_seconds >= queue.stall_after_seconds:
        yield (
            ("queue.warn_after_seconds", "queue.stall_after_seconds"),
            Fault(
                "queue.warn_after_seconds",
                f"must be less than queue.stall_after_seconds, which is {queue.stall_after_seconds}",
            ),
        )
    for name, teamspace in config.teamspaces.items():
        if teamspace.plan not in config.plans:
            path = joined(joined("teamspaces", name), "plan")
            yield (path, joined("plans", teamspace.plan)), Fault(path, f"must be one of the plans {plans}")
    for name, provider in config.providers.items():
        yield from _provider_contradictions(provider, joined("providers", name), config.given)
    for name, module in config.modules.items():
        path = joined("modules", name)
        if name in config.providers:
            yield (path, joined("providers", name)), Fault(path, "a provider has this name")
        yield from _key_contradictions(module, path, config.given)
    yield from _notice_contradictions(config.notices, config.given)
    yield from _outreach_contradictions(config.outreach, config.given)


def _notice_contradictions(notices: Notices, given: frozenset[str]) -> Iterator[tuple[tuple[str, ...], Fault]]:
    for position, network in enumerate(notices.allow_networks):
        if not _is_network(network):
            path = f"notices.allow_networks[{position}]"
            yield (path,), Fault(path, f"must be a network such as 10.1.0.0/16, not {network}")
    if notices.smtp.host is not None and notices.sender is None:
        yield ("notices.smtp.host", "notices.sender"), Fault("notices.sender", "is missing; mails come from somebody")
    places = ["notices.smtp"]
    for name, each in notices.teamspaces.items():
        path = joined("notices.teamspaces", name)
        places.append(path)
        if each.mail and notices.smtp.host is None:
            yield (f"{path}.mail", "notices.smtp.host"), Fault(f"{path}.mail", "needs notices.smtp.host")
        if each.webhook is None and not each.mail:
            yield (f"{path}.webhook", f"{path}.mail"), Fault(path, "needs a webhook or mail")
    for path in places:
        if {f"{path}.secret", f"{path}.secret_file"} <= given:
            yield (), Fault(path, "may have a secret or a secret_file, not both")


def _outreach_contradictions(outreach: Outreach, given: frozenset[str]) -> Iterator[tuple[tuple[str, ...], Fault]]:
    for key in ("queue_cron", "weekday_cron", "weekend_cron"):
        path = f"outreach.{key}"
        if (fault := cron_fault(getattr(outreach, key))) is not None:
            yield (path,), Fault(path, fault)
    if outreach.unsubscribe_url is not None and not outreach.unsubscribe_url.startswith("https://"):
        path = "outreach.unsubscribe_url"
        yield (path,), Fault(path, "must begin with https://: mail programs take nothing else")
    if {"outreach.smtp.secret", "outreach.smtp.secret_file"} <= given:
        yield (), Fault("outreach.smtp", "may have a secret or a secret_file, not both")


def cron_fault(line: str) -> str | None:
    """What is wrong with a cron line; None: nothing."""
    from leadline.core.calendar.schedules import read_schedule
    from leadline_protocol.schedules import Cron

    try:
        read_schedule(Cron(line, "UTC"))
    except Refused as refused:
        return refused.message
    return None


def _is_network(text: str) -> bool:
    from ipaddress import ip_network

    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _provider_contradictions(
    provider: Provider, path: str, given: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], Fault]]:
    module, preset = (f"{path}.{key}" for key in ("module", "preset"))
    if provider.module is None and provider.preset is None:
        yield (module, preset), Fault(path, "needs a module or a preset")
    if {module, preset} <= given:
        yield (), Fault(path, "may have a module or a preset, not both")
    yield from _key_contradictions(provider, path, given)
    for teamspace, key in provider.own.items():
        place = joined(joined(path, "own"), teamspace)
        if key.secret is None and key.secret_file is None:
            yield (f"{place}.secret", f"{place}.secret_file"), Fault(place, "needs a secret or a secret_file")
        yield from _key_contradictions(key, place, given)


def _key_contradictions(
    key: Provider | OwnKey | PythonModule, path: str, given: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], Fault]]:
    secret, secret_file, limits = (f"{path}.{name}" for name in ("secret", "secret_file", "limits"))
    if {secret, secret_file} <= given:
        yield (), Fault(path, "may have a secret or a secret_file, not both")
    try:
        RateLimiter(key.limits or (), next_reset=lambda _, instant: instant)
    except ValueError:
        yield (limits,), Fault(limits, "has two limits of the same shape, unit and period")


def is_zone(name: str) -> bool:
    """Whether it is a name of the IANA list."""
    from leadline.core.calendar.zones import zone_names

    return name in zone_names()
