"""`providers`: the accounts as they are, a module judged before it is put into service, and one real call to try it."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Failed, Misused, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.overview import provider_list
from leadline.cli.words import shown, span
from leadline_protocol.messages import Providers, Tried

ANSWER_SECONDS: Final = 200.0
"""Longer than the daemon waits for a permit and an answer."""

GOOD: Final = frozenset({"done", "not_found", "pending"})

providers = App(name="providers", help="List providers and who waits for them; check a module, or try one.")


@providers.default
def show(
    name: Annotated[str | None, Parameter(help="Only this one.")] = None, /, *, place: Placed, json: Json = False
) -> None:
    """List the providers, their limits and how full they are, and who waits for them."""
    with control(place) as daemon:
        views = daemon.client.call(Providers(name=name)).providers
    if json:
        for view in views:
            terminal.json_line(view)
        return
    provider_list(views, terminal.now())


providers.command(show, name="list")


@providers.command
def check(file: Annotated[Path, Parameter(help="The module: a TOML file.")], /, *, json: Json = False) -> int:
    """Judge a provider's module: all that is wrong with it, or what it will do. The exit status is 1 for faults."""
    from leadline.features.tables.module_summary import summary
    from leadline.features.tables.provider_modules import ModuleFaultsError, read_module

    try:
        module = read_module(file.read_text(encoding="utf-8"), file=str(file))
    except UnicodeDecodeError as error:
        raise Failed(f"{file} is not UTF-8: {error}") from error
    except ModuleFaultsError as error:
        if json:
            for fault in error.faults:
                terminal.json_line({"line": fault.line, "path": fault.path, "message": fault.message})
        else:
            for line in str(error).splitlines():
                terminal.remark(shown(line))
        return 1
    if json:
        terminal.json_line(module)
        return 0
    terminal.say(f"{shown(str(file))} is sound: {shown(module.title or module.name)}.")
    terminal.columns(("ABOUT", "WHAT IT DOES"), [(about, shown(text)) for about, text in summary(module)])
    return 0


@providers.command(name="try")
def try_(
    name: Annotated[str, Parameter(help="The provider.")],
    /,
    *,
    place: Placed,
    lead: Annotated[str, Parameter(help="What is known of a lead: a JSON object of the module's inputs.")],
    teamspace: Annotated[
        str | None, Parameter(help="As a call of this teamspace, with its own key where it has one [leadline].")
    ] = None,
    json: Json = False,
) -> int:
    """Make one real call to a provider: it is charged like any other, and may cost money there."""
    asked = Providers(name=name, action="try", lead=_object(lead), teamspace=teamspace)
    with control(place, timeout_seconds=ANSWER_SECONDS) as daemon:
        tried = daemon.client.call(asked).tried
    if tried is None:
        raise Failed("This daemon is too old to try providers")
    if json:
        terminal.json_line(tried)
    else:
        _tell(tried)
    return int(tried.outcome not in GOOD)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misused(f"--lead takes a JSON object: {error}") from error


def _tell(tried: Tried) -> None:
    """Each call with its answer, and what was found."""
    for call in tried.calls:
        terminal.say(f"{call.method} {shown(call.url)}")
        for header, value in call.headers.items():
            terminal.say(f"  {shown(header)}: {shown(value)}")
        if call.body:
            terminal.say(f"  {shown(call.body)}")
        status = "no answer" if call.status is None else f"status {call.status}"
        terminal.say(f"{status} after {span(call.seconds)}: {shown(call.verdict)}")
        if call.answer:
            terminal.say(f"  {shown(call.answer)}")
    if tried.values:
        terminal.say()
        rows = [(shown(name), msgspec.json.encode(value).decode()) for name, value in tried.values.items()]
        terminal.columns(("OUTPUT", "VALUE"), [(output, shown(value)) for output, value in rows])
    terminal.say(f"Charged to {shown(tried.provider)} as job {tried.job}.")
