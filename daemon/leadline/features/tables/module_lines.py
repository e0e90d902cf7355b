"""On which line of a TOML file something stands.

The parser of the standard library forgets lines. So the file is cut into statements once more: a statement is the
shortest run of lines that is TOML by itself, a header sets where the following keys belong, and what the parser makes
of a statement says which paths stand in it. That is exact for statements. Within one that spans lines, the items of a
list of inline tables are told apart where each begins a line of its own, as people write them.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines_of(text: str) -> Mapping[str, int]:
    """The line, from 1, on which each path of a TOML file is first said: `limits[0].amount` → 7."""
    lines: dict[str, int] = {}
    table = ""
    counts: Counter[str] = Counter()
    for first, statement, document in _statements(text):
        header = statement[0].lstrip()
        if not header.startswith("["):
            for path in _paths(document, table):
                lines.setdefault(path, first)
            lines.update(_items(statement, document, table, first))
            continue
        table = next(iter(reversed(list(_paths(document, "")))))
        if header.startswith("[["):
            table = table.removesuffix("[0]")
            lines.setdefault(table, first)
            counts[table] += 1
            table = f"{table}[{counts[table] - 1}]"
        lines.setdefault(table, first)
    return lines


def line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """The line of a path, or of the nearest thing that holds it; None where nothing of it is in the file."""
    while path not in lines:
        end = max(path.rfind("."), path.rfind("["))
        if end < 0:
            return None
        path = path[:end]
    return lines[path]


def _statements(text: str) -> Iterator[tuple[int, Sequence[str], dict[str, Any]]]:
    """Each statement: its first line, its lines, and what it says by itself."""
    statement: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not statement and (not line.strip() or line.lstrip().startswith("#")):
            continue
        statement.append(line)
        try:
            document = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        yield number - len(statement) + 1, statement, document
        statement = []


def _paths(found: object, path: str) -> Iterator[str]:
    """Every path below a value, outer ones first."""
    match found:
        case dict():
            for key, value in found.items():
                below = f"{path}.{key}" if path else key
                yield below
                yield from _paths(value, below)
        case list():
            for position, value in enumerate(found):
                yield f"{path}[{position}]"
                yield from _paths(value, f"{path}[{position}]")


def _items(statement: Sequence[str], document: Mapping[str, Any], table: str, first: int) -> Iterator[tuple[str, int]]:
    """The paths in a list of inline tables, by the lines that begin one; nothing where they do not tell them apart."""
    ((key, items),) = document.items()
    starts = [first + offset for offset, line in enumerate(statement) if line.lstrip().startswith("{")]
    if not isinstance(items, list) or len(starts) != len(items):
        return
    path = f"{table}.{key}" if table else key
    for position, (item, line) in enumerate(zip(items, starts, strict=True)):
        place = f"{path}[{position}]"
        yield place, line
        for below in _paths(item, place):
            yield below, line
