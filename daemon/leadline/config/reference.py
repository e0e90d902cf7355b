"""What people are told of the keys: `config show`, the documentation and the sample configuration read it here."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from leadline.config.faults import allowed_there, is_struct, joined, quoted, said, unwrapped
from leadline.config.keys import DEFAULT_PLAN, Config, Plan, Sections, Source


class Key(Struct, frozen=True, gc=False, kw_only=True):
    """What may be set: for documentation, and to check a sample configuration against."""

    name: str
    """The path, in which NAME stands for whatever name people choose."""
    type: str
    """What is allowed, in words."""
    default: str
    """As it would be written in TOML; empty: absent; of some keys words, as it depends on the machine."""
    unit: str
    """Empty where there is none."""
    sentence: str
    """What it means."""
    required: bool


class Setting(Struct, frozen=True, gc=False, kw_only=True):
    """One key with its value in force."""

    key: str
    value: Any
    """As JSON has it; None: absent; a secret is only stars."""
    source: Source


_NAMED_PLAN: Final = re.compile(r"""^plans\.([\w-]+|"(\\.|[^"\\])*")\.""")


def reference() -> list[Key]:
    """Every key there is, in the order of the documentation."""
    return list(_keys_of(Sections, ""))


def limits() -> list[Key]:
    """Every key of a plan."""
    return list(_keys_of(Plan, ""))


def describe(config: Config) -> list[Setting]:
    """Every key with its value and where that comes from, in the order of the documentation."""
    settings = []
    for path, value, key in _values_of(config, Sections, ""):
        inherited = _NAMED_PLAN.sub(f"plans.{DEFAULT_PLAN}.", key)
        source: Source = "toml" if key in config.given or inherited in config.given else "built-in"
        settings.append(Setting(key=path, value=value, source=source))
    return settings


def key_of(*names: str) -> str:
    """The path of a key: `key_of("plans", "north.east", "slots.tables")` is `plans."north.east".slots.tables`.

    The last name is a path already.
    """
    *parents, last = names
    return ".".join([*map(quoted, parents), last])


def toml_text(value: Any) -> str:
    """A value of JSON as TOML writes it on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quoted(str(key))} = {toml_text(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml_text, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _keys_of(wanted: type[Struct], path: str) -> Iterator[Key]:
    for each in msgspec.structs.fields(wanted):
        bare, metas = unwrapped(each.type)
        name = joined(path, each.name)
        arguments = get_args(bare)
        if is_struct(bare):
            yield from _keys_of(bare, name)
        elif get_origin(bare) is dict and is_struct(arguments[1]):
            yield from _keys_of(arguments[1], f"{name}.NAME")
        else:
            default = each.default if each.default is not NODEFAULT else None
            if default is None and each.default_factory is not NODEFAULT:
                default = each.default_factory()
            yield Key(
                name=name,
                type=allowed_there(bare, metas),
                default=said(metas, "default") or ("" if default is None else toml_text(msgspec.to_builtins(default))),
                unit=said(metas, "unit"),
                sentence=next((meta.description for meta in metas if meta.description), ""),
                required=each.required,
            )


def _values_of(found: Struct, wanted: type[Struct], path: str) -> Iterator[tuple[str, Any, str]]:
    """The path of each key, its value, and the path under which it counts as given."""
    for each in msgspec.structs.fields(wanted):
        value = getattr(found, each.name)
        name = joined(path, each.name)
        arguments = get_args(unwrapped(each.type)[0])
        if isinstance(value, Struct):
            yield from _values_of(value, type(value), name)
        elif isinstance(value, dict) and is_struct(arguments[1]):
            for key, item in value.items():
                yield from _values_of(item, type(item), joined(name, key))
        elif isinstance(value, dict) and value:
            yield from ((joined(name, str(key)), item, name) for key, item in value.items())
        else:
            yield name, msgspec.to_builtins(value, enc_hook=str), name
