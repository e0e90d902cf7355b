"""The top level is a promise to newcomers: everything has one obvious place, and nothing gathers beside it."""

import pytest

from tests.architecture.repository import ROOT, tracked_files

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"),
    *("daemon", "protocol", "tests", "deploy", "scripts"),
    *(".ci", ".github", ".gitignore"),
}


@pytest.mark.needs("git")
def test_the_top_level_is_exactly_what_newcomers_are_told() -> None:
    assert {path.parts[0] for path in tracked_files()} == TOP_LEVEL


@pytest.mark.needs("git")
def test_every_directory_of_tests_is_a_package() -> None:
    folders = {path.parent for path in tracked_files() if path.parts[0] == "tests" and path.suffix == ".py"}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()] == []


@pytest.mark.needs("git")
def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert [str(path) for path in tracked_files() if path.suffix == ".py" and path.stem in drawers] == []
