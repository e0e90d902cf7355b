"""The language of a mail's templates: Jinja, without everything that could run for long or reach anywhere.

    Hello {{ first_name | default("there") }},
    {% if company %}I read about {{ company }}.{% endif %} ... {{ fields["Job title"] | lower }}

Tenants write templates, and the daemon renders them. Jinja's sandbox keeps a template from the interpreter, but not
from a thousand nested loops or a string of a gigabyte. A mail needs none of that: a contact's fields are texts, there
is no list to go through. So a template may say what `_NODES` and `_FILTERS` name and nothing else: no loops, calls,
attributes, arithmetic, assignments or other templates. What it costs then grows with its length alone, which is
bounded, as is what comes out of it.

Importing this imports Jinja, which takes a while.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment
from msgspec import Struct

SOURCE_CHARACTERS_MAX: Final = 100_000
NODES_MAX: Final = 3_000
"""Things that a template may say; a hundred would make a long mail."""
DEPTH_MAX: Final = 20
"""How deep they may be nested, filters after filters included."""

FIELD_CHARACTERS_MAX: Final = 20_000
"""Of a contact's field that a template names."""

FIELDS: Final = "fields"
"""`fields["Job title"]` is for a field whose name is no identifier."""

_OWN_WORDS: Final = frozenset({FIELDS, "self", "super", "loop", "caller"})

_NODES: Final[tuple[type[nodes.Node], ...]] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getitem, nodes.If, nodes.CondExpr,
    nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Filter, nodes.Test,
)  # fmt: skip

_FILTERS: Final[Mapping[str, int]] = {
    "capitalize": 0, "default": 1, "lower": 0, "title": 0, "trim": 0, "upper": 0, "urlencode": 0,
}  # fmt: skip
"""How many arguments each of them takes, which are texts. None makes a text grow by more than a small factor."""

_TESTS: Final = ("defined", "undefined")


class TemplateFault(ValueError):
    """The template cannot be used; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line: Final = line


class Absent(Undefined):
    """A field that the contact does not have. It is false, and may be asked for; to write it is noted down."""

    __slots__ = ("_note",)

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        super().__init__(name=name)
        self._note = note

    def _noted(self) -> None:
        assert self._undefined_name is not None
        self._note(self._undefined_name)

    def __str__(self) -> str:
        self._noted()
        return ""

    def __iter__(self) -> Iterator[Any]:
        self._noted()
        return iter(())

    def __eq__(self, other: object) -> bool:
        self._noted()
        return False

    def __ne__(self, other: object) -> bool:
        self._noted()
        return True

    __hash__ = Undefined.__hash__


class Template(Struct, frozen=True):
    """A template that may be rendered."""

    names: frozenset[str]
    """The fields that it names."""
    pieces: Callable[[Mapping[str, object]], Iterator[str]]

    def rendered(self, fields: Mapping[str, str], missing: Callable[[str], None], characters_max: int) -> str:
        """What it says of a contact with these fields; a blank one counts as one that it does not have.

        `missing` is told each field that would have to be written and is not there. Raises TemplateFault where more
        comes out than `characters_max`, or a field is too long.
        """
        for name in sorted(self.names):
            if len(fields.get(name, "")) > FIELD_CHARACTERS_MAX:
                raise TemplateFault(1, f"{name} is longer than {FIELD_CHARACTERS_MAX:,} characters")
        values: dict[str, object] = {
            name: value if (value := fields.get(name, "")).strip() else Absent(name, missing) for name in self.names
        }
        written: list[str] = []
        left = characters_max
        for piece in self.pieces({**values, FIELDS: values}):
            left -= len(piece)
            if left < 0:
                raise TemplateFault(1, f"more than {characters_max:,} characters come out of it")
            written.append(piece)
        return "".join(written)


@lru_cache(maxsize=2)
def _environment(*, html: bool) -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=html, keep_trailing_newline=True)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


@lru_cache(maxsize=128)
def parsed(source: str, *, html: bool) -> Template:
    """The template that a text is; in HTML fields are escaped. Raises TemplateFault."""
    if len(source) > SOURCE_CHARACTERS_MAX:
        raise TemplateFault(1, f"longer than {SOURCE_CHARACTERS_MAX:,} characters")
    environment = _environment(html=html)
    try:
        tree = environment.parse(source)
        names = _judged(tree)
        code = environment.compile(tree)
    except TemplateSyntaxError as error:
        raise TemplateFault(error.lineno, error.message or "does not parse") from error
    except (RecursionError, SyntaxError, MemoryError, OverflowError) as error:
        raise TemplateFault(1, "nested too deep") from error
    return Template(names, environment.template_class.from_code(environment, code, {}).generate)


def _judged(tree: nodes.Template) -> frozenset[str]:
    """The fields that a template names. Raises TemplateFault where it says what none may."""
    names: set[str] = set()
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > DEPTH_MAX or count > NODES_MAX:
            raise TemplateFault(node.lineno or 1, f"nested deeper than {DEPTH_MAX}, or more than {NODES_MAX:,} things")
        if (fault := _fault_of(node)) is not None:
            raise TemplateFault(node.lineno, fault)
        match node:
            case nodes.Getitem(arg=nodes.Const(value=name)):
                names.add(name)
            case nodes.Name():
                names.add(node.name)
            case _:
                waiting.extend((child, depth + 1) for child in node.iter_child_nodes())
    return frozenset(names)


def _fault_of(node: nodes.Node) -> str | None:
    match node:
        case nodes.Filter(name=name, args=args) if not _texts(node, args, _FILTERS.get(name)):
            return f"the filter {name} is not one of {', '.join(_FILTERS)}, or has other arguments than it takes"
        case nodes.Test(name=name, args=args) if name not in _TESTS or not _texts(node, args, 0):
            return f"the test {name} is not one of {', '.join(_TESTS)}"
        case nodes.Operand(op=op) if op not in ("eq", "ne"):
            return "only == and != compare"
        case nodes.Const(value=value) if not isinstance(value, str):
            return f"{value!r} is no text: write it between quotes"
        case nodes.CondExpr(expr2=None):
            return "an if without else says nothing of the other case"
        case nodes.Getitem(node=nodes.Name(name="fields"), arg=nodes.Const(value=str())):
            return None
        case nodes.Getitem():
            return 'only fields["…"] takes brackets'
        case nodes.Name(name=name) if name in _OWN_WORDS:
            return f'{name} is a word of the language: write fields["{name}"]'
        case _ if not isinstance(node, _NODES):
            return f"a template may not say that ({type(node).__name__})"
    return None


def _texts(node: nodes.Filter | nodes.Test, args: list[nodes.Expr], count: int | None) -> bool:
    plain = node.node is not None and not (node.kwargs or node.dyn_args or node.dyn_kwargs)
    return plain and len(args) == count and all(isinstance(arg, nodes.Const) for arg in args)
