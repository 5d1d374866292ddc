"""Geometry3K as hiyouga/geometry3k has it: problem with `<image>`, answer, images.

Columns and prompt: volcengine/verl, examples/data_preprocess/geo3k.py, and hiyouga/EasyR1, examples/config.yaml and
examples/format_prompt/math.jinja. Rule: hiyouga/EasyR1, examples/reward_function/math.py, mathematical equality of what
is in the last box.
"""

from __future__ import annotations

from rollouts.tasks.benchmarks.layout import Place, Question, Row, text_of

_TASK = (
    r" You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    r"reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \boxed{}."
)


def read(row: Row, place: Place) -> Question:
    """A row of hiyouga/geometry3k."""
    problem, images = text_of(row, "problem"), row.get("images")
    return Question(
        id=str(place.number),
        prompt=problem + _TASK,
        question=problem,
        answer=text_of(row, "answer"),
        images=images if isinstance(images, list | tuple) else [images],
        verifier="math",
    )
