"""Sums of handwritten digits: real scans tiled into an expression such as `7 + 4 * 3`, one 28x28 tile a symbol.

The scans are scikit-learn's copy of the UCI handwritten digits (1,797 scans of 8x8 pixels). They are split into train
and held-out before any task is made, so that held-out tasks show handwriting never seen in training.
"""

from __future__ import annotations

import functools
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from rewards.types import Task
from rollouts.tasks.arithmetic import COST, Expression, Step
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.skip_report import SkipReport

Split = Literal["train", "held_out"]

TILE = 28  # pixels; two 14-pixel patches a side, which a 2x2 merge turns into one image token
SCAN = 24  # pixels of a scan in its tile: 8x8 scaled up three times
JITTER = 1  # pixels that a symbol may be off the middle of its tile, each way
PAPER = 255  # white; ink is 0
HELD_OUT_SHARE = 0.2  # of the scans of each digit
MAX_SCANS = 8
ALIASES = {"×": "*", "x": "*", "−": "-"}
QUESTION = "What is the result?"


class DigitSums:
    """An endless sequence of expressions over one split of the scans.

    `scans` are the allowed numbers of scans in an expression, as a list or as a mapping to weights; `operators` those
    that may stand between them; `check_share` the part of the solutions with a check or a corrected slip. `warp`
    turns, shears and scales each scan at random (1.0: up to 14 degrees, 20 %), so that few scans stand for many hands.
    Raises DataSetError where an option is out of range.
    """

    name = "digit_sums"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        scans: Sequence[int] | Mapping[int, float] = (2, 3),
        operators: Sequence[str] = ("+", "-", "*"),
        check_share: float = 0.1,
        warp: float = 0.0,
    ) -> None:
        if split not in get_args(Split):
            raise DataSetError(f"digit_sums: split = {split!r}: must be train or held_out")
        weights = _weights(scans)
        self.operators = tuple(ALIASES.get(operator, operator) for operator in operators)
        if not self.operators or not set(self.operators) <= set(COST):
            raise DataSetError(f"digit_sums: operators = {operators!r}: must be a list of some of {', '.join(COST)}")
        if not isinstance(check_share, int | float) or not 0 <= check_share <= 1:
            raise DataSetError(f"digit_sums: check_share = {check_share!r}: must be a number between 0 and 1")
        if not isinstance(warp, int | float) or not 0 <= warp <= 2:
            raise DataSetError(f"digit_sums: warp = {warp!r}: must be a number between 0 and 2")
        self.split, self.check_share, self.warp = split, check_share, float(warp)
        self.report = SkipReport()
        self._counts, self._weights = tuple(weights), tuple(weights.values())
        options = repr((sorted(weights.items()), self.operators, check_share, self.warp))
        self._key = f"digit_sums/{split}/{hashlib.sha256(options.encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task:
        """Make task `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)  # a string seed is hashed by sha512: the same on every machine
        pixels, digits = _scans(self.split)
        chosen = [rng.randrange(len(digits)) for _ in range(rng.choices(self._counts, self._weights)[0])]
        expression = Expression(
            digits=tuple(digits[i] for i in chosen),
            operators=tuple(rng.choice(self.operators) for _ in chosen[1:]),
        )
        steps = expression.steps()
        return Task(
            id=identity,
            source=self.name,
            question=QUESTION,
            answer=str(steps[-1].result),
            images=(_draw([_warped(pixels[i], self.warp, rng) for i in chosen], expression.operators, rng),),
            verifier="math",
            difficulty=expression.difficulty,
            solution="\n".join([str(expression), *_lines(steps, self.check_share, rng)]),
        )


def _weights(scans: Sequence[int] | Mapping[int, float]) -> dict[int, float]:
    """The option `scans` as number of scans -> weight. Raises DataSetError."""
    try:  # a recipe that went through JSON has text as keys
        pairs = scans.items() if isinstance(scans, Mapping) else [(number, 1.0) for number in scans]
        weights = {int(number): float(weight) for number, weight in pairs}
    except (TypeError, ValueError):
        weights = {}
    if not weights or not all(2 <= number <= MAX_SCANS for number in weights):
        raise DataSetError(f"digit_sums: scans = {scans!r}: must be a list of numbers from 2 to {MAX_SCANS}")
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise DataSetError(f"digit_sums: scans = {scans!r}: weights must be 0 or more, and one of them positive")
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


@functools.cache
def _uci_digits() -> Any:
    """scikit-learn's digits: `images` [1797, 8, 8] from 0 (paper) to 16 (ink), `target` [1797]."""
    from sklearn.datasets import load_digits

    return load_digits()


