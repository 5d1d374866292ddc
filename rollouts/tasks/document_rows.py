"""One row of a file of documents to one document, or to the reason why it cannot become one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.prompt import IMAGE_MARK
from rollouts.tasks.bad_row import BadRow
from rollouts.tasks.documents import Document
from rollouts.tasks.image_cells import read_images
from rollouts.tasks.rows import required_text

DOCUMENT_FIELDS = ("text", "images", "id")


def parse_document(
    row: Mapping[str, Any], *, document_id: str, source: str, folder: Path | None, vanished_ok: bool = False
) -> Document:
    """Turn a row into a document. Images that the text does not mark come in front of it.

    `folder` is where relative image paths start. Raises BadRow; but an image that cannot be read becomes `b""` if
    `vanished_ok`.
    """
    text = required_text(row, "text")
    images = read_images(row.get("images"), folder, vanished_ok)
    marks = text.count(IMAGE_MARK)
    if marks and marks != len(images):
        raise BadRow(f"text has more or fewer {IMAGE_MARK} than images", f"{marks} for {len(images)}")
    in_front = "" if marks else IMAGE_MARK * len(images)
    return Document(id=document_id, source=source, text=in_front + text, images=images)
