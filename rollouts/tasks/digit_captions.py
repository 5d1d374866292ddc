"""Readings of handwriting: an image of digits and operators, and what stands there as text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

from configs.prompt import IMAGE_MARK
from rewards.types import Task
from rollouts.tasks.arithmetic import Expression
from rollouts.tasks.digit_sums import checked_warp
from rollouts.tasks.documents import Document
from rollouts.tasks.handwriting import ScanSet, draw_expression, scans_of
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split
from rollouts.tasks.sum_grammar import DigitCounts, sum_grammar

READ = "What does the image say?"
Form = Literal["caption", "question"]


class DigitCaptions:
    """An endless sequence of images as in `digit_sums`, each with its reading, such as `7+4*3`.

    `form` makes them captions (documents: the image, then its reading) or questions (tasks). `scans`, `operators`,
    `warp` and `scan_set` are those of `digit_sums`, but one scan alone is allowed too. Raises DataSetError where an
    option is out of range.
    """

    name = "digit_captions"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        form: Form = "caption",
        scans: DigitCounts = (1, 2, 3),
        operators: Sequence[str] = ("+", "-", "*"),
        warp: float = 0.0,
        scan_set: ScanSet = "uci",
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, ("caption", "question"))
        check_option(self.name, "scan_set", scan_set, ("uci", "mnist"))
        self.grammar = sum_grammar(self.name, digits=scans, operators=operators, option="scans", fewest=1)
        self.form, self.warp = form, checked_warp(self.name, warp)
        self.report = SkipReport()
        self._scans = scans_of(scan_set, split)
        options = (sorted(self.grammar.weights.items()), self.grammar.operators, self.warp, scan_set)
        self._key = f"digit_captions/{split}/{hashlib.sha256(repr(options).encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task | Document:
        """Make image `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)
        chosen, operators = self.grammar.draw(rng, len(self._scans.digits))
        expression = Expression(digits=tuple(self._scans.digits[i] for i in chosen), operators=operators)
        image = draw_expression([self._scans.pixels[i] for i in chosen], operators, self.warp, rng)
        if self.form == "caption":
            text = f"{IMAGE_MARK}{expression}"
            return Document(id=f"{identity}/caption", source=self.name, text=text, images=(image,))
        return Task(
            id=identity,
            source=self.name,
            question=READ,
            answer=str(expression),
            images=(image,),
            verifier="exact",
            difficulty=expression.difficulty,
        )
