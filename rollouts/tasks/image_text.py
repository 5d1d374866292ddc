"""Examples as pairs of one image and its caption, for what trains a vision tower."""

from __future__ import annotations

from collections.abc import Sequence

from configs.errors import UserError
from configs.prompt import IMAGE_MARK
from configs.text import counted
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.prompts import BadPrompt, target_text


def image_text(example: Example) -> tuple[bytes, str]:
    """The encoded image of an example, and its caption: a document's text around the image, or a task's answer.

    Raises BadPrompt for an example with no image or several, and for an image without a caption.
    """
    if len(example.images) != 1:
        raise BadPrompt("not one image", f"{example.id} has {counted(len(example.images), 'image')}")
    if isinstance(example, Document):
        caption = example.text.replace(IMAGE_MARK, "").strip()
    else:
        caption = target_text(example, thinking=False).strip()
    if not caption:
        raise BadPrompt("image without a caption", example.id)
    return example.images[0], caption


def has_pair(example: Example) -> bool:
    """Whether the example is a pair of one image and a caption."""
    try:
        image_text(example)
    except BadPrompt:
        return False
    return True


def require_pairs(examples: Sequence[Example], *, stage: str, where: str) -> None:
    """Raise UserError where a source has examples but no pair of one image and a caption; it names the sources."""
    sources = dict.fromkeys(example.source for example in examples)
    usable = {example.source for example in examples if has_pair(example)}
    if without := [source for source in sources if source not in usable]:
        raise UserError(
            f"{stage}: {', '.join(without)} in {where}: no example has one image and a caption, which a stage of the "
            f"kind vit trains on; leave the source out, or give the stage sources of its own under {stage}.data"
        )
