"""A queue on virtual time for every test that wants one; it is audited after each of its steps."""

import pytest

from tests.core.harness import Harness


@pytest.fixture
def queue() -> Harness:
    return Harness()
