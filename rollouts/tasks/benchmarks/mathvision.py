r"""MATH-Vision (MATH-V): competition problems, half of them with five options.

Columns: mathllm/MATH-V, data/test.jsonl (`image` is a path); on the hub, `decoded_image` is one picture of all images,
so that `<image1>` stays text. Prompt: mathllm/MATH-V, models/Qwen-VL.py: options that are their own letters are left
out. Rule: mathllm/MATH-V, evaluation/evaluate.py: the letter or the value of the option; else equality, by value to two
decimals.
"""

from __future__ import annotations

from rollouts.tasks.benchmarks.layout import (
    Place,
    Question,
    Row,
    lettered,
    option_columns,
    options_of,
    text_of,
)

_TASK = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
    'question, only one letter is allowed in the "\\boxed{}".\n'
)


def read(row: Row, place: Place) -> Question:
    """A row of MATH-Vision."""
    question, options = text_of(row, "question"), options_of(row.get("options"))
    shown = lettered(options, "({letter}) {option}") if options and "".join(options) != "ABCDE" else ""
    return Question(
        id=text_of(row, "id") or str(place.number + 1),
        prompt=f"{_TASK}{question}\n{shown}".rstrip("\n"),
        question=question,
        answer=text_of(row, "answer"),
        images=[row["decoded_image"] if row.get("decoded_image") is not None else row.get("image")],
        choices=options,
        verifier="choice" if options else "mathvision",
        groups={"subject": text_of(row, "subject"), "level": text_of(row, "level")},
        columns={"category": text_of(row, "subject"), "choices": repr(list(options)), **option_columns(options)},
    )
