"""Sums as plain text: the expressions and the worked solutions of `digit_sums`, without the image."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

from rewards.types import Task
from rollouts.tasks.arithmetic import Expression
from rollouts.tasks.documents import Document
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split, in_share
from rollouts.tasks.sum_grammar import QUESTION, DigitCounts, sum_grammar

HELD_OUT_SHARE = 0.1  # of all expressions
Form = Literal["question", "document"]


class TextSums:
    """An endless sequence of expressions such as `7+4*3`; those of `train` and `held_out` are disjoint.

    `digits` are the allowed numbers of digits in an expression, as a list or as a mapping to weights; `operators` those
    that may stand between them; `check_share` the part of the solutions with a check or a corrected slip. `form` makes
    them questions (tasks) or the worked solutions themselves (documents). Raises DataSetError where an option is out of
    range.
    """

    name = "text_sums"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        digits: DigitCounts = (2, 3),
        operators: Sequence[str] = ("+", "-", "*"),
        check_share: float = 0.1,
        form: Form = "question",
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, ("question", "document"))
        self.grammar = sum_grammar(self.name, digits=digits, operators=operators, check_share=check_share)
        self.split, self.form = split, form
        self.report = SkipReport()
        options = (sorted(self.grammar.weights.items()), self.grammar.operators, check_share)
        self._key = f"text_sums/{split}/{hashlib.sha256(repr(options).encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task | Document:
        """Make task `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)
        expression = self._expression(rng)
        solution = self.grammar.solution(expression, rng)
        if self.form == "document":
            return Document(id=f"{identity}/document", source=self.name, text=solution)
        return Task(
            id=identity,
            source=self.name,
            question=f"{expression}\n{QUESTION}",
            answer=str(expression.steps()[-1].result),
            verifier="math",
            difficulty=expression.difficulty,
            solution=solution,
        )

    def _expression(self, rng: random.Random) -> Expression:
        """Draw until an expression belongs to the split: every set of options has some in both."""
        while True:
            digits, operators = self.grammar.draw(rng, symbols=10)
            expression = Expression(digits=tuple(digits), operators=operators)
            if in_share(str(expression), HELD_OUT_SHARE) == (self.split == "held_out"):
                return expression
