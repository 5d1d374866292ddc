"""Questions about a chart's points, with exact answers and solutions that read the chart and then compute."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollouts.tasks.arithmetic import Step

Points = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartQuestion:
    """A question, its answer, wrong answers that come to mind, and the steps to the right one."""

    text: str
    answer: str
    others: tuple[str, ...]
    solution: str
    verifier: str  # `math` for numbers, `text` for labels
    difficulty: float


def value_of(points: Points, rng: random.Random) -> ChartQuestion:
    """Read one value."""
    label, value = rng.choice(points)
    others = [other for _, other in points] + [value + 1, value + 10, max(0, value - 1)]
    return _number(f"What is the value at {label}?", value, others, f"{label}: {value}", 0.1)


def difference(points: Points, rng: random.Random) -> ChartQuestion | None:
    """Subtract one value from another; None where they are equal."""
    (first, high), (second, low) = rng.sample(list(points), 2)
    if low > high:
        (first, high), (second, low) = (second, low), (first, high)
    found = high - low
    if found == 0:
        return None
    solution = f"{first}: {high}\n{second}: {low}\n{Step(left=high, operator='-', right=low).text()}"
    others = [found + 1, found + 10, abs(found - 10), high + low, high]
    return _number(f"By how much is {first} higher than {second}?", found, others, solution, 0.5)


def total(points: Points, rng: random.Random) -> ChartQuestion:
    """Add all values."""
    del rng
    lines, found = [reading(points)], points[0][1]
    for _, value in points[1:]:
        step = Step(left=found, operator="+", right=value)
        lines.append(step.text())
        found = step.result
    others = [found + 1, found + 10, abs(found - 10), found + 100, found - points[-1][1]]
    return _number("What is the sum of all values?", found, others, "\n".join(lines), 0.7)


def highest(points: Points, rng: random.Random) -> ChartQuestion | None:
    """Find the largest value; None where two are."""
    del rng
    return _extreme(points, max, "highest")


def lowest(points: Points, rng: random.Random) -> ChartQuestion | None:
    """Find the smallest value; None where two are."""
    del rng
    return _extreme(points, min, "lowest")


QUESTIONS: Mapping[str, Callable[[Points, random.Random], ChartQuestion | None]] = {
    "value": value_of,
    "highest": highest,
    "lowest": lowest,
    "difference": difference,
    "total": total,
}


def reading(points: Points) -> str:
    """The points as text, one on each line. Example: `1990: 12`."""
    return "\n".join(f"{label}: {value}" for label, value in points)


def _number(text: str, answer: int, others: Sequence[int], solution: str, difficulty: float) -> ChartQuestion:
    wrong = dict.fromkeys(str(other) for other in others if other != answer)
    return ChartQuestion(
        text=text,
        answer=str(answer),
        others=tuple(wrong),
        solution=solution,
        verifier="math",
        difficulty=difficulty,
    )


def _extreme(points: Points, pick: Callable[[list[int]], int], word: str) -> ChartQuestion | None:
    values = [value for _, value in points]
    found = pick(values)
    if values.count(found) > 1:
        return None
    label = points[values.index(found)][0]
    return ChartQuestion(
        text=f"Which label has the {word} value?",
        answer=label,
        others=tuple(other for other, _ in points if other != label),
        solution=f"{reading(points)}\nThe {word} value is {found}, at {label}.",
        verifier="text",
        difficulty=0.3,
    )
