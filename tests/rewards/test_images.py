"""Encoded images: the formats that are read, and what is refused before Pillow looks at it."""

import io

import pytest
from PIL import Image

from rewards.images import FORMATS, BadImage, open_image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%touch ran) (w) file\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "teal").save(buffer, kind)
    image = open_image(buffer.getvalue())
    assert (image.format, image.size) == (kind, (9, 7))
    image.load()


def test_a_photo_of_several_pictures_is_read():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 7))])
    assert open_image(buffer.getvalue()).size == (9, 7)


@pytest.mark.parametrize("data", [EPS, b"\x00" * 1000, b"<svg/>", b"GIMP"], ids=["eps", "zeros", "svg", "text"])
def test_any_other_is_refused_by_name(data):
    with pytest.raises(BadImage, match="not an image that Pillow reads: give PNG, JPEG"):
        open_image(data)


def test_eps_would_be_opened_without_the_list():
    assert Image.open(io.BytesIO(EPS)).format == "EPS"
