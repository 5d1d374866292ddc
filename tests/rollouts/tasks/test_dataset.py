"""Data set files: every format of a column, and every way in which a row or a file can be bad."""

import base64
import io
import json
import os

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from rewards.images import BadImage, decode_image
from rollouts.tasks.dataset import DataSetError, DatasetTasks


def png(color="red", size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def write_lines(folder, rows, name="tasks.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def open_lines(folder, rows, **options):
    return DatasetTasks(write_lines(folder, rows), base=folder, **options)


def tasks(source):
    return [source.task(index, 0) for index in range(len(source))]


GOOD = {"question": "How many?", "answer": "3"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


class TestColumns:
    def test_every_field_of_a_row(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        row = {
            "images": ["a.png"],
            "question": "Which color?",
            "answer": "red",
            "verifier": "text",
            "choices": None,
            "difficulty": 0.25,
            "solution": "It is red.",
            "id": "q1",
        }
        (task,) = tasks(open_lines(tmp_path, [row]))
        assert (task.id, task.source) == ("tasks.jsonl/q1", "tasks")
        assert (task.question, task.answer, task.verifier) == ("Which color?", "red", "text")
        assert (task.images, task.difficulty, task.solution, task.choices) == ((png(),), 0.25, "It is red.", ())

    def test_other_names_are_mapped(self, tmp_path):
        source = open_lines(tmp_path, [{"q": "One?", "a": 1}], columns={"question": "q", "answer": "a"})
        assert [(task.question, task.answer) for task in tasks(source)] == [("One?", "1")]

    def test_a_column_image_serves_as_images(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        assert tasks(open_lines(tmp_path, [{**GOOD, "image": "a.png"}]))[0].images == (png(),)

    def test_the_row_number_is_the_id_of_a_row_without_one(self, tmp_path):
        assert [task.id for task in tasks(open_lines(tmp_path, [GOOD, GOOD]))] == ["tasks.jsonl/0", "tasks.jsonl/1"]

    @pytest.mark.parametrize(("answer", "text"), [(3, "3"), (-2.5, "-2.5"), (" x ", "x"), ("½", "½")])
    def test_numbers_become_text(self, tmp_path, answer, text):
        assert tasks(open_lines(tmp_path, [{"question": "?", "answer": answer}]))[0].answer == text

    def test_the_verifier_is_the_rows_else_choice_else_the_option(self, tmp_path):
        rows = [GOOD, {**GOOD, "verifier": "text"}, {**GOOD, "choices": ["3", "4"]}]
        found = [task.verifier for task in tasks(open_lines(tmp_path, rows, verifier="mine.py:judge"))]
        assert found == ["mine.py:judge", "text", "choice"]

    def test_options_are_listed_and_the_answer_becomes_a_letter(self, tmp_path):
        shown = "Pick. (A) one (B) two"
        rows = [
            {"question": "Pick.", "choices": ["one", "two"], "answer": "two"},
            {"question": shown, "choices": ["one", "two"], "answer": "A"},
        ]
        first, second = tasks(open_lines(tmp_path, rows))
        assert (first.question, first.answer, first.choices) == ("Pick.\nA. one\nB. two", "B", ("one", "two"))
        assert (second.question, second.answer) == (shown, "A")

    def test_blank_lines_are_no_rows(self, tmp_path):
        source = open_lines(tmp_path, ["", json.dumps(GOOD), "", ""])
        assert len(source) == 1
        assert source.report.total == 0

    def test_unicode_line_separators_stay_inside_a_row(self, tmp_path):
        assert tasks(open_lines(tmp_path, [{**GOOD, "question": "a\u2028b"}]))[0].question == "a\u2028b"


class TestImages:
    def test_one_or_a_list_or_none(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        (tmp_path / "b.png").write_bytes(png("blue"))
        rows = [{**GOOD, "images": images} for images in ("a.png", ["b.png", "a.png"], [], None)]
        found = [task.images for task in tasks(open_lines(tmp_path, rows))]
        assert found == [(png(),), (png("blue"), png()), (), ()]

    def test_paths_are_relative_to_the_file(self, tmp_path):
        (tmp_path / "data" / "pictures").mkdir(parents=True)
        (tmp_path / "data" / "pictures" / "a.png").write_bytes(png())
        write_lines(tmp_path / "data", [{**GOOD, "images": "pictures/a.png"}])
        assert tasks(DatasetTasks("data/tasks.jsonl", base=tmp_path))[0].images == (png(),)

    def test_data_uris(self, tmp_path):
        uri = "data:image/png;base64," + base64.b64encode(png()).decode()
        assert tasks(open_lines(tmp_path, [{**GOOD, "images": [uri]}]))[0].images == (png(),)

    @pytest.mark.parametrize("many", [True, False])
    def test_parquet_with_image_features(self, tmp_path, many):
        """`datasets` writes bytes for images in memory; they come out as they were, not decoded again."""
        feature = List(ImageFeature()) if many else ImageFeature()
        image = {"bytes": png(), "path": None}
        rows = Dataset.from_list(
            [{**GOOD, "images": [image] if many else image}],
            features=Features({"question": Value("string"), "answer": Value("string"), "images": feature}),
        )
        rows.to_parquet(tmp_path / "tasks.parquet")
        assert tasks(DatasetTasks("tasks.parquet", base=tmp_path))[0].images == (png(),)

    def test_parquet_with_bytes(self, tmp_path):
        Dataset.from_dict({"question": ["?"], "answer": [7], "images": [png()]}).to_parquet(tmp_path / "t.parquet")
        (task,) = tasks(DatasetTasks("t.parquet", base=tmp_path))
        assert (task.images, task.answer) == ((png(),), "7")

    def test_an_image_that_vanishes_later_is_found_when_it_is_decoded(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        source = open_lines(tmp_path, [{**GOOD, "images": "a.png"}])
        (tmp_path / "a.png").unlink()
        assert source.task(0, 0).images == (b"",)
        with pytest.raises(BadImage, match="empty or missing"):
            decode_image(source.task(0, 0).images[0])


BAD_ROWS = [
    ({"answer": "3"}, "question is empty"),
    ({"question": "?"}, "answer is empty"),
    ({"question": "?", "answer": "  "}, "answer is empty"),
    ({"question": "?", "answer": None}, "answer is empty"),
    ({"question": "?", "answer": float("nan")}, "answer is empty"),
    ({"question": "?", "answer": True}, "answer is neither text nor a number"),
    ({"question": "?", "answer": []}, "answer is empty"),
    ({"question": "?", "answer": ["1", ""]}, "an accepted answer is empty"),
    ({"question": "?", "answer": ["1", {"a": 2}]}, "an accepted answer is neither text nor a number"),
    ({"question": "?", "answer": list("abcdefghijk")}, "answer has more than 10 accepted answers"),
    ({**GOOD, "choices": ["a", "b"], "answer": ["a", "b"]}, "answer is none of the options"),
    ({"question": {"text": "?"}, "answer": "1"}, "question is neither text nor a number"),
    ({**GOOD, "difficulty": 2}, "difficulty is not a number in [0, 1]"),
    ({**GOOD, "difficulty": "hard"}, "difficulty is not a number in [0, 1]"),
    ({**GOOD, "choices": "3"}, "choices is not a list"),
    ({**GOOD, "choices": ["3"]}, "choices has not 2 to 26 options"),
    ({**GOOD, "choices": ["3", None]}, "an option is empty"),
    ({**GOOD, "choices": ["1", "2"]}, "answer is none of the options"),
    ({"question": "?", "answer": "A", "choices": ["B", "A"]}, "answer fits more than one option"),
    ({**GOOD, "images": ["no.png"]}, "image file is missing"),
    ({**GOOD, "images": ["."]}, "image file is missing"),
    ({**GOOD, "images": ["/dev/zero"]}, "image cannot be read"),
    ({**GOOD, "images": ["a\0b"]}, "image file is missing"),
    ({**GOOD, "images": [None]}, "image is missing"),
    ({**GOOD, "images": ["empty.png"]}, "image file is empty"),
    ({**GOOD, "images": ["text.png"]}, "not an image that Pillow reads"),
    ({**GOOD, "images": [5]}, "image is neither a path, bytes nor a data URI"),
    ({**GOOD, "images": ["https://example.org/a.png"]}, "image is a URL: download it first"),
    ({**GOOD, "images": ["data:image/png;base64,%%%"]}, "image's data URI is not base64"),
    ({**GOOD, "question": "<|media_pad|>?"}, "question holds the image placeholder"),
    ({**GOOD, "solution": "a <|media_pad|>"}, "solution holds the image placeholder"),
    ('{"question": "\\ud800", "answer": "1"}', "question is not valid Unicode"),
    ({**GOOD, "id": [1]}, "id is neither text nor a number"),
    ("not json", "line is not JSON"),
    ("[" * 100_000, "line is not JSON"),
    ("[1, 2]", "line is not a JSON object"),
]


class TestBadRows:
    @pytest.mark.parametrize(
        ("row", "reason"), BAD_ROWS, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(BAD_ROWS)]
    )
    def test_a_bad_row_is_counted_and_the_others_stay(self, tmp_path, row, reason):
        (tmp_path / "empty.png").touch()
        (tmp_path / "text.png").write_text("no image")
        source = open_lines(tmp_path, [{**GOOD, "id": "first"}, row, {**GOOD, "id": "last"}])
        assert [task.id for task in tasks(source)] == ["tasks.jsonl/first", "tasks.jsonl/last"]
        assert source.report.by_reason == {reason: 1}
        (line,) = source.report.lines()
        assert line.startswith(f"tasks: 1 skipped, {reason} (row 1")

    def test_bytes_that_are_no_utf8_are_one_bad_row(self, tmp_path):
        good = json.dumps(GOOD).encode()
        (tmp_path / "tasks.jsonl").write_bytes(good + b'\n{"question": "\xff\xfe", "answer": "1"}\n' + good + b"\n")
        source = DatasetTasks("tasks.jsonl", base=tmp_path)
        assert len(source) == 2
        assert source.report.by_reason == {"line is not UTF-8": 1}

    def test_the_first_of_two_rows_with_one_id_is_kept(self, tmp_path):
        rows = [{**GOOD, "id": 7}, {**GOOD, "id": "7", "answer": "other"}, {**GOOD, "id": 8}]
        source = open_lines(tmp_path, rows)
        assert [(task.id, task.answer) for task in tasks(source)] == [("tasks.jsonl/7", "3"), ("tasks.jsonl/8", "3")]
        assert source.report.lines() == ["tasks: 1 skipped, id was seen before (row 1: 7)"]

    def test_the_first_three_of_many_are_named(self, tmp_path):
        source = open_lines(tmp_path, [GOOD] + [{**GOOD, "images": f"{i}.png"} for i in range(9)])
        assert source.report.lines() == [
            "tasks: 9 skipped, image file is missing (row 1: 0.png; row 2: 1.png; row 3: 2.png, ...)"
        ]

    def test_no_good_row_is_an_error_with_the_reasons(self, tmp_path):
        with pytest.raises(DataSetError, match=r"no row can become a task\n.*2 skipped, answer is empty"):
            open_lines(tmp_path, [{"question": "?", "answer": ""}] * 2)

    def test_the_limit_counts_good_rows(self, tmp_path):
        rows = [{"question": "?", "answer": ""}, *({**GOOD, "id": i} for i in range(9))]
        assert [task.id for task in tasks(open_lines(tmp_path, rows, limit=2))] == ["tasks.jsonl/0", "tasks.jsonl/1"]


class TestBadFiles:
    def test_a_missing_file_names_its_neighbours(self, tmp_path):
        write_lines(tmp_path, [GOOD], "train.jsonl")
        with pytest.raises(DataSetError, match=r"trian\.jsonl: no such file; did you mean train\.jsonl\?"):
            DatasetTasks("trian.jsonl", base=tmp_path)

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(DataSetError, match=r"there is no folder .*nowhere"):
            DatasetTasks("nowhere/train.jsonl", base=tmp_path)

    @pytest.mark.parametrize("content", ["", "\n\n"])
    def test_an_empty_file(self, tmp_path, content):
        (tmp_path / "tasks.jsonl").write_text(content)
        with pytest.raises(DataSetError, match="is empty"):
            DatasetTasks("tasks.jsonl", base=tmp_path)

    def test_parquet_without_rows(self, tmp_path):
        Dataset.from_dict({"question": [], "answer": []}).to_parquet(tmp_path / "t.parquet")
        with pytest.raises(DataSetError, match="empty"):
            DatasetTasks("t.parquet", base=tmp_path)

    def test_parquet_that_is_none(self, tmp_path):
        (tmp_path / "t.parquet").write_text("no parquet")
        with pytest.raises(DataSetError, match="cannot be read as parquet"):
            DatasetTasks("t.parquet", base=tmp_path)

    @pytest.mark.parametrize("name", ["tasks.json", "tasks.csv", "./tasks"])
    def test_another_format(self, tmp_path, name):
        with pytest.raises(DataSetError, match=r"data files end in \.jsonl or \.parquet"):
            DatasetTasks(name, base=tmp_path)

    def test_a_missing_answer_column_names_those_there_are(self, tmp_path):
        with pytest.raises(DataSetError, match=r"no column 'answer'; the columns are question, label") as error:
            open_lines(tmp_path, [{"question": "?", "label": "3"}])
        assert "columns: {answer: " in str(error.value)

    def test_a_mapping_to_a_column_that_is_not_there(self, tmp_path):
        with pytest.raises(DataSetError, match=r"columns\.answer = 'lable': no such column; did you mean label\?"):
            open_lines(tmp_path, [{"question": "?", "label": "3"}], columns={"answer": "lable"})

    def test_a_mapping_of_a_field_that_is_not_ours(self, tmp_path):
        with pytest.raises(DataSetError, match=r"columns\.anwser: unknown field; the fields are .*answer"):
            open_lines(tmp_path, [GOOD], columns={"anwser": "answer"})

    def test_a_file_has_one_split_that_can_be_divided(self, tmp_path):
        rows = [{**GOOD, "id": i} for i in range(10)]
        with pytest.raises(DataSetError, match=r"train\[:90%\] and train\[90%:\]"):
            open_lines(tmp_path, rows, split="held_out")
        ids = [
            {task.id.rpartition("/")[2] for task in tasks(DatasetTasks("tasks.jsonl", base=tmp_path, split=split))}
            for split in ("train[:70%]", "train[70%:]")
        ]
        assert (len(ids[0]), len(ids[1])) == (7, 3)
        assert not ids[0] & ids[1]

    def test_a_hub_name_that_cannot_be_loaded(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise ConnectionError("no such data set")

        monkeypatch.setattr("datasets.load_dataset", refuse)
        with pytest.raises(DataSetError, match=r"org/name: cannot be loaded from the hub \(no such data set\)"):
            DatasetTasks("org/name", base=tmp_path)

    def test_a_hub_data_set_is_asked_for_by_name_subset_and_split(self, tmp_path, monkeypatch):
        asked = []

        def load(name, subset, *, split):
            asked.append((name, subset, split))
            return Dataset.from_list([GOOD])

        monkeypatch.setattr("datasets.load_dataset", load)
        source = DatasetTasks("org/name-v1.5", base=tmp_path, split="test", subset="main")
        assert asked == [("org/name-v1.5", "main", "test")]
        assert [(task.source, task.id) for task in tasks(source)] == [("name-v1.5", "org/name-v1.5:main:test/0")]


class TestContents:
    def test_a_file_replaced_at_the_same_moment_is_read_anew(self, tmp_path):
        name = write_lines(tmp_path, [GOOD])
        moment = (tmp_path / name).stat().st_mtime_ns
        assert [task.answer for task in tasks(DatasetTasks(name, base=tmp_path))] == ["3"]
        for rows in ([{**GOOD, "answer": "4"}], [GOOD, {**GOOD, "answer": "12"}]):
            write_lines(tmp_path, rows)
            os.utime(tmp_path / name, ns=(moment, moment))
            assert [task.answer for task in tasks(DatasetTasks(name, base=tmp_path))] == [r["answer"] for r in rows]

    def test_every_line_is_parsed_once(self, tmp_path, monkeypatch):
        name = write_lines(tmp_path, [GOOD] * 500)
        parsed = []
        loads = json.loads
        monkeypatch.setattr("rollouts.tasks.dataset.parse_json", lambda line: parsed.append(line) or loads(line))
        assert len(DatasetTasks(name, base=tmp_path)) == 500
        assert len([line for line in parsed if "How many" in line]) <= 500 + 64  # and some again, for unused images

    def test_a_limit_ends_the_reading_unless_a_named_column_comes_later(self, tmp_path):
        rows = [{"q": "How many?", "answer": "3"}] * 5 + [{"q": "Why?", "answer": "2", "think": "1 + 1"}]
        columns = {"question": "q", "solution": "think"}
        assert len(open_lines(tmp_path, rows, columns=columns, limit=2)) == 2
        with pytest.raises(DataSetError, match="no such column"):
            open_lines(tmp_path, rows[:5], columns=columns, limit=2)

    def test_rows_without_keys(self, tmp_path):
        assert len(open_lines(tmp_path, [{}, GOOD])) == 1
