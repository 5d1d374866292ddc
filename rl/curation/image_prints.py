"""Finds images that look the same: a difference hash finds candidates, and a colour thumbnail confirms them.

Both come from the picture on a white background, so neither depends on format, compression, size or metadata. The
limits were chosen on 300 images each of `digit_sums` and `easy_vqa`: of 44,850 pairs of different images none matches,
and of JPEG copies (quality 30 to 90, scaled by 0.5 to 2) at least 99.6 % do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from rewards.images import decode_image

SIDE = 16  # cells in a row and in a column that are compared with their neighbours
THUMBNAIL = 12  # pixels in a row and in a column of the thumbnail
MARGIN = 6  # grey levels by which a cell must exceed its neighbour: noise of compression in flat areas sets no bit
MOST_BITS = 30  # of the 512 bits that may differ
MOST_MEAN, MOST_CELL = 6.0, 48  # levels by which thumbnails may differ: on average, and in any one pixel
_FIRST = 256  # images an index has room for at first


@dataclass(frozen=True, slots=True)
class ImagePrint:
    """A fingerprint of an image's appearance."""

    bits: np.ndarray  # [64] uint8: 512 packed bits, is a cell brighter than its left neighbour, and than its upper one
    colours: np.ndarray  # [THUMBNAIL, THUMBNAIL, 3] uint8


def image_print(data: bytes) -> ImagePrint:
    """The print of an encoded image, of its first frame if it is animated. Raises BadImage."""
    image = _on_white(decode_image(data))
    colours = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE + 1), Image.Resampling.BILINEAR)).astype(np.int16)
    across = grey[:SIDE, 1:] - grey[:SIDE, :-1] > MARGIN
    down = grey[1:, :SIDE] - grey[:-1, :SIDE] > MARGIN
    return ImagePrint(np.packbits(np.stack([across, down])), colours)


class ImageIndex:
    """An index of named prints; `find` is linear in their number, about 0.1 ms for 10,000."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._bits = np.zeros((_FIRST, SIDE * SIDE // 4), np.uint8)
        self._colours = np.zeros((_FIRST, THUMBNAIL, THUMBNAIL, 3), np.uint8)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, found: ImagePrint, name: str) -> None:
        """Add a print."""
        count = len(self._names)
        if count == len(self._bits):
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._colours = np.concatenate([self._colours, np.zeros_like(self._colours)])
        self._bits[count], self._colours[count] = found.bits, found.colours
        self._names.append(name)

    def find(self, wanted: ImagePrint) -> list[str]:
        """The names of the images that look like `wanted`, in the order in which they were added."""
        count = len(self._names)
        distances = np.bitwise_count(self._bits[:count] ^ wanted.bits).sum(-1, dtype=np.int64)
        near = np.flatnonzero(distances <= MOST_BITS)
        return [self._names[i] for i in near if _alike(self._colours[i], wanted.colours)]


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    gap = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return bool(gap.mean() <= MOST_MEAN and gap.max() <= MOST_CELL)


def _on_white(image: Image.Image) -> Image.Image:
    """The image in RGB, with white where it is transparent."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
