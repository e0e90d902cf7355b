"""The table of commands, and how each of them ends.

    exit 0   done
    exit 1   refused by the daemon, or failed
    exit 2   the command line or the configuration is wrong
    exit 3   no daemon could be reached

Commands are named here by the place of their function; cyclopts imports the one that is called. Whatever goes wrong is
told in one line on standard error that says what to do next; a traceback is a bug.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import UnknownCommandError

from leadline.cli.daemon import Failed, Misused, NoDaemon, Place
from leadline.config import ConfigError, SocketPathTooLong
from leadline_protocol.errors import RETRYABLE, ErrorCode, LeadlineError, Refused, Unreachable

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
INTERRUPTED: Final = 130


def _version() -> str:
    from importlib.metadata import version

    return f"leadline {version('leadline')}"


app = App(
    name="leadline",
    help="One queue for products that work on leads: fair, rate-limited, exact and durable.",
    help_format="plaintext",
    version=_version,
    result_action="return_value",
)

_WORK = Group.create_ordered("Work")
_QUEUE = Group.create_ordered("The queue")
_SERVICE = Group.create_ordered("The service")
_PLACE = Group.create_ordered("Which daemon")

_COMMANDS: Final[Sequence[tuple[Group, str, str, str]]] = (
    (_WORK, "submit", "submit:submit", "Submit jobs, one JSON object a line, from a file or standard input."),
    (_WORK, "upload", "files:upload", "Read a file of leads into a table."),
    (_WORK, "export", "files:export", "Write leads of a table to a file."),
    (_WORK, "chain", "chain:chain", "Run several steps one after the other."),
    (
        _WORK,
        "schedule",
        "schedule:schedule",
        "Submit jobs by the clock: list schedules, add, try, pause or delete one.",
    ),
    (_WORK, "batch", "batch:batch", "Your own Python as jobs: create, upload, publish and run batch jobs."),
    (
        _WORK,
        "outreach",
        "outreach:outreach",
        "Follow-up mails: import who writes what to whom, queue, preview and look after them.",
    ),
    (_WORK, "rerun", "control:rerun", "Submit a job again, over the leads that it has not finished."),
    (_QUEUE, "jobs", "jobs:jobs", "List jobs, newest first."),
    (_QUEUE, "job", "jobs:job", "Show one job."),
    (_QUEUE, "why", "jobs:why", "Tell all that a job waits for, with numbers."),
    (_QUEUE, "watch", "watch:watch", "Tell what happens to a job, or to all, as it happens."),
    (_QUEUE, "top", "top:top", "Watch the queue, the running jobs and the providers live."),
    (_QUEUE, "cancel", "control:cancel", "End a job; what it has done stays."),
    (
        _QUEUE,
        "pause",
        "control:pause",
        "Begin nothing new: in the queue, a family, a teamspace, at a provider, or a job.",
    ),
    (_QUEUE, "resume", "control:resume", "Let go on what was paused or held."),
    (_QUEUE, "teamspaces", "overview:teamspaces", "List teamspaces and what each has in the queue."),
    (_QUEUE, "tables", "tables:tables", "List tables; describe, create, keep for so long or delete one."),
    (_QUEUE, "providers", "providers:providers", "List providers and who waits for them; check a module, or try one."),
    (_QUEUE, "usage", "usage:usage", "Tell what a month has cost, by teamspace and provider."),
    (_QUEUE, "plans", "overview:plans", "Show the limits in force and where each comes from, or set one."),
    (
        _QUEUE,
        "notices",
        "notices:notices",
        "List mails and webhooks about jobs that are not delivered, or send one.",
    ),
    (_SERVICE, "serve", "service:serve", "Run the daemon."),
    (_SERVICE, "status", "overview:status", "Tell how the daemon is."),
    (_SERVICE, "token", "tokens:token", "Tokens for the API over HTTP: create, list, rotate or revoke one."),
    (_SERVICE, "link", "links:link", "Links by which people sign in to the pages: create one, or sign people out."),
    (_SERVICE, "doctor", "doctor:doctor", "Check all that the daemon needs, and say what is wrong."),
    (_SERVICE, "config", "configuration:config", "Check the configuration, or show it."),
    (_SERVICE, "db", "database:db", "Bring the database up to date, or print its schema."),
    (_SERVICE, "completion", "completion:completion", "Have the shell complete this command."),
)

for _number, (_group, _name, _target, _help) in enumerate(_COMMANDS):
    app.command(f"leadline.cli.{_target}", name=_name, help=_help, group=_group, sort_key=_number)

for _flag in ("--help", "--version"):
    app[_flag].group = (_SERVICE,)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None,
        Parameter(help="The configuration file [$LEADLINE_CONFIG, /etc/leadline/leadline.toml].", group=_PLACE),
    ] = None,
    state_dir: Annotated[
        Path | None, Parameter(help="The daemon's state directory [$STATE_DIRECTORY].", group=_PLACE)
    ] = None,
    runtime_dir: Annotated[
        Path | None, Parameter(help="Where its sockets are [$RUNTIME_DIRECTORY].", group=_PLACE)
    ] = None,
) -> Any:
    command, bound, injected = app.parse_args(tokens, exit_on_error=False, print_error=False)
    place = {name: Place(config, state_dir, runtime_dir) for name in injected}
    return command(*bound.args, **bound.kwargs, **place)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit status."""
    try:
        status = app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not fail a second time at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (CycloptsError, Misused) as error:
        return _end(USAGE, f"{_usage_fault(error)} (see `{_help_command(error, arguments)}`)")
    except ConfigError as error:
        return _end(USAGE, *map(str, error.faults))
    except SocketPathTooLong as error:
        return _end(USAGE, str(error))
    except (NoDaemon, Unreachable) as error:
        return _end(NO_DAEMON, str(error))
    except Refused as refusal:
        return _end(FAILED, refused(refusal))
    except (Failed, LeadlineError) as error:
        return _end(FAILED, str(error))
    except OSError as error:
        return _end(FAILED, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return status if isinstance(status, int) else DONE


def refused(refusal: Refused) -> str:
    """A refusal in one line: the code, what is wrong and where, and what can be done."""
    text = str(refusal)
    if refusal.code in RETRYABLE and refusal.retry_after is not None:
        return f"{text}; try again in {refusal.retry_after:g} s"
    match refusal.code:
        case ErrorCode.NOT_FOUND if refusal.at == "job":
            return f"{text}; `leadline jobs` lists the jobs there are"
        case ErrorCode.UNKNOWN_TABLE | ErrorCode.UNKNOWN_COLUMN:
            return f"{text}; `leadline tables` lists the tables and their columns"
        case ErrorCode.UNKNOWN_PROVIDER:
            return f"{text}; `leadline providers` lists the providers there are"
        case ErrorCode.UNKNOWN_TEAMSPACE:
            return f"{text}; `leadline teamspaces` lists the teamspaces there are"
        case ErrorCode.UNKNOWN_OP | ErrorCode.FORBIDDEN:
            return f"{text}; the control socket may be open to more"
        case _:
            return text


def _end(status: int, *lines: str) -> int:
    from leadline.cli.words import shown

    sys.stdout.flush()
    for line in lines:
        sys.stderr.write(f"leadline: {shown(line)}\n")
    return status


def _usage_fault(error: Exception) -> str:
    if isinstance(error, UnknownCommandError):
        return str(error).partition(" Available commands")[0].rstrip(".")
    return str(error).rstrip(".")


def _help_command(error: Exception, arguments: Sequence[str]) -> str:
    chain = getattr(error, "command_chain", None) or [word for word in arguments[:1] if word in app]
    return " ".join(("leadline", *chain, "--help"))
