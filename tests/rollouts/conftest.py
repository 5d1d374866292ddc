"""A tiny checkpoint with noise in every weight, and prompts of unlike length with and without images."""

import numpy as np
import pytest
import ray
import torch
from engine_helpers import build_prompt, build_tiny_folder, engine_of
from hostile_engine import HostileSpec

from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rollouts.workers.start_ray import start_ray


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return build_tiny_folder(tmp_path_factory.mktemp("engine") / "tiny")


@pytest.fixture(scope="session")
def tiny_ids(tiny_folder):
    """(stop ids, barred ids) of the checkpoint, as a run computes them."""
    return stop_and_barred_ids(tiny_folder, load_processor(tiny_folder))


@pytest.fixture
def tiny_model(tiny_folder):
    """A fresh copy, which the test may change."""
    return load_model(tiny_folder)


@pytest.fixture
def engine(tiny_model, tiny_ids):
    """An engine that nothing stops early: no token of its answers is a stop token."""
    return engine_of(tiny_model, tiny_ids)


@pytest.fixture(scope="session")
def prompts(tiny_folder):
    """Text only, one image, a much longer one with two images, and a second image: lengths all differ."""
    config = load_model(tiny_folder).config
    rng = np.random.default_rng(7)
    shapes = [(5, ()), (9, ((4, 6),)), (60, ((2, 2), (6, 4))), (14, ((4, 4),))]
    return [build_prompt(rng, config, text=text, grids=grids) for text, grids in shapes]


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """A folder whose files say what a hostile engine does."""
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def hostile_spec(orders, tiny_folder, tiny_ids):
    stop, barred = tiny_ids
    return HostileSpec(
        model_path=str(tiny_folder),
        dtype="float32",
        stop_ids=tuple(stop),
        barred_ids=tuple(barred),
        folder=str(orders),
    )


@pytest.fixture(scope="module")
def local_ray():
    """Ray on this machine, for actors that take two CPUs."""
    started = start_ray(2)
    yield
    if started:
        ray.shutdown()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
