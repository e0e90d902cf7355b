"""A filter or a formula → SQL that can reach nothing but the lead it stands on, and cannot fail a statement.

`compile_expression("revenue / employees", columns, field="where")` gives fragments over the table alias `lead`:

    value   what the expression is worth for a lead; never raises
    fails   why it fails for a lead (a word of the lead reasons), NULL where it does not; None where it never can

so that one bad cell costs one lead. A division becomes `a / NULLIF(b, 0)`, a cast calls a function of
the database that gives NULL for what it cannot read, and `fails` asks afterwards what happened. It
follows the way in which a person reads the expression: of AND, OR, CASE and COALESCE only what decides is looked at,
from left to right, so `b <> 0 and a / b > 2` fails for no lead.

The complication is trust: the text is a tenant's. Nothing of it reaches Postgres as text. sqlglot parses it; a first
pass over the tokens and a second over the tree admit what is listed here, by name, and refuse everything else with its
place; the SQL is then written anew from the tree, every literal and every column name as a parameter. What could
grow without bound (numbers, texts, patterns) has its bound at compile time or in its function.

Numbers are Postgres' numeric throughout: 5 / 2 is 2.5. Timestamps are moments, read and written in UTC. `where` and
formulas are the same language; a filter is an expression that is worth true or false.
"""

from collections.abc import Mapping
from functools import lru_cache

from leadline.features.tables.columns import ColumnType
from leadline.features.tables.expressions.compiler import Compiled, Compiler
from leadline.features.tables.expressions.faults import FaultError
from leadline.features.tables.expressions.functions import DOCUMENTATION
from leadline.features.tables.expressions.grammar import parsed
from leadline_protocol.errors import Refused

__all__ = ["DOCUMENTATION", "Compiled", "compile_expression"]


def compile_expression(
    text: str,
    columns: Mapping[str, ColumnType],
    *,
    field: str,
    wants: ColumnType | None = None,
) -> Compiled:
    """The SQL of an expression over a table with these columns, for a result of type `wants` (None: of any type).

    Raises:
        Refused: `bad_expression` or `unknown_column`, at `field:N`, N the 1-based character where the fault begins.

    """
    try:
        return _compiled(text, tuple(columns.items()), wants)
    except FaultError as fault:
        raise Refused(fault.code, fault.message, at=f"{field}:{fault.offset + 1}") from None


@lru_cache(maxsize=2_048)
def _compiled(text: str, columns: tuple[tuple[str, ColumnType], ...], wants: ColumnType | None) -> Compiled:
    names = dict(columns)
    tree = parsed(text, names, DOCUMENTATION)
    compiler = Compiler(names)
    return compiler.finish(compiler.term(tree, 1), wants)
