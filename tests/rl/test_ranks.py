"""The learner on several ranks, as processes joined by gloo: one gradient, one update, whatever their number."""

import numpy as np
import pytest
import rank_jobs as jobs


def distance(a, b):
    """Relative norm of the difference of two dicts of arrays."""
    assert a.keys() == b.keys()
    difference = sum(float(np.square(a[n].astype(np.float64) - b[n]).sum()) for n in a)
    return (difference / sum(float(np.square(b[n].astype(np.float64)).sum()) for n in b)) ** 0.5


def moved(before, after):
    return {name: after[name].astype(np.float64) - before[name] for name in before}


@pytest.mark.parametrize(
    ("world", "batch"),
    [(1, "uneven"), (2, "uneven"), (4, "uneven"), (2, "one_image"), (4, "one_image"), (2, "text_only"), (4, "single")],
)
def test_ranks_have_one_gradient_and_make_one_update(world, batch):
    settings = jobs.config()
    gradient, before, after, metrics = jobs.one_update(None, "fp64", batch, settings)
    results = jobs.on_ranks(world, jobs.one_update, "fp64", batch, settings)
    for rank, (own, start, end, own_metrics) in enumerate(results):
        assert distance(own, gradient) < 1e-6
        assert own_metrics == pytest.approx(metrics, rel=1e-6, abs=1e-7)
        if rank == 0:
            assert distance(start, before) == 0
            assert distance(moved(start, end), moved(before, after)) < 1e-4
        else:
            assert (start, end) == ({}, {})
    assert any("vision_tower" in name for name in gradient) == (batch != "text_only")
