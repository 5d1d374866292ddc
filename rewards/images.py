"""Encoded image files to Pillow images; whatever a file holds, the outcome is an image or a `BadImage`."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # others start programs, or nobody checks them


class BadImage(ValueError):
    """An image that cannot be used; `reason` is short and the same for all images with this fault."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded image; pixels are decoded when they are first used.

    Raises BadImage for an empty file, for bytes that are no image, and beyond Pillow's pixel limit.
    """
    if not data:
        raise BadImage("image is empty or missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("image has too many pixels", f"scale it down to {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # Pillow's format plug-ins raise anything on hostile bytes
        raise BadImage("not an image that Pillow reads", f"give {', '.join(FORMATS)}") from error


def decode_image(data: bytes) -> Image.Image:
    """Decode an image upright, in the mode of its file; of an animated one, the first frame. Raises BadImage."""
    image = open_image(data)
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # here, because broken EXIF data raises anything too
    except Exception as error:  # as above; a cut file is an OSError, a broken chunk a SyntaxError
        raise BadImage("image is broken or cut short", str(error)) from error
    return image
