"""Columns as public data sets have them: nothing is dropped in silence, and numbers keep their text."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_dataset import GOOD, open_lines, png, tasks

from rewards.types import Task
from rollouts.tasks.columns import ColumnError, map_columns
from rollouts.tasks.dataset import DataSetError, DatasetTasks
from rollouts.tasks.prompts import messages


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(png())


@pytest.mark.parametrize("late", [{"images": ["a.png"]}, {"choices": ["3", "4"]}, {"verifier": "text"}])
def test_a_column_may_appear_in_any_row(tmp_path, late):
    found = tasks(open_lines(tmp_path, [GOOD] * 1001 + [{**GOOD, **late}]))[-1]
    assert (found.images, found.choices, found.verifier) != ((), (), "math")


def test_rows_may_mix_image_and_images(tmp_path):
    rows = [{**GOOD, "image": "a.png"}, {**GOOD, "images": ["a.png", "b.png"]}, {**GOOD, "image": None, "images": []}]
    assert [len(task.images) for task in tasks(open_lines(tmp_path, rows))] == [1, 2, 0]


def test_a_row_with_two_columns_of_images_is_counted(tmp_path):
    source = open_lines(tmp_path, [GOOD, {**GOOD, "image": "a.png", "images": ["b.png"]}])
    assert source.report.by_reason == {"images in more than one column": 1}


def test_numbered_images_are_taken_in_their_order(tmp_path):
    row = {**GOOD, "image_10": "c.png", "image_2": "b.png", "image_1": "a.png", "image_3": None}
    (tmp_path / "b.png").write_bytes(png("blue"))
    (tmp_path / "c.png").write_bytes(png("green"))
    [task] = tasks(open_lines(tmp_path, [row]))
    assert task.images == (png(), png("blue"), png("green"))


@pytest.mark.parametrize("value", ["a.png", ["a.png"], {"path": "a.png"}, "data:image/png;base64,AAAA"])
def test_a_column_of_images_that_is_not_used_is_reported(tmp_path, value):
    source = open_lines(tmp_path, [GOOD, {**GOOD, "img": value}])
    assert source.report.lines() == [
        "tasks: column 'img' holds images and is not used; `columns: {images: img}` uses it"
    ]


def test_a_column_that_holds_no_images_is_not_reported(tmp_path):
    assert open_lines(tmp_path, [{**GOOD, "image_id": 7, "figure": "see page 3"}]).report.lines() == []


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([0.1], pa.float64()), "0.1"),
        (pa.array([5.0], pa.float64()), "5"),
        (pa.array([1e300], pa.float64()), "1e+300"),
        (pa.array([-2.5], pa.float16()), "-2.5"),
        (pa.array([7], pa.int64()), "7"),
    ],
)
def test_numbers_of_a_parquet_file_keep_their_text(tmp_path, column, text):
    pq.write_table(pa.table({"question": ["?"], "answer": column}), tmp_path / "tasks.parquet")
    assert tasks(DatasetTasks("tasks.parquet", base=tmp_path))[0].answer == text


def test_r1vs_layout(tmp_path):
    rows = [{"problem": "How many?", "solution": "<answer> 3 </answer>"}]
    [task] = tasks(open_lines(tmp_path, rows, columns={"question": "problem", "answer": "solution"}))
    assert (task.answer, task.solution) == ("3", None), "the answer is not taken for the thinking"


@pytest.mark.parametrize(
    ("solution", "kept"),
    [
        ("<think>One and two.</think><answer>3</answer>", "One and two."),
        ("◁think▷One and two.◁/think▷3", "One and two."),
        ("One and two.", "One and two."),
    ],
)
def test_think_marks_around_a_solution_are_taken_off(tmp_path, solution, kept):
    assert tasks(open_lines(tmp_path, [{**GOOD, "solution": solution}]))[0].solution == kept


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"solution": "One </think> two"}, "solution holds think or answer marks"),
        ({"solution": "<answer>3</answer>"}, "solution holds think or answer marks"),
        ({"solution": "Three.<|im_end|>"}, "solution holds a control token"),
        ({"question": "Who?<|im_end|><|im_system|>"}, "question holds a control token"),
        ({"choices": ["3", "<|im_end|>"]}, "an option holds a control token"),
        ({"question": "<image> and <image>", "image": "a.png"}, "question has more or fewer <image> than images"),
        ({"question": "<image> What?"}, "question has more or fewer <image> than images"),
    ],
)
def test_what_the_model_would_misread_is_refused(tmp_path, row, reason):
    assert open_lines(tmp_path, [GOOD, {**GOOD, **row}]).report.by_reason == {reason: 1}


def test_images_stand_at_their_placeholders():
    task = Task(id="t", source="t", question="<image>\nBefore <image> after.", answer="1", images=(b"1", b"2"))
    [turn] = messages(task)
    assert [part.get("text", part["type"]) for part in turn["content"]] == ["image", "Before ", "image", " after."]


@pytest.mark.parametrize(("level", "difficulty"), [("Level 1", 0.0), ("level 3", 0.5), ("Level 5", 1.0)])
def test_maths_levels_are_difficulties(tmp_path, level, difficulty):
    assert tasks(open_lines(tmp_path, [{**GOOD, "difficulty": level}]))[0].difficulty == difficulty


@pytest.mark.parametrize(
    ("value", "tags"),
    [("plane geometry", ("plane geometry",)), (["a", "b", "a", ""], ("a", "b")), (None, ()), ([], ()), (3, ("3",))],
)
def test_tags_are_a_text_or_a_list(tmp_path, value, tags):
    assert tasks(open_lines(tmp_path, [GOOD | {"domain": value}], columns={"tags": "domain"}))[0].tags == tags


def test_tags_of_another_kind_are_refused(tmp_path):
    assert open_lines(tmp_path, [GOOD, GOOD | {"tags": {"a": 1}}]).report.by_reason == {
        "a tag is neither text nor a number": 1
    }


def test_a_column_can_be_left_out(tmp_path):
    rows = [{**GOOD, "difficulty": "hard", "solution": "Three."}]
    [task] = tasks(open_lines(tmp_path, rows, columns={"difficulty": "", "solution": ""}))
    assert (task.difficulty, task.solution) == (None, None)
    with pytest.raises(DataSetError, match="no column 'answer'"):
        open_lines(tmp_path, rows, columns={"answer": ""})


def test_a_byte_order_mark_costs_no_row(tmp_path):
    (tmp_path / "tasks.jsonl").write_text("\ufeff" + json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n", "utf-8")
    source = DatasetTasks("tasks.jsonl", base=tmp_path)
    assert (len(source), source.report.total) == (2, 0)


def test_a_replacement_character_that_was_written_is_text(tmp_path):
    assert tasks(open_lines(tmp_path, [{**GOOD, "question": "What is \ufffd?"}]))[0].question == "What is \ufffd?"


@pytest.mark.parametrize(
    ("names", "hint"), [(("img", "q", "a"), "question: q"), (("img", "words"), "question: COLUMN")]
)
def test_the_hint_names_a_column_that_may_hold_the_field(names, hint):
    with pytest.raises(ColumnError, match=hint):
        map_columns("mine.jsonl", names, {})


def test_a_small_file_is_read_without_progress_bars(tmp_path, capfd):
    open_lines(tmp_path, [GOOD])
    assert "Generating" not in capfd.readouterr().err
