"""The parity check between a learner and a real engine in this process, with every way in which weights go wrong."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, make_learner, make_prompt

from configs.rl import SamplingConfig
from rl.weight_sync import ParityError, WeightSync
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.weight_checksums import checksums, differing

NORMS = [f"model.language_model.layers.{i}.post_attention_layernorm.weight" for i in (0, 1)]


class OneEngine:
    """A pool of one engine without Ray; `fault(weights, engine)` changes what arrives, while `times` lasts."""

    def __init__(self, model):
        self.engine = EngineDriver(TransformersEngine(copy.deepcopy(model), stop_ids=[0], barred_ids=barred_ids(model)))
        self.worker_group, self.fault, self.times, self.sent, self.dtype = self, None, 0, 0, "float32"

    def publish(self, weights, *, version):
        self.sent += 1
        if self.times > 0:
            self.times -= 1
            weights = self.fault(whole(weights), self.engine)
        else:
            weights = whole(weights)
        if weights is not None:
            self.engine.load_weights(weights, version=version)

    def generate_on_each(self, requests, sampling):
        return [self.engine.generate(requests, sampling)]

    def weight_checksums(self):
        return [checksums(self.engine.engine.model.state_dict())]


def whole(stream):
    return {name: tensor for bucket in stream.buckets for name, tensor in bucket.named().items()}


def unsent(weights, engine):
    weights["lm_head.weight"] = engine.engine.model.state_dict()["lm_head.weight"].clone()
    return weights


def unsent_of_the_vision_tower(weights, engine):
    name = "model.vision_tower.patch_embed.proj.weight"
    weights[name] = engine.engine.model.state_dict()[name].clone()
    return weights


def swapped(weights, engine):
    weights[NORMS[0]], weights[NORMS[1]] = weights[NORMS[1]], weights[NORMS[0]]
    return weights


def stale(weights, engine):
    return None


def stale_under_the_new_version(weights, engine):
    return {name: tensor.clone() for name, tensor in engine.engine.model.state_dict().items()}


@pytest.fixture
def made(rng, model):
    """(sync, pool, what it said); the learner has moved since the engine got its weights."""
    pool, said = OneEngine(model), []
    learner = make_learner(model, temperature=0.8)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    learner.version = 4
    sync = WeightSync(
        pool=pool,
        learner=learner,
        prompts=[make_prompt(rng, model), make_prompt(rng, model, grids=((4, 4),))],
        sampling=SamplingConfig(temperature=0.8, top_p=0.9, max_new_tokens=30),
        threshold=1e-3,
        say=said.append,
    )
    return sync, pool, said


def test_both_sides_agree_after_a_publish(made):
    sync, pool, said = made
    metrics = sync.publish()
    assert metrics.pop("publish_gb_per_second") > 0
    assert metrics == {"parity_gap": pytest.approx(0, abs=1e-5)}
    assert (pool.sent, said, pool.engine.version) == (1, [], 4)


@pytest.mark.parametrize(("typical", "ends"), [(True, False), (False, True)])
def test_a_few_flipped_experts_are_no_fault_in_bfloat16(made, monkeypatch, typical, ends):
    """One token in eight is far off, as where rounding changes a routed expert: the usual token tells."""
    sync, pool, _ = made
    honest = sync.learner.logprobs

    def flipped(samples):
        found = [values.copy() for values in honest(samples)]
        for values in found:
            values[::8] += 0.7
        return found

    monkeypatch.setattr(sync.learner, "logprobs", flipped)
    sync = replace(sync, typical=typical)
    if ends:
        with pytest.raises(ParityError, match=r"differ by 0\.7"):
            sync.publish()
    else:
        assert sync.publish()["parity_gap"] < 1e-4
        assert pool.sent == 1


@pytest.fixture
def half(made):
    """(sync, pool) of a learner in float32 and an engine in bfloat16, whose routers keep their bias in float32."""
    sync, pool, _ = made
    served = pool.engine.engine.model
    biases = {n: b.clone() for n, b in served.named_buffers() if n.endswith("e_score_correction_bias")}
    torch.nn.Module.to(served, dtype=torch.bfloat16)
    for name, bias in biases.items():
        served.get_submodule(name.rpartition(".")[0]).e_score_correction_bias = bias
    with torch.no_grad():
        for name in biases:
            sync.learner.model.get_buffer(name).add_(1 / 3)  # has no exact value in bfloat16
    pool.dtype = "bfloat16"
    return replace(sync, typical=True, threshold=0.1), pool


def test_an_engine_in_bfloat16_serves_what_a_learner_in_float32_sent(half):
    sync, pool = half
    assert 1e-6 < sync.publish()["parity_gap"] < 0.1
    sent = whole(sync.learner.weight_stream("bfloat16"))
    assert not differing(checksums(sent), checksums(pool.engine.engine.model.state_dict()))
    own, (bias,) = (
        whole(sync.learner.weight_stream()),
        [n for n in sent if n.endswith("1.mlp.gate.e_score_correction_bias")],
    )
    assert torch.equal(own[bias], sent[bias])
    assert torch.equal(sent["lm_head.weight"], own["lm_head.weight"].bfloat16())


def test_the_error_of_an_engine_in_bfloat16_names_what_differs_and_nothing_else(half):
    """Checksums are of the rounded weights, so those that arrived are not named."""
    sync, pool = half
    pool.fault, pool.times = unsent, 2
    with pytest.raises(ParityError, match=r"worker 0 holds other values of lm_head\.weight$"):
        sync.publish()


def test_wrong_weights_show_in_the_usual_token(made):
    sync, pool, _ = made
    pool.fault, pool.times = unsent, 2
    with pytest.raises(ParityError, match=r"holds other values of lm_head.weight"):
        replace(sync, typical=True, threshold=0.1).publish()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (unsent, "lm_head.weight"),
        (unsent_of_the_vision_tower, "model.vision_tower.patch_embed.proj.weight"),
        (swapped, ", ".join(NORMS)),
        (stale, "lm_head.weight"),
        (stale_under_the_new_version, "lm_head.weight"),
    ],
)
def test_wrong_weights_are_sent_again_and_then_named(made, fault, named):
    sync, pool, said = made
    pool.fault, pool.times = fault, 1
    sync.publish()
    assert pool.sent == 2
    assert len(said) == 1
    assert "sending all again" in said[0]

    with torch.no_grad():
        for parameter in sync.learner.model.parameters():
            parameter.mul_(1.2)
    sync.learner.version = 5
    pool.fault, pool.times = fault, 2
    with pytest.raises(ParityError) as error:
        sync.publish()
    text = str(error.value)
    assert "after a full resync of version 5" in text
    assert "rl.parity_threshold = 0.001" in text
    if fault in (stale, stale_under_the_new_version):
        assert re.search(r"lm_head.weight, .* and \d+ more$", text), "all tensors"
    else:
        assert f"worker 0 holds other values of {named}" in text
        assert text.endswith(named), "and of nothing else"


def test_an_engine_that_computes_something_else_is_told_from_wrong_weights(made):
    sync, pool, _ = made
    pool.engine.engine.model.model.language_model.norm.variance_epsilon = 0.5
    with pytest.raises(ParityError, match="all tensors are equal, so the two compute different things"):
        sync.publish()


def test_the_check_can_be_switched_off(made):
    sync, pool, _ = made
    object.__setattr__(sync, "threshold", 0.0)
    pool.fault, pool.times = stale, 9
    assert sync.publish().keys() == {"publish_gb_per_second"}


def test_the_learners_logprobs_change_nothing(made, rng, model):
    sync, _, _ = made
    before = checksums(model.state_dict())
    sync.gap()
    assert checksums(model.state_dict()) == before
    assert all(p.grad is None for p in model.parameters())


def test_checksums_see_one_bit_and_any_exchange(rng):
    """Of a large tensor, near and far, at its beginning and at its end."""
    value = rng.normal(size=(37, 301)).astype(np.float32)
    flat = value.reshape(-1)
    found = {checksums({"a": value})["a"]}
    for i, j in ((0, 1), (0, 2), (5, 1029), (1024, 2048), (3, 11136), (11130, 11136)):
        flat[[i, j]] = flat[[j, i]]
        found.update(checksums({"a": value}).values())
        flat[[i, j]] = flat[[j, i]]
        bits = flat[i : i + 1].view(np.uint32)
        bits ^= 1 << 7
        found.update(checksums({"a": value}).values())
        bits ^= 1 << 7
    assert len(found) == 1 + 6 + 5, "index 0 is changed twice"
    assert checksums({"a": value})["a"] in found


def test_checksums_see_bytes_and_names():
    a, b = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3) + 1
    sums = checksums({"a": a, "b": b})
    assert sums == checksums({"a": a.numpy(), "b": b.T.contiguous().T})
    assert differing(sums, checksums({"a": b, "b": a})) == ["a", "b"]
    assert differing(sums, {"a": sums["a"], "c": 1}) == ["b", "c"]
    half = torch.tensor([1.0, -2.5]).bfloat16()
    assert checksums({"a": half}) == checksums({"a": half.view(torch.int16).numpy()}), "bytes in the type that is sent"
