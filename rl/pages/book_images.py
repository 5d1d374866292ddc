"""The images of a book as data URIs: each once, and small enough to be sent by mail."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from configs.files import MAX_IMAGE_BYTES, read_bytes
from rewards.images import BadImage, decode_image

LONGEST_SIDE = 768  # pixels of an image in the book
_KEPT_BYTES = 60_000  # a PNG or JPEG of at most this size stays as it is
_TYPES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def data_uri(folder: Path, name: str) -> str | None:
    """An image of a rollout log as a data URI of a PNG, JPEG or WebP. None if it is missing or cannot be read.

    Every image is decoded here: what a browser gets is an image, whatever the file claims to be.
    """
    if not (name.isalnum() and name.isascii()):
        return None  # the log's names are hashes; anything else might lead out of its folder
    try:
        data = read_bytes(folder / "images" / name[:2] / name, limit=MAX_IMAGE_BYTES)
        image = decode_image(data)
    except (OSError, BadImage):
        return None
    kind = next((kind for start, kind in _TYPES if data.startswith(start)), None)
    if kind is None or len(data) > _KEPT_BYTES or max(image.size) > LONGEST_SIDE:
        image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        data, kind = buffer.getvalue(), "image/webp"
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
