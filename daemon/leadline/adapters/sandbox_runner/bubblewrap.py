"""The walls of a sandbox, as the command that puts them up.

Inside there are the system's programs and libraries, the code with the packages that it wants, and the interpreter
where that lives elsewhere, all read-only; of /etc what it takes to resolve names, to know the time zone and to trust
certificates. One folder can be written to, /tmp, of a size that is fixed; it is in memory and gone with the run.
Nothing else is there: no home, no state of ours, no sockets, no devices but the harmless ones, and of /proc only the
sandbox's own. All namespaces are its own, and no further ones can be made. The environment is made here, and holds
nothing of the daemon's.

The words go by a descriptor: the first process inside shows its command line, which would tell where our folders are.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

CODE: Final = "/code"
PACKAGES: Final = "/packages"
BOOTSTRAP: Final = "/leadline/bootstrap.py"
MODULES: Final = "/leadline/modules"
SCRATCH: Final = "/tmp"  # noqa: S108  the sandbox's own

USER: Final = 1000
"""Who the code is, to itself."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": SCRATCH,
    "TMPDIR": SCRATCH,
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

_CERTIFICATES: Final = ("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted")

_ETC: Final = ("ld.so.cache", "localtime", "timezone", "alternatives", "mime.types", *_CERTIFICATES)
"""Files and folders of the machine's /etc that are the same for everybody."""

_ROOT_FOLDERS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links into /usr, or folders of their own on systems that have not merged them."""

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")

_LINKS: Final = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/shm": SCRATCH,  # noqa: S108  what is shared in memory is bounded like files
}

_FILES: Final = {
    "/etc/passwd": f"user:x:{USER}:{USER}::{SCRATCH}:/bin/sh\n",
    "/etc/group": f"user:x:{USER}:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class Openings(Struct, frozen=True):
    """What leads in: folders by their paths, all else by descriptors."""

    trees: Mapping[str, str]
    """Folders to be seen inside, by where; the code among them."""
    files: Mapping[str, int]
    """Files to be copied, by where; the bootstrap among them."""
    filter: int
    """The program of seccomp."""
    info: int
    """Where the number of the first process is written to, as JSON."""


def contents(nameserver: str | None) -> Mapping[str, str]:
    """The files that are made for a sandbox, by where they are; `nameserver` resolves its names."""
    return _FILES if nameserver is None else {**_FILES, "/etc/resolv.conf": f"nameserver {nameserver}\n"}


def arguments(openings: Openings, disk_bytes: int, links: Mapping[str, str]) -> Sequence[str]:
    """What bubblewrap is told. `links` are those of the machine's root folder: where each leads, by its name."""
    words = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--disable-userns", "--new-session", "--die-with-parent", "--hostname", "sandbox"),
        *("--uid", str(USER), "--gid", str(USER)),
        *("--seccomp", str(openings.filter), "--info-fd", str(openings.info)),
        *("--ro-bind", "/usr", "/usr"),
    ]
    for name in _ROOT_FOLDERS:
        words += ["--symlink", links[name], f"/{name}"] if name in links else ["--ro-bind-try", f"/{name}", f"/{name}"]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc", "--dir", "/dev"]
    for device in _DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for path, target in _LINKS.items():
        words += ["--symlink", target, path]
    words += ["--perms", "1777", "--size", str(disk_bytes), "--tmpfs", SCRATCH]
    for path, source in sorted(openings.trees.items()):
        words += ["--ro-bind", source, path]
    for path, descriptor in openings.files.items():
        words += ["--ro-bind-data", str(descriptor), path]
    words += ["--remount-ro", "/", "--chdir", CODE, "--clearenv"]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    return words
