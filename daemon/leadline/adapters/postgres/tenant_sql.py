"""Statements with something in them that a tenant has written: a filter or a formula, compiled.

They run as the role leadline_expressions, which can read leads and write their data and reach nothing else, and the
session bounds their time; that is the second wall behind the parser that compiled them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import asyncpg

from leadline.adapters.postgres.lead_rows import numbers
from leadline.features.tables.expressions import Compiled
from leadline_protocol.errors import ErrorCode, Refused


def is_true(condition: Compiled) -> str:
    """SQL that is true where the condition is."""
    return f"({condition.value})" if condition.true_is_sound else f"({condition.value}) AND ({condition.fails}) IS NULL"


class Given:
    """The parameters of a statement with a compiled expression in it.

    Everything travels in one array of texts because a function takes a fixed number of arguments. The statement is
    planned anew each time, so that Postgres takes them for constants and folds them.
    """

    def __init__(self, expression: Compiled | None) -> None:
        self.parameters: Final = list(expression.parameters) if expression is not None else []

    def text(self, value: str) -> str:
        """SQL that reads one more parameter."""
        self.parameters.append(value)
        return f"($1)[{len(self.parameters)}]"

    def number(self, value: int) -> str:
        """SQL that reads one more, a number."""
        return f"{self.text(str(value))}::bigint"

    def numbers(self, values: Sequence[int]) -> str:
        """SQL that reads one more, an array of numbers."""
        return f"string_to_array({self.text(numbers(values))}, ',')::bigint[]"


@contextmanager
def held_against(field: str) -> Iterator[None]:
    """What takes too long is the expression's fault, and not the database's: to try again would change nothing."""
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise Refused(ErrorCode.BAD_EXPRESSION, f"given up by the database: {error}", at=field) from error
