"""Trackers: what each of them keeps, and what a killed run or a failing server leaves."""

import json
import sqlite3

import pytest

from configs.errors import UserError
from rl.run.trackers.jsonl_tracker import JsonlTracker, read_metrics
from rl.run.trackers.run_info import RunInfo
from rl.run.trackers.table import TRACKERS, Metrics

RECIPE = {"name": "test", "seed": 3, "model": {"path": "tiny", "lora": None}, "stages": [{"kind": "sft", "steps": 2}]}


@pytest.fixture
def run(tmp_path):
    return RunInfo(folder=tmp_path, name="test", recipe=RECIPE)


@pytest.fixture
def path(run):
    return run.folder / "metrics.jsonl"


def test_hyper_parameters_have_dotted_keys_and_no_nulls(run):
    found = run.hyper_parameters()
    assert found["model.path"] == "tiny"
    assert found["stages.0.steps"] == 2
    assert "model.lora" not in found


def test_lines_come_back(run, path):
    tracker = JsonlTracker(run)
    tracker.write("rl", 1, {"reward": 0.5})
    tracker.write("validation", 0, {"greedy_accuracy": 0.25})
    assert [r["reward"] for r in read_metrics(path, stage="rl")] == [0.5], "readable while the run goes on"
    tracker.close()
    assert [(r["stage"], r["step"]) for r in read_metrics(path)] == [("rl", 1), ("validation", 0)]
    assert read_metrics(path.with_name("none.jsonl")) == []


def test_numbers_that_json_lacks_are_null(run, path):
    tracker = JsonlTracker(run)
    tracker.write("rl", 1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    tracker.close()
    row = json.loads(path.read_text())
    assert (row["a"], row["b"], row["c"]) == (None, None, 1.0)


def test_the_later_line_of_a_step_wins(run, path):
    tracker = JsonlTracker(run)
    for step, value in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 2.2), (3, 3.3)):
        tracker.write("rl", step, {"x": value})
    tracker.close()
    assert [(r["step"], r["x"]) for r in read_metrics(path)] == [(1, 0.1), (2, 2.2), (3, 3.3)]


def test_a_line_cut_off_by_a_kill_costs_itself_alone(run, path):
    """The run that goes on writes its first line on a line of its own."""
    tracker = JsonlTracker(run)
    tracker.write("rl", 1, {"x": 1.0})
    tracker.write("rl", 2, {"x": 2.0})
    tracker.close()
    path.write_bytes(path.read_bytes()[:-15])
    assert [r["step"] for r in read_metrics(path)] == [1]
    tracker = JsonlTracker(run)
    tracker.write("rl", 3, {"x": 3.0})
    tracker.close()
    assert [r["step"] for r in read_metrics(path)] == [1, 3]


def test_a_full_line_gets_no_empty_one_behind_it(run, path):
    for step in (1, 2):
        tracker = JsonlTracker(run)
        tracker.write("rl", step, {})
        tracker.close()
    assert path.read_text().count("\n") == 2


def use_twice(name, run):
    """Two invocations of one run: the second goes on where the first was killed."""
    for step in (1, 2):
        tracker = TRACKERS[name].make(run)
        tracker.write("rl", step, {"reward": step / 2, "accuracy/sums": 0.25})
        tracker.write("held_out/rl", 0, {"greedy_accuracy": float("nan")})
        tracker.close()


def test_tensorboard_holds_the_numbers_and_the_recipe(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use_twice("tensorboard", run)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"rl/reward", "rl/accuracy/sums", "held_out/rl/greedy_accuracy"}
    assert sorted((event.step, event.value) for event in events.Scalars("rl/reward")) == [(1, 0.5), (2, 1.0)]
    [text] = events.Tensors("recipe/text_summary")[:1]
    assert b"path: tiny" in text.tensor_proto.string_val[0]


