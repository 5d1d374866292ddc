"""Renders documents as token ids: texts and images in reading order, cut into parts of a limited length.

Shapes: L tokens of a part, P image patches, N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from configs.prompt import IMAGE_MARK
from configs.text import counted
from rewards.images import BadImage, decode_image
from rewards.types import Task
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageProcessor
from rollouts.patches import Patches
from rollouts.tasks.documents import Document
from rollouts.tasks.prompts import BadPrompt, encode
from rollouts.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A text or one image as tokens `[L]`. Image tokens are input only; they are not predicted."""

    ids: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage(_Piece):
    """One image: its tokens in a text, its patches, and how many there are down and across."""

    patches: Patches
    grid: np.ndarray  # [1, 2]


def render_image(processor: VisionLanguageProcessor, data: bytes) -> RenderedImage:
    """An encoded file (PNG, JPEG, ...) as the processor renders it. Raises BadImage where it cannot be read."""
    image = decode_image(data)
    try:
        encoded = encode(processor, [image], processor.image_text)
    except ValueError as error:
        raise BadImage("image does not fit the model", str(error)) from error
    return RenderedImage(ids=encoded.input_ids, patches=encoded.patches, grid=encoded.grids)


class DocumentRenderer:
    """Renders documents with one processor: the first token of the vocabulary's texts, the document, the last one.

    A part of at most `max_tokens` tokens is a prompt of one token, which has all the part's images, and a completion
    whose text is trained. A longer document becomes several parts: texts are cut anywhere, images never.
    """

    def __init__(self, processor: VisionLanguageProcessor, *, max_tokens: int) -> None:
        self._processor, self._max_tokens = processor, max_tokens
        tokenizer = processor.tokenizer
        self._begin, self._end = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self._no_patches = Patches(np.zeros((0, *processor.patch_shape), np.float32))
        self._no_grids = np.zeros((0, 2), np.int64)

    def render(self, document: Document) -> list[PromptCompletion]:
        """The parts of a document, with numbered ids.

        Raises BadImage for an image that cannot be read, and BadPrompt for an image that is longer than a part, and
        for a document without text.
        """
        if not document.text.replace(IMAGE_MARK, "").strip():
            raise BadPrompt("document without text", f"document {document.id}")
        parts = self._cut(self._pieces(document))
        return [self._part(document, number, part) for number, part in enumerate(parts)]

    def _pieces(self, document: Document) -> list[_Piece]:
        texts, images = document.text.split(IMAGE_MARK), iter(document.images)
        pieces = [*self._text(texts[0])]
        for text in texts[1:]:
            image = render_image(self._processor, next(images))
            if len(image.ids) > self._max_tokens - 2:
                raise BadPrompt(
                    f"image longer than {counted(self._max_tokens, 'token')}",
                    f"document {document.id}: {counted(len(image.ids), 'token')}",
                )
            pieces += [image, *self._text(text)]
        return [*pieces, _Piece(ids=np.array([self._end]))]

    def _text(self, text: str) -> list[_Piece]:
        """The piece of a text, if it is not empty. Control tokens in it are encoded as text."""
        if not text:
            return []
        tokenizer = self._processor.tokenizer  # not verbose: it warns of texts that are cut afterwards
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return [_Piece(ids=np.array(ids, dtype=np.int64))]

    def _cut(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """Parts of at most `max_tokens` tokens, the first token included. An image has room for a token behind it."""
        part: list[_Piece] = []
        left = self._max_tokens - 1
        for piece in pieces:
            if isinstance(piece, RenderedImage):
                if len(piece.ids) + 1 > left:  # with a token of text behind it
                    yield part
                    part, left = [], self._max_tokens - 1
                part.append(piece)
                left -= len(piece.ids)
                continue
            ids = piece.ids
            while len(ids):
                if left == 0:
                    yield part
                    part, left = [], self._max_tokens - 1
                part.append(_Piece(ids=ids[:left]))
                ids, left = ids[left:], left - len(part[-1].ids)
        yield part

    def _part(self, document: Document, number: int, part: Sequence[_Piece]) -> PromptCompletion:
        images = [piece for piece in part if isinstance(piece, RenderedImage)]
        trainable = np.concatenate([np.full(len(piece.ids), not isinstance(piece, RenderedImage)) for piece in part])
        name = f"{document.id}/{number}"
        prompt = Prompt(
            id=name,
            task=Task(id=document.id, source=document.source, question="", answer=""),
            input_ids=np.array([self._begin]),
            patches=Patches.join([image.patches for image in images]) if images else self._no_patches,
            image_grid_hws=np.concatenate([self._no_grids, *(image.grid for image in images)]),
        )
        return PromptCompletion(
            id=name,
            prompt=prompt,
            token_ids=np.concatenate([piece.ids for piece in part]),
            mask=None if trainable.all() else trainable,
        )
