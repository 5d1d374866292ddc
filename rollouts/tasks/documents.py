"""Documents: the texts of pre-training, with or without images. A source gives tasks or documents."""

from __future__ import annotations

from dataclasses import dataclass

from configs.prompt import IMAGE_MARK
from configs.text import counted
from rewards.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text with an image at each `<image>`. It has no question and no answer; a language model predicts all of it.

    A caption is a document that begins with its image. Raises ValueError where marks and images differ in number.
    """

    id: str
    source: str  # the data source, for metrics of each source
    text: str
    images: tuple[bytes, ...] = ()  # encoded files (PNG, JPEG, ...), in the order of their marks

    def __post_init__(self) -> None:
        if (marks := self.text.count(IMAGE_MARK)) != len(self.images):
            raise ValueError(
                f"document {self.id}: {counted(marks, f'{IMAGE_MARK} mark')} but {counted(len(self.images), 'image')}"
            )


Example = Task | Document  # what a supervised stage trains on
