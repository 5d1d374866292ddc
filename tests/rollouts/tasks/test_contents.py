"""The hash of a source's tasks changes with everything that a task holds, wherever it came from."""

import base64
import io
import json

import pytest
from datasets import Dataset
from PIL import Image

from configs.data import SourceConfig
from rollouts.tasks.dataset import DatasetTasks
from rollouts.tasks.mixture import TaskMixture, source_key

ROW = {"question": "How many?", "answer": "3"}


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def contents(folder, use, **options):
    mixture = TaskMixture([SourceConfig(use=use, **options)], seed=0, base=folder)
    (found,) = mixture.contents.values()
    return found


def lines(folder, *rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return contents(folder, "rows.jsonl")


def test_every_field_of_a_row_counts(tmp_path):
    rows = [ROW | {"id": "a"}, ROW | {"id": "b"}]
    changes = [{"question": "Why?"}, {"answer": "4"}, {"solution": "One."}, {"difficulty": 0.5}, {"verifier": "text"}]
    changes += [{"id": "c"}, {"choices": ["3", "4"]}]
    found = [lines(tmp_path, *rows), lines(tmp_path, *reversed(rows)), lines(tmp_path, rows[0])]
    found += [lines(tmp_path, rows[0], rows[1] | change) for change in changes]
    assert [value["tasks"] for value in found] == [2, 2, 1, *[2] * len(changes)]
    assert len({value["xxh3_128"] for value in found}) == len(found)
    assert lines(tmp_path, *rows) == found[0]


def test_an_image_that_a_row_names(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    before = lines(tmp_path, ROW | {"image": "a.png"})
    uri = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    assert lines(tmp_path, ROW | {"image": uri}) == before, "wherever the bytes come from"
    (tmp_path / "a.png").write_bytes(png("blue"))
    assert lines(tmp_path, ROW | {"image": "a.png"}) != before


def test_a_task_file_by_what_it_yields(tmp_path):
    (tmp_path / "table.txt").write_text("3")
    text = "from pathlib import Path\ndef f(split, n=2):\n    for i in range(n):\n"
    text += "        yield {'question': str(i), 'answer': Path(__file__).with_name('table.txt').read_text()}\n"
    (tmp_path / "t.py").write_text(text)
    before = contents(tmp_path, "t.py:f")
    assert before["tasks"] == 2
    assert contents(tmp_path, "t.py:f") == before
    assert contents(tmp_path, "t.py:f", options={"n": 1}) != before
    (tmp_path / "table.txt").write_text("4")
    assert contents(tmp_path, "t.py:f") != before


def test_data_of_the_hub(tmp_path, monkeypatch):
    def opened(rows):
        monkeypatch.setattr("datasets.load_dataset", lambda name, subset, split: Dataset.from_list(rows))
        return DatasetTasks("org/name", base=tmp_path).contents

    assert opened([ROW, ROW]) == opened([ROW, ROW])
    assert opened([ROW, ROW]) != opened([ROW, ROW | {"answer": "4"}])


def test_sources_are_told_apart():
    made = [
        SourceConfig(use="a.jsonl"),
        SourceConfig(use="a.jsonl", split="train[:9]"),
        SourceConfig(use="a.jsonl", limit=9),
        SourceConfig(use="a.jsonl", columns={"answer": "x"}),
        SourceConfig(use="t.py:f", options={"n": 2}),
        SourceConfig(use="t.py:f", options={"n": 3}),
    ]
    assert len({source_key(source) for source in made}) == len(made)
    assert source_key(made[2]) == "tasks of a.jsonl (train, limit 9)"


def test_built_in_sources_have_none(tmp_path):
    assert TaskMixture([SourceConfig(use="digit_sums")], seed=0, base=tmp_path).contents == {}
