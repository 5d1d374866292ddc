"""The forms in which people write images in rows, options with letters of their own, and floats in lists."""

import base64
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rollouts.tasks.bad_row import BadRow
from rollouts.tasks.dataset import DatasetTasks
from rollouts.tasks.image_cells import image_items, image_path, image_source, read_images

ROW = {"question": "Which?", "answer": "3"}


def encoded(form):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, form)
    return file.getvalue()


PNG = encoded("PNG")
TEXT = base64.b64encode(PNG).decode()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a.png", "a b.png", "[1].png"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize(
    "value",
    [
        "a.png",
        "[1].png",
        PNG,
        TEXT,
        f"data:image/png;base64,{TEXT}",
        {"path": "a.png"},
        {"bytes": None, "path": "a.png"},
        {"bytes": PNG, "path": "lost.png"},
        {"bytes": TEXT},
        {"image": "a.png"},
        {"image": {"path": "a.png"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}},
        {"url": "a.png"},
        ["a.png"],
        [["a.png"]],
        '["a.png"]',
        '{"path": "a.png"}',
        '[{"image": "a.png"}]',
    ],
    ids=lambda value: repr(value)[:40],
)
def test_one_image_in_every_form(folder, value):
    assert read_images(value, folder, False) == (PNG,)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_base64_of_every_format(folder, form):
    assert read_images(base64.b64encode(encoded(form)).decode(), folder, False) == (encoded(form),)


@pytest.mark.parametrize("start", ["file://", "FILE://localhost"])
def test_an_address_of_a_file(folder, start):
    assert read_images(f"{start}{folder}/a%20b.png", folder, False) == (PNG,)


@pytest.mark.parametrize("value", [None, "", [], "[]"])
def test_no_image(folder, value):
    assert read_images(value, folder, False) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("https://x/a.png", "image is a URL: download it first"),
        ("HTTPS://x/a.png", "image is a URL: download it first"),
        ({"url": "http://x/a.png"}, "image is a URL: download it first"),
        ("file://host/a.png", "image is a URL: download it first"),
        ("s3://bucket/a.png", "image is a URL: download it first"),
        ({"picture": "a.png"}, "image is missing: a mapping must have bytes, path, image, image_url or url"),
        ([None], "image is missing"),
        (3, "image is neither a path, bytes nor a data URI"),
        (b"", "image is empty"),
        ("lost.png", "image file is missing"),
        ("data:image/png;base64,%", "image's data URI is not base64"),
        ('{"path": ', "image file is missing"),
    ],
)
def test_what_is_refused_and_why(folder, value, reason):
    with pytest.raises(BadRow) as error:
        read_images(value, folder, False)
    assert error.value.reason == reason
    assert read_images(value, folder, True) == (b"",)


def test_paths_alone_are_paths():
    assert image_path({"image": "a.png"}) == "a.png"
    assert image_path(TEXT) is None
    assert image_path("https://x/a.png") is None
    assert image_items('["a.png", "b.png"]') == ["a.png", "b.png"]
    assert image_source("/9j/short.png") == "/9j/short.png", "a path that begins like base64"


def open_rows(folder, *rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = DatasetTasks("rows.jsonl", base=folder)
    return [source.task(i, 0) for i in range(len(source))]


@pytest.mark.parametrize("labels", ["A. {}|B. {}", "A) {}|B) {}", "(A) {}|(B) {}", "A:{}|B:{}"])
@pytest.mark.parametrize("answer", ["B", "dog", "label"])
def test_options_with_letters_of_their_own_are_listed_once(folder, labels, answer):
    choices = [label.format(word) for label, word in zip(labels.split("|"), ("cat", "dog"), strict=True)]
    given = choices[1] if answer == "label" else answer
    [task] = open_rows(folder, {"question": "Which?", "choices": choices, "answer": given})
    assert (task.question, task.answer, task.choices) == ("Which?\nA. cat\nB. dog", "B", ("cat", "dog"))


@pytest.mark.parametrize("choices", [["A. cat", "dog"], ["B. cat", "A. dog"], ["A.", "B. dog"]])
def test_options_of_which_not_all_have_their_letter_stay(folder, choices):
    [task] = open_rows(folder, {"question": "Which?", "choices": choices, "answer": choices[1]})
    assert task.choices == tuple(choices)
    assert task.answer == "B"


def test_floats_in_lists_are_as_short_as_alone(folder):
    choices = pa.array([[0.1, 0.2]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"question": ["q"], "answer": ["0.1"], "choices": choices}), folder / "rows.parquet")
    assert DatasetTasks("rows.parquet", base=folder).task(0, 0).choices == ("0.1", "0.2")
