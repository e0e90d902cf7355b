"""Texts that a spreadsheet would run as formulas, in CSV (OWASP, CSV injection).

An apostrophe in front makes such a text a mere text. So that it can be taken off again without doubt, one is also put
before a text that has some already: `=1` is written `'=1`, and `'=1` is written `''=1`.
"""

import re
from typing import Final

from leadline.features.tables.columns import JsonValue, cell_text

_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_DEFUSED: Final = re.compile(r"'+[=+\-@\t\r]")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would take the text for a formula."""
    return _FORMULA.match(text) is not None


def defused(text: str) -> str:
    """The text as a cell of CSV that is none."""
    return "'" + text if _FORMULA.match(text) or _DEFUSED.match(text) else text


def csv_cell(value: JsonValue) -> str:
    """A value as a cell of CSV that is no formula; a number is one, as it is."""
    return defused(value) if isinstance(value, str) else cell_text(value)


def restored(cell: str) -> str:
    """The text that was defused so."""
    return cell[1:] if _DEFUSED.match(cell) else cell
