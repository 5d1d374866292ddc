"""Sinks, what a killed run leaves, and the page that lists every metric."""

import json

import pytest

from rl.metrics import JsonlSink, Metrics, TensorBoardSink, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def test_lines_come_back(path):
    sink = JsonlSink(path)
    sink.write("rl", 1, {"reward": 0.5})
    sink.write("validation", 0, {"greedy_accuracy": 0.25})
    assert [r["reward"] for r in read_metrics(path, stage="rl")] == [0.5], "readable while the run goes on"
    sink.close()
    assert [(r["stage"], r["step"]) for r in read_metrics(path)] == [("rl", 1), ("validation", 0)]
    assert read_metrics(path.with_name("none.jsonl")) == []


def test_numbers_that_json_lacks_are_null(path):
    sink = JsonlSink(path)
    sink.write("rl", 1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    sink.close()
    row = json.loads(path.read_text())
    assert (row["a"], row["b"], row["c"]) == (None, None, 1.0)


def test_the_later_line_of_a_step_wins(path):
    sink = JsonlSink(path)
    for step, value in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 2.2), (3, 3.3)):
        sink.write("rl", step, {"x": value})
    sink.close()
    assert [(r["step"], r["x"]) for r in read_metrics(path)] == [(1, 0.1), (2, 2.2), (3, 3.3)]


def test_a_line_cut_off_by_a_kill_costs_itself_alone(path):
    """The run that goes on writes its first line on a line of its own."""
    sink = JsonlSink(path)
    sink.write("rl", 1, {"x": 1.0})
    sink.write("rl", 2, {"x": 2.0})
    sink.close()
    path.write_bytes(path.read_bytes()[:-15])
    assert [r["step"] for r in read_metrics(path)] == [1]
    sink = JsonlSink(path)
    sink.write("rl", 3, {"x": 3.0})
    sink.close()
    assert [r["step"] for r in read_metrics(path)] == [1, 3]


def test_a_full_line_gets_no_empty_one_behind_it(path):
    for step in (1, 2):
        sink = JsonlSink(path)
        sink.write("rl", step, {})
        sink.close()
    assert path.read_text().count("\n") == 2


def test_tensorboard_holds_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path)
    sink.write("rl", 3, {"reward": 0.5, "accuracy/sums": 0.25})
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"rl/reward", "rl/accuracy/sums"}
    [event] = events.Scalars("rl/reward")
    assert (event.step, event.value) == (3, 0.5)


class Recorder:
    def __init__(self):
        self.seen = []

    def write(self, stage, step, metrics):
        self.seen.append((stage, step, dict(metrics)))

    def close(self):
        self.seen.append("closed")


def test_every_sink_gets_every_step():
    sinks = [Recorder(), Recorder()]
    metrics = Metrics(sinks)
    metrics.write("rl", 1, {"x": 1.0})
    metrics.close()
    assert [s.seen for s in sinks] == [[("rl", 1, {"x": 1.0}), "closed"]] * 2
