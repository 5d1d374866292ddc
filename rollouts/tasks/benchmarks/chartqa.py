"""ChartQA: a number or a few words read from a chart.

Columns on the hub: type (`human_test` or `augmented_test`), question, answer, image; in the original files: imgname,
query, label, with the picture in `png/`. Both from EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/chartqa/upload_chartqa.py; the hub's name is that of EvolvingLMMs-Lab/VideoMMMU,
lmms_eval/tasks/chartqa/chartqa.yaml. Prompt: chartqa.yaml there. Rule: chartqa/utils.py there, relaxed accuracy.
"""

from __future__ import annotations

from rollouts.tasks.benchmarks.layout import Place, Question, Row, first_text, text_of

_TASK = "\nAnswer the question with a single word."


def read(row: Row, place: Place) -> Question:
    """A row of ChartQA."""
    question, name = first_text(row, "question", "query"), text_of(row, "imgname")
    part = text_of(row, "type") or place.subset
    return Question(
        id=str(place.number),
        prompt=question + _TASK,
        question=question,
        answer=first_text(row, "answer", "label"),
        images=[f"png/{name}" if name else row.get("image")],
        verifier="relaxed",
        groups={"type": part} if part else {},
        columns={"split": part},
    )
