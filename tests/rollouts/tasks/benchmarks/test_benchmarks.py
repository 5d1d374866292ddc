"""Adapters: files of each benchmark's own layout become its official prompt, images, options and rule."""

import json
from pathlib import Path

import pytest
from benchmark_files import MAKERS, cell, chartqa, gif, jsonl, mmmu, png, write

from configs.errors import UserError
from rollouts.tasks.benchmarks.layout import Item, at_marks
from rollouts.tasks.benchmarks.loading import BenchmarkTasks, LeftOut, choose
from rollouts.tasks.benchmarks.table import BENCHMARKS


@pytest.fixture
def items(tmp_path):
    """`items(name, spec)`: the items of a benchmark's own folder, all of which must be usable."""

    def read(name, spec="{name}={path}", **options):
        path = MAKERS[name](tmp_path / name)
        found = list(BenchmarkTasks(choose(spec.format(name=name, path=path)), **options))
        assert all(isinstance(item, Item) for item in found), found
        return found

    return read


def test_every_benchmark_has_a_file_of_its_layout(items):
    assert set(MAKERS) == set(BENCHMARKS)
    for name in BENCHMARKS:
        found = items(name) if name != "mmmu_pro_vision" else []
        assert len({item.task.id for item in found}) == len(found)
        assert all(item.task.source == name and item.task.images for item in found)


def test_mathvista(items):
    number, whole, choice, several = items("mathvista")
    assert number.task.question == "Hint: one decimal.\nQuestion: How far?"
    assert number.task.verifier == "mathvista(kind=float, digits=1)"
    assert (number.task.id, number.task.answer, number.task.images) == ("mathvista/1", "1.2", (png(),))
    assert whole.task.question == (
        "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
        "at the end.\nQuestion: What volume? (Unit: g)"
    )
    assert whole.task.verifier == "mathvista(kind=integer)"
    assert choice.task.question == (
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: Which angle?\nChoices:\n(A) 135°\n(B) 140°\n(C) 145°"
    )
    assert (choice.task.verifier, choice.task.choices) == ("choice", ("135°", "140°", "145°"))
    assert several.task.verifier == "mathvista(kind=list)"
    assert number.question.groups["task"] == "textbook question answering"
    assert choice.question.columns["answer_option"] == "C"


def test_mathvision(items):
    number, letters, options = items("mathvision")
    start = (
        'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
        'question, only one letter is allowed in the "\\boxed{}".\n'
    )
    assert number.task.question == f"{start}Which number?\n<image1>"
    assert (number.task.verifier, number.task.choices) == ("mathvision", ())
    assert letters.task.question == f"{start}Which bike?\n<image1>"
    assert (letters.task.verifier, letters.task.choices) == ("choice", tuple("ABCDE"))
    assert options.task.question.endswith("\n(A) Mon\n(B) Tue\n(C) Wed\n(D) Thu\n(E) Fri")
    assert number.question.groups == {"subject": "arithmetic", "level": "2"}


