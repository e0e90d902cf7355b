"""The programs that tests start and pip cannot bring, and the Debian package of each.

A test that starts such a program says so: `@pytest.mark.needs("socat")`. Where the program is missing the test is
skipped, and the run ends with the one command that installs everything it missed. `python -m tests.system_tools` prints
the packages this machine lacks, one a line, which is how .ci/run knows what to install.
"""

import os
import shutil
import sys
from collections.abc import Iterable

DEBIAN_PACKAGE = {
    "bwrap": "bubblewrap",
    "chromium-headless-shell": "chromium-headless-shell",
    "curl": "curl",
    "git": "git",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "promtool": "prometheus",
    "slirp4netns": "slirp4netns",
    "smtp-sink": "postfix",
    "socat": "socat",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
}

# An ordinary user's PATH leaves out the administrator's folders, where some of these programs live.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing(tools: Iterable[str]) -> list[str]:
    """Those of the tools that this machine lacks."""
    return [tool for tool in tools if shutil.which(tool, path=SEARCH_PATH) is None]


def apt_command(tools: Iterable[str]) -> str:
    """The one command that installs the tools on Debian."""
    return "apt-get install -y " + " ".join(sorted({DEBIAN_PACKAGE[tool] for tool in tools}))


if __name__ == "__main__":
    for package in sorted({DEBIAN_PACKAGE[tool] for tool in missing(DEBIAN_PACKAGE)}):
        sys.stdout.write(package + "\n")
