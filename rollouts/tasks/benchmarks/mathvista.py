"""MathVista: multiple choice and free-form answers of a given type and precision.

Columns: lupantech/MathVista, README.md, "Data Format". On the hub, `image` is a path and `decoded_image` the image.
Prompt: the column `query`; where it is missing, as lupantech/MathVista, data/query.json, has it.
Rule: lupantech/MathVista, evaluation/calculate_score.py. Its extraction by a language model is a rule of ours here.
VLMEvalKit's columns: open-compass/VLMEvalKit, vlmeval/dataset/utils/mathvista.py.
"""

from __future__ import annotations

from rollouts.tasks.benchmarks.layout import Place, Question, Row, details_of, first_text, lettered, options_of, text_of
from rollouts.tasks.rows import LETTERS, BadRow

_HINTS = {
    "text": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
    "at the end.",
    "float1": "Please answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "float2": "Please answer the question requiring a floating-point number with two decimal places and provide the "
    "final value, e.g., 1.23, 1.34, 1.45, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final list, e.g., "
    "[1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}


def read(row: Row, place: Place) -> Question:
    """A row of MathVista."""
    kind, choices = text_of(row, "answer_type"), options_of(row.get("choices"))
    digits = int(float(text_of(row, "precision") or 0))
    question, answer = text_of(row, "question"), text_of(row, "answer")
    details = details_of(row)
    return Question(
        id=first_text(row, "pid") or str(place.number + 1),
        prompt=text_of(row, "query") or _query(row, question, kind, digits, choices),
        question=question,
        answer=answer,
        images=[row["decoded_image"] if row.get("decoded_image") is not None else row.get("image")],
        choices=choices,
        verifier=_verifier(text_of(row, "question_type"), kind, digits),
        groups={key: str(details[key]) for key in ("task", "category", "language") if details.get(key)}
        | {"answer type": kind},
        columns={
            "question_type": text_of(row, "question_type"),
            "answer_type": kind,
            "choices": repr(list(choices)),
            "answer_option": LETTERS[choices.index(answer)] if answer in choices else "",
            "task": str(details.get("task", "")),
            "skills": repr(list(details.get("skills") or [])),
        },
    )


def _verifier(question_type: str, kind: str, digits: int) -> str:
    if question_type == "multi_choice":
        return "choice"
    if question_type != "free_form" or kind not in ("integer", "float", "list"):
        raise BadRow("question_type or answer_type is unknown", f"{question_type} {kind}"[:80])
    return f"mathvista(kind=float, digits={digits})" if kind == "float" else f"mathvista(kind={kind})"


def _query(row: Row, question: str, kind: str, digits: int, choices: tuple[str, ...]) -> str:
    hint = _HINTS.get(f"float{digits}" if kind == "float" else kind)
    unit = text_of(row, "unit")
    lines = [f"Hint: {hint}"] if hint else []
    lines += [f"Question: {question}{f' (Unit: {unit})' if unit else ''}"]
    lines += ["Choices:", lettered(choices, "({letter}) {option}")] if choices else []
    return "\n".join(lines)
