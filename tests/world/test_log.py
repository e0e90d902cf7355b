"""The log is the oracle of everything else, so it must lose nothing."""

from pathlib import Path

from tests.world.behaviours import Enrichment, Now, Request
from tests.world.log import Log, read_log


def test_a_call_that_never_ended_is_written_when_the_log_is_closed(tmp_path: Path) -> None:
    log = Log("finder", tmp_path / "log.jsonl")
    request, now = Request("GET", "/", query={"email": "ada@north.example"}), Now(5, 7)
    first, second = (log.begin(request, now, Enrichment().respond(request, now)) for _ in range(2))
    log.end(second, "answered", 9)
    log.close()
    assert read_log(tmp_path / "log.jsonl") == [first, second]
    assert [(call.n, call.ended, call.ended_us) for call in (first, second)] == [(1, "open", None), (2, "answered", 9)]
    assert (first.arrived_us, first.arrived_wall_us, first.lead) == (5, 7, "ada@north.example")
