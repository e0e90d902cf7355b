"""From TOML to a Config: a walk through what was found, key by key, that gathers every fault."""

import math
import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from leadline.config.contradictions import contradictions, is_zone
from leadline.config.faults import (
    ConfigError,
    Fault,
    allowed_there,
    but,
    is_struct,
    joined,
    listed,
    no_such_key,
    unwrapped,
)
from leadline.config.keys import (
    DEFAULT_PLAN,
    Config,
    EtlDatabase,
    File,
    Folder,
    Notices,
    OwnKey,
    Plan,
    Provider,
    PythonModule,
    Secret,
    Sections,
    Smtp,
    TeamspaceNotices,
    Uid,
    Zone,
)
from leadline.config.places import SYSTEM_CONFIG
from leadline.core.rate_limit import DailyLimit


def find(option: Path | None) -> Path | None:
    """The file to read: the option, else $LEADLINE_CONFIG, else the system's, if there is one; None: defaults."""
    if option is not None:
        return option
    if variable := os.environ.get("LEADLINE_CONFIG"):
        return Path(variable)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def load(option: Path | None = None) -> Config:
    """The configuration in force; raises ConfigError with every fault of it.

    Secrets are read from their files here, paths made absolute from the folder of the file, plans completed from the
    plan `default`.
    """
    path = find(option)
    if path is None:
        return Config()
    path = path.absolute()
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), f"is not UTF-8 at byte {error.start}")]) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """The configuration that the text of a file stands for, see `load`; `path` is the file's."""
    import tomllib  # only who has a file pays for it

    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Fault(str(path), f"is not TOML: {error}")]) from None
    reading = _Reading(path.parent)
    sections = reading.value(Sections, tree, "")
    given = frozenset(reading.given)
    values = {name: getattr(sections, name) for name in Sections.__struct_fields__}
    values["plans"] = _complete_plans(sections.plans, given)
    values["providers"] = {name: _revealed(reading, name, each) for name, each in sections.providers.items()}
    values["modules"] = {
        name: _with_secret(reading, each, joined("modules", name)) for name, each in sections.modules.items()
    }
    values["teamspaces"] = {
        name: msgspec.structs.replace(each, etl=_with_secret(reading, each.etl, joined(f"teamspaces.{name}", "etl")))
        for name, each in sections.teamspaces.items()
    }
    values["notices"] = _notices_revealed(reading, sections.notices)
    smtp = _with_secret(reading, sections.outreach.smtp, "outreach.smtp")
    values["outreach"] = msgspec.structs.replace(sections.outreach, smtp=smtp)
    config = Config(**values, path=path, given=given)
    at_fault = {fault.path for fault in reading.faults}
    faults = [*reading.faults, *(fault for keys, fault in contradictions(config) if at_fault.isdisjoint(keys))]
    if faults:
        raise ConfigError(faults)
    return config


def plan(tree: Mapping[str, Any]) -> Plan:
    """A plan of these values, and of the built-in ones. Raises ConfigError with every fault."""
    reading = _Reading(Path())
    found: Plan = reading.value(Plan, tree, "")
    if reading.faults:
        raise ConfigError(reading.faults)
    return found


