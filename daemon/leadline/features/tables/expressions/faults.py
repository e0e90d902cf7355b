"""What is wrong with an expression, and where it begins."""

from typing import TypeAlias

from leadline_protocol.errors import ErrorCode

Offset: TypeAlias = int
"""A character of the expression, from 0."""


class FaultError(Exception):
    """A fault, at a character."""

    def __init__(self, message: str, offset: Offset, code: ErrorCode = ErrorCode.BAD_EXPRESSION) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.code = code


def unknown_column(name: str, offset: Offset) -> FaultError:
    """The fault of a name that no column has."""
    return FaultError(f"the table has no column {shown(name)}", offset, ErrorCode.UNKNOWN_COLUMN)


def shown(text: str) -> str:
    """A piece of an expression as it is shown in a message: never longer than a glance."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
