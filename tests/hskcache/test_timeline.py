"""Phases of a run add up to its time, whichever thread they are of, and a trace holds every call that was timed."""

import json
import threading
from pathlib import Path

import pytest
from commanded import KEEP, SMALL, run

from hskcache.timeline import EVERY, FIRST_CALLS, recording, span


def spin(rounds: int) -> int:
    return sum(range(rounds * 1000))


@span("decorated")
def decorated() -> int:
    with span("inner"):
        return spin(20)


def test_phases_within_others_are_taken_out_of_them() -> None:
    with recording() as timeline, span("outer"):
        spin(5)
        for _ in range(3):
            decorated()
    spans = {name: [one for one in timeline.spans if one.name == name] for name in ("outer", "decorated", "inner")}
    assert {name: len(found) for name, found in spans.items()} == {"outer": 1, "decorated": 3, "inner": 3}
    (outer,) = spans["outer"]
    within = sum(one.end_s - one.begin_s for one in spans["decorated"])
    assert outer.own_s == pytest.approx(outer.end_s - outer.begin_s - within)
    assert sum(one.own_s for one in timeline.spans) == pytest.approx(outer.end_s - outer.begin_s)


def test_of_many_calls_some_are_timed_and_all_counted() -> None:
    with recording() as timeline:
        for _ in range(200):
            with span("often"):
                spin(1)
    assert len(timeline.spans) == FIRST_CALLS + (200 - FIRST_CALLS) // EVERY
    (phase,) = timeline.phases()
    assert (phase.name, phase.num_calls) == ("often", 200)


def test_what_is_within_a_timed_call_is_timed() -> None:
    with recording() as timeline:
        for number in range(50):
            with span("outer"):
                pass
            if number >= FIRST_CALLS:
                with span("outer"), span("inner"):
                    pass
    timed = [one for one in timeline.spans if one.name == "outer"]
    inner = [one for one in timeline.spans if one.name == "inner"]
    assert all(any(one.begin_s <= other.begin_s and other.end_s <= one.end_s for other in inner) for one in timed[20:])


def test_threads_stand_beside_the_main_one_and_errors_end_a_phase() -> None:
    def work() -> None:
        with pytest.raises(ValueError, match="wrong"), span("work"):
            raise ValueError("wrong")

    with recording() as timeline:
        thread = threading.Thread(target=work, name="writer")
        thread.start()
        thread.join()
        with span("work"):
            pass
    assert [(phase.name, phase.is_main) for phase in timeline.phases()] == [("work", True), ("work", False)]
    events = json.loads(timeline.trace())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} == {"writer", "MainThread"}
    assert [event["name"] for event in events if event["ph"] == "X"] == ["work", "work"]
    with span("afterwards"):
        pass
    assert len(timeline.spans) == 2


def test_a_build_tells_where_its_time_went(sources: tuple[object, ...], tmp_path: Path) -> None:
    trace = tmp_path / "new" / "trace.json"
    command = ("build", *sources, "--task", "sst2", *KEEP, *SMALL, "--out", tmp_path / "c")
    done = run(*command, "--profile", trace)
    assert done.exit_code == 0, done.output
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert {"load the teacher", "read rows", "tokenize", "forward", "select and encode"} < set(names)
    # Five shards of three fields, and the constants of one.
    assert [names.count(name) for name in ("compress", "hash", "write and sync")] == [16] * 3
    assert "beside: compress" in done.stderr
    assert "everything else" in done.stderr
    # With nothing left to do it says so all the same.
    assert "already complete" in run(*command, "--profile", trace).stderr


def test_a_trace_that_cannot_be_written_is_refused_before_the_run(sources: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("build", *sources, "--out", tmp_path / "c", "--profile", tmp_path / "file" / "trace.json")
    assert done.exit_code == 2
    assert "trace.json" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "c").exists()