class _Reading:
    """A walk through what TOML made of a file: which keys it gives, and what is wrong with them.

    Each step answers the value found, as the wanted type, or NODEFAULT where it is at fault.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self.faults: Final[list[Fault]] = []
        self.given: Final[set[str]] = set()

    def value(self, wanted: Any, found: Any, path: str) -> Any:
        """What was found at a path, read as a type as it is written in an annotation."""
        self.given.add(path)
        bare, metas = unwrapped(wanted)
        if is_struct(bare):
            return self._struct(bare, found, path)
        origin, arguments = get_origin(bare), get_args(bare)
        if origin is dict:
            return self._table(arguments[0], arguments[1], found, path)
        if origin is list:
            return self._list(arguments[0], found, path)
        if origin in (Union, UnionType):
            return self._shape(arguments, found, path)
        return self._leaf(bare, metas, found, path)

    def secret(self, file: File, path: str) -> Secret | None:
        """The secret that a file holds."""
        try:
            text = file.read_bytes().decode().strip()
        except OSError as error:
            self._refuse(path, f"{file} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._refuse(path, f"{file} is not a text in UTF-8")
        else:
            if text:
                return Secret(text)
            self._refuse(path, f"{file} is empty")
        return None

    def _struct(self, wanted: type[Struct], found: Any, path: str, tag_field: str | None = None) -> Any:
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{but(found)}")
        fields = {each.name: each for each in msgspec.structs.fields(wanted)}
        values = {}
        for key, value in found.items():
            if key in fields:
                values[key] = self.value(fields[key].type, value, joined(path, key))
            elif key != tag_field:
                self._refuse(joined(path, key), no_such_key(key, fields))
        for name, each in fields.items():
            if each.required and name not in values:
                values[name] = self._refuse(
                    joined(path, name), f"is missing; it must be {allowed_there(*unwrapped(each.type))}"
                )
        if any(values.get(name) is NODEFAULT for name, each in fields.items() if each.required):
            return NODEFAULT
        return wanted(**{name: value for name, value in values.items() if value is not NODEFAULT})

    def _table(self, key_type: Any, item_type: Any, found: Any, path: str) -> Any:
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{but(found)}")
        table = {}
        for name, value in found.items():
            key = self._leaf(*unwrapped(key_type), name, joined(path, name))
            item = self.value(item_type, value, joined(path, name))
            if key is not NODEFAULT and item is not NODEFAULT:
                table[key] = item
        return table

    def _list(self, item_type: Any, found: Any, path: str) -> Any:
        if not isinstance(found, list):
            return self._refuse(path, f"must be a list{but(found)}")
        items = [self.value(item_type, value, f"{path}[{index}]") for index, value in enumerate(found)]
        return [item for item in items if item is not NODEFAULT]

    def _shape(self, shapes: Sequence[type[Struct]], found: Any, path: str) -> Any:
        """One of several kinds of table, told apart by a word in them."""
        tag_field = str(shapes[0].__struct_config__.tag_field)
        by_tag = {each.__struct_config__.tag: each for each in shapes}
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{but(found)}")
        word = found.get(tag_field)
        if not isinstance(word, str) or word not in by_tag:
            return self._refuse(joined(path, tag_field), f"must be one of {listed(by_tag)}{but(word)}")
        limit = self._struct(by_tag[word], found, path, tag_field)
        if isinstance(limit, DailyLimit) and not is_zone(limit.zone):
            return self._refuse(joined(path, "zone"), f"must be a time zone such as Europe/Berlin{but(limit.zone)}")
        return limit

    def _leaf(self, bare: Any, metas: Sequence[Meta], found: Any, path: str) -> Any:
        if bare is Secret:
            # What was found is not repeated: it may be the secret.
            return Secret(found) if isinstance(found, str) and found else self._refuse(path, "must be a text")
        if bare is Uid:
            return self._uid(found, path)
        if bare is Zone:
            known = isinstance(found, str) and is_zone(found)
            return found if known else self._refuse(path, f"must be a time zone such as Europe/Berlin{but(found)}")
        if bare is File or bare is Folder:
            return self._place(bare, found, path)
        try:
            value = msgspec.convert(found, Annotated[bare, *metas] if metas else bare)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(value)
        except ValueError:
            return self._refuse(path, f"must be {allowed_there(bare, metas)}{but(found)}")
        return value

    def _uid(self, name: str, path: str) -> Any:
        if name.isascii() and name.isdecimal():
            return Uid(int(name))
        try:
            return Uid(pwd.getpwnam(name).pw_uid)
        except (KeyError, ValueError):
            return self._refuse(path, "there is no user of this name on this machine")

    def _place(self, bare: Any, found: Any, path: str) -> Any:
        """The path made absolute: a plain name may be a credential of the service, else the file's folder counts."""
        if not isinstance(found, str) or not found or "\0" in found:
            return self._refuse(path, f"must be {allowed_there(bare, ())}{but(found)}")
        place = self._folder / found
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and "/" not in found and (Path(credentials) / found).is_file():
            place = Path(credentials) / found
        try:
            if not (place.is_dir() if bare is Folder else place.is_file()):
                return self._refuse(path, f"there is no {'folder' if bare is Folder else 'file'} {place}")
        except PermissionError:
            return self._refuse(path, f"{place} may not be looked at by this user")
        return place

    def _refuse(self, path: str, message: str) -> Any:
        self.faults.append(Fault(path, message))
        return NODEFAULT


_Keyed = TypeVar("_Keyed", EtlDatabase, Provider, OwnKey, PythonModule, Smtp, TeamspaceNotices)


def _revealed(reading: _Reading, name: str, provider: Provider) -> Provider:
    """A provider with the secrets that its files hold."""
    path = joined("providers", name)
    own = {
        teamspace: _with_secret(reading, key, joined(joined(path, "own"), teamspace))
        for teamspace, key in provider.own.items()
    }
    return msgspec.structs.replace(_with_secret(reading, provider, path), own=own)


def _notices_revealed(reading: _Reading, notices: Notices) -> Notices:
    """The same with the secrets that its files hold."""
    teamspaces = {
        name: _with_secret(reading, each, joined("notices.teamspaces", name))
        for name, each in notices.teamspaces.items()
    }
    return msgspec.structs.replace(
        notices, smtp=_with_secret(reading, notices.smtp, "notices.smtp"), teamspaces=teamspaces
    )


def _with_secret(reading: _Reading, each: _Keyed, path: str) -> _Keyed:
    """What may have a secret, with the one that its file holds."""
    if each.secret_file is None or each.secret is not None:
        return each
    secret = reading.secret(each.secret_file, joined(path, "secret_file"))
    return msgspec.structs.replace(each, secret=secret)


def _complete_plans(plans: Mapping[str, Plan], given: frozenset[str]) -> dict[str, Plan]:
    """Plans that say everything: what one does not is taken from `default`, which is there in any case."""
    default = plans.get(DEFAULT_PLAN, Plan())
    filled = {name: _filled(plan, default, joined("plans", name), given) for name, plan in plans.items()}
    return {DEFAULT_PLAN: default, **filled}


def _filled(plan: Any, default: Any, path: str, given: frozenset[str]) -> Any:
    values = {}
    for name in plan.__struct_fields__:
        place, own, other = joined(path, name), getattr(plan, name), getattr(default, name)
        if isinstance(own, Struct):
            values[name] = _filled(own, other, place, given)
        else:
            values[name] = own if place in given else other
    return type(plan)(**values)
