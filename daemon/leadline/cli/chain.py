"""`chain run`: a chain that is kept in a TOML file.

    teamspace = "acme"

    [[steps]]
    kind = "enrich"
    table = "prospects"
    ...

The file says what the `chain` submission says; it is the daemon that judges it.
"""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from leadline.cli.daemon import Failed, Misused, Placed, any_socket
from leadline.cli.files import Wait, conclude
from leadline.cli.jobs import Flag, Json
from leadline.cli.preview import show

chain = App(name="chain", help="Run several steps one after the other.")


@chain.command
def run(
    file: Annotated[Path, Parameter(help="The TOML file with the steps.")],
    /,
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="The teamspace, in place of the one that the file names.")] = None,
    wait: Wait = False,
    dry_run: Annotated[Flag, Parameter(help="Only say what each step would take now.")] = False,
    json: Json = False,
) -> int:
    """Run the steps that a TOML file lists, one after the other."""
    submission = read_toml(file)
    submission.setdefault("kind", "chain")
    if submission["kind"] != "chain":
        raise Misused(f"{file} holds no chain: its kind is {submission['kind']}")
    if teamspace is not None:
        submission["teamspace"] = teamspace
    with any_socket(place) as daemon:
        if dry_run:
            show(daemon.client.preview(submission), json=json)
            return 0
        return conclude(daemon, daemon.client.submit(submission), wait=wait, json=json)


def read_toml(file: Path) -> dict[str, Any]:
    """What a TOML file holds. Raises Failed."""
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failed(f"{file} is not TOML: {error}") from error
