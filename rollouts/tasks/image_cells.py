"""Images in a cell of a data set, in the forms that people write them, as bytes or as the path of a file."""

from __future__ import annotations

import base64
import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from configs.files import MAX_IMAGE_BYTES, read_bytes
from configs.json_io import parse_json
from rollouts.tasks.bad_row import BadRow

_KEYS = ("bytes", "path", "image", "image_url", "url")  # of a mapping with an image; the first with a value counts
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk|SUkq|TU0A)[A-Za-z0-9+/\s]{40,}={0,2}\s*")  # as files begin
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def image_items(value: Any) -> list[Any]:
    """The images of a cell, one by one: a list, one image, or either as JSON text. Null and empty text are none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = parse_json(value)
        except ValueError:
            return [value]  # the name of a file may begin so
    if isinstance(value, list | tuple):
        return [image for item in value for image in (image_items(item) or [None])]
    return [] if value in (None, "") else [value]


def image_source(value: Any) -> bytes | str:
    """The bytes of an image, or the path of its file, from any form of one item.

    These are bytes, a path, a `file://` address, a `data:` URI, base64 of an image file, and a mapping with one of them
    under `bytes`, `path`, `image`, `image_url` or `url`. Raises BadRow for an address on the web, and for others.
    """
    if isinstance(value, Mapping):
        found = next((value[key] for key in _KEYS if value.get(key)), None)
        if found is None and any(key in value for key in _KEYS):
            raise BadRow("image is missing")
        if found is None:
            keys = ", ".join(map(str, value))
            raise BadRow(f"image is missing: a mapping must have {', '.join(_KEYS[:-1])} or {_KEYS[-1]}", keys[:80])
        return image_source(found)
    if value is None:
        raise BadRow("image is missing")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise BadRow("image is neither a path, bytes nor a data URI", type(value).__name__)
    if value.startswith("data:"):
        return _decoded(value.partition(",")[2], "image's data URI is not base64")
    if _BASE64.fullmatch(value):
        return _decoded("".join(value.split()), "image is not base64")
    address = urlsplit(value) if value.lower().startswith("file://") else None
    if address is not None and address.netloc in ("", "localhost"):
        return unquote(address.path)
    if _ADDRESS.match(value):
        raise BadRow("image is a URL: download it first", value[:80])
    return value


def image_path(value: Any) -> str | None:
    """The path that one item names; None where it is no path."""
    try:
        source = image_source(value)
    except BadRow:
        return None
    return source if isinstance(source, str) else None


def read_image(value: Any, folder: Path | None) -> bytes:
    """The encoded file behind one item; a path starts at `folder`. Raises BadRow where it is missing or empty."""
    source = image_source(value)
    data = _read_file(source, folder) if isinstance(source, str) else source
    if not data:
        raise BadRow("image file is empty" if isinstance(source, str) else "image is empty", str(source)[:80])
    return data


def read_images(value: Any, folder: Path | None, vanished_ok: bool) -> tuple[bytes, ...]:
    """The images of a cell: one or a list. Raises BadRow; but one that is missing becomes `b""` if `vanished_ok`."""
    images = []
    for item in image_items(value):
        try:
            images.append(read_image(item, folder))
        except BadRow:
            if not vanished_ok:
                raise
            images.append(b"")
    return tuple(images)


def _decoded(text: str, reason: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadRow(reason, str(error)) from error


def _read_file(name: str, folder: Path | None) -> bytes:
    try:
        return read_bytes((folder or Path()) / name, limit=MAX_IMAGE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            raise BadRow("image cannot be read", f"{name[:80]} {error.strerror}") from error
        raise BadRow("image file is missing", name[:80]) from error
