"""`serve`: the daemon itself, in the foreground, as a service manager wants it."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from leadline import config as configuration
from leadline.cli import terminal
from leadline.cli.daemon import Placed
from leadline.config import CONTROL_SOCKET, SUBMIT_SOCKET


def serve(
    *,
    takeover: Annotated[
        bool,
        Parameter(
            help="Take the queue away from a daemon that holds it and does not answer or end: here it is killed, "
            "elsewhere nothing that it still does is taken.",
            negative="",
        ),
    ] = False,
    place: Placed,
) -> int:
    """Run the daemon in the foreground until it is told to stop; SIGTERM drains it, SIGHUP reads the TOML again."""
    config = configuration.load(place.config)
    state_dir = configuration.state_dir(place.state_dir)
    runtime_dir = configuration.runtime_dir(place.runtime_dir, state_dir)

    from leadline import accounts, main  # everything that runs the daemon, which no other command pays for

    if terminal.is_terminal(sys.stderr):
        for line in greeting(state_dir, runtime_dir):
            terminal.remark(line)
    accounts.endpoints_of(config)  # what is wrong with a provider's module is wrong with the configuration
    return main.serve(config, config_path=place.config, state_dir=state_dir, runtime_dir=runtime_dir, takeover=takeover)


def greeting(state_dir: Path, runtime_dir: Path) -> Iterator[str]:
    """What a person who starts the daemon by hand wants to know: where it is, how to try it, how to end it."""
    yield f"Sockets: {runtime_dir / SUBMIT_SOCKET} and {CONTROL_SOCKET} beside it. State: {state_dir}. Ctrl-C ends it."
    usual_state = configuration.state_dir(None)
    usual_runtime = configuration.runtime_dir(None, usual_state)
    words = ["leadline", "submit", "-", "--wait"]
    if state_dir != usual_state:
        words += ["--state-dir", str(state_dir)]
    if runtime_dir != usual_runtime:
        words += ["--runtime-dir", str(runtime_dir)]
    line = '{"kind":"noop","teamspace":"acme"}'
    yield f"Try it in another terminal: echo {shlex.quote(line)} | {shlex.join(words)}"
