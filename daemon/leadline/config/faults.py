"""What is wrong with a configuration, in words: each fault with its path and with what is allowed there."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct

from leadline.config.keys import File, Folder, Zone
from leadline_protocol.errors import LeadlineError


class Fault(Struct, frozen=True, gc=False):
    """One thing that is wrong: the path of a key, or of the file itself, and what is allowed there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(LeadlineError):
    """The configuration cannot be used; `faults` holds all that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults: Final = list(faults)


def unwrapped(wanted: Any) -> tuple[Any, list[Meta]]:
    """The type within Annotated and `| None`, and what is said of it, the outermost first."""
    metas: list[Meta] = []
    while True:
        if get_origin(wanted) is Annotated:
            wanted, *more = get_args(wanted)
            metas = [*metas, *more]
        elif NoneType in get_args(wanted):
            [wanted] = [each for each in get_args(wanted) if each is not NoneType]
        else:
            return wanted, metas


def is_struct(bare: Any) -> bool:
    """Whether it is a section with keys of its own."""
    return isinstance(bare, type) and issubclass(bare, Struct)


def joined(path: str, key: str) -> str:
    """The path of a key, as TOML writes it."""
    return f"{path}.{quoted(key)}" if path else quoted(key)


def quoted(key: str) -> str:
    """A key as TOML has it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def listed(words: Iterable[Any]) -> str:
    """Words, one after the other."""
    return ", ".join(map(str, words))


def said(metas: Iterable[Meta], what: str) -> str:
    """What people are told of a key: its unit, or what is allowed or default there; nothing is an empty text."""
    return next((meta.extra[what] for meta in metas if meta.extra and meta.extra.get(what)), "")


def no_such_key(key: str, known: Iterable[str]) -> str:
    """What is told of a key that there is not."""
    known = list(known)
    close = difflib.get_close_matches(key, known, 1)
    return f"there is no such key; {f'did you mean {close[0]}?' if close else f'known here: {listed(known)}'}"


def but(found: Any) -> str:
    """What was found instead, if it can be said in a few words."""
    match found:
        case None:
            return ""
        case bool() | int() | float():
            return f", not {found}".lower()
        case str() if len(found) <= 60:
            return f", not {json.dumps(found, ensure_ascii=False)}"
        case str():
            return f", not a text of {len(found)} characters"
        case dict():
            return ", not a table"
        case list():
            return ", not a list"
        case _:
            return f", not a {type(found).__name__}"


def allowed_there(bare: Any, metas: Sequence[Meta]) -> str:
    """What is allowed, in words that follow 'must be'."""
    if words := said(metas, "allowed"):
        return words
    if bare is bool:
        return "true or false"
    if bare is int or bare is float:
        return ("a whole number" if bare is int else "a number") + _range(metas)
    if bare is Zone:
        return "a time zone such as Europe/Berlin"
    if bare is File or bare is Folder:
        return "the path of a folder" if bare is Folder else "the path of a file"
    if get_origin(bare) is Literal:
        return f"one of {listed(get_args(bare))}"
    if isinstance(bare, type) and issubclass(bare, Enum):
        return f"one of {listed(each.value for each in bare)}"
    arguments = [unwrapped(each) for each in get_args(bare)]
    if get_origin(bare) is dict:
        return f"a table; each value is {allowed_there(*arguments[1])}"
    if get_origin(bare) is list:
        return f"a list; each item is {allowed_there(*arguments[0])}"
    if get_origin(bare) in (Union, UnionType):
        shapes = [each.__struct_config__ for each, _ in arguments]
        return f"a table whose {shapes[0].tag_field} is one of {listed(shape.tag for shape in shapes)}"
    pattern = next((meta.pattern for meta in metas if meta.pattern), None)
    return f"a text like {pattern}" if pattern else "a text"


def _range(metas: Iterable[Meta]) -> str:
    bounds = {name: next((b for meta in metas if (b := getattr(meta, name)) is not None), None) for name in _BOUNDS}
    ge, gt, le = (None if bound is None else f"{bound:,}" for bound in bounds.values())
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    low = f" of at least {ge}" if ge is not None else f" above {gt}" if gt is not None else ""
    return low + (f"{' and' if low else ''} at most {le}" if le is not None else "")


_BOUNDS: Final = ("ge", "gt", "le")
