"""Router replay: the engine's experts beside the right tokens, the gap that it closes, and what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, make_learner, make_prompt, make_samples, new_id

from configs.errors import UserError
from configs.rl import RLConfig, SamplingConfig
from kimi_vl import TinySizes
from kimi_vl.routing_kimi_vl import KimiVLMoE
from kimi_vl.tiny import build_tiny_model, tiny_config
from rewards.types import Score, Verdict, VerdictKind
from rl.learner.batch import collect_images, make_micro_batch
from rl.learner.forward import encode, response_hidden
from rl.learner.router_replay import RouterStatistics, routing_of
from rl.samples import make_samples as samples_of
from rl.types import ModelOutputs, Sample
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import family_of
from rollouts.types import Completion, Group, Request, Rollout, ScoredRollout

SAMPLING = SamplingConfig(max_new_tokens=24, temperature=0.9)
MANY = TinySizes(  # enough layers and experts for routes to flip
    hidden_size=64,
    moe_intermediate_size=32,
    intermediate_size=64,
    num_attention_heads=2,
    num_hidden_layers=5,
    n_routed_experts=16,
    num_experts_per_tok=4,
    kv_lora_rank=32,
    vision_hidden_size=32,
    vision_num_attention_heads=2,
    vision_num_hidden_layers=1,
    vision_intermediate_size=40,
    init_pos_emb=4,
)


def build(dtype):
    model = build_tiny_model(tiny_config(MANY, num_tokens=40), seed=1).to(dtype)
    for layer in model.modules():
        if isinstance(layer, KimiVLMoE):  # as `load_model` keeps it
            layer.gate.e_score_correction_bias.data = 0.05 * torch.randn(16, generator=torch.Generator().manual_seed(3))
            with torch.no_grad():
                layer.experts.down_proj.mul_(4)  # what the experts say matters
    return model


def rollouts(model, rng, *, record=True, groups=6, n=4):
    prompts = [make_prompt(rng, model, text=5 + i, grids=((2, 4),) if i % 2 else ()) for i in range(groups)]
    engine = EngineDriver(
        TransformersEngine(copy.deepcopy(model), stop_ids=[0], barred_ids=barred_ids(model), record_experts=record)
    )
    return prompts, engine.generate([Request(prompt=p, n=n, seed=i) for i, p in enumerate(prompts)], SAMPLING)


def as_samples(prompts, completions, *, replayed):
    return [
        Sample(
            id=new_id(),
            prompt=p,
            token_ids=c.token_ids,
            old_logprobs=c.policy_logprobs,
            advantage=1.0 if i % 2 else -1.0,
            experts=c.routed_experts if replayed else None,
        )
        for p, group in zip(prompts, completions, strict=True)
        for i, c in enumerate(group)
    ]


def mean_gap(learner, samples):
    new = learner.logprobs(samples)
    return float(np.mean(np.concatenate([np.abs(a - s.old_logprobs) for a, s in zip(new, samples, strict=True)])))


def test_replay_narrows_the_gap_in_bfloat16(rng):
    model = build(torch.bfloat16)
    prompts, answers = rollouts(model, rng, groups=12)
    learner = make_learner(model)
    gaps = [mean_gap(learner, as_samples(prompts, answers, replayed=r)) for r in (False, True)]
    tokens = sum(len(c.token_ids) for group in answers for c in group)
    assert tokens > 400
    assert gaps[1] < 0.7 * gaps[0], gaps
    metrics = learner.update(as_samples(prompts, answers, replayed=True))
    assert 0.01 < metrics["experts/flipped"] < 0.5, "routes do flip between engine and learner"


def test_in_float32_nothing_flips_and_nothing_changes(rng):
    model = build(torch.float32)
    prompts, answers = rollouts(model, rng)
    plain, replayed = (as_samples(prompts, answers, replayed=r) for r in (False, True))
    learner = make_learner(copy.deepcopy(model), micro_batch_tokens=60)
    for a, b in zip(learner.logprobs(plain), learner.logprobs(replayed), strict=True):
        assert np.abs(a - b).max() < 2e-6
    assert mean_gap(learner, replayed) < 1e-5
    values = [make_learner(copy.deepcopy(model), micro_batch_tokens=60).update(s) for s in (plain, replayed)]
    assert values[1].pop("experts/flipped") == 0
    assert values[1] == pytest.approx(values[0], rel=1e-4, abs=1e-6)


def test_experts_stand_beside_the_inputs_that_predict(rng, model):
    """Two answers of one prompt of 3, one answer of another: rows 2 (shared), own inputs, and -1 for the prompts."""
    first, second = make_prompt(rng, model, text=3), make_prompt(rng, model, text=2)
    routes = [np.arange(2 * t, dtype=np.uint8).reshape(t, 1, 2) + 10 * i for i, t in enumerate((3, 2, 1))]
    routes[0][1] = 255  # not recorded: an inserted token
    samples = [
        Sample(
            id=new_id(),
            prompt=p,
            token_ids=np.arange(len(r)),
            old_logprobs=np.zeros(len(r), np.float32),
            advantage=0.0,
            experts=r,
        )
        for p, r in zip((first, first, second), routes, strict=True)
    ]
    placed = make_micro_batch(samples, None).experts
    # [prompt: 3][answer: 2 inputs][answer: 1 input][prompt: 2][no input]
    expected = [[-1, -1], [-1, -1], [0, 1], [-1, -1], [4, 5], [12, 13], [-1, -1], [20, 21]]
    assert placed[:, 0].tolist() == expected
    bare = [replace(s, experts=None) for s in samples]
    assert make_micro_batch(bare, None).experts is None
    mixed = [bare[0], samples[1], bare[2]]
    assert make_micro_batch(mixed, None).experts[:, 0].tolist()[2:6] == [[10, 11], [-1, -1], [-1, -1], [12, 13]]


def test_experts_need_the_length_of_the_answer(rng, model):
    with pytest.raises(ValueError, match="3 tokens but experts of 2"):
        Sample(
            id=new_id(),
            prompt=make_prompt(rng, model),
            token_ids=np.arange(3),
            old_logprobs=np.zeros(3, np.float32),
            advantage=0.0,
            experts=np.zeros((2, 1, 2), np.uint8),
        )


def group_of(prompt, completions):
    score = Score(verdict=Verdict(kind=VerdictKind.CORRECT, score=1.0), reward=1.0, parts={})
    members = [
        ScoredRollout(rollout=Rollout(prompt=prompt, index=i, completion=c, text=""), score=score)
        for i, c in enumerate(completions)
    ]
    return Group(prompt=prompt, rollouts=tuple(members))


@pytest.mark.parametrize("replays", [False, True])
def test_samples_carry_what_was_recorded_where_the_recipe_asks(rng, replays):
    prompts, answers = rollouts(build(torch.float32), rng, groups=1, n=2)
    config = RLConfig(steps=1, router_replay=replays)
    samples = samples_of([group_of(prompts[0], answers[0])], config, [[ModelOutputs()] * 2])
    for sample, completion in zip(samples, answers[0], strict=True):
        assert (sample.experts is completion.routed_experts) if replays else (sample.experts is None)


def test_an_engine_that_does_not_record_is_refused(rng):
    prompts, answers = rollouts(build(torch.float32), rng, groups=1, n=2, record=False)
    config = RLConfig(steps=1, router_replay=True)
    with pytest.raises(UserError, match=r"rl\.router_replay is true, but the engine recorded no experts"):
        samples_of([group_of(prompts[0], answers[0])], config, [[ModelOutputs()] * 2])


def test_load_by_hand(rng, model):
    """Shares of the experts over the inputs that predict; even would be 1/4 each."""
    samples = make_samples(rng, model)
    images = collect_images(samples, model.config)
    micro = make_micro_batch(samples, images)
    routing = routing_of(family_of(model.config), micro, model.device)
    with torch.no_grad():
        response_hidden(model, micro, encode(model, images), routing=routing)
    statistics = RouterStatistics()
    statistics.add(routing, micro.predictors, 4)
    taken = routing.seen[0].taken[micro.predictors].flatten().tolist()
    shares = np.array([taken.count(e) for e in range(4)]) / len(taken)
    assert len(taken) == 2 * sum(len(s.token_ids) for s in samples)
    metrics = statistics.metrics()
    assert metrics == pytest.approx(
        {
            "experts/load_max": 4 * shares.max(),
            "experts/load_min": 4 * shares.min(),
            "experts/load_entropy": -sum(s * np.log(s) for s in shares if s) / np.log(4),
        }
    )


def test_the_bias_of_the_router_stays_bit_for_bit(rng, model):
    name = "model.language_model.layers.1.mlp.gate.e_score_correction_bias"
    assert name in model.state_dict()
    assert name not in dict(model.named_parameters()), "no optimizer can get it"
    before = model.state_dict()[name].clone()
    weight = model.model.language_model.layers[1].mlp.gate.weight
    router = weight.detach().clone()
    learner = make_learner(model)
    for _ in range(3):
        metrics = learner.update(make_samples(rng, model))
    assert torch.equal(model.state_dict()[name], before)
    assert not torch.equal(weight, router), "the router itself learns"
    assert metrics["experts/load_max"] >= 1 >= metrics["experts/load_min"] >= 0
    assert 0 < metrics["experts/load_entropy"] <= 1


def test_a_completion_keeps_its_experts_through_the_engine(rng):
    _, answers = rollouts(build(torch.float32), rng, groups=1, n=1)
    completion: Completion = answers[0][0]
    assert completion.routed_experts.shape == (len(completion.token_ids), 4, 4)
