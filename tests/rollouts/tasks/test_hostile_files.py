"""Data files and images that somebody planted: pipes, devices, names that are patterns, JSON that means two things."""

import io
import json
import os

import pytest
from PIL import Image

from rollouts.tasks.dataset import DataSetError, DatasetTasks

GOOD = {"question": "How many?", "answer": "3"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


@pytest.mark.parametrize("name", ["[ab].jsonl", "*.jsonl", "?.jsonl", "**.jsonl", "{a,b}.jsonl", "b[1]/[!x].jsonl"])
def test_a_file_whose_name_is_a_pattern_is_read_itself(tmp_path, name):
    (tmp_path / "b[1]").mkdir()
    write(tmp_path / "a.jsonl", {"question": "another file", "answer": "4"})
    write(tmp_path / name, GOOD)
    source = DatasetTasks(name, base=tmp_path)
    assert [source.task(i, 0).question for i in range(len(source))] == ["How many?"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_data_file_without_an_end_is_refused(tmp_path, kind):
    path = tmp_path / "data.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(DataSetError, match=r"data\.jsonl: must be a file, not a folder, a device, a pipe or a socket"):
        DatasetTasks("data.jsonl", base=tmp_path)


def test_an_image_without_an_end_is_a_bad_row(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    write(tmp_path / "t.jsonl", GOOD, *({**GOOD, "images": [name]} for name in ("pipe.png", "zero.png", "/dev/stdin")))
    source = DatasetTasks("t.jsonl", base=tmp_path)
    assert len(source) == 1
    assert source.report.total == 3
    assert "pipe.png must be a file, and is a device, a pipe or a socket" in source.report.lines()[0]


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    eps = io.BytesIO()
    Image.new("RGB", (4, 4)).save(eps, "EPS")
    (tmp_path / "a.png").write_bytes(eps.getvalue())
    monkeypatch.setattr("subprocess.Popen", lambda *args, **options: pytest.fail("a program was started"))
    write(tmp_path / "t.jsonl", GOOD, {**GOOD, "images": ["a.png"]})
    source = DatasetTasks("t.jsonl", base=tmp_path)
    assert [len(source.task(i, 0).images) for i in range(len(source))] == [0]
    assert "not an image that Pillow reads" in source.report.lines()[0]


def test_json_that_means_two_things_is_a_bad_row(tmp_path):
    twice = '{"question": "How many?", "answer": "3", "answer": "4"}'
    infinite = '{"question": "How many?", "answer": Infinity}'
    write(tmp_path / "t.jsonl", GOOD, twice, infinite)
    source = DatasetTasks("t.jsonl", base=tmp_path)
    assert len(source) == 1
    [line] = source.report.lines()
    assert "2 skipped, line is not JSON" in line
    assert "the key 'answer' stands twice" in line
    assert "Infinity is not a number of JSON" in line
