"""Patches travel as 8-bit levels, and are the processor's floats to the bit wherever they are read."""

import pickle

import numpy as np
import pytest
from PIL import Image

from kimi_vl.image_processing_kimi_vl import KimiVLImageProcessor
from rollouts.patches import Patches

STATISTICS = {"grey": {}, "colours": {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}}


@pytest.fixture
def images(rng):
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((40, 61), (28, 30))]


@pytest.mark.parametrize("statistics", STATISTICS)
def test_levels_become_the_processors_floats_to_the_bit(images, statistics):
    processor = KimiVLImageProcessor(**STATISTICS[statistics])
    wanted = processor(images=images)["pixel_values"]
    found = [processor(images=image, do_normalize=False)["pixel_values"] for image in images]
    assert {own.dtype for own in found} == {np.dtype(np.uint8)}
    parts = [pickle.loads(pickle.dumps(Patches(own, processor.level_values))) for own in found]
    joined = Patches.join(parts)
    assert joined.data.dtype == np.uint8
    assert joined.floats().tobytes() == wanted.tobytes()
    assert joined.floats(slice(3, 7)).tobytes() == wanted[3:7].tobytes()


def test_parts_of_unlike_kind_are_joined_as_floats(images, rng):
    processor = KimiVLImageProcessor()
    levels = processor(images=images, do_normalize=False)["pixel_values"]
    floats = rng.normal(size=(4, 3, 14, 14)).astype(np.float32)
    joined = Patches.join([Patches(floats), Patches(levels, processor.level_values)])
    wanted = np.concatenate([floats, processor(images=images)["pixel_values"]])
    assert joined.floats().tobytes() == wanted.tobytes()


def test_levels_without_their_values_are_refused(rng):
    with pytest.raises(ValueError, match="patches are uint8, and level_values are not given"):
        Patches(np.zeros((1, 3, 14, 14), np.uint8))
