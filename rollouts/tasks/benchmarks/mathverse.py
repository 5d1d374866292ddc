"""MathVerse: each problem in six versions, from all text to all in the picture.

Columns: ZrrSkywalker/MathVerse, README.md and data/testmini_text_only.json (no image: an empty text). Prompt:
`query_wo`, which the README asks for where the final answer is scored ("w/o"). Rule: ZrrSkywalker/MathVerse,
evaluation/score_answer_s2.py and prompts.py let a language model judge whether the extracted answer is the standard
answer; here `choice` and `math` do.
"""

from __future__ import annotations

import re

from rollouts.tasks.benchmarks.layout import Place, Question, Row, details_of, first_text, text_of
from rollouts.tasks.rows import LETTERS

_OPTION = re.compile(r"^([A-Z])[:.](.*)$", re.MULTILINE)  # "Choices:\nA:40°\nB:60°"


def read(row: Row, place: Place) -> Question:
    """A row of MathVerse."""
    question, is_choice = text_of(row, "question"), text_of(row, "question_type") == "multi-choice"
    details = details_of(row)
    image = row.get("image")
    return Question(
        id=text_of(row, "sample_index") or str(place.number + 1),
        prompt=first_text(row, "query_wo", "query", "question"),
        question=question,
        answer=text_of(row, "answer"),
        images=[] if image in (None, "") else [image],
        choices=_options(first_text(row, "question", "query_wo")) if is_choice else (),
        verifier="choice" if is_choice else "math",
        groups={"version": text_of(row, "problem_version"), "subject": str(details.get("subject", ""))},
        columns={
            "problem_version": text_of(row, "problem_version"),
            "question_type": text_of(row, "question_type"),
            "question_for_eval": first_text(row, "question_for_eval", "question"),
            "metadata": str({key: str(value) for key, value in details.items()}),
        },
    )


def _options(question: str) -> tuple[str, ...]:
    """The options that the question lists; none where their letters are not A, B, C, ...: then letters are compared."""
    found = _OPTION.findall(question.rpartition("Choices:")[2])
    letters = "".join(letter for letter, _ in found)
    return tuple(text.strip() for _, text in found) if len(found) > 1 and LETTERS.startswith(letters) else ()
