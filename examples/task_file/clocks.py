"""A data set in one Python file: pictures of clocks, and what time they show.

Copy this file into the folder that you run in and name the function as a source:

    data:
      train:
        - use: clocks.py:clocks
          options: {count: 2000}
      held_out:
        - use: clocks.py:clocks
          split: held_out

The function gets the split and the options, and yields rows with the fields of a JSONL file; docs/data.md lists them.
An image may be a path, bytes or a Pillow image. Every call must yield the same rows, because a resumed run calls again.
"""

import math
import random
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageDraw

SIZE = 84  # pixels a side


def clocks(split: str, count: int = 1000) -> Iterator[dict[str, Any]]:
    """`count` clocks at full five minutes; the held-out clocks are others."""
    times = [(hour, minute) for hour in range(12) for minute in range(0, 60, 5)]
    random.Random(0).shuffle(times)
    times = times[:24] if split == "held_out" else times[24:]
    for number in range(count):
        hour, minute = times[number % len(times)]
        passed = hour * 60 + minute
        yield {
            "id": f"{split}-{number}",
            "images": draw(hour, minute),
            "question": "How many minutes after twelve is it on this clock?",
            "answer": passed,
            "verifier": "numeric",
            "solution": f"The hands show {hour}:{minute:02d}, and {hour} * 60 + {minute} = {passed}.",
        }


def draw(hour: int, minute: int) -> Image.Image:
    """A white clock with a short and a long hand."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    pen, centre = ImageDraw.Draw(image), SIZE / 2
    pen.ellipse((2, 2, SIZE - 3, SIZE - 3), outline="black", width=2)
    for turn, length, width in ((hour / 12 + minute / 720, 20, 5), (minute / 60, 34, 3)):
        angle = 2 * math.pi * turn
        tip = (centre + length * math.sin(angle), centre - length * math.cos(angle))
        pen.line((centre, centre, *tip), fill="black", width=width)
    return image
