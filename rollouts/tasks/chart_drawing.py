"""Small charts of bars or lines, each value written at its mark, drawn with Pillow alone."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageFont

Chart = Literal["bar", "line"]

COLORS = ((31, 119, 180), (214, 39, 40), (44, 140, 44), (148, 103, 189), (140, 86, 75), (200, 110, 20))
INK = (20, 20, 20)


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def draw_chart(title: str, points: Sequence[tuple[str, int]], chart: Chart, side: int, rng: random.Random) -> bytes:
    """Draw (label, value) pairs from left to right; PNG bytes of an RGB image [side, side].

    Heights are in proportion to the values. Colors come from `rng`.
    """
    image = Image.new("RGB", (side, side), "white")
    pen, color = ImageDraw.Draw(image), rng.choice(COLORS)
    small = max(8, side // 15)
    _centered(pen, title, side / 2, 1, _fitting(pen, title, side - 2, small + 1))
    top, bottom = 2 * small + 8, side - small - 5
    width = (side - 6) / len(points)
    highest = max(value for _, value in points)
    middles = [3 + width * (at + 0.5) for at in range(len(points))]
    tops = [bottom - (bottom - top) * value / highest for _, value in points]
    pen.line((2, bottom, side - 2, bottom), fill=INK)
    if chart == "line":
        pen.line(list(zip(middles, tops, strict=True)), fill=color, width=2)
    for (label, value), middle, height in zip(points, middles, tops, strict=True):
        if chart == "bar":
            pen.rectangle((middle - width * 0.32, height, middle + width * 0.32, bottom), fill=color)
        else:
            pen.ellipse((middle - 2, height - 2, middle + 2, height + 2), fill=color)
        _centered(pen, str(value), middle, height - small - 4, _fitting(pen, str(value), width, small))
        _centered(pen, label, middle, bottom + 1, _fitting(pen, label, width - 1, small))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _fitting(pen: ImageDraw.ImageDraw, text: str, width: float, size: int) -> Any:
    """The largest font of at most `size` in which `text` is at most `width` pixels wide, and at least 6 high."""
    while size > 6 and pen.textlength(text, font=_font(size)) > width:
        size -= 1
    return _font(size)


def _centered(pen: ImageDraw.ImageDraw, text: str, middle: float, top: float, font: Any) -> None:
    pen.text(
        (middle - pen.textlength(text, font=font) / 2, top),
        text,
        font=font,
        fill=INK,
        stroke_width=1,
        stroke_fill="white",
    )
