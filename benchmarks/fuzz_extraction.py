"""Fuzz what reads untrusted text: extraction, normalisation, our grammar and its values, multiple choice.

    pip install atheris && python benchmarks/fuzz_extraction.py -max_total_time=1500 corpus/

Arguments are libFuzzer's; `--quick` runs for 20 seconds. Every input is read as a response, as a formula and as a
reference. The run ends with an exception, an input of ten seconds under instrumentation, an answer inside the
thinking, or a verdict of `correct` without an answer or with an unusable reference. The worker process is replaced by
one that never decides, so that only code of this process is fuzzed. atheris is no dependency of the project.
"""

from __future__ import annotations

import sys
from typing import Any

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["rewards"], enable_loader_override=True):
    from rewards.extraction import extract_answer, split_thinking
    from rewards.math.comparison import equal
    from rewards.math.limits import refusal
    from rewards.math.normalize import to_latex
    from rewards.math.prose import from_prose
    from rewards.math.reading import read_reference
    from rewards.types import Task, VerdictKind
    from rewards.verifiers.choice import ChoiceVerifier
    from rewards.verifiers.math import MathVerifier

_PIECES = (
    "\\boxed{", "}", "{", "\\frac{", "\\sqrt{", "\\begin{pmatrix}", "\\end{pmatrix}", "\\text{ or }", "◁think▷",
    "◁/think▷", "<answer>", "</answer>", "answer is ", "Answer: ", "$", "\\(", "\\)", "\\infty", "\\cup",
    "\\le ", "<", ">=", "^{", "_{", "\\pm", "%", "^\\circ", " cm", "1,000", "12", "x", "(", ")", "[", "]", ",",
    ";", "=", "!", "三分之二", "not A", "(B)", "或", "\\left(", "\\right)", "10^", "\\log_", "\\sin", "n", "k\\pi",
    "\\in\\mathbb{Z}", "\\{", "\\}", "|", ":", "3:30 pm", "\n",
)  # fmt: skip
_CHOICES = ("a cat", "$\\frac{1}{2}$", "10 km", "红色", "none of these")


class _Undecided:
    """Replaces the worker process."""

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decide nothing."""
        return {"outcome": "unparsed"}


_MATH = MathVerifier(_Undecided())  # type: ignore[arg-type]
_CHOICE = ChoiceVerifier(_Undecided())  # type: ignore[arg-type]


def _text(provider: Any) -> str:
    parts = []
    while provider.remaining_bytes() > 0 and len(parts) < 200:
        if provider.ConsumeBool():
            parts.append(_PIECES[provider.ConsumeIntInRange(0, len(_PIECES) - 1)])
        else:
            parts.append(provider.ConsumeUnicode(provider.ConsumeIntInRange(1, 8)))
    times = (1, 1, 1, 2, 8, 64)[len(parts) % 6]
    return "".join(parts) * times


def one_input(data: bytes) -> None:
    """Check all properties on the text in `data`."""
    text = _text(atheris.FuzzedDataProvider(data))
    found = extract_answer(text)
    thinking = split_thinking(text)
    assert found.rule
    assert thinking.closed or thinking.thought is None or found.answer is None
    latex = to_latex(text[:8000])
    from_prose(text[:8000])
    if refusal(latex) is None:
        assert equal(latex, latex) is not False, latex
        equal("x^2+1", latex)
        equal("(1,2]", latex)
    reference = read_reference(text)
    for gold in ("7", "x+1", text):
        verdict = _MATH(text, gold, task=Task(id="f", source="fuzz", question="", answer=gold))
        assert verdict.kind is not VerdictKind.CRASH
        assert verdict.kind is not VerdictKind.CORRECT or verdict.extracted
        assert gold is not text or not isinstance(reference, str) or verdict.kind is VerdictKind.BAD_REFERENCE
    _CHOICE.commitment(text, _CHOICES)


def main() -> None:
    """Run until libFuzzer's limit."""
    arguments = ["-timeout=10", "-max_len=2048", *sys.argv]
    if "--quick" in arguments:
        arguments = ["-max_total_time=20", *(a for a in arguments if a != "--quick")]
    program, *_ = sys.argv
    atheris.Setup([program, *(a for a in arguments if a != program)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
