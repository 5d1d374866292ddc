"""easy-VQA: open questions and multiple choice on disjoint images, with chains of thought that follow from the data."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from rollouts.tasks.easy_vqa import COLORS, SHAPES, EasyVQA


@pytest.fixture(scope="module")
def train():
    return EasyVQA("train", form="both")


@pytest.fixture(scope="module")
def held_out():
    return EasyVQA("held_out", form="both")


def sample(source, count=400):
    return [source.task(index, 0) for index in range(count)]


def test_all_questions_are_there(train, held_out):
    assert (len(train), len(held_out)) == (2 * 38_575, 2 * 9_673)
    assert len(EasyVQA("held_out", form="open")) == len(EasyVQA("held_out", form="choice")) == 9_673


def test_both_forms_ask_the_same_about_the_same_image(train):
    for open_task, choice in zip(sample(train)[::2], sample(train)[1::2], strict=True):
        assert (open_task.verifier, choice.verifier) == ("text", "choice")
        assert open_task.images == choice.images
        assert choice.question.startswith(open_task.question + "\nA. ")
        assert choice.choices["ABCD".index(choice.answer)] == open_task.answer


def test_choices_are_of_the_questions_type_and_listed(train):
    for task in sample(train)[1::2]:
        right = task.choices["ABCD".index(task.answer)]
        answers = next(answers for answers in (COLORS, SHAPES, ("yes", "no")) if right in answers)
        assert set(task.choices) <= set(answers)
        assert len(set(task.choices)) == len(task.choices) == min(4, len(answers))
        listed = re.findall(r"^([A-D])\. (\w+)$", task.question, re.MULTILINE)
        assert listed == list(zip("ABCD", task.choices, strict=False))


def test_the_right_letter_is_spread_evenly(train):
    four = [task.answer for task in sample(train, 6000) if len(task.choices) == 4]
    for letter in "ABCD":
        assert four.count(letter) / len(four) == pytest.approx(0.25, abs=0.08)


def test_images_are_pngs_of_64_pixels_and_disjoint_between_splits(train, held_out):
    image = Image.open(io.BytesIO(train.task(0, 0).images[0]))
    assert (image.format, image.size) == ("PNG", (64, 64))
    files = [set(source._data.files.values()) for source in (train, held_out)]
    assert (len(files[0]), len(files[1])) == (4000, 1000)
    assert not files[0] & files[1]


def test_a_first_part_covers_many_images(held_out):
    assert len({task.images for task in sample(held_out, 400)}) > 150


def test_solutions_name_what_the_image_shows_and_end_in_the_answer(held_out):
    """The colour that a solution claims is the colour of the shape's pixels."""
    claimed = 0
    for task in sample(held_out)[::2]:
        if task.solution is None:
            continue
        match = re.search(r"The shape is (\w+)[.,]", task.solution)
        if match and match[1] in COLORS:
            claimed += 1
            assert nearest_color(task.images[0]) == match[1], task.solution
    assert claimed > 60


RGB = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (139, 69, 19),
    "gray": (128, 128, 128),
    "green": (0, 128, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}


def nearest_color(png):
    """The colour of the pixels that differ from the background of the first rows."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(float)
    shape = pixels[np.abs(pixels - np.median(pixels[:64], axis=0)).sum(1) > 60]
    color = np.median(shape, axis=0)
    return min(RGB, key=lambda name: np.abs(np.array(RGB[name]) - color).sum())


@pytest.mark.parametrize(
    ("question", "answer", "facts", "solution"),
    [
        ("what color is the shape?", "blue", {}, "The question asks for the color. The shape is blue."),
        (
            "what shape is present?",
            "circle",
            {},
            "The question asks for the shape. The shape is a circle.",
        ),
        (
            "is there a black shape?",
            "no",
            {"color": "blue"},
            "The shape is blue, not black. The question asks if black is there, so no.",
        ),
        (
            "is there not a circle?",
            "no",
            {"shape": "circle"},
            "The shape is a circle. The question asks if a circle is not there, so no.",
        ),
        ("is there a black shape?", "no", {"shape": "circle"}, None),
    ],
)
def test_solutions_by_hand(question, answer, facts, solution):
    from rollouts.tasks.easy_vqa import _Row, _solution

    row = _Row(question=question, answer=answer, image=0, number=0)
    assert _solution(row, facts, ()) == solution
    if solution:
        assert _solution(row, facts, ("x", answer)) == f"{solution} That is option B."


def test_every_yes_no_solution_agrees_with_the_datas_answer(train):
    """What the solution says about the image, put against the question, gives the answer: 3,000 of them."""
    for task in sample(train, 6000)[::2]:
        match = re.match(
            r"The shape is (.+?)(?:, not (.+))?\. The question asks if (.+) is (not )?there",
            task.solution or "",
        )
        if match:
            shown, _, asked, negated = match.groups()
            assert ((shown == asked) != bool(negated)) == (task.answer == "yes")


def test_tasks_are_the_same_in_every_epoch_and_ids_unique(held_out):
    assert [held_out.task(index, 5) for index in range(50)] == sample(held_out, 50)
    assert len({task.id for task in sample(held_out, 2000)}) == 2000


@pytest.mark.parametrize(
    ("options", "named"), [({"split": "test"}, "held_out"), ({"form": "quiz"}, "open, choice, both")]
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        EasyVQA(**options)
