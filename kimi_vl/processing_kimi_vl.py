"""The processor: text and images to model inputs. Each image's placeholder is repeated for each of its tokens."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .image_processing_kimi_vl import KimiVLImageProcessor

IMAGE_TOKEN = "<|media_pad|>"
IMAGE_TEXT = f"<|media_start|>image<|media_content|>{IMAGE_TOKEN}<|media_end|>"
TURN_END = "<|im_end|>"


class KimiVLProcessor(ProcessorMixin):
    """Chat template, image processor and tokenizer in one.

    `processor(images=..., text=...)` returns `input_ids` and `attention_mask` (B, L), and with images `pixel_values`
    (P, 3, 14, 14) and `image_grid_hws` (N, 2), images in reading order over the rows.
    """

    def __init__(
        self,
        image_processor: KimiVLImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.image_text, self.turn_end = IMAGE_TOKEN, IMAGE_TEXT, TURN_END
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self.image_token_id: Any = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenize `text` (one string or a list) and its `images` (one, a list, or a list per row).

        Other arguments (`padding`, `padding_side`, `truncation`, `max_length`, `add_special_tokens`) go to the
        tokenizer. Raises ValueError if the text does not hold one `<|media_pad|>` per image, or if a cut at
        `max_length` would split an image.
        """
        if text is None and images is None:
            raise ValueError("nothing to process: pass text, images or both")
        for name in ("videos", "audio"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"Kimi-VL takes no {name}: pass the frames of a video as images")
        vision = {} if _empty(images) else dict(self.image_processor(images=images, **kwargs.pop("images_kwargs", {})))
        if text is None:
            return BatchFeature(vision, tensor_type=return_tensors)
        texts = [text] if isinstance(text, str) else list(text)
        counts = self._token_counts(vision.get("image_grid_hws"))
        _check_rows(texts, images, len(counts))
        kwargs.update(kwargs.pop("text_kwargs", {}))
        encoded = self.tokenizer(_expand(texts, counts), **kwargs)
        _check_cut(encoded["input_ids"], self.image_token_id, sum(counts))
        return BatchFeature({**encoded, **vision}, tensor_type=return_tensors)

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image patch."""
        return (3, self.image_processor.patch_size, self.image_processor.patch_size)

    @property
    def level_values(self) -> np.ndarray:
        """(3, 256) float32: what each 8-bit level is in `pixel_values`; `do_normalize: False` keeps the levels."""
        return self.image_processor.level_values

    def _token_counts(self, grids: np.ndarray | None) -> list[int]:
        merged = int(np.prod(self.image_processor.merge_kernel_size))
        return [] if grids is None else [int(h) * int(w) // merged for h, w in grids]

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the hub's files: the tokenizer's, `chat_template.jinja` and `preprocessor_config.json`.

        A processor that was loaded from a folder with code is saved with that code, which its `auto_map` names.
        """
        del push_to_hub, kwargs
        folder = Path(save_directory)
        self.tokenizer.chat_template = self.chat_template
        files = [*self.tokenizer.save_pretrained(str(folder)), *self.image_processor.save_pretrained(str(folder))]
        path = folder / "preprocessor_config.json"
        content = {**json.loads(path.read_text(encoding="utf-8")), "processor_class": type(self).__name__}
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if "auto_map" in content:
            for code in sorted(Path(__file__).parent.glob("*processing_kimi_vl.py")):
                if not (folder / code.name).exists():
                    shutil.copyfile(code, folder / code.name)
                    files.append(str(folder / code.name))
        return files

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that the model takes."""
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]


def _empty(images: Any) -> bool:
    if isinstance(images, list | tuple):
        return all(_empty(image) for image in images)
    return images is None


def _check_rows(texts: list[str], images: Any, num_images: int) -> None:
    """One placeholder per image; row by row where `images` is a list per row."""
    found = [text.count(IMAGE_TOKEN) for text in texts]
    given = [num_images]
    if isinstance(images, list | tuple) and images and all(isinstance(row, list | tuple) for row in images):
        if len(images) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(images)} lists of images: pass one list per text")
        given = [len(row) for row in images]
    else:
        found = [sum(found)]
    for row, (placeholders, count) in enumerate(zip(found, given, strict=True)):
        if placeholders != count:
            where = f"text {row}" if len(given) > 1 else "the text"
            raise ValueError(
                f"{where} holds {placeholders} image placeholders ({IMAGE_TOKEN}), but {count} images came with it: "
                "write one placeholder per image (apply_chat_template does), and strip it from quoted text"
            )


def _expand(texts: list[str], counts: list[int]) -> list[str]:
    remaining = iter(counts)
    return [re.sub(re.escape(IMAGE_TOKEN), lambda _: IMAGE_TOKEN * next(remaining), text) for text in texts]


def _check_cut(input_ids: Any, image_token_id: int, expected: int) -> None:
    left = int((np.concatenate([np.asarray(row) for row in input_ids]) == image_token_id).sum()) if expected else 0
    if left != expected:
        raise ValueError(
            f"truncation left {left} of {expected} image tokens: raise max_length, or scale the images down "
            "(in_token_limit)"
        )


__all__ = ["KimiVLProcessor"]
