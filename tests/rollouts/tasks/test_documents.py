"""Documents beside tasks in a mixture, and weights that move."""

import pytest

from configs.data import SourceConfig
from rollouts.tasks import source
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document
from rollouts.tasks.mixture import Mixture, TaskMixture
from rollouts.tasks.skip_report import SkipReport


class Documents:
    """Five documents, as a source."""

    endless = False

    def __init__(self, *, split="train"):
        self.name, self.report = "texts", SkipReport()

    def __len__(self):
        return 5

    def task(self, index, seed):
        return Document(id=f"texts/{index}", source="texts", text=f"text {index}")


def test_documents_and_tasks_in_one_mixture(monkeypatch, tmp_path):
    monkeypatch.setitem(source.BUILT_IN, "texts", Documents)
    configs = [SourceConfig(use="digit_sums"), SourceConfig(use="texts")]
    drawn = Mixture(configs, seed=1, base=tmp_path).draw(0, 10)
    assert sorted(example.source for example in drawn) == ["digit_sums"] * 5 + ["texts"] * 5
    assert len({example.id for example in drawn}) == 10


def test_documents_are_refused_where_tasks_are_needed(monkeypatch, tmp_path):
    monkeypatch.setitem(source.BUILT_IN, "texts", Documents)
    with pytest.raises(DataSetError, match="texts has documents, without questions and answers"):
        TaskMixture([SourceConfig(use="digit_sums"), SourceConfig(use="texts")], seed=1, base=tmp_path)


def test_a_moving_weight_goes_in_a_straight_line(monkeypatch, tmp_path):
    """From 1:3 to 3:1 over 80 draws: by hand, 20 draws hold a share of 1/4 + 1/2 * 1/8 = 5/16 of the first source."""
    monkeypatch.setitem(source.BUILT_IN, "texts", Documents)
    configs = [
        SourceConfig(use="digit_sums", weight=1, final_weight=3),
        SourceConfig(use="texts", weight=3, final_weight=1),
    ]
    mixture = Mixture(configs, seed=1, base=tmp_path, total=80)
    counts = [sum(e.source == "digit_sums" for step in range(n) for e in mixture.draw(step, 10)) for n in (2, 4, 8, 12)]
    assert counts == pytest.approx([20 * 5 / 16, 40 * 3 / 8, 40, 40 + 40 * 3 / 4], abs=1)


def test_a_document_has_an_image_for_each_mark():
    with pytest.raises(ValueError, match="2 <image> marks but 1 image"):
        Document(id="a", source="texts", text="<image> and <image>", images=(b"png",))
