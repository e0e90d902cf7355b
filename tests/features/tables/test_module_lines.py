"""Where in a module file each thing is said."""

import pytest

from leadline.features.tables.module_lines import line_of, lines_of

TEXT = '''# a comment
name = "x"

notes = """
[not.a.table]
name = "y"
"""
limits = [
    # one
    { shape = "window", amount = 0 },
    { shape = "cone" },
]
signals = [{ a = 1 }, { a = 2 }]
request.path = "/x"
[poll.request]
query = { a = "b" }  # and a comment
[[steps]]
kind = "a"
[[steps]]
kind = "b"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 2),
        ("notes", 4),
        ("limits", 8),
        ("limits[0].amount", 10),
        ("limits[1].shape", 11),
        ("limits[1].nothing", 11),
        ("signals[1].a", 13),
        ("request.path", 14),
        ("poll.request", 15),
        ("poll.request.query.a", 16),
        ("poll.request.path", 15),
        ("steps", 17),
        ("steps[0].kind", 18),
        ("steps[1]", 19),
        ("steps[1].kind", 20),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_path_is_on_the_line_on_which_it_or_what_holds_it_is_said(path: str, line: int | None) -> None:
    assert line_of(path, lines_of(TEXT)) == line
