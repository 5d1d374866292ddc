"""Sums as text: the grammar of `digit_sums` without an image, and held out by expression."""

import pytest
from source_checks import check_source

from configs.errors import UserError
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.text_sums import TextSums


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("form", ["question", "document"])
def test_it_keeps_what_every_source_promises(split, form):
    check_source(lambda: TextSums(split, form=form))


def test_a_question_is_the_reading_of_an_image_and_its_solution_that_of_digit_sums():
    task = TextSums(digits=[3], operators=["+"], check_share=0).task(0, 0)
    reading, question = task.question.split("\n")
    assert question == DigitSums().task(0, 0).question
    assert task.solution.splitlines()[0] == reading
    assert len(reading) == 5
    assert eval(reading) == int(task.answer)
    assert task.solution.endswith(f"={task.answer}")
    assert not task.images


def test_a_document_is_the_worked_solution():
    question, document = TextSums(), TextSums(form="document")
    assert [document.task(i, 1).text for i in range(20)] == [question.task(i, 1).solution for i in range(20)]


def test_no_expression_is_in_both_splits_and_a_tenth_is_held_out():
    train, held_out = ({source.task(i, 0).question for i in range(4000)} for source in (TextSums(), unseen()))
    assert not train & held_out
    pairs = {question for question in train | held_out if len(question.split("\n")[0]) == 3}
    assert len(pairs) == 300  # all of them are met
    assert 0.05 < len(pairs & held_out) / 300 < 0.15


def unseen(**options):
    return TextSums("held_out", **options)


@pytest.mark.parametrize("operator", ["+", "-", "*"])
def test_the_smallest_grammar_has_held_out_expressions(operator):
    source = unseen(digits=[2], operators=[operator])
    assert len({source.task(i, 0).question for i in range(200)}) > 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "test"}, "text_sums: split = 'test': must be train or held_out"),
        ({"form": "caption"}, "form = 'caption': must be question or document"),
        ({"digits": [1]}, "digits = \\[1\\]: must be a list of numbers from 2 to 8"),
        ({"operators": ["/"]}, "some of"),
        ({"check_share": 2}, "between 0 and 1"),
    ],
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(UserError, match=named):
        TextSums(**options)
