"""MMMU and MMMU-Pro: several images at `<image 1>`, `<image 2>`, ..., options as a list written as Python.

MMMU: columns id, question, options, answer, question_type, image_1 to image_7 (EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/mmmu/utils.py). Prompt: MMMU-Benchmark/MMMU, mmmu/utils/data_utils.py (`construct_prompt`) with
mmmu/configs/llava1.5.yaml. Rule: mmmu/utils/eval_utils.py; open questions may have a list of accepted answers, as
mmmu/answer_dict_val.json shows.
MMMU-Pro: prompts of mmmu-pro/prompts.yaml (`cot`), images interleaved as in mmmu-pro/infer/infer_gpt.py; in the vision
setting the question is in the picture, in the column `image`. Rule: mmmu-pro/evaluate.py.
The official code guesses a random letter where a response has none; here that is no answer, and wrong.
"""

from __future__ import annotations

import json

from rollouts.tasks.benchmarks.layout import (
    Place,
    Question,
    Row,
    at_marks,
    lettered,
    option_columns,
    options_of,
    text_of,
)
from rollouts.tasks.rows import BadRow

_CHOICE = "Answer with the option's letter from the given choices directly."
_OPEN = "Answer the question using a single word or phrase."
_PRO = (
    "Answer the preceding multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before answering."
)
_PRO_VISION = (
    "Write out the multiple-choice question in the image and then solve it. The last line of your response should be "
    "of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step "
    "before answering."
)

# MMMU-Benchmark/MMMU, mmmu/utils/data_utils.py, DOMAIN_CAT2SUB_CAT.
SUBJECTS = (
    *("Art", "Art_Theory", "Design", "Music", "Accounting", "Economics", "Finance", "Manage", "Marketing", "Biology"),
    *("Chemistry", "Geography", "Math", "Physics", "Basic_Medical_Science", "Clinical_Medicine"),
    *("Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health", "History", "Literature", "Sociology"),
    *("Psychology", "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
    *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
)


def read(row: Row, place: Place) -> Question:
    """A row of MMMU."""
    question, options = text_of(row, "question"), options_of(row.get("options"))
    is_choice = text_of(row, "question_type") == "multiple-choice"
    listed = lettered(options, "({letter}) {option}")
    prompt, images = at_marks(f"{question}\n{listed}\n\n{_CHOICE}" if is_choice else f"{question}\n{_OPEN}", row)
    row_id = text_of(row, "id") or str(place.number)
    return Question(
        id=row_id,
        prompt=prompt,
        question=question,
        answer=_known(text_of(row, "answer")) if is_choice else accepted(_known(text_of(row, "answer"))),
        images=images,
        choices=options if is_choice else (),
        verifier="choice" if is_choice else "mmmu_open",
        groups={"subject": subject_of(row_id), "question type": text_of(row, "question_type")},
        columns={
            "split": row_id.partition("_")[0],
            "category": subject_of(row_id),
            **option_columns(options if is_choice else ()),
        },
    )


def read_pro(row: Row, place: Place) -> Question:
    """A row of MMMU-Pro, standard (10 options) or vision."""
    options = options_of(row.get("options"))
    question = text_of(row, "question")
    if question:
        prompt, images = at_marks(f"{question}\n{lettered(options)}\n{_PRO}", row)
    else:
        prompt, images = _PRO_VISION, [row.get("image")]
    return Question(
        id=text_of(row, "id") or str(place.number),
        prompt=prompt,
        question=question or "placeholder",  # what open-compass/VLMEvalKit, vlmeval/dataset/image_mcq.py, puts there
        answer=_known(text_of(row, "answer")),
        images=images,
        choices=options,
        groups={"subject": text_of(row, "subject")},
        columns={"category": text_of(row, "subject"), **option_columns(options)},
    )


def subject_of(row_id: str) -> str:
    """The subject in an id such as `validation_Art_Theory_12`."""
    return "_".join(row_id.split("_")[1:-1])


def accepted(answer: str) -> str:
    """The answer; a list of accepted ones, written as Python, becomes the JSON list that verifiers read."""
    if answer.startswith("[") and answer.endswith("]"):
        try:
            return json.dumps(list(options_of(answer)), ensure_ascii=False)
        except BadRow:
            return answer
    return answer


def _known(answer: str) -> str:
    if answer == "?":
        raise BadRow("answer is hidden, as in the split test; take another split")
    return answer
