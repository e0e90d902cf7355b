"""What becomes of the rounds."""

import json
from pathlib import Path

import pytest

from tests.bench import figures
from tests.bench.__main__ import DOCUMENT, main
from tests.bench.figures import Figure, Round, Row, figure
from tests.bench.rows import ROWS
from tests.bench.scenarios import SCENARIOS

FAST = Row("fast", "as fast as it goes", "the limit", "/s", 0.3, 0.5, 0.75)
SMALL = Row("small", "as small as it gets", "", "bytes", 250, 180, 120, less_is_better=True)


@pytest.mark.parametrize(
    ("ratio", "word"),
    [(0.29, "below floor"), (0.3, "floor"), (0.49, "floor"), (0.5, "target"), (0.75, "stretch"), (2.0, "stretch")],
)
def test_the_verdict_is_the_best_bound_that_is_reached(ratio: float, word: str) -> None:
    assert figures.verdict(FAST, ratio) == word


@pytest.mark.parametrize(("number", "word"), [(251, "below floor"), (250, "floor"), (180, "target"), (1, "stretch")])
def test_where_less_is_better_the_bounds_are_upper_ones(number: float, word: str) -> None:
    assert figures.verdict(SMALL, number) == word


def test_a_row_without_a_floor_that_misses_its_target_is_below_what_is_asked() -> None:
    late = Row("late", "late", "", "ms", None, 5, 2, less_is_better=True)
    assert figures.verdict(late, 6) == "below floor"
    assert figures.verdict(Row("any", "any", "", "/s"), 6) == "measured"


def test_no_bound_counts_above_a_floor_that_is_missed() -> None:
    strict = Row("strict", "stricter than the target", "", "ms", 3, 5, 2, less_is_better=True)
    assert figures.verdict(strict, 4) == "below floor"
    assert figures.verdict(strict, 3) == "target"


def test_the_floor_is_what_a_peer_took_in_the_same_run_and_else_a_constant() -> None:
    row = Row("latency", "late", "", "ms", 14, 5, 2, less_is_better=True, floor_row="theirs")
    theirs = [Round(3, 9), Round(3, 11), Round(3, 50)]
    assert figures.floored(row, {"theirs": theirs}).floor == 11
    assert figures.floored(row, {"theirs": []}) == row
    assert figures.floored(row, {}) == row
    assert figures.floored(SMALL, {"theirs": theirs}) == SMALL


def test_a_floor_is_not_taken_from_a_round_on_a_stalled_disk() -> None:
    row = Row("latency", "late", "", "ms", 14, 5, 2, less_is_better=True, floor_row="theirs")
    assert figures.floored(row, {"theirs": [Round(3, 900, stalled=True), Round(3, 9)]}).floor == 9
    assert figures.floored(row, {"theirs": [Round(3, 900, stalled=True)]}).floor == 900


def test_a_figure_is_the_median_of_the_ratios_and_not_the_ratio_of_medians() -> None:
    found = figure(FAST, [Round(10, 100), Round(50, 100), Round(60, 300)])
    assert found.ratio == pytest.approx(0.2)
    assert found.verdict == "below floor"


def test_rounds_on_a_stalled_disk_are_left_out_where_there_are_others() -> None:
    found = figure(FAST, [Round(1, 100, stalled=True), Round(60, 100)])
    assert (found.ratio, found.rounds, found.stalled) == (0.6, 1, 1)
    assert "stalled" in figures.text_table([found])


def test_with_nothing_but_stalled_rounds_they_count_and_the_table_says_so() -> None:
    found = figure(FAST, [Round(40, 100, stalled=True)])
    assert (found.ratio, found.rounds, found.stalled) == (0.4, 0, 1)


def some_figures() -> list[Figure]:
    return [figure(FAST, [Round(60, 100)]), figure(SMALL, [Round(1234)])]


def test_the_table_is_written_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    where = figures.machine(3, "18.6", [0.001] * 200)
    figures.write_into(document, some_figures(), where)
    figures.write_into(document, some_figures(), where)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| as fast as it goes | 60 /s |") == 1
    assert "| 1,234 bytes |" in text


def test_what_is_said_of_the_machine_names_the_peer_where_there_was_one(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"{figures.BEGIN}{figures.END}")
    where = figures.machine(3, "18.6", [0.001] * 200)
    figures.write_into(document, some_figures(), where)
    assert "medians of 3 rounds.\n" in document.read_text()
    figures.write_into(document, some_figures(), where | {"pgqueuer": "1.6.0"})
    assert "medians of 3 rounds, PgQueuer 1.6.0.\n" in document.read_text()


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("no place\n")
    with pytest.raises(ValueError, match="no place for the table"):
        figures.write_into(document, some_figures(), figures.machine(3, "18.6", [0.001] * 200))
    assert document.read_text() == "no place\n"


def test_the_documentation_has_a_place_for_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.index(figures.BEGIN) < text.index(figures.END)


def test_the_json_holds_every_figure_with_its_row() -> None:
    read = json.loads(figures.as_json(some_figures(), figures.machine(3, "18.6", [0.001] * 200)))
    assert [each["row"]["name"] for each in read["figures"]] == ["fast", "small"]
    assert read["figures"][0]["ratio"] == pytest.approx(0.6)


def test_every_row_is_measured_by_one_scenario() -> None:
    measured = [name for names in SCENARIOS.values() for name in names]
    assert sorted(measured) == sorted(row.name for row in ROWS)


def test_every_row_that_sets_a_floor_is_a_row_with_peers() -> None:
    setting = {row.floor_row for row in ROWS} - {""}
    assert setting <= {row.name for row in ROWS if row.with_peers and row.limit}


def test_rows_with_peers_are_refused_without_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--rows", "cpu,peer_completed"])
    with pytest.raises(SystemExit):
        main()
    assert "need --peers" in capsys.readouterr().err
