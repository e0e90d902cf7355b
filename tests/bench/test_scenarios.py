"""Every scenario runs to its end and brings what it promises; how fast, no test says."""

import pytest

from tests.bench.__main__ import measure
from tests.bench.rows import ROWS
from tests.bench.scenarios import Sizes

TINY = Sizes(
    jobs=200,
    client_jobs=100,
    commits=10,
    seconds=0.1,
    queued=500,
    dispatched_short=100,
    dispatched_long=1_000,
    leads=500,
    asked=100,
    idle_seconds=0.1,
    provider_windows=2,
    uploaded=300,
    teamspaces=(1, 20),
)


@pytest.mark.timeout(420)
async def test_every_row_is_measured_from_limit_to_verdict() -> None:
    rows = [row for row in ROWS if not row.with_peers]
    found, where = await measure([row.name for row in rows], 1, TINY, with_peers=False)
    assert [figure.row for figure in found] == rows
    assert all((figure.limit is None) == (figure.row.limit == "") for figure in found)
    assert all(figure.limit is None or figure.limit > 0 for figure in found)
    assert where["rounds"] == 1
