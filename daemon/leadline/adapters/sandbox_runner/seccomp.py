"""The system calls that are refused inside: a filter in the kernel's own form.

The namespaces already keep code from what is not its own. The filter takes away what is known for holes in the kernel
rather than for any use in a program: other namespaces, keys, tracing, loading of code into the kernel, rings of
asynchronous requests. A refused call fails with EPERM, as if the user lacked the right. Sockets are those of the
internet, of this machine and of the kernel's routing table; others reach beyond a network namespace (a virtual
machine's host over AF_VSOCK) or are rarely tried parts of the kernel.

It is written by hand because a filter is a table of numbers: see seccomp(2), linux/filter.h, and for the numbers the
unistd.h of each architecture.
"""

import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from leadline.ports.runner import SandboxMissing

_NEW: Final = {
    "pidfd_getfd": 438,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
"""Since 5.1 every architecture has the same numbers."""

REFUSED: Final[Mapping[str, Mapping[str, int]]] = {
    "x86_64": {
        "ptrace": 101,
        "syslog": 103,
        "personality": 135,
        "pivot_root": 155,
        "chroot": 161,
        "acct": 163,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "quotactl": 179,
        "lookup_dcookie": 212,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "vmsplice": 278,
        "perf_event_open": 298,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
        **_NEW,
    },
    "aarch64": {
        "lookup_dcookie": 18,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "quotactl": 60,
        "vmsplice": 75,
        "acct": 89,
        "personality": 92,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "syslog": 116,
        "ptrace": 117,
        "reboot": 142,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "swapon": 224,
        "swapoff": 225,
        "perf_event_open": 241,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
        **_NEW,
    },
}
"""By machine, as uname(2) names it."""

_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SOCKET: Final = {"x86_64": 41, "aarch64": 198}
_SOCKETPAIR: Final = {"x86_64": 53, "aarch64": 199}
_FAMILIES: Final = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""
_X32: Final = 0x40000000
"""With this bit x86_64 takes the same calls under other numbers."""

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_JMP | BPF_JGE | BPF_K, BPF_RET | BPF_K."""
_CALL, _MACHINE, _ARGUMENT = 0, 4, 16
"""Where struct seccomp_data has them; of an argument the lower half, on a little-endian machine."""
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_KILL: Final = 0x80000000


def program(machine: str = "") -> bytes:
    """The filter, as an array of struct sock_filter. Raises SandboxMissing on a machine whose numbers are not known."""
    machine = machine or platform.machine()
    if machine not in REFUSED:
        raise SandboxMissing(f"no list of system calls for {machine}: there is one for {' and '.join(REFUSED)}")
    refused = REFUSED[machine]
    lines = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),  # calls of another architecture have other numbers
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
    ]
    for number in sorted(refused.values()):
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    sockets = [(_LOAD, 0, 0, _ARGUMENT)]
    for family in _FAMILIES:
        sockets += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    sockets.append((_RETURN, 0, 0, _REFUSE))
    lines += [
        (_EQUAL, 1, 0, _SOCKET[machine]),
        (_EQUAL, 0, len(sockets), _SOCKETPAIR[machine]),
        *sockets,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return _assembled(lines)


def _assembled(lines: Sequence[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
