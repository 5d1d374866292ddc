"""A benchmark from rows to figures: predictions that survive a kill, figures by group, files for other kits."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from configs.errors import UserError
from configs.prompt import PromptConfig
from rewards.scorer import Scorer
from rewards.types import Task
from rl.run.benchmarks.answerers import Answer, Refusal, chat_messages
from rl.run.benchmarks.exports import export, lmms_log, vlmevalkit_table
from rl.run.benchmarks.predictions import Prediction, PredictionFile
from rl.run.benchmarks.results import read_results, table
from rl.run.benchmarks.run import run_benchmark
from rollouts.tasks.benchmarks.loading import BenchmarkTasks, choose

SETTINGS = {"model": "m", "stage": None, "sampling": {"max_new_tokens": 8}}


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def charts(tmp_path):
    """ChartQA with the answers 10, 20, 30, 40, and a row without an image."""
    rows = [
        {"type": ("human_test", "augmented_test")[at % 2], "question": f"How many, {at}?", "answer": f"{10 * at}",
         "image": {"bytes": png() if at < 5 else None, "path": None}}
        for at in range(1, 6)
    ]  # fmt: skip
    path = tmp_path / "test.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return BenchmarkTasks(choose(f"chartqa={path}"))


class Canned:
    """Answers from a dict by the reference; a number of answers, then an interruption."""

    def __init__(self, texts, stop_after=None):
        self.texts, self.stop_after, self.asked = texts, stop_after, []

    def answers(self, items):
        for item in items:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(item.task.answer)
            text = self.texts.get(item.task.answer)
            yield item, Refusal(reason="too long") if text is None else Answer(text=text, tokens=3, cut_off=False)

    def close(self):
        pass


TEXTS = {"10": "10.4", "20": "<think>hm</think>21", "30": "50"}


def run(tasks, answerer, folder):
    with Scorer(()) as scorer:
        return run_benchmark(tasks, answerer, scorer, folder=folder, settings=SETTINGS, seed=0)


def test_figures_by_group_and_what_was_left_out(charts, tmp_path):
    result, predictions = run(charts, Canned(TEXTS), tmp_path / "out")
    assert [p.kind for p in predictions] == ["correct", "correct", "wrong", "", ""]
    assert (result["accuracy"], result["accuracy_of_all"]) == (pytest.approx(2 / 3), pytest.approx(2 / 5))
    assert (result["rows"], result["answered"], result["thinking_share"]) == (5, 3, pytest.approx(1 / 3))
    assert result["left_out"] == {"too long": 1, "image is missing": 1}
    assert result["groups"]["type"] == {
        "augmented_test": {"accuracy": 0.5, "questions": 2},
        "human_test": {"accuracy": 1.0, "questions": 1},
    }
    (read,) = read_results(tmp_path / "out")
    assert (read["benchmark"], read["settings"], read["interval"]) == ("chartqa", SETTINGS, result["interval"])
    assert "| ChartQA (test) | relaxed accuracy | 66.7 | 0.0 to 100.0 | 3 | 2 | 0.0 | 3 |" in table([read])


def test_what_is_done_is_not_asked_again(charts, tmp_path):
    first = Canned(TEXTS, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(charts, first, tmp_path)
    second = Canned(TEXTS)
    result, _ = run(charts, second, tmp_path)
    assert (first.asked, second.asked) == (["10", "20"], ["30", "40"])
    again = Canned({"40": "40"})  # what was left out is tried again, what was answered is not
    better, predictions = run(charts, again, tmp_path)
    assert again.asked == ["40"]
    assert (result["answered"], better["answered"], better["accuracy"]) == (3, 4, 0.75)
    assert [p.number for p in predictions] == [0, 1, 2, 3, 4]


def test_a_line_that_a_kill_cut_short_is_written_again(charts, tmp_path):
    run(charts, Canned(TEXTS), tmp_path)
    path = tmp_path / "chartqa.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    answerer = Canned(TEXTS)
    run(charts, answerer, tmp_path)
    assert answerer.asked == ["20", "30", "40"]
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_other_settings_a_damaged_line_and_a_second_writer_are_errors(tmp_path):
    path = tmp_path / "a.jsonl"
    with PredictionFile(path, {"model": "m"}) as file:
        file.add(Prediction(id="x", number=0, kind="correct"))
        with pytest.raises(UserError, match="another evaluation writes it"):
            PredictionFile(path, {"model": "m"})
    with pytest.raises(UserError, match="model was 'm' and is 'n'"):
        PredictionFile(path, {"model": "n"})
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(UserError, match="line 3 is no prediction"):
        PredictionFile(path, {"model": "m"})


def test_vlmevalkit_reads_the_table(charts, tmp_path):
    pandas = pytest.importorskip("pandas")
    _, predictions = run(charts, Canned(TEXTS), tmp_path)
    paths = export(tmp_path / "exports", charts.chosen, predictions, model="runs/my model")
    assert [path.name for path in paths] == ["my_model_ChartQA_TEST.tsv", "samples_chartqa.jsonl", "chartqa.json"]
    read = pandas.read_csv(paths[0], sep="\t")
    assert list(read) == ["index", "question", "split", "answer", "prediction"]
    assert list(read["index"]) == [0, 1, 2, 3, 4]
    assert list(read["prediction"])[:3] == [10.4, 21, 50]
    assert read["split"][0] == "augmented_test"


def test_the_index_is_that_of_vlmevalkits_own_table(tmp_path):
    own = tmp_path / "MMMU_DEV_VAL.tsv"
    rows = [("index", "question", "answer", "A", "B"), ("7", "Which?", "B", "a", "b"), ("9", "Which?", "A", "a", "c")]
    with own.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    wanted = Prediction(id="1", number=0, question="Which?", answer="A", columns={"A": "a", "B": "c"}, prediction="A")
    written = list(csv.DictReader(io.StringIO(vlmevalkit_table([wanted], own)), delimiter="\t"))
    assert [(row["index"], row["prediction"]) for row in written] == [("9", "A")]
    with pytest.raises(UserError, match="has no row with the question 'Who"):
        vlmevalkit_table([Prediction(id="2", number=1, question="Who?", answer="A")], own)


def test_lmms_eval_reads_the_log(tmp_path):
    """What `from_log` does with the file: the first response of each document's number."""
    log = json.loads(lmms_log([Prediction(id="x", number=4, prediction="<think>a</think>B")], "mmmu_val", model="m"))
    assert log["args"]["limit"] is None
    assert {row["doc_id"]: row["resps"][0][0] for row in log["logs"]} == {4: "B"}
    assert log["model_configs"]["task"] == "mmmu_val"


def test_a_chat_message_has_its_images_where_the_question_says():
    task = Task(id="t", source="s", question="see <image> and <image>?", answer="", images=(png(), png()))
    (message,) = chat_messages(task, PromptConfig())
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text", "image_url", "text"]
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