def test_mmmu(items):
    choice, several = items("mmmu")
    assert choice.task.question == (
        "Compare <image> with <image>.\n(A) red\n(B) <image>\n(C) it's\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert choice.task.images == (png("blue"), png("red"), png("red"))
    assert (choice.task.answer, choice.task.choices) == ("C", ("red", "<image 1>", "it's"))
    assert choice.question.groups["subject"] == "Art_Theory"
    assert several.task.question == "Evaluate <image>.\nAnswer the question using a single word or phrase."
    assert json.loads(several.task.answer) == ["24/7", "3.429"]
    assert several.task.verifier == "mmmu_open"


def test_hidden_answers_are_left_out(tmp_path):
    (left,) = BenchmarkTasks(choose(f"mmmu@test={mmmu(tmp_path)}"))
    assert isinstance(left, LeftOut)
    assert left.reason.startswith("answer is hidden")


def test_mmmu_pro(items):
    (standard,) = items("mmmu_pro")
    listed = "A. Political instability\nB. The spread of pathogens\nC. New trade routes"
    assert standard.task.question.startswith(f"What explains <image>?\n{listed}\nAnswer the preceding multiple choice")
    assert (standard.task.answer, len(standard.task.choices)) == ("B", 3)
    (vision,) = items("mmmu_pro_vision")
    assert vision.task.question.startswith("Write out the multiple-choice question in the image and then solve it.")
    assert vision.task.images == (png(),)
    assert vision.task.choices == standard.task.choices


def test_mathverse(items, tmp_path):
    choice, free = items("mathverse")
    assert choice.task.question.startswith("Please directly answer the question.\nQuestion: DE parallel")
    assert choice.task.choices == ("40°", "60°", "120°", "140°")
    assert (choice.task.verifier, free.task.verifier, free.task.answer) == ("choice", "math", "14")
    (text_only,) = BenchmarkTasks(choose(f"mathverse={tmp_path / 'mathverse' / 'testmini_text_only.jsonl'}"))
    assert isinstance(text_only, Item)
    assert text_only.task.images == ()


def test_chartqa_of_the_hub_and_of_the_original_files(items, tmp_path):
    number, country = items("chartqa")
    assert number.task.question == "How many items?\nAnswer the question with a single word."
    assert (number.task.verifier, country.task.answer) == ("relaxed", "Japan")
    folder = tmp_path / "ChartQA Dataset" / "test"
    (folder / "png").mkdir(parents=True)
    (folder / "png" / "41.png").write_bytes(png())
    rows = [{"imgname": "41.png", "query": "How many food items?", "label": "14"}]
    (folder / "test_human.json").write_text(json.dumps(rows))
    (original,) = BenchmarkTasks(choose(f"chartqa={folder}"))
    assert isinstance(original, Item)
    assert (original.task.answer, original.task.images) == ("14", (png(),))


def test_geometry3k(items):
    (item,) = items("geometry3k")
    assert item.task.question.startswith("<image>Find $x$. You FIRST think about the reasoning process")
    assert (item.task.answer, item.task.verifier) == ("2 \\sqrt { 221 }", "math")


@pytest.mark.parametrize(("file", "answer"), [("super.jsonl", "4"), ("r1v.parquet", "3"), ("test-00000.parquet", "5")])
def test_clevr_in_its_three_layouts(tmp_path, file, answer):
    (item,) = BenchmarkTasks(choose(f"clevr_count={MAKERS['clevr_count'](tmp_path / 'clevr') / file}"))
    assert isinstance(item, Item)
    assert (item.task.answer, item.task.verifier, item.task.images) == (answer, "count", (png(),))
    assert item.task.question.startswith("How many different items are there in the image? First output the thinking")


def test_ocrbench(items):
    word, formula = items("ocrbench")
    assert word.task.question == "what is written in the image?"
    assert (word.task.verifier, word.task.answer) == ("contains", "CENTRE")
    assert formula.task.verifier == "contains(formula=true)"
    assert json.loads(formula.task.answer) == ["B a = C", "B a = C H"]


def test_videommmu(items):
    open_question, perception = items("videommmu", frames=3)
    lines = "Frame at 00:00: <image>\nFrame at 00:02: <image>\nFrame at 00:04: <image>\n"
    assert perception.task.question == (
        f"{lines}How many?\nA. 3, 3\nB. 3, 4\nC. 3, 5\nPlease ignore the Quiz question in last frame of the video."
    )
    assert open_question.task.question == (
        f"{lines}You should watch and learn the video content. Then apply what you learned to answer the following "
        "open-ended question. The image for this question is at the end of the video.\nWhat mass? <image 1>"
    )
    assert (open_question.task.verifier, len(open_question.task.images)) == ("mmmu_open(video=true)", 3)
    assert (perception.task.verifier, perception.task.id) == ("choice", "videommmu/Perception/validation_Art_1")


def test_bad_rows_are_left_out_with_their_reason(tmp_path):
    good = {"type": "human_test", "question": "How many?", "answer": "14", "image": cell()}
    bad = [good | {"image": None}, good | {"answer": " "}, good | {"image": {"bytes": b"no image", "path": None}}]
    tasks = BenchmarkTasks(choose(f"chartqa={write(tmp_path / 'test.parquet', [*bad, good])}"))
    *left, last = tasks
    assert [item.reason for item in left] == [
        "image is missing", "answer is empty", "not an image that Pillow reads",
    ]  # fmt: skip
    assert isinstance(last, Item)
    assert tasks.report.total == 3
    assert len(tasks) == 4


def test_a_limit_takes_the_first_rows(tmp_path):
    tasks = BenchmarkTasks(choose(f"chartqa={chartqa(tmp_path)}"), limit=1)
    assert (len(tasks), len(list(tasks))) == (1, 1)


def test_images_without_marks_come_in_front():
    row = {"image_1": "a", "image_2": None, "image_3": "c"}
    assert at_marks("no mark", row) == ("no mark", ["a", "c"])
    assert at_marks("<image 3> and <image 3>", row) == ("<image> and <image>", ["c", "c"])


def test_wrong_names_and_places_say_what_there_is(tmp_path):
    with pytest.raises(UserError, match="did you mean"):
        choose("mathvist")
    with pytest.raises(UserError, match="no such file or folder"):
        choose(f"mathvista={tmp_path / 'nothing'}")
    with pytest.raises(UserError, match=r"no file of the split testmini .*chartqa/data/test-"):
        BenchmarkTasks(choose(f"mathvista={chartqa(tmp_path / 'chartqa').parent}"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        BenchmarkTasks(choose(f"mathvista={tmp_path / 'broken.parquet'}"))
    broken = jsonl(tmp_path / "list.jsonl", [[1]])
    with pytest.raises(UserError, match="no JSON object"):
        BenchmarkTasks(choose(f"mathvista={broken}"))


def test_original_files_of_mathvista_and_ocrbench(tmp_path):
    """`data/testmini.json` has rows by their ids, without `query`; `OCRBench.json` a list with `image_path`."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(png())
    row = {
        "question": "How far?", "image": "images/1.jpg", "choices": None, "unit": None, "precision": 1, "answer": "1.2",
        "question_type": "free_form", "answer_type": "float", "pid": "1", "metadata": {"task": "geometry"},
    }  # fmt: skip
    (tmp_path / "testmini.json").write_text(json.dumps({"1": row}))
    (item,) = BenchmarkTasks(choose(f"mathvista={tmp_path}"))
    assert isinstance(item, Item)
    assert item.task.question == (
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the "
        "final value, e.g., 1.2, 1.3, 1.4, at the end.\nQuestion: How far?"
    )
    ocr = {
        "dataset_name": "HME100k", "id": 23956, "image_path": "images/1.jpg", "question": "Write the expression.",
        "answers": "B a = C\n", "type": "Handwritten Mathematical Expression Recognition",
    }  # fmt: skip
    (tmp_path / "OCRBench.json").write_text(json.dumps([ocr]))
    (item,) = BenchmarkTasks(choose(f"ocrbench={tmp_path / 'OCRBench.json'}"))
    assert isinstance(item, Item)
    assert (item.task.answer, item.task.verifier) == ("B a = C", "contains(formula=true)")


def test_videos_by_track_in_the_original_json(tmp_path):
    """`data/adaptation_video.json` of EvolvingLMMs-Lab/VideoMMMU: rows by number, below the track's name."""
    gif(tmp_path / "videos" / "dev_Biology_3.gif", ["red", "blue"])
    row = {"id": "dev_Biology_3", "question": "What kind?", "options": ["A.aldose", "B.ketose"], "answer": "A"}
    (tmp_path / "adaptation_video.json").write_text(json.dumps({"Adaptation": {"0": row}}))
    (item,) = BenchmarkTasks(choose(f"videommmu={tmp_path / 'adaptation_video.json'}"))
    assert isinstance(item, Item)
    assert item.task.choices == ("aldose", "ketose")
    assert item.question.groups == {"track": "Adaptation", "subject": "Biology"}


def test_the_page_lists_every_benchmark():
    page = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, benchmark in BENCHMARKS.items():
        assert f"| `{name}` | `{benchmark.hub}`, {benchmark.split} | {benchmark.metric} |" in page
        assert f"| `{name}` | {benchmark.rule} |" in page
