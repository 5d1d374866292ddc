"""Sums of handwritten digits: an image such as `7 + 4 * 3`, the result, and a solution that reads and then computes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from rewards.types import Task
from rollouts.tasks.arithmetic import Expression
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.handwriting import ScanSet, draw_expression, scans_of
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split
from rollouts.tasks.sum_grammar import QUESTION, DigitCounts, sum_grammar


class DigitSums:
    """An endless sequence of expressions over one split of the scans.

    `scans` are the allowed numbers of scans in an expression, as a list or as a mapping to weights; `operators` those
    that may stand between them; `check_share` the part of the solutions with a check or a corrected slip. `warp`
    turns, shears and scales each scan at random (1.0: up to 14 degrees, 20 %), so that few scans stand for many hands.
    `scan_set` says whose scans. Raises DataSetError where an option is out of range.
    """

    name = "digit_sums"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        scans: DigitCounts = (2, 3),
        operators: Sequence[str] = ("+", "-", "*"),
        check_share: float = 0.1,
        warp: float = 0.0,
        scan_set: ScanSet = "uci",
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "scan_set", scan_set, ("uci", "mnist"))
        self.grammar = sum_grammar(
            self.name, digits=scans, operators=operators, check_share=check_share, option="scans"
        )
        self.warp = checked_warp(self.name, warp)
        self.report = SkipReport()
        self._scans = scans_of(scan_set, split)
        self._key = f"digit_sums/{split}/{self._options_hash(scan_set)}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task:
        """Make task `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)  # a string seed is hashed by sha512: the same on every machine
        chosen, operators = self.grammar.draw(rng, len(self._scans.digits))
        expression = Expression(digits=tuple(self._scans.digits[i] for i in chosen), operators=operators)
        return Task(
            id=identity,
            source=self.name,
            question=QUESTION,
            answer=str(expression.steps()[-1].result),
            images=(draw_expression([self._scans.pixels[i] for i in chosen], operators, self.warp, rng),),
            verifier="math",
            difficulty=expression.difficulty,
            solution=self.grammar.solution(expression, rng),
        )

    def _options_hash(self, scan_set: ScanSet) -> str:
        """Six hex digits that tell apart sources with other options."""
        grammar = self.grammar
        options = (sorted(grammar.weights.items()), grammar.operators, grammar.check_share, self.warp)
        text = repr(options) + ("" if scan_set == "uci" else scan_set)
        return hashlib.sha256(text.encode()).hexdigest()[:6]


def checked_warp(source: str, warp: float) -> float:
    """The option `warp` of a source. Raises DataSetError where it is out of range."""
    if not isinstance(warp, int | float) or not 0 <= warp <= 2:
        raise DataSetError(f"{source}: warp = {warp!r}: must be a number between 0 and 2")
    return float(warp)