@functools.cache
def scan_split() -> dict[Split, np.ndarray]:
    """Row numbers of scikit-learn's digits in each split: fixed, disjoint, with the same share of every digit."""
    digits = _uci_digits().target
    held_out: list[int] = []
    for digit in range(10):
        rows = sorted(
            np.flatnonzero(digits == digit).tolist(), key=lambda row: hashlib.sha256(f"{row}".encode()).digest()
        )
        held_out += rows[: round(len(rows) * HELD_OUT_SHARE)]
    return {"held_out": np.sort(held_out), "train": np.setdiff1d(np.arange(len(digits)), held_out)}


@functools.cache
def _scans(split: Split) -> tuple[np.ndarray, tuple[int, ...]]:
    """The scans of a split, scaled up, as dark ink on white [N, 24, 24] uint8; and the digit of each."""
    data = _uci_digits()
    rows = scan_split()[split]
    gray = (PAPER - data.images[rows] * (PAPER / 16)).round().astype(np.uint8)
    scaled = [np.asarray(Image.fromarray(scan).resize((SCAN, SCAN), Image.Resampling.BICUBIC)) for scan in gray]
    return np.stack(scaled), tuple(int(digit) for digit in data.target[rows])


def _warped(scan: np.ndarray, warp: float, rng: random.Random) -> np.ndarray:
    """The scan [24, 24] turned, sheared and scaled about its middle by random amounts up to `warp`."""
    if warp == 0:
        return scan
    turn, shear, wide, high = (warp * rng.uniform(-1, 1) for _ in range(4))
    across, down = 1 + 0.2 * wide, 1 + 0.2 * high
    a, b, d, e = across, 0.25 * shear + 0.25 * turn, -0.25 * turn, down
    middle = (SCAN - 1) / 2
    matrix = (a, b, middle - a * middle - b * middle, d, e, middle - d * middle - e * middle)
    image = Image.fromarray(scan).transform(
        (SCAN, SCAN), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=PAPER
    )
    return np.asarray(image)


@functools.cache
def _symbols(operator: str) -> tuple[np.ndarray, ...]:
    """A few drawings of an operator in lines of different length and width, [24, 24] uint8 each."""
    drawings = []
    fine = 4 * SCAN  # drawn four times larger and scaled down, for smooth edges
    for length in (6.0, 7.0, 8.0):
        for width in (8, 11):
            image = Image.new("L", (fine, fine), PAPER)
            pen, middle, reach = ImageDraw.Draw(image), fine / 2, 4 * length
            slant = reach * 0.75
            for x, y in {"-": [(reach, 0)], "+": [(reach, 0), (0, reach)], "*": [(slant, slant), (slant, -slant)]}[
                operator
            ]:
                pen.line((middle - x, middle - y, middle + x, middle + y), fill=0, width=width)
            drawings.append(np.asarray(image.resize((SCAN, SCAN), Image.Resampling.BOX)))
    return tuple(drawings)


def _draw(scans: Sequence[np.ndarray], operators: Sequence[str], rng: random.Random) -> bytes:
    """Tile scans and operators from left to right; PNG bytes of a gray image [28, 28 * symbols]."""
    symbols = [scans[0]]
    for operator, scan in zip(operators, scans[1:], strict=True):
        symbols += [rng.choice(_symbols(operator)), scan]
    canvas = np.full((TILE, TILE * len(symbols)), PAPER, np.uint8)
    margin = (TILE - SCAN) // 2
    for at, symbol in enumerate(symbols):
        top = margin + rng.randint(-JITTER, JITTER)
        left = TILE * at + margin + rng.randint(-JITTER, JITTER)
        canvas[top : top + SCAN, left : left + SCAN] = symbol
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG", compress_level=1)  # half again the speed of level 6, hardly larger
    return file.getvalue()
