"""OCRBench: a thousand questions about text in pictures.

Columns on the hub: dataset, question, question_type, answer (a list), image: EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/ocrbench/upload_ocrbench.py; in the original file: dataset_name, id, image_path, question, answers (a
text or a list), type: Yuliang-Liu/MultimodalOCR, OCRBench/OCRBench/OCRBench.json. Prompt: the question alone. Rule:
Yuliang-Liu/MultimodalOCR, OCRBench/example.py, the answer stands in the response.
"""

from __future__ import annotations

import json

from rollouts.tasks.benchmarks.layout import Place, Question, Row, first_text, text_of

_FORMULAS = "HME100k"


def read(row: Row, place: Place) -> Question:
    """A row of OCRBench."""
    question, kind = text_of(row, "question"), first_text(row, "question_type", "type")
    answers = row.get("answer") if row.get("answer") is not None else row.get("answers")
    accepted = [str(answer) for answer in answers] if isinstance(answers, list | tuple) else [str(answers or "")]
    return Question(
        id=str(place.number),
        prompt=question,
        question=question,
        answer=accepted[0] if len(accepted) == 1 else json.dumps(accepted, ensure_ascii=False),
        images=[row["image"] if row.get("image") is not None else row.get("image_path")],
        verifier="contains(formula=true)" if first_text(row, "dataset", "dataset_name") == _FORMULAS else "contains",
        groups={"question type": kind},
        columns={"category": kind, "answer": repr(accepted)},
    )
