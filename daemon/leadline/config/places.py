"""Where things are kept: no configuration says it, so that a command finds the daemon without any."""

import os
from pathlib import Path
from typing import Final

from leadline_protocol.errors import LeadlineError

SYSTEM_CONFIG: Final = Path("/etc/leadline/leadline.toml")
SYSTEM_STATE: Final = Path("/var/lib/leadline")
SYSTEM_RUNTIME: Final = Path("/run/leadline")

SUBMIT_SOCKET: Final = "submit.sock"
CONTROL_SOCKET: Final = "control.sock"
HTTP_SOCKET: Final = "http.sock"

SOCKET_PATH_BYTES_MAX: Final = 107
"""What `sockaddr_un` of Linux holds, without its closing NUL."""


class SocketPathTooLong(LeadlineError):
    """No Unix socket can be made in the runtime directory: its path is longer than the system allows."""


def state_dir(option: Path | None) -> Path:
    """Where state is kept: the option, else $STATE_DIRECTORY, else the system's for root, else the user's own."""
    if option is not None:
        return option.absolute()
    if variable := os.environ.get("STATE_DIRECTORY"):
        return Path(variable.partition(":")[0]).absolute()  # systemd lists every directory it made
    if os.geteuid() == 0:
        return SYSTEM_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "leadline"


def runtime_dir(option: Path | None, state: Path) -> Path:
    """Where the sockets are: the option, else $RUNTIME_DIRECTORY, else the system's for root, else the user's own.

    Where there is no $XDG_RUNTIME_DIR either, the folder `run` in the state directory. Raises SocketPathTooLong.
    """
    if option is not None:
        folder = option.absolute()
    elif variable := os.environ.get("RUNTIME_DIRECTORY"):
        folder = Path(variable.partition(":")[0]).absolute()
    elif os.geteuid() == 0:
        folder = SYSTEM_RUNTIME
    elif variable := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(variable) / "leadline"
    else:
        folder = state / "run"
    longest = max(len(os.fsencode(folder / name)) for name in (SUBMIT_SOCKET, CONTROL_SOCKET))
    if longest > SOCKET_PATH_BYTES_MAX:
        raise SocketPathTooLong(
            f"{folder / CONTROL_SOCKET} is {longest} bytes long and a Unix socket's path may have "
            f"{SOCKET_PATH_BYTES_MAX}: choose a shorter --runtime-dir"
        )
    return folder
