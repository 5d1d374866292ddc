"""Files of documents: `columns: {text: ...}`, with the same care as files of tasks."""

import io
import json

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from configs.data import SourceConfig
from configs.errors import UserError
from rollouts.tasks.documents import Document
from rollouts.tasks.source import build_source


def png(color="red"):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def open_lines(folder, rows, columns=None, **options):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = SourceConfig(use="texts.jsonl", columns=columns or {"text": "text"}, **options)
    return build_source(config, base=folder)


def documents(source):
    return [source.task(index, 0) for index in range(len(source))]


class TestRows:
    def test_every_field_of_a_row(self, tmp_path):
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(png())
        row = {"text": "First <image>, then <image>.", "images": ["a.png", "b.png"], "id": "d1"}
        assert documents(open_lines(tmp_path, [row])) == [
            Document(id="texts.jsonl/d1", source="texts", text=row["text"], images=(png(), png()))
        ]

    def test_names_of_columns_are_mapped_and_others_are_not_read(self, tmp_path):
        row = {"body": "Hello.", "question": "Who?", "answer": "I", "url": "x"}
        (document,) = documents(open_lines(tmp_path, [row], columns={"text": "body"}))
        assert (document.text, document.images, document.id) == ("Hello.", (), "texts.jsonl/0")

    def test_images_without_marks_come_first(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        (document,) = documents(open_lines(tmp_path, [{"text": "A red box.", "image": "a.png"}]))
        assert document.text == "<image>A red box."

    def test_parquet_with_an_image_column(self, tmp_path):
        features = Features({"caption": Value("string"), "pictures": List(ImageFeature())})
        images = [[{"bytes": png("red"), "path": None}], [{"bytes": png("blue"), "path": None}]]
        data = Dataset.from_dict({"caption": ["red", "blue"], "pictures": images}, features=features)
        data.to_parquet(str(tmp_path / "captions.parquet"))
        config = SourceConfig(use="captions.parquet", columns={"text": "caption", "images": "pictures"})
        found = documents(build_source(config, base=tmp_path))
        assert [(d.text, d.images) for d in found] == [("<image>red", (png("red"),)), ("<image>blue", (png("blue"),))]

    def test_a_byte_order_mark_and_blank_lines_are_no_text(self, tmp_path):
        found = documents(open_lines(tmp_path, ['\ufeff{"text": "One."}', "", '{"text": "Two."}']))
        assert [document.text for document in found] == ["One.", "Two."]

    def test_slices_and_limit(self, tmp_path):
        rows = [{"text": f"Text {i}."} for i in range(10)]
        train = documents(open_lines(tmp_path, rows, split="train[:80%]"))
        rest = documents(open_lines(tmp_path, rows, split="train[80%:]"))
        assert (len(train), [d.text for d in rest]) == (8, ["Text 8.", "Text 9."])
        assert len(documents(open_lines(tmp_path, rows, limit=3))) == 3


class TestBadRows:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"text": ""}, "text is empty"),
            ({"text": None}, "text is empty"),
            ({"text": ["a"]}, "text is neither text nor a number"),
            ({"text": "a<|im_end|>b"}, "text holds a control token"),
            ({"text": "a<|media_pad|>b"}, "text holds the image placeholder"),
            ({"text": "\ud800"}, "text is not valid Unicode"),
            ({"text": "<image> here"}, "text has more or fewer <image> than images"),
            ({"text": "a", "images": ["gone.png"]}, "image file is missing"),
            ({"text": "a", "images": ["broken.png"]}, "not an image that Pillow reads"),
            ({"text": "a", "id": "good"}, "id was seen before"),
            ("{", "line is not JSON"),
            ("[]", "line is not a JSON object"),
        ],
    )
    def test_each_is_counted_with_its_reason(self, tmp_path, row, reason):
        (tmp_path / "broken.png").write_bytes(b"\x89PNG but no more")
        if isinstance(row, dict):
            row = json.dumps(row)
        source = open_lines(tmp_path, [{"text": "Good.", "id": "good"}, row])
        assert len(source) == source.report.total == 1
        assert next(iter(source.report.by_reason)).startswith(reason)

    def test_no_good_row_is_an_error_with_the_reasons(self, tmp_path):
        with pytest.raises(UserError, match=r"no row can become a document\n.*1 skipped, text is empty"):
            open_lines(tmp_path, [{"text": ""}])

    def test_an_image_that_vanishes_later_is_left_to_the_renderer(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        source = open_lines(tmp_path, [{"text": "a", "images": ["a.png"]}])
        (tmp_path / "a.png").unlink()
        assert source.task(0, 0).images == (b"",)


class TestMistakes:
    def test_a_column_that_is_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"columns.text = 'txt': no such column.*text"):
            open_lines(tmp_path, [{"text": "a"}], columns={"text": "txt"})

    def test_a_field_that_documents_do_not_have(self, tmp_path):
        with pytest.raises(UserError, match=r"columns.answer: unknown field; the fields of documents are text, images"):
            open_lines(tmp_path, [{"text": "a"}], columns={"text": "text", "answer": "text"})

    def test_a_verifier(self, tmp_path):
        with pytest.raises(UserError, match="documents have no answer"):
            open_lines(tmp_path, [{"text": "a"}], options={"verifier": "text"})

    def test_a_file_of_texts_without_columns_says_how_to_read_it(self, tmp_path):
        (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
        with pytest.raises(UserError, match=r"A file of documents, without questions, needs `columns: \{text: text\}`"):
            build_source(SourceConfig(use="texts.jsonl"), base=tmp_path)


def test_a_function_yields_documents_too(tmp_path):
    (tmp_path / "made.py").write_text(
        "def texts(split):\n    yield {'text': 'One.'}\n    yield {'text': ''}\n    yield {'text': '2', 'answer': '2'}"
    )
    source = build_source(SourceConfig(use="made.py:texts"), base=tmp_path)
    assert documents(source) == [Document(id="made.py:texts/0", source="made", text="One.")]
    assert {reason.partition("'")[0] for reason in source.report.by_reason} == {"text is empty", "unknown field "}
