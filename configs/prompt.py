"""The prompt of a question: the system text, and the template around the question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check

QUESTION = "{question}"  # the one field of a template; all other braces, those of LaTeX included, stay as they are
IMAGE_MARK = "<image>"  # in a question: the place of the next image

_CONTROL = re.compile(r"<\|\w+\|>")  # the tokenizer would read it as a control token, such as the end of a turn
# A word in braces that is no argument of LaTeX: `{answer}`, but neither `\text{cm}`, `\frac{a}{b}` nor `x^{n}`.
_FIELD = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})*|[\^_]\{[^{}]*\}|(\{+ *[A-Za-z_]\w* *\}+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    r"""A system text and a template, such as `"{question}\nPut the final answer in \\boxed{}."`.

    What is left out is the next one's: a source's prompt goes before its verifier's, and that before `data.prompt`.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    system: str | None = None  # system text; null: the chat template's own
    template: str | None = None  # text that holds `{question}` once, for the question; null: the question alone

    def __post_init__(self) -> None:
        for key, text in (("system", self.system), ("template", self.template)):
            control = _CONTROL.search(text or "")
            _check(control is None, key, text, f"without control tokens, which {control and control[0]} is")
            _check(IMAGE_MARK not in (text or ""), key, text, f"without {IMAGE_MARK}, which only questions hold")
        _check(self.system is None or bool(self.system.strip()), "system", self.system, "a text, or left out")
        _check(
            self.template is None or self.template.count(QUESTION) == 1,
            "template",
            self.template,
            f"a text that holds {QUESTION} once",
        )
        fields = [match[1] for match in _FIELD.finditer(self.template or "") if match[1] not in (None, QUESTION)]
        _check(
            not fields,
            "template",
            self.template,
            f"without fields other than {QUESTION}, which {' and '.join(fields)} would be",
        )

    def over(self, other: PromptConfig) -> PromptConfig:
        """This prompt, with what it leaves out taken from `other`."""
        return PromptConfig(
            system=other.system if self.system is None else self.system,
            template=other.template if self.template is None else self.template,
        )

    def apply(self, question: str) -> str:
        """The text of the user's turn: the question in the template."""
        return (self.template or QUESTION).replace(QUESTION, question)
