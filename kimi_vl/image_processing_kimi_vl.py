"""Images to patches of 14 x 14 pixels, as Kimi-VL was trained on them; numpy and Pillow only.

An image keeps its aspect ratio: it is scaled down if it has more than `in_token_limit` patches (never up), padded right
and bottom with black to multiples of 28, and cut into patches in reading order.

Source: Kimi-VL technical report (arXiv:2504.07491) section 2.1, and the preprocessor_config.json of its checkpoints.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

MAX_PATCHES_PER_SIDE = 511
"""The rotary table of the hub's model ends at a 512 x 512 grid, and its processor refuses a side of 512."""


class KimiVLImageProcessor(BaseImageProcessor):
    """PIL images (or arrays, paths, URLs) to `pixel_values` (P, 3, 14, 14) float32 and `image_grid_hws` (N, 2) int64.

    Args:
        in_token_limit: patches (not tokens) above which an image is scaled down; 16384 for Kimi-VL-A3B-Thinking-2506.
        merge_kernel_size: patches down and across that become one token; an image costs h * w / 4 tokens.
        pad_input: pad to multiples of 28 pixels; otherwise the centre is cut to multiples of 14.
        image_mean, image_std: per channel, of values in 0..1.
    """

    model_input_names = ["pixel_values", "image_grid_hws"]  # noqa: RUF012

    def __init__(
        self,
        patch_size: int = 14,
        pad_input: bool = True,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        in_token_limit: int = 4096,
        merge_kernel_size: Sequence[int] = (2, 2),
        num_pooled_tokens: int = 1024,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("image_processor_type", None)
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.pad_input = pad_input
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.in_token_limit = in_token_limit
        self.merge_kernel_size = list(merge_kernel_size)
        self.num_pooled_tokens = num_pooled_tokens

    def preprocess(
        self, images: Any, return_tensors: str | None = None, do_normalize: bool = True, **kwargs: Any
    ) -> BatchFeature:
        """One image or a (nested) list of them to `pixel_values` and `image_grid_hws`, in reading order.

        `return_tensors` is "pt", "np" or None (numpy). Without `do_normalize` the values are uint8 levels, which
        `level_values` turns into floats. Raises ValueError for an image without pixels, or with more
        than 511 patches on a side. Settings belong to the processor: one given here is refused, not ignored.
        """
        if settings := kwargs.keys() & vars(self).keys():  # `device` and the like mean nothing here
            raise ValueError(f"{', '.join(sorted(settings))}: set it on the image processor, not in the call")
        patches = [self.patchify(image, index) for index, image in enumerate(_flat(images))]
        if not patches:
            raise ValueError("no image was given: pass at least one, or leave `images` out")
        grids = np.array([grid for _, grid in patches], dtype=np.int64)
        pixels = np.concatenate([block for block, _ in patches])
        return BatchFeature(
            {"pixel_values": self._normalize(pixels) if do_normalize else pixels, "image_grid_hws": grids},
            tensor_type=return_tensors,
        )

    def patchify(self, image: Any, index: int = 0) -> tuple[np.ndarray, tuple[int, int]]:
        """An image to uint8 patches (h * w, 3, 14, 14) and its grid (h, w); `index` names it in errors."""
        picture = self._fit(_rgb(image if isinstance(image, Image.Image) else self._open(image)), index)
        size = self.patch_size
        h, w = picture.height // size, picture.width // size
        pixels = np.asarray(picture).reshape(h, size, w, size, 3)
        return np.ascontiguousarray(pixels.transpose(0, 2, 4, 1, 3)).reshape(h * w, 3, size, size), (h, w)

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Patches down and across of an image of this size in pixels, without touching pixels."""
        width, height = self._padded(*self._scaled(width, height))
        return height // self.patch_size, width // self.patch_size

    def num_tokens(self, width: int, height: int) -> int:
        """Tokens that an image of this size in pixels costs in the prompt."""
        h, w = self.grid(width, height)
        return h * w // math.prod(self.merge_kernel_size)

    def _open(self, image: Any) -> Image.Image:
        if isinstance(image, Path):
            image = str(image)
        if isinstance(image, str):
            opened: Any = self.fetch_images(image)
            return opened
        return Image.fromarray(np.asarray(image))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        patches = (width // self.patch_size) * (height // self.patch_size)
        if patches <= self.in_token_limit:
            return width, height
        scale = math.sqrt(self.in_token_limit / patches)
        return int(width * scale), int(height * scale)

    def _padded(self, width: int, height: int) -> tuple[int, int]:
        if not self.pad_input:
            return width - width % self.patch_size, height - height % self.patch_size
        down, across = (merge * self.patch_size for merge in self.merge_kernel_size)
        return width + -width % across, height + -height % down

    def _fit(self, picture: Image.Image, index: int) -> Image.Image:
        original = picture.size
        if 0 in original:
            raise ValueError(f"image {index} is {original[0]} x {original[1]} pixels: it has no pixels; leave it out")
        scaled = self._scaled(*original)
        target = self._padded(*scaled)
        self._check(original, target, index)
        if scaled != original:
            picture = picture.resize(scaled, Image.Resampling.BICUBIC)
        if target == scaled:
            return picture
        if self.pad_input:
            canvas = Image.new("RGB", target)
            canvas.paste(picture, (0, 0))
            return canvas
        left, top = (round((have - want) / 2) for have, want in zip(scaled, target, strict=True))
        return picture.crop((left, top, left + target[0], top + target[1]))

    def _check(self, original: tuple[int, int], target: tuple[int, int], index: int) -> None:
        across, down = (side // self.patch_size for side in target)
        name = f"image {index} is {original[0]} x {original[1]} pixels"
        if max(across, down) > MAX_PATCHES_PER_SIDE:
            merged = max(self.merge_kernel_size)
            limit = MAX_PATCHES_PER_SIDE // merged * merged * self.patch_size
            raise ValueError(
                f"{name}, which makes {across} x {down} patches: Kimi-VL's positions end at {MAX_PATCHES_PER_SIDE} a "
                f"side; crop it, cut it into pieces, or resize it to at most {limit} pixels a side"
            )
        if across % self.merge_kernel_size[1] or down % self.merge_kernel_size[0] or not across * down:
            raise ValueError(
                f"{name}, which makes {across} x {down} patches without padding: they do not merge "
                f"{self.merge_kernel_size[1]} x {self.merge_kernel_size[0]}; set pad_input=True as the checkpoints do"
            )

    @property
    def level_values(self) -> np.ndarray:
        """(3, 256) float32: the normalized value of each level of a channel."""
        mean = np.array(self.image_mean, dtype=np.float32)[:, None]
        std = np.array(self.image_std, dtype=np.float32)[:, None]
        return (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std

    def _normalize(self, pixels: np.ndarray) -> np.ndarray:
        # 256 levels x 3 channels are worked out once and looked up: the same floats as in place, several times faster.
        levels = self.level_values
        if (levels == levels[0]).all():
            return levels[0][pixels]
        return np.stack([levels[channel][pixels[:, channel]] for channel in range(3)], axis=1)


def _rgb(image: Image.Image) -> Image.Image:
    """The first frame, upright, in 8-bit RGB; what is transparent becomes white, as on a page.

    Pillow's own conversion drops transparency, so that a black drawing without a background is all black, and clips
    greys of more than 8 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_grey(np.asarray(image)))
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(values: np.ndarray) -> np.ndarray:
    """Greys of any type in 8 bits. White is 1 (of fractions), 255, 4095 (12 bits) or 65535, the first that holds all.

    Values above 65535 are scaled to the largest; what is negative or no number is black.
    """
    fractions = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(0, None)
    peak = values.max(initial=0.0)
    whites = (1, 255, 4095, 65535) if fractions else (255, 4095, 65535)
    white = next((white for white in whites if peak <= white), peak)
    levels = values * 255 / white
    return (levels.round() if fractions else np.floor(levels)).astype(np.uint8)


def _flat(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [leaf for image in images for leaf in _flat(image)]
    return [] if images is None else [images]


__all__ = ["KimiVLImageProcessor"]
