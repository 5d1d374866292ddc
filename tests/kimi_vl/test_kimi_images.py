"""Image processing equals a plain restatement pixel for pixel, and refuses or survives bad images."""

import io
import math

import numpy as np
import pytest
from kimi_helpers import picture
from PIL import Image

from kimi_vl import KimiVLImageProcessor

SIZES = [(28, 28), (1, 1), (29, 27), (140, 30), (300, 200), (511, 97), (640, 480), (33, 1000), (1000, 33), (700, 700)]


def plain(image, limit, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
    """Section by section as the model card's processor works: scale, pad, to floats, normalize, cut."""
    width, height = image.size
    if (width // 14) * (height // 14) > limit:
        scale = math.sqrt(limit / ((width // 14) * (height // 14)))
        image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    width, height = image.size
    wide, high = math.ceil(width / 28) * 28, math.ceil(height / 28) * 28
    canvas = np.zeros((high, wide, 3), dtype=np.uint8)
    canvas[:height, :width] = np.asarray(image)
    floats = canvas.astype(np.float32) / np.float32(255)
    floats = (floats - np.array(mean, dtype=np.float32)) / np.array(std, dtype=np.float32)
    patches = [
        floats[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14].transpose(2, 0, 1)
        for row in range(high // 14)
        for column in range(wide // 14)
    ]
    return np.stack(patches), (high // 14, wide // 14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [64, 4096])
def test_equals_the_plain_reference_bit_for_bit(size, limit):
    image = picture(*size)
    wanted, grid = plain(image, limit)
    processor = KimiVLImageProcessor(in_token_limit=limit)
    out = processor(images=image, return_tensors="np")
    assert out["image_grid_hws"].tolist() == [list(grid)]
    assert out["pixel_values"].dtype == np.float32
    assert np.array_equal(out["pixel_values"], wanted)
    assert processor.grid(*size) == grid
    assert processor.num_tokens(*size) == len(wanted) // 4


def test_channels_may_have_their_own_mean_and_deviation():
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    wanted, _ = plain(picture(60, 30), 4096, mean, std)
    out = KimiVLImageProcessor(image_mean=mean, image_std=std)(images=picture(60, 30), return_tensors="np")
    assert np.array_equal(out["pixel_values"], wanted)


def test_several_images_come_one_after_another():
    images = [picture(30, 30, 1), picture(90, 40, 2), picture(28, 56, 3)]
    processor = KimiVLImageProcessor()
    out = processor(images=[images[:2], images[2:]], return_tensors="pt")
    assert out["image_grid_hws"].tolist() == [[4, 4], [4, 8], [4, 2]]
    alone = [processor(images=image, return_tensors="np")["pixel_values"] for image in images]
    assert np.array_equal(out["pixel_values"].numpy(), np.concatenate(alone))


def test_padding_is_black_on_the_right_and_at_the_bottom():
    white = Image.new("RGB", (30, 20), "white")
    out = KimiVLImageProcessor()(images=white, return_tensors="np")
    assert out["image_grid_hws"].tolist() == [[2, 4]]
    rows = out["pixel_values"].reshape(2, 4, 3, 14, 14).transpose(0, 3, 1, 4, 2).reshape(28, 56, 3)
    assert (rows[:20, :30] == 1).all()
    assert (rows[20:] == -1).all()
    assert (rows[:, 30:] == -1).all()


def test_a_padded_image_may_exceed_the_limit():
    """The budget is checked before padding: real rows show 1089 tokens where 1024 were meant."""
    processor = KimiVLImageProcessor()
    assert processor.num_tokens(1000, 1000) == 33 * 33


def test_without_padding_the_centre_is_kept():
    image = picture(61, 33)
    out = KimiVLImageProcessor(pad_input=False)(images=image, return_tensors="np")
    assert out["image_grid_hws"].tolist() == [[2, 4]]
    wanted, _ = plain(image.crop((2, 2, 58, 30)), 4096)
    assert np.array_equal(out["pixel_values"], wanted)
    with pytest.raises(ValueError, match="pad_input=True"):
        KimiVLImageProcessor(pad_input=False)(images=picture(43, 28))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


def rgb_of(image):
    out = KimiVLImageProcessor()(images=image, return_tensors="np")
    (h, w), pixels = out["image_grid_hws"][0], out["pixel_values"]
    return ((pixels.reshape(h, w, 3, 14, 14).transpose(0, 3, 1, 4, 2).reshape(h * 14, w * 14, 3) + 1) * 127.5).round()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBA", "RGBX", "RGB"])
def test_every_mode_becomes_what_pillow_makes_of_it(mode):
    image = picture(28, 28).convert("RGB") if mode == "LAB" else picture(28, 28).convert(mode if mode != "PA" else "P")
    if mode in ("PA", "LAB"):
        image = image.convert("PA") if mode == "PA" else Image.frombytes("LAB", (28, 28), image.tobytes())
    assert np.array_equal(rgb_of(image), np.asarray(image.convert("RGB")))


def test_sixteen_bit_greys_keep_their_shades():
    shades = (np.arange(28 * 28).reshape(28, 28) * 83 % 65536).astype(np.uint16)
    for image in (
        Image.fromarray(shades),
        encoded(Image.fromarray(shades), "PNG"),
        Image.fromarray(shades.astype(np.int32)),
    ):
        assert np.array_equal(rgb_of(image)[..., 0], shades // 257)
    dark = Image.fromarray(np.full((28, 28), 200, dtype=np.int32))
    assert (rgb_of(dark) == 200).all()


def drawing(mode):
    """A black stroke on a transparent background, in a mode that can say so."""
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (4, 4, 24, 8))
    if mode == "P":
        return encoded(image.quantize(), "PNG")
    if mode in ("L", "1", "RGB"):  # one colour stands for nothing
        plain = Image.new(mode, (28, 28), 1 if mode == "1" else "red" if mode == "RGB" else 77)
        plain.paste(0, (4, 4, 24, 8))
        return encoded(plain, "PNG", transparency=(255, 0, 0) if mode == "RGB" else 1 if mode == "1" else 77)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGBa", "L", "RGB", "1"])
def test_a_black_drawing_on_transparency_is_black_on_white(mode):
    pixels = rgb_of(drawing(mode))
    assert (pixels[4:8, 4:24] == 0).all()
    assert (pixels[10:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white():
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 128))
    assert rgb_of(image) == pytest.approx(127, abs=1)


SHADES = np.arange(28 * 28).reshape(28, 28) / (28 * 28 - 1)


@pytest.mark.parametrize(
    ("image", "tolerance"),
    [
        (encoded(Image.fromarray(SHADES.astype(np.float32)), "TIFF"), 0.5),
        (Image.fromarray((SHADES * 255).astype(np.float32)), 0.5),
        (Image.fromarray((SHADES * 65535).astype(np.float32)), 0.5),
        (encoded(Image.fromarray((SHADES * 4095).astype(np.uint16)), "PNG"), 1),
        (encoded(Image.fromarray((SHADES * 65535).astype(np.uint16)), "PNG"), 1),
        (encoded(Image.fromarray((SHADES * 4095).astype(np.uint16)), "TIFF"), 1),
        (Image.fromarray((SHADES * 2_000_000).astype(np.int32)), 1),
        (Image.fromarray((SHADES * 255).astype(np.int32)), 1),
        (Image.fromarray((SHADES * 65535).astype(">u2")), 1),
    ],
    ids=["0..1", "0..255", "0..65535", "12 bits", "16 bits", "12 bits TIFF", "more", "8 of 32 bits", "big-endian"],
)
def test_greys_of_every_depth_keep_their_shades(image, tolerance):
    assert np.abs(rgb_of(image)[..., 0] - SHADES * 255).max() <= tolerance + 0.1


def test_greys_that_are_no_numbers_are_black():
    values = np.full((28, 28), 0.5, dtype=np.float32)
    values[0, :4] = [np.nan, np.inf, -np.inf, -1]
    pixels = rgb_of(Image.fromarray(values))[..., 0]
    assert (pixels[0, :4] == 0).all()
    assert (pixels[1:] == 128).all()


def test_the_first_frame_of_an_animation_is_taken():
    frames = [picture(28, 28, seed).convert("P") for seed in range(3)]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert animated.n_frames == 3
    assert np.array_equal(rgb_of(animated), np.asarray(frames[0].convert("RGB")))


def test_a_photo_taken_sideways_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF orientation: show it rotated by 90 degrees clockwise
    image = encoded(picture(56, 28), "PNG", exif=exif)
    assert np.array_equal(rgb_of(image), np.asarray(picture(56, 28).rotate(-90, expand=True)))


def test_arrays_paths_and_pictures_are_the_same(tmp_path):
    image = picture(40, 50)
    image.save(tmp_path / "a.png")
    for given in (np.asarray(image), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(rgb_of(given), rgb_of(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (20000, 10)), r"image 0 is 20000 x 10 pixels, .* 1430 x 2 patches.*at most 7140 pixels"),
        (Image.new("RGB", (10, 7141)), r"10 x 7141 pixels, .*2 x 512 patches"),
        (Image.new("RGB", (0, 10)), r"image 0 is 0 x 10 pixels"),
        (Image.new("RGB", (10, 0)), r"image 0 is 10 x 0 pixels"),
    ],
)
def test_impossible_images_say_what_to_do(image, message):
    with pytest.raises(ValueError, match=message):
        KimiVLImageProcessor()(images=image)


def test_the_longest_side_that_is_allowed():
    assert KimiVLImageProcessor()(images=Image.new("RGB", (7140, 10)))["image_grid_hws"].tolist() == [[2, 510]]


def test_the_error_names_the_image_and_no_image_is_an_error():
    with pytest.raises(ValueError, match="image 1 is 0 x 5"):
        KimiVLImageProcessor()(images=[picture(5, 5), Image.new("RGB", (0, 5))])
    with pytest.raises(ValueError, match="no image was given"):
        KimiVLImageProcessor()(images=[])


def test_a_setting_in_the_call_is_refused_not_ignored():
    with pytest.raises(ValueError, match="in_token_limit: set it on the image processor"):
        KimiVLImageProcessor()(images=picture(5, 5), in_token_limit=4)
    assert KimiVLImageProcessor()(images=picture(5, 5), device="cpu")["pixel_values"].shape == (4, 3, 14, 14)


def test_a_file_cut_short_is_an_error_not_a_picture(tmp_path):
    path = tmp_path / "cut.png"
    picture(60, 60).save(path)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(OSError, match="truncated"):
        KimiVLImageProcessor()(images=Image.open(path))


def test_settings_survive_the_file(tmp_path):
    KimiVLImageProcessor(in_token_limit=16384, image_mean=(0.1, 0.2, 0.3)).save_pretrained(tmp_path)
    again = KimiVLImageProcessor.from_pretrained(tmp_path)
    assert (again.in_token_limit, again.image_mean, again.pad_input) == (16384, [0.1, 0.2, 0.3], True)
