"""The cache holds latents or keys and values, and answers are the same."""

import numpy as np
import pytest
from engine_helpers import engine_of

from configs.rl import SamplingConfig
from kimi_vl import KimiVLConfig
from kimi_vl.tiny import TinySizes, tiny_config
from rollouts.engines import latent
from rollouts.engines.batch import BatchLimits
from rollouts.engines.cache import Form
from rollouts.types import Request


def expanded(config):
    heads, keys = config.num_attention_heads, config.qk_nope_head_dim + config.qk_rope_head_dim
    width = keys + config.v_head_dim
    return Form(copies=heads, width=width, keys=slice(0, keys), values=slice(keys, width))


@pytest.mark.parametrize("rows", [64, 3])
def test_answers_are_the_same(tiny_model, tiny_ids, prompts, monkeypatch, rows):
    """Groups that end at different lengths, images, and answers that go on from what was written before."""
    results = []
    for form in (latent.cache_form, expanded):
        monkeypatch.setattr(latent, "cache_form", form)
        engine = engine_of(tiny_model, tiny_ids, limits=BatchLimits(rows=rows))
        short, long = SamplingConfig(max_new_tokens=40), SamplingConfig(max_new_tokens=45)
        first = engine.generate([Request(prompt=p, n=3, seed=i, budget=9 + i) for i, p in enumerate(prompts)], short)
        again = [
            Request(prompt=p, n=3, seed=i, written=tuple(before))
            for i, (p, before) in enumerate(zip(prompts, first, strict=True))
        ]
        results.append([c for group in engine.generate(again, long) for c in group])
    for plain, other in zip(*results, strict=True):
        assert len(plain.token_ids) == 45
        assert np.array_equal(plain.token_ids, other.token_ids)
        assert np.abs(plain.policy_logprobs - other.policy_logprobs).max() < 1e-5


def test_the_published_model_caches_latents_and_narrow_heads_their_keys():
    assert latent.cache_form(KimiVLConfig().text_config) == Form(
        copies=1, width=576, keys=slice(0, 576), values=slice(0, 512)
    )
    wide = TinySizes(kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64)
    assert latent.cache_form(tiny_config(wide, num_tokens=300).text_config) == Form(
        copies=4, width=192, keys=slice(0, 128), values=slice(128, None)
    )
