"""Counting in CLEVR-style pictures.

Layouts: problem, answer, images (BUAADreamer/clevr_count_70k, as hiyouga/EasyR1,
examples/baselines/qwen2_5_vl_3b_clevr.sh and examples/config.yaml read it); problem, solution with the number in
`<answer>`, image (leonardPKU/clevr_cogen_a_train: Deep-Agent/R1-V, src/r1-v/src/open_r1/grpo.py); question,
ground_truth, image_path (SuperCLEVR: Deep-Agent/R1-V, src/eval/prompts/superclevr_test200_counting_problems.jsonl).
Prompt and rule: Deep-Agent/R1-V, src/eval/test_qwen2vl_counting_superclevr.py, the same whole number.
"""

from __future__ import annotations

import re

from rollouts.tasks.benchmarks.layout import Place, Question, Row, first_text

_TASK = " First output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)


def read(row: Row, place: Place) -> Question:
    """A row of a counting data set in one of the three layouts."""
    question, answer = first_text(row, "question", "problem"), first_text(row, "ground_truth", "answer", "solution")
    tagged = _ANSWER.search(answer)
    cells = next((row[name] for name in ("images", "image", "image_path") if row.get(name) is not None), None)
    return Question(
        id=str(place.number),
        prompt=question + _TASK,
        question=question,
        answer=tagged[1].strip() if tagged else answer,
        images=cells if isinstance(cells, list | tuple) else [cells],
        verifier="count",
    )