def test_wandb_offline(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    use_twice("wandb", run)
    kept = [file.read_bytes() for file in run.folder.rglob("*.wandb")]
    assert len(kept) == 2, "one file for each invocation, which `wandb sync` joins by the run's id"
    for data in kept:
        assert all(text.encode() in data for text in (run.id("wandb"), "rl/reward", "held_out/rl/*", '"tiny"'))


def test_trackio_keeps_its_data_on_the_machine(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    use_twice("trackio", run)
    [database] = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row) for (row,) in connection.execute("select metrics from metrics")]
        [config] = [json.loads(row) for (row,) in connection.execute("select distinct config from configs")]
    assert sorted((r["rl/step"], r["rl/reward"]) for r in rows if "rl/reward" in r) == [(1, 0.5), (2, 1.0)]
    assert config["model.path"] == "tiny"


def test_mlflow_without_a_server(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    use_twice("mlflow", run)
    client = mlflow.MlflowClient(f"sqlite:///{run.folder / 'mlflow.db'}")
    [kept] = client.search_runs([client.get_experiment_by_name("thinkvl").experiment_id])
    history = client.get_metric_history(kept.info.run_id, "rl/reward")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 1.0)]
    assert kept.data.params["stages.0.steps"] == "2"


class Recorder:
    def __init__(self, error=None):
        self.seen, self.error = [], error

    def write(self, stage, step, metrics):
        if self.error:
            raise self.error
        self.seen.append((stage, step, dict(metrics)))

    def close(self):
        self.seen.append("closed")


def test_every_tracker_gets_every_step():
    trackers = {"jsonl": Recorder(), "other": Recorder()}
    metrics = Metrics(trackers, print)
    metrics.write("rl", 1, {"x": 1.0})
    metrics.close()
    assert [tracker.seen for tracker in trackers.values()] == [[("rl", 1, {"x": 1.0}), "closed"]] * 2


def test_a_tracker_that_fails_is_left_out_and_said_once():
    trackers, said = {"jsonl": Recorder(), "far": Recorder(error=OSError("no route"))}, []
    metrics = Metrics(trackers, said.append)
    for step in (1, 2):
        metrics.write("rl", step, {})
    metrics.close()
    assert said == ["tracker far failed at rl step 1 and is left out: no route"]
    assert trackers["far"].seen == ["closed"]
    assert len(trackers["jsonl"].seen) == 3


def test_jsonl_must_not_fail():
    with pytest.raises(OSError, match="disk full"):
        Metrics({"jsonl": Recorder(error=OSError("disk full"))}, print).write("rl", 1, {})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["wandbb"], r"trackers.0 = 'wandbb': unknown; did you mean wandb\?"),
        (["tensorboard", "tensorboard"], "trackers.1 = 'tensorboard': listed twice; remove one"),
    ],
)
def test_trackers_that_cannot_be_meant(run, names, message):
    with pytest.raises(UserError, match=message):
        Metrics.open(names, run, print)


def test_a_tracker_that_is_not_installed(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow is not installed; run `pip install 'thinkvl\[mlflow\]'`"):
        Metrics.open(["mlflow"], run, print)


def test_jsonl_is_always_written(run, path):
    metrics = Metrics.open([], run, print)
    metrics.write("rl", 1, {"x": 1.0})
    metrics.close()
    assert [row["x"] for row in read_metrics(path)] == [1.0]


def test_an_id_is_kept(run):
    assert run.known_id("wandb") is None
    assert run.id("wandb") == run.id("wandb") == run.known_id("wandb")


@pytest.mark.parametrize("data", [b"", b"\xff\x00", b"two\nlines", b"a" * 200, b"{}"])
def test_a_damaged_id_is_an_error_that_names_it(run, data):
    (run.folder / "wandb.id").write_bytes(data)
    for read in (run.id, run.known_id):
        with pytest.raises(UserError, match=r"wandb\.id: is damaged or no id of a run"):
            read("wandb")
