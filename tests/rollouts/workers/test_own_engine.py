"""Engines of the user's own in real Ray workers, which get the source and not the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import build_prompt, requests_for, tokens_of
from openai_server import openai_server

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.types import Request
from rollouts.workers.pool import RolloutPool

EXAMPLE = Path(__file__).parents[3] / "examples" / "engine" / "openai_engine.py"
SAMPLING = SamplingConfig(max_new_tokens=8)
OWN = """
import torch

from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import family_at

class Mine(TransformersEngine):
    def __init__(self, spec, *, at_most):
        model = family_at(spec.model_path).load_model(spec.model_path, dtype=torch.float32)
        super().__init__(model, stop_ids=spec.stop_ids, barred_ids=spec.barred_ids)
        self.at_most = at_most

    def add(self, index, request, sampling):
        if request.n > self.at_most:
            raise ValueError(f"at most {self.at_most} samples, please")
        super().add(index, request, sampling)
"""


@pytest.fixture(scope="module")
def spec(tiny_folder, tiny_ids):
    return EngineSpec(
        model_path=str(tiny_folder), dtype="float32", stop_ids=tuple(tiny_ids[0]), barred_ids=tuple(tiny_ids[1])
    )


def open_pool(spec, engine):
    return RolloutPool(replace(spec, engine=engine), workers=1)


def test_an_engine_of_ones_own_trains_like_the_built_in_one(tmp_path, local_ray, spec, prompts):
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    engine = choose_engine("mine.py:Mine", {"at_most": 4}, base=tmp_path, trains=True)
    (tmp_path / "mine.py").unlink()
    state = load_model(spec.model_path).state_dict()
    weights = {name: np.roll(tensor.numpy(), 1, axis=-1).copy() for name, tensor in state.items()}
    built_in = spec.build()
    built_in.load_weights(weights, version=3)
    requests = requests_for(prompts, n=2)
    pool = open_pool(spec, engine)
    try:
        pool.publish(weights, version=3)
        assert tokens_of(pool.generate(requests, SAMPLING)) == tokens_of(built_in.generate(requests, SAMPLING))
    finally:
        pool.close()


def test_fixed_weights_generate_in_a_worker_and_refuse_a_publish(local_ray, spec, rng):
    prompt = build_prompt(rng, load_model(spec.model_path).config, text=5)
    with openai_server() as server:
        options = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m"}
        engine = choose_engine(f"{EXAMPLE}:OpenAIEngine", options, base=Path(), trains=False)
        pool = open_pool(spec, engine)
        try:
            [[one, two]] = pool.generate([Request(prompt=prompt, n=2, seed=3)], SAMPLING)
            first = int(prompt.input_ids[-1]) + 1
            assert (one.token_ids.tolist(), len(two.token_ids)) == ([first, first + 1, first + 2], 4)
            with pytest.raises(ValueError, match="serves fixed weights and cannot load others"):
                pool.publish({"a": np.zeros(2)}, version=1)
        finally:
            pool.close()
