"""`examples/task_file/openmmreasoner.py` on small Parquet files in the layout of both data sets."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.data import SourceConfig
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.source import build_source

EXAMPLES = Path(__file__).parents[3] / "examples" / "task_file"


def png():
    file = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(file, "PNG")
    return file.getvalue()


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(value):
    return {"type": "text", "text": value, "image_url": None}


def source(function, folder, **options):
    config = SourceConfig(use=f"openmmreasoner.py:{function}", options={"folder": str(folder), **options})
    return build_source(config, base=EXAMPLES)


@pytest.fixture
def worked(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png())
    picture = {"type": "image_url", "text": None, "image_url": {"url": "images/1.png"}}
    reply = {"role": "assistant", "content": [text("<think>2 and 2 make 4.</think>\n<answer>4</answer>")]}
    rows = [
        {"id": "held", "messages": [user(text("first row of twenty")), reply]},
        {"id": "a", "messages": [user(picture, text("<image>What is 2 + 2?")), reply]},
        {"id": "b", "messages": [user(text("No thinking")), {"role": "assistant", "content": [text("4")]}]},
        {"id": "c", "messages": [user(text("And in words?")), reply]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "part.parquet")
    return tmp_path


def test_worked_solutions_become_tasks_with_pictures_and_replies_without_thinking_are_left_out(worked):
    tasks = [source("sft", worked).task(index, 0) for index in range(2)]
    assert [task.question for task in tasks] == ["What is 2 + 2?", "And in words?"]
    assert [(task.solution, task.answer) for task in tasks] == [("2 and 2 make 4.", "4")] * 2
    assert [len(task.images) for task in tasks] == [1, 0]
    assert len(source("sft", worked, count=1)) == 1


def test_one_row_in_twenty_is_held_out(worked):
    config = SourceConfig(use="openmmreasoner.py:sft", split="held_out", options={"folder": str(worked)})
    held = build_source(config, base=EXAMPLES)
    assert [held.task(index, 0).question for index in range(len(held))] == ["first row of twenty"]


def test_questions_for_rl_come_from_verls_columns(tmp_path):
    prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "<image>How many dots?"}]
    row = {"prompt": prompt, "images": [{"bytes": png(), "path": None}], "reward_model": {"ground_truth": "3"}}
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "train.parquet")
    tasks = source("rl", tmp_path)
    task = tasks.task(0, 0)
    assert (len(tasks), task.answer, len(task.images), "How many dots?" in task.question) == (1, "3", 1, True)


@pytest.mark.parametrize("function", ["sft", "rl"])
def test_data_that_was_not_downloaded_is_said_to_be(function, tmp_path):
    with pytest.raises(DataSetError, match=r"nothing has no \*\*/\*\.parquet; download it first"):
        source(function, tmp_path / "nothing")
