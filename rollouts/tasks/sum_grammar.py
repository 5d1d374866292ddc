"""The expressions that the sources of sums make, on images and as text, and the solutions of these expressions."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollouts.tasks.arithmetic import COST, Expression, Step
from rollouts.tasks.dataset import DataSetError

MAX_DIGITS = 8
ALIASES = {"×": "*", "x": "*", "−": "-"}
QUESTION = "What is the result?"

DigitCounts = Sequence[int] | Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SumGrammar:
    """How many digits an expression has, which operators stand between them, and how its solution reads."""

    weights: Mapping[int, float]  # number of digits -> weight
    operators: tuple[str, ...]
    check_share: float  # of the solutions, with a check or a corrected slip

    def draw(self, rng: random.Random, symbols: int) -> tuple[list[int], tuple[str, ...]]:
        """Draw a number below `symbols` for each digit, and the operators between them."""
        count = rng.choices(tuple(self.weights), tuple(self.weights.values()))[0]
        chosen = [rng.randrange(symbols) for _ in range(count)]
        return chosen, tuple(rng.choice(self.operators) for _ in chosen[1:])

    def solution(self, expression: Expression, rng: random.Random) -> str:
        """The expression and its steps, one on each line; a share of the solutions has a check or a corrected slip."""
        return "\n".join([str(expression), *_lines(expression.steps(), self.check_share, rng)])


def sum_grammar(
    source: str,
    *,
    digits: DigitCounts,
    operators: Sequence[str],
    check_share: float = 0.0,
    option: str = "digits",
    fewest: int = 2,
) -> SumGrammar:
    """Build the grammar from the options of `source`; `option` is what it calls the number of digits.

    Raises DataSetError where a value is out of range.
    """
    known = tuple(ALIASES.get(operator, operator) for operator in operators)
    if not known or not set(known) <= set(COST):
        raise DataSetError(f"{source}: operators = {operators!r}: must be a list of some of {', '.join(COST)}")
    if not isinstance(check_share, int | float) or not 0 <= check_share <= 1:
        raise DataSetError(f"{source}: check_share = {check_share!r}: must be a number between 0 and 1")
    weights = _weights(f"{source}: {option} = {digits!r}", digits, fewest)
    return SumGrammar(weights=weights, operators=known, check_share=check_share)


def _weights(named: str, digits: DigitCounts, fewest: int) -> dict[int, float]:
    """The option as number of digits -> weight. Raises DataSetError."""
    try:  # a recipe that went through JSON has text as keys
        pairs = digits.items() if isinstance(digits, Mapping) else [(number, 1.0) for number in digits]
        weights = {int(number): float(weight) for number, weight in pairs}
    except (TypeError, ValueError):
        weights = {}
    if not weights or not all(fewest <= number <= MAX_DIGITS for number in weights):
        raise DataSetError(f"{named}: must be a list of numbers from {fewest} to {MAX_DIGITS}")
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise DataSetError(f"{named}: weights must be 0 or more, and one of them positive")
    return weights


def _lines(steps: Sequence[Step], check_share: float, rng: random.Random) -> list[str]:
    """The steps as lines of text; with a chance of `check_share`, one of them has a check or a corrected slip."""
    lines = [step.text() for step in steps]
    if rng.random() < check_share:
        at = rng.randrange(len(steps))
        if rng.random() < 0.5:
            lines[at] += f". check: {steps[at].check()}"
        else:
            slip = steps[at].result + rng.choice((-10, -2, -1, 1, 2, 10))
            lines[at] = f"{steps[at].claim(slip)}. wait, {steps[at].text()}"
    return lines
