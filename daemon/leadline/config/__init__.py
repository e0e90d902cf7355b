"""One frozen Config: everything a person may set, checked once, before anything is started.

A configuration that is wrong should be put right in one go. So the TOML is walked key by key, each leaf judged by the
declared type of its field, and every fault is gathered with its path and with what is allowed there; msgspec, which
does the judging, would stop at the first. A key at fault counts as its default while the walk goes on. Rules that join
several keys are judged at the end, where none of these keys is at fault by itself.

The structs of `keys` are the only description of the keys there is: the names, types and defaults that the daemon uses,
and in each field's `Meta` the bounds, the unit and the sentence for people. `reference` reads them, so that
`config show`, the documentation and the sample configuration cannot tell of keys that are not there.

The complication is what a Config is besides its keys: secrets, which must not be printed by mistake (`Secret`); paths,
which are taken from the folder of the file that names them; and plans, of which each takes what it does not say from
the plan `default`. All that is settled here, so that a Config can be used as it is.

Where things are kept, `state_dir` and `runtime_dir`, is no configuration: a command finds the daemon without any.
"""

from leadline.config.faults import ConfigError, Fault
from leadline.config.keys import (
    DEFAULT_PLAN,
    EVERY_TEAMSPACE,
    Config,
    File,
    Outreach,
    OutreachSmtp,
    OwnKey,
    Plan,
    Provider,
    PythonModule,
    Queue,
    Secret,
    Smtp,
    TeamspaceNotices,
)
from leadline.config.places import (
    CONTROL_SOCKET,
    HTTP_SOCKET,
    SOCKET_PATH_BYTES_MAX,
    SUBMIT_SOCKET,
    SYSTEM_CONFIG,
    SYSTEM_RUNTIME,
    SYSTEM_STATE,
    SocketPathTooLong,
    runtime_dir,
    state_dir,
)
from leadline.config.reading import find, load, parse, plan
from leadline.config.reference import Key, Setting, describe, key_of, limits, reference, toml_text

__all__ = [
    "CONTROL_SOCKET",
    "DEFAULT_PLAN",
    "EVERY_TEAMSPACE",
    "HTTP_SOCKET",
    "SOCKET_PATH_BYTES_MAX",
    "SUBMIT_SOCKET",
    "SYSTEM_CONFIG",
    "SYSTEM_RUNTIME",
    "SYSTEM_STATE",
    "Config",
    "ConfigError",
    "Fault",
    "File",
    "Key",
    "Outreach",
    "OutreachSmtp",
    "OwnKey",
    "Plan",
    "Provider",
    "PythonModule",
    "Queue",
    "Secret",
    "Setting",
    "Smtp",
    "SocketPathTooLong",
    "TeamspaceNotices",
    "describe",
    "find",
    "key_of",
    "limits",
    "load",
    "parse",
    "plan",
    "reference",
    "runtime_dir",
    "state_dir",
    "toml_text",
]
